cast_bf16_pointwise__h9d85ce05 (64, 4) (64, 4)
linear_bf16_rows__t1x4_h846f5465 (2560,) (256,)

#ifndef NPU_HALF
#define NPU_HALF
static inline float npu_from_bf16(const ushort h) { return as_float((uint)h << 16); }
static inline ushort npu_to_bf16(const float v)
{
    const uint bits = as_uint(v);
    const uint rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return (ushort)((bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16) | 0x40u : rounded);
}
#if NPU_NVIDIA
static inline float npu_from_f16(const ushort h)
{
    float v;
    asm("cvt.f32.f16 %0, %1;" : "=f"(v) : "h"(h));
    return v;
}
static inline ushort npu_to_f16(const float v)
{
    ushort h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(v));
    return h;
}
#else
static inline float npu_from_f16(const ushort h)
{
    const uint size = h & 0x7fffu;
    const uint normal = (size << 13) + (size >= 0x7c00u ? 0x70000000u : 0x38000000u);
    const uint small = as_uint(as_float(0x3f000000u + size) - 0.5f);
    return as_float((size < 0x400u ? small : normal) | ((uint)(h & 0x8000u) << 16));
}
static inline ushort npu_to_f16(const float v)
{
    const uint bits = as_uint(v), size = bits & 0x7fffffffu;
    const uint normal = (size - 0x38000000u + 0xfffu + ((size >> 13) & 1u)) >> 13;
    const uint small = as_uint(as_float(size) + 0.5f) - 0x3f000000u;
    const uint finite = size < 0x38800000u ? small : normal;
    const uint beyond = size > 0x7f800000u ? 0x7e00u : 0x7c00u;
    return (ushort)((size >= 0x477ff000u ? beyond : finite) | ((bits >> 16) & 0x8000u));
}
#endif
#endif
__kernel void cast_bf16_pointwise__h9d85ce05(__global const float *restrict p0, __global ushort *restrict out)
{
    const int begin = (int)get_global_id(0) * 1;
    const int end = min(begin + 1, (int)(64));
    const int first = (int)get_global_id(1) * 1;
    const int last = min(first + 1, (int)(1));
    for (int row = first; row < last; ++row) {
        __global const float *restrict s0 = p0 + (0);
        __global ushort *restrict t = out + (0);
        for (int i = begin; i < end; ++i) {
            const float i0 = (s0[i]);
            const float t0 = ((float)i0);
            t[i] = npu_to_bf16(t0);
        }
    }
}


#ifndef NPU_HALF
#define NPU_HALF
static inline float npu_from_bf16(const ushort h) { return as_float((uint)h << 16); }
static inline ushort npu_to_bf16(const float v)
{
    const uint bits = as_uint(v);
    const uint rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return (ushort)((bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16) | 0x40u : rounded);
}
#if NPU_NVIDIA
static inline float npu_from_f16(const ushort h)
{
    float v;
    asm("cvt.f32.f16 %0, %1;" : "=f"(v) : "h"(h));
    return v;
}
static inline ushort npu_to_f16(const float v)
{
    ushort h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(v));
    return h;
}
#else
static inline float npu_from_f16(const ushort h)
{
    const uint size = h & 0x7fffu;
    const uint normal = (size << 13) + (size >= 0x7c00u ? 0x70000000u : 0x38000000u);
    const uint small = as_uint(as_float(0x3f000000u + size) - 0.5f);
    return as_float((size < 0x400u ? small : normal) | ((uint)(h & 0x8000u) << 16));
}
static inline ushort npu_to_f16(const float v)
{
    const uint bits = as_uint(v), size = bits & 0x7fffffffu;
    const uint normal = (size - 0x38000000u + 0xfffu + ((size >> 13) & 1u)) >> 13;
    const uint small = as_uint(as_float(size) + 0.5f) - 0x3f000000u;
    const uint finite = size < 0x38800000u ? small : normal;
    const uint beyond = size > 0x7f800000u ? 0x7e00u : 0x7c00u;
    return (ushort)((size >= 0x477ff000u ? beyond : finite) | ((bits >> 16) & 0x8000u));
}
#endif
#endif
#ifndef NPU_WARP
#define NPU_WARP
static inline float NPU_SWAP(const float v, const uint n)
{
    float other;
    asm volatile("shfl.sync.bfly.b32 %0, %1, %2, 31, 0xffffffff;" : "=f"(other) : "f"(v), "r"(n));
    return other;
}
#endif
__kernel __attribute__((reqd_work_group_size(256, 1, 1)))
void linear_bf16_rows__t1x4_h846f5465(__global const ushort *restrict x, __global const ushort *restrict w, __global const float *restrict bias, __global float *y)
{
    __local float part[4][2];
    const int tid = get_local_id(0), lane = tid % 64, set = tid / 64;
    const int o0 = ((int)get_group_id(0) * 4 + set) * 1, last = (40) - 1;
    x += 0;
    y += 0;
    __global const ushort *w0 = w + (size_t)(min(o0 + 0, last)) * (64);
    __global const ushort *x0 = x + min(0, (1) - 1) * (64);
    const int k0 = lane * 8 + 0 < (64) ? lane * 8 + 0 : 0;
            const uint4 b0_0p = *(__global const uint4 *)(w0 + k0);
    float a0_0 = 0.0f;
    if (lane * 8 + 0 < (64)) {
        {
            const uint4 ep = *(__global const uint4 *)(x0 + k0);
            a0_0 += as_float(ep.s0 << 16) * as_float(b0_0p.s0 << 16) + as_float(ep.s0 & 0xffff0000u) * as_float(b0_0p.s0 & 0xffff0000u) + as_float(ep.s1 << 16) * as_float(b0_0p.s1 << 16) + as_float(ep.s1 & 0xffff0000u) * as_float(b0_0p.s1 & 0xffff0000u) + as_float(ep.s2 << 16) * as_float(b0_0p.s2 << 16) + as_float(ep.s2 & 0xffff0000u) * as_float(b0_0p.s2 & 0xffff0000u) + as_float(ep.s3 << 16) * as_float(b0_0p.s3 << 16) + as_float(ep.s3 & 0xffff0000u) * as_float(b0_0p.s3 & 0xffff0000u);
        }
}
        { const float a = a0_0, b = NPU_SWAP(a, 1); a0_0 = a + b; }
        { const float a = a0_0, b = NPU_SWAP(a, 2); a0_0 = a + b; }
        { const float a = a0_0, b = NPU_SWAP(a, 4); a0_0 = a + b; }
        { const float a = a0_0, b = NPU_SWAP(a, 8); a0_0 = a + b; }
        { const float a = a0_0, b = NPU_SWAP(a, 16); a0_0 = a + b; }
if (tid % 32 == 0) part[(0 * 4 + set) * 1 + 0][lane / 32] = a0_0;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int t = tid; t < 4; t += 256) {
        const int p = t / 4, o = (int)get_group_id(0) * 4 + t % 4;
        float total = 0.0f;
        for (int l = 0; l < 2; ++l) {
            total += part[t * 1][l];
        }
        if (p < (1) && o <= last) { float made; { float v = total; v += bias[o]; made = v; } y[(p) * (40) + (o) * (1)] = made; }
    }
}
