cast_f16_pointwise__h1dbbb56c (19200, 1) (256, 1)
cast_f16_pointwise__h1dbbb56c (19200, 1) (256, 1)
cast_f32_pointwise__h1424e574 (64, 4) (64, 4)
cast_f32_pointwise__h1424e574 (64, 4) (64, 4)
cast_f32_pointwise__h1118a192 (4, 64) (4, 64)
copy_f16_pointwise__h59e9e5f7 (19200, 1) (256, 1)
copy_f16_pointwise__h59e9e5f7 (19200, 1) (256, 1)
copy_f32_pointwise__h00c08245 (64, 4) (64, 4)
attention_f32_step__d64_h5323c9ba (256, 4, 1) (256, 1, 1)

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
__kernel void cast_f16_pointwise__h1dbbb56c(__global const ushort *restrict p0, __global ushort *restrict out)
{
    const int begin = (int)get_global_id(0) * 1;
    const int end = min(begin + 1, (int)(19200));
    const int first = (int)get_global_id(1) * 1;
    const int last = min(first + 1, (int)(1));
    for (int row = first; row < last; ++row) {
        __global const ushort *restrict s0 = p0 + (0);
        __global ushort *restrict t = out + (0);
        for (int i = begin; i < end; ++i) {
            const float i0 = npu_from_f16(s0[i]);
            const float t0 = ((float)i0);
            t[i * 8] = npu_to_f16(t0);
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
__kernel __attribute__((reqd_work_group_size(256, 1, 1)))
void attention_f32_step__d64_h5323c9ba(__global const float *restrict q, __global ushort *k, __global ushort *v, __global const float *restrict new_key, __global const float *restrict new_value, __global const long *restrict place, __global float *restrict out)
{
    __local float query[64], held[256], weight[256];
    __local float4 quarter[512];
    __local float *sums = (__local float *)quarter;
    const int b = get_global_id(2), h = get_global_id(1), g = h / 4;
    const int i0 = (int)get_group_id(0) * 1, queries = 1;
    const int t = get_local_id(0), part = t % 4, run = t % 8, team = t / 8;
    q += b * 256 + h * 64;
    k += b * 19200 + g * 19200;
    v += b * 19200 + g * 19200;
    out += b * 256 + h * 64;
    const long wanted = place[0];
    if (wanted < 0 || wanted >= (300)) {

    } else {
        new_key += b * 512 + g;
        new_value += b * 512 + g;
        for (int d = t; d < 64; d += 256) {
            float made = new_key[d * (8)];
            k[wanted * (64) + d * (1)] = npu_to_f16(made);
        }
        for (int d = t; d < 64; d += 256)
            v[wanted * (64) + d * (1)] = npu_to_f16(new_value[d * (8)]);
    }
    barrier(CLK_GLOBAL_MEM_FENCE);
    int row[1], limit[1], end = 0;
    float top[1], total[1], sum[1][8];
    for (int i = 0; i < 1; ++i) {
        row[i] = i0 + i < queries ? i0 + i : queries - 1;
        top[i] = -INFINITY;
        total[i] = 0.0f;
        for (int e = 0; e < 8; ++e) sum[i][e] = 0.0f;
        limit[i] = 300;
        if (limit[i] > end) end = limit[i];
        for (int d = t; d < 64; d += 256) {
            query[i * 64 + d] = q[row[i] * (64) + d * (1)] * 0.25f;
        }
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int j0 = 0; j0 < end; j0 += 256) {
        const int count = end - j0 < 256 ? (int)(end - j0) : 256;
        for (int j = t / 4; j < count; j += 64) {
            __global const ushort *key = k + (j0 + j) * (64);
            float s[1];
            for (int i = 0; i < 1; ++i) s[i] = 0.0f;
#pragma unroll
            for (int d = part * 8; d < 64; d += 32) {
            const uint4 loaded = *(__global const uint4 *)(key + d);
                const float x0 = npu_from_f16((ushort)(loaded.s0));
                const float x1 = npu_from_f16((ushort)(loaded.s0 >> 16));
                const float x2 = npu_from_f16((ushort)(loaded.s1));
                const float x3 = npu_from_f16((ushort)(loaded.s1 >> 16));
                const float x4 = npu_from_f16((ushort)(loaded.s2));
                const float x5 = npu_from_f16((ushort)(loaded.s2 >> 16));
                const float x6 = npu_from_f16((ushort)(loaded.s3));
                const float x7 = npu_from_f16((ushort)(loaded.s3 >> 16));
                for (int i = 0; i < 1; ++i)
                    s[i] += query[i * 64 + d + 0] * x0 + query[i * 64 + d + 1] * x1 + query[i * 64 + d + 2] * x2 + query[i * 64 + d + 3] * x3 + query[i * 64 + d + 4] * x4 + query[i * 64 + d + 5] * x5 + query[i * 64 + d + 6] * x6 + query[i * 64 + d + 7] * x7;
            }
            for (int i = 0; i < 1; ++i) ((__local float *)(quarter + i * 256 + j))[part] = s[i];
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        float score[1];
        for (int i = 0; i < 1; ++i) {
            score[i] = -INFINITY;
            if (t < count) {
                const float4 four = quarter[i * 256 + t];
                score[i] = four.x + four.y + four.z + four.w;
                if (j0 + t >= limit[i]) score[i] = -INFINITY;
            }
            held[i * 256 + t] = score[i];
        }
    for (int half_ = 128; half_ > 0; half_ /= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        if ((int)get_local_id(0) < half_) {
            for (int row_ = 0; row_ < 1; ++row_) {
                const float a = held[row_ * 256 + get_local_id(0)], b = held[row_ * 256 + get_local_id(0) + half_];
                held[row_ * 256 + get_local_id(0)] = b > a || b != b ? b : a;
            }
        }
    }
    barrier(CLK_LOCAL_MEM_FENCE);
for (int i = 0; i < 1; ++i) {
            const float largest = held[i * 256] > top[i] || held[i * 256] != held[i * 256] ? held[i * 256] : top[i];
            const float shrink = largest == -INFINITY ? 1.0f : exp(top[i] - largest);
            const float w = largest == -INFINITY ? 0.0f : exp(score[i] - largest);
            top[i] = largest;
            total[i] = total[i] * shrink + w;
            weight[i * 256 + t] = w;
            for (int e = 0; e < 8; ++e) sum[i][e] *= shrink;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll 4
        for (int j = team; j < count; j += 32) {
            __global const ushort *value = v + (j0 + j) * (64) + run * 8;
            const uint4 loaded = *(__global const uint4 *)(value);
for (int i = 0; i < 1; ++i) {
                const float w = weight[i * 256 + j];
                sum[i][0] += w * npu_from_f16((ushort)(loaded.s0));
                sum[i][1] += w * npu_from_f16((ushort)(loaded.s0 >> 16));
                sum[i][2] += w * npu_from_f16((ushort)(loaded.s1));
                sum[i][3] += w * npu_from_f16((ushort)(loaded.s1 >> 16));
                sum[i][4] += w * npu_from_f16((ushort)(loaded.s2));
                sum[i][5] += w * npu_from_f16((ushort)(loaded.s2 >> 16));
                sum[i][6] += w * npu_from_f16((ushort)(loaded.s3));
                sum[i][7] += w * npu_from_f16((ushort)(loaded.s3 >> 16));
            }
        }
    }
    for (int i = 0; i < 1; ++i) {
        barrier(CLK_LOCAL_MEM_FENCE);
        held[t] = total[i];
        if (team < 32)
            for (int e = 0; e < 8; ++e) sums[team * 64 + run * 8 + e] = sum[i][e];
    for (int half_ = 128; half_ > 0; half_ /= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        if ((int)get_local_id(0) < half_) {
            for (int row_ = 0; row_ < 1; ++row_) {
                const float a = held[row_ * 256 + get_local_id(0)], b = held[row_ * 256 + get_local_id(0) + half_];
                held[row_ * 256 + get_local_id(0)] = a + b;
            }
        }
    }
    barrier(CLK_LOCAL_MEM_FENCE);
const float scale = held[0] == 0.0f ? 0.0f : 1.0f / held[0];
        if (i0 + i < queries)
            for (int d = t; d < 64; d += 256) {
                float all = 0.0f;
                for (int e = 0; e < 32; ++e) all += sums[e * 64 + d];
                out[row[i] * (64) + d * (1)] = (all * scale);
            }
    }
}
