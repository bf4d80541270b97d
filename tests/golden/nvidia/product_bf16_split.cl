cast_bf16_pointwise__h4afee169 (2304, 1) (256, 1)
linear_bf16_split__t16x32x8_h8690350d (768, 2, 1) (256, 1, 1)

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
__kernel void cast_bf16_pointwise__h4afee169(__global const float *restrict p0, __global ushort *restrict out)
{
    const int begin = (int)get_global_id(0) * 1;
    const int end = min(begin + 1, (int)(2088));
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
#ifndef NPU_MMA
#define NPU_MMA(kind, c, a0, a1, a2, a3, b0, b1) \
    asm("mma.sync.aligned.m16n8k16.row.col.f32." kind "." kind ".f32 { %0, %1, %2, %3}, { %4, %5, %6, %7}, { %8, %9}, { %0, %1, %2, %3};" \
        : "+f"((c)[0]), "+f"((c)[1]), "+f"((c)[2]), "+f"((c)[3]) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1))
#define NPU_MMA_bf16(c, a0, a1, a2, a3, b0, b1) NPU_MMA("bf16", c, a0, a1, a2, a3, b0, b1)
#define NPU_MMA_f16(c, a0, a1, a2, a3, b0, b1) NPU_MMA("f16", c, a0, a1, a2, a3, b0, b1)
#define NPU_COPY16(to, from, wanted) \
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" :: "r"((uint)(size_t)(to)), "l"(from), "r"((wanted) ? 16 : 0) : "memory")
#define NPU_LINES(b0, b1, b2, b3, line) \
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 { %0, %1, %2, %3}, [%4];" \
        : "=r"(b0), "=r"(b1), "=r"(b2), "=r"(b3) : "r"((uint)(size_t)(line)) : "memory")
#define NPU_TURNED(b0, b1, b2, b3, line) \
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 { %0, %1, %2, %3}, [%4];" \
        : "=r"(b0), "=r"(b1), "=r"(b2), "=r"(b3) : "r"((uint)(size_t)(line)) : "memory")
#define NPU_COPIED() asm volatile("cp.async.commit_group;" ::: "memory")
#define NPU_ARRIVED(n) asm volatile("cp.async.wait_group %0;" :: "n"(n) : "memory")
static inline uint NPU_PAIR_bf16(const float low, const float high)
{
    uint pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}
static inline uint NPU_PAIR_f16(const float low, const float high)
{
    uint pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}
#endif
__kernel __attribute__((reqd_work_group_size(256, 1, 1)))
void linear_bf16_split__t16x32x8_h8690350d(__global const ushort *restrict x, __global const ushort *restrict w, __global const float *restrict bias, __global float *y)
{
    __local float sums[8][544];
    const int tid = get_local_id(0), lane = tid % 32, warp = tid / 32, part = tid % 4, row = lane / 4;
    const int p0 = (int)get_group_id(1) * 16, o0 = (int)get_group_id(0) * 32, g = get_group_id(2);
    x += 0 + g * (72) * (1);
    w += (size_t)g * (72) * (96);
    y += 0 + g * (72) * (1);
    bias += g * (72);
    const int q0 = min(p0 + row + 0, (29) - 1);
    const int x0 = q0 * (72);
    const int q1 = min(p0 + row + 8, (29) - 1);
    const int x1 = q1 * (72);
    __global const ushort *w0 = w + (size_t)min(o0 + row + 0, (72) - 1) * (96);
    __global const ushort *w1 = w + (size_t)min(o0 + row + 8, (72) - 1) * (96);
    __global const ushort *w2 = w + (size_t)min(o0 + row + 16, (72) - 1) * (96);
    __global const ushort *w3 = w + (size_t)min(o0 + row + 24, (72) - 1) * (96);
    float c0_0[4] = {0.0f, 0.0f, 0.0f, 0.0f}, c0_1[4] = {0.0f, 0.0f, 0.0f, 0.0f}, c0_2[4] = {0.0f, 0.0f, 0.0f, 0.0f}, c0_3[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    int k = warp * 32 + part * 8;
        int ic = k;
#pragma unroll 2
    for (int k0 = warp * 32; k0 < (72); k0 += 256) {
            const int l0_in = k < (72);
            __global const ushort *l0_at = l0_in ? x + (x0 + ic * (1)) : x;
            const uint4 l0_q = *(__global const uint4 *)l0_at;
            const int h0_in = k < (72);
            __global const ushort *h0_at = h0_in ? x + (x1 + ic * (1)) : x;
            const uint4 h0_q = *(__global const uint4 *)h0_at;
            const uint4 b0 = *(__global const uint4 *)(w0 + k);
            const uint4 b1 = *(__global const uint4 *)(w1 + k);
            const uint4 b2 = *(__global const uint4 *)(w2 + k);
            const uint4 b3 = *(__global const uint4 *)(w3 + k);
            const uint4 a0l = l0_in ? l0_q : (uint4)(0), a0h = h0_in ? h0_q : (uint4)(0);
            NPU_MMA_bf16(c0_0, a0l.x, a0h.x, a0l.y, a0h.y, b0.x, b0.y);
            NPU_MMA_bf16(c0_1, a0l.x, a0h.x, a0l.y, a0h.y, b1.x, b1.y);
            NPU_MMA_bf16(c0_2, a0l.x, a0h.x, a0l.y, a0h.y, b2.x, b2.y);
            NPU_MMA_bf16(c0_3, a0l.x, a0h.x, a0l.y, a0h.y, b3.x, b3.y);
            NPU_MMA_bf16(c0_0, a0l.z, a0h.z, a0l.w, a0h.w, b0.z, b0.w);
            NPU_MMA_bf16(c0_1, a0l.z, a0h.z, a0l.w, a0h.w, b1.z, b1.w);
            NPU_MMA_bf16(c0_2, a0l.z, a0h.z, a0l.w, a0h.w, b2.z, b2.w);
            NPU_MMA_bf16(c0_3, a0l.z, a0h.z, a0l.w, a0h.w, b3.z, b3.w);
k += 256;
            ic += 256;
    }
    for (int e = 0; e < 4; ++e) sums[warp][(row + 0 + e / 2 * 8) * 34 + 0 + part * 2 + e % 2] = c0_0[e];
    for (int e = 0; e < 4; ++e) sums[warp][(row + 0 + e / 2 * 8) * 34 + 8 + part * 2 + e % 2] = c0_1[e];
    for (int e = 0; e < 4; ++e) sums[warp][(row + 0 + e / 2 * 8) * 34 + 16 + part * 2 + e % 2] = c0_2[e];
    for (int e = 0; e < 4; ++e) sums[warp][(row + 0 + e / 2 * 8) * 34 + 24 + part * 2 + e % 2] = c0_3[e];
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int t = tid; t < 512; t += 256) {
        const int p = p0 + t / 32, o = o0 / 1 + t % 32, at = t / 32 * 34 + t % 32;
        float total = 0.0f;
        for (int i = 0; i < 8; ++i) {
            total += sums[i][at];
        }
        if (p < (29) && o < (72)) { float made; { float v = total; v += bias[o]; made = v; } y[(p) * (72) + (o) * (1)] = made; }
    }
}
