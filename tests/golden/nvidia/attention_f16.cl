cast_f32_pointwise__hfbe69252 (4, 4160) (4, 64)
cast_f32_pointwise__h462b3274 (2, 2176) (2, 128)
cast_f32_pointwise__h462b3274 (2, 2176) (2, 128)
copy_f32_pointwise__h6ac1e0a0 (4352, 4) (256, 1)
copy_f32_pointwise__h71f744cc (2304, 2) (256, 1)
copy_f32_pointwise__h71f744cc (2304, 2) (256, 1)
attention_f32_mma__d32_h6a4591fe (384, 4, 1) (128, 1, 1)

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
#ifndef NPU_WARP
#define NPU_WARP
static inline float NPU_SWAP(const float v, const uint n)
{
    float other;
    asm volatile("shfl.sync.bfly.b32 %0, %1, %2, 31, 0xffffffff;" : "=f"(other) : "f"(v), "r"(n));
    return other;
}
#endif
__kernel __attribute__((reqd_work_group_size(128, 1, 1)))
void attention_f32_mma__d32_h6a4591fe(__global const float *restrict q, __global const float *restrict k,
    __global const float *restrict v, __global float *restrict out)
{
    __local __attribute__((aligned(128))) uint4 key_tile[256], value_tile[320];
    __local int last;
    const int b = get_global_id(2), h = get_global_id(1), g = h / 2;
    const int tid = get_local_id(0), lane = tid % 32, part = lane % 4, line = lane / 4, queries = 130;
    const int i0 = ((int)get_num_groups(0) - 1 - (int)get_group_id(0)) * 64 + tid / 32 * 16 + line;
    q += b * 16640 + h * 4160;
    k += g * 2112;
    v += g * 2112;
    out += b * 16640 + h * 4160;
    if (tid == 0) last = 0;
    barrier(CLK_LOCAL_MEM_FENCE);
    const int row0 = min(i0 + 0, queries - 1);
    int limit0 = 66;
    if (row0 + 1 < limit0) limit0 = (int)row0 + 1;
    float top0 = -INFINITY, total0 = 0.0f;
    const int row1 = min(i0 + 8, queries - 1);
    int limit1 = 66;
    if (row1 + 1 < limit1) limit1 = (int)row1 + 1;
    float top1 = -INFINITY, total1 = 0.0f;
    atomic_max(&last, max(limit0, limit1));
    uint4 q0_0;
    {
                const int d = 0 + part * 8;
                __global const float *from = q + row0 * (32);
                const float4 x_l = *(__global const float4 *)(from + d), x_h = *(__global const float4 *)(from + d + 4);
                q0_0 = (uint4)(NPU_PAIR_f16(x_l.x, x_l.y), NPU_PAIR_f16(x_l.z, x_l.w), NPU_PAIR_f16(x_h.x, x_h.y), NPU_PAIR_f16(x_h.z, x_h.w));
    }
    uint4 q1_0;
    {
                const int d = 0 + part * 8;
                __global const float *from = q + row1 * (32);
                const float4 x_l = *(__global const float4 *)(from + d), x_h = *(__global const float4 *)(from + d + 4);
                q1_0 = (uint4)(NPU_PAIR_f16(x_l.x, x_l.y), NPU_PAIR_f16(x_l.z, x_l.w), NPU_PAIR_f16(x_h.x, x_h.y), NPU_PAIR_f16(x_h.z, x_h.w));
    }
    float o0[4] = {0.0f, 0.0f, 0.0f, 0.0f}, o1[4] = {0.0f, 0.0f, 0.0f, 0.0f}, o2[4] = {0.0f, 0.0f, 0.0f, 0.0f}, o3[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    __local const uint4 *lines = value_tile + (lane / 8 % 2 * 8 + lane % 8) * 5 + lane / 16;
    barrier(CLK_LOCAL_MEM_FENCE);
    const int end = last;
    for (int j0 = 0; j0 < end; j0 += 64) {
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int t = tid; t < 256; t += 128) {
            const int key = t / 4, c = t % 4;
            uint4 kept = (uint4)(0);
            if (j0 + key < end) {
                const float4 found_l = *(__global const float4 *)(k + (j0 + key) * (32) + c * 8), found_h = *(__global const float4 *)(k + (j0 + key) * (32) + c * 8 + 4);
const uint4 found = (uint4)(NPU_PAIR_f16(found_l.x, found_l.y), NPU_PAIR_f16(found_l.z, found_l.w), NPU_PAIR_f16(found_h.x, found_h.y), NPU_PAIR_f16(found_h.z, found_h.w));
kept = found;
            }
            key_tile[(c / 4 * 64 + key) * 4 + c % 4] = kept;
        }
        for (int t = tid; t < 256; t += 128) {
            const int key = t / 4, c = t % 4;
            uint4 kept = (uint4)(0);
            if (j0 + key < end) {
                const float4 found_l = *(__global const float4 *)(v + (j0 + key) * (32) + c * 8), found_h = *(__global const float4 *)(v + (j0 + key) * (32) + c * 8 + 4);
const uint4 found = (uint4)(NPU_PAIR_f16(found_l.x, found_l.y), NPU_PAIR_f16(found_l.z, found_l.w), NPU_PAIR_f16(found_h.x, found_h.y), NPU_PAIR_f16(found_h.z, found_h.w));
kept = found;
            }
            value_tile[key * 5 + c] = kept;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        float s0[4] = {0.0f, 0.0f, 0.0f, 0.0f}, s1[4] = {0.0f, 0.0f, 0.0f, 0.0f}, s2[4] = {0.0f, 0.0f, 0.0f, 0.0f}, s3[4] = {0.0f, 0.0f, 0.0f, 0.0f}, s4[4] = {0.0f, 0.0f, 0.0f, 0.0f}, s5[4] = {0.0f, 0.0f, 0.0f, 0.0f}, s6[4] = {0.0f, 0.0f, 0.0f, 0.0f}, s7[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        {
            const uint4 key0 = key_tile[(0 + line) * 4 + part], key1 = key_tile[(8 + line) * 4 + part], key2 = key_tile[(16 + line) * 4 + part], key3 = key_tile[(24 + line) * 4 + part], key4 = key_tile[(32 + line) * 4 + part], key5 = key_tile[(40 + line) * 4 + part], key6 = key_tile[(48 + line) * 4 + part], key7 = key_tile[(56 + line) * 4 + part];
            NPU_MMA_f16(s0, q0_0.x, q1_0.x, q0_0.y, q1_0.y, key0.x, key0.y);
            NPU_MMA_f16(s1, q0_0.x, q1_0.x, q0_0.y, q1_0.y, key1.x, key1.y);
            NPU_MMA_f16(s2, q0_0.x, q1_0.x, q0_0.y, q1_0.y, key2.x, key2.y);
            NPU_MMA_f16(s3, q0_0.x, q1_0.x, q0_0.y, q1_0.y, key3.x, key3.y);
            NPU_MMA_f16(s4, q0_0.x, q1_0.x, q0_0.y, q1_0.y, key4.x, key4.y);
            NPU_MMA_f16(s5, q0_0.x, q1_0.x, q0_0.y, q1_0.y, key5.x, key5.y);
            NPU_MMA_f16(s6, q0_0.x, q1_0.x, q0_0.y, q1_0.y, key6.x, key6.y);
            NPU_MMA_f16(s7, q0_0.x, q1_0.x, q0_0.y, q1_0.y, key7.x, key7.y);
            NPU_MMA_f16(s0, q0_0.z, q1_0.z, q0_0.w, q1_0.w, key0.z, key0.w);
            NPU_MMA_f16(s1, q0_0.z, q1_0.z, q0_0.w, q1_0.w, key1.z, key1.w);
            NPU_MMA_f16(s2, q0_0.z, q1_0.z, q0_0.w, q1_0.w, key2.z, key2.w);
            NPU_MMA_f16(s3, q0_0.z, q1_0.z, q0_0.w, q1_0.w, key3.z, key3.w);
            NPU_MMA_f16(s4, q0_0.z, q1_0.z, q0_0.w, q1_0.w, key4.z, key4.w);
            NPU_MMA_f16(s5, q0_0.z, q1_0.z, q0_0.w, q1_0.w, key5.z, key5.w);
            NPU_MMA_f16(s6, q0_0.z, q1_0.z, q0_0.w, q1_0.w, key6.z, key6.w);
            NPU_MMA_f16(s7, q0_0.z, q1_0.z, q0_0.w, q1_0.w, key7.z, key7.w);
        }
        float most0 = -INFINITY, most1 = -INFINITY;
        {
            const int j = j0 + 0 + part * 2;
            float x = s0[0] * 0.1767766952966369f;
            if (j >= limit0) x = -INFINITY;
            s0[0] = x * M_LOG2E_F;
            if (s0[0] > most0 || x != x) most0 = s0[0];
        }
        {
            const int j = j0 + 1 + part * 2;
            float x = s0[1] * 0.1767766952966369f;
            if (j >= limit0) x = -INFINITY;
            s0[1] = x * M_LOG2E_F;
            if (s0[1] > most0 || x != x) most0 = s0[1];
        }
        {
            const int j = j0 + 0 + part * 2;
            float x = s0[2] * 0.1767766952966369f;
            if (j >= limit1) x = -INFINITY;
            s0[2] = x * M_LOG2E_F;
            if (s0[2] > most1 || x != x) most1 = s0[2];
        }
        {
            const int j = j0 + 1 + part * 2;
            float x = s0[3] * 0.1767766952966369f;
            if (j >= limit1) x = -INFINITY;
            s0[3] = x * M_LOG2E_F;
            if (s0[3] > most1 || x != x) most1 = s0[3];
        }
        {
            const int j = j0 + 8 + part * 2;
            float x = s1[0] * 0.1767766952966369f;
            if (j >= limit0) x = -INFINITY;
            s1[0] = x * M_LOG2E_F;
            if (s1[0] > most0 || x != x) most0 = s1[0];
        }
        {
            const int j = j0 + 9 + part * 2;
            float x = s1[1] * 0.1767766952966369f;
            if (j >= limit0) x = -INFINITY;
            s1[1] = x * M_LOG2E_F;
            if (s1[1] > most0 || x != x) most0 = s1[1];
        }
        {
            const int j = j0 + 8 + part * 2;
            float x = s1[2] * 0.1767766952966369f;
            if (j >= limit1) x = -INFINITY;
            s1[2] = x * M_LOG2E_F;
            if (s1[2] > most1 || x != x) most1 = s1[2];
        }
        {
            const int j = j0 + 9 + part * 2;
            float x = s1[3] * 0.1767766952966369f;
            if (j >= limit1) x = -INFINITY;
            s1[3] = x * M_LOG2E_F;
            if (s1[3] > most1 || x != x) most1 = s1[3];
        }
        {
            const int j = j0 + 16 + part * 2;
            float x = s2[0] * 0.1767766952966369f;
            if (j >= limit0) x = -INFINITY;
            s2[0] = x * M_LOG2E_F;
            if (s2[0] > most0 || x != x) most0 = s2[0];
        }
        {
            const int j = j0 + 17 + part * 2;
            float x = s2[1] * 0.1767766952966369f;
            if (j >= limit0) x = -INFINITY;
            s2[1] = x * M_LOG2E_F;
            if (s2[1] > most0 || x != x) most0 = s2[1];
        }
        {
            const int j = j0 + 16 + part * 2;
            float x = s2[2] * 0.1767766952966369f;
            if (j >= limit1) x = -INFINITY;
            s2[2] = x * M_LOG2E_F;
            if (s2[2] > most1 || x != x) most1 = s2[2];
        }
        {
            const int j = j0 + 17 + part * 2;
            float x = s2[3] * 0.1767766952966369f;
            if (j >= limit1) x = -INFINITY;
            s2[3] = x * M_LOG2E_F;
            if (s2[3] > most1 || x != x) most1 = s2[3];
        }
        {
            const int j = j0 + 24 + part * 2;
            float x = s3[0] * 0.1767766952966369f;
            if (j >= limit0) x = -INFINITY;
            s3[0] = x * M_LOG2E_F;
            if (s3[0] > most0 || x != x) most0 = s3[0];
        }
        {
            const int j = j0 + 25 + part * 2;
            float x = s3[1] * 0.1767766952966369f;
            if (j >= limit0) x = -INFINITY;
            s3[1] = x * M_LOG2E_F;
            if (s3[1] > most0 || x != x) most0 = s3[1];
        }
        {
            const int j = j0 + 24 + part * 2;
            float x = s3[2] * 0.1767766952966369f;
            if (j >= limit1) x = -INFINITY;
            s3[2] = x * M_LOG2E_F;
            if (s3[2] > most1 || x != x) most1 = s3[2];
        }
        {
            const int j = j0 + 25 + part * 2;
            float x = s3[3] * 0.1767766952966369f;
            if (j >= limit1) x = -INFINITY;
            s3[3] = x * M_LOG2E_F;
            if (s3[3] > most1 || x != x) most1 = s3[3];
        }
        {
            const int j = j0 + 32 + part * 2;
            float x = s4[0] * 0.1767766952966369f;
            if (j >= limit0) x = -INFINITY;
            s4[0] = x * M_LOG2E_F;
            if (s4[0] > most0 || x != x) most0 = s4[0];
        }
        {
            const int j = j0 + 33 + part * 2;
            float x = s4[1] * 0.1767766952966369f;
            if (j >= limit0) x = -INFINITY;
            s4[1] = x * M_LOG2E_F;
            if (s4[1] > most0 || x != x) most0 = s4[1];
        }
        {
            const int j = j0 + 32 + part * 2;
            float x = s4[2] * 0.1767766952966369f;
            if (j >= limit1) x = -INFINITY;
            s4[2] = x * M_LOG2E_F;
            if (s4[2] > most1 || x != x) most1 = s4[2];
        }
        {
            const int j = j0 + 33 + part * 2;
            float x = s4[3] * 0.1767766952966369f;
            if (j >= limit1) x = -INFINITY;
            s4[3] = x * M_LOG2E_F;
            if (s4[3] > most1 || x != x) most1 = s4[3];
        }
        {
            const int j = j0 + 40 + part * 2;
            float x = s5[0] * 0.1767766952966369f;
            if (j >= limit0) x = -INFINITY;
            s5[0] = x * M_LOG2E_F;
            if (s5[0] > most0 || x != x) most0 = s5[0];
        }
        {
            const int j = j0 + 41 + part * 2;
            float x = s5[1] * 0.1767766952966369f;
            if (j >= limit0) x = -INFINITY;
            s5[1] = x * M_LOG2E_F;
            if (s5[1] > most0 || x != x) most0 = s5[1];
        }
        {
            const int j = j0 + 40 + part * 2;
            float x = s5[2] * 0.1767766952966369f;
            if (j >= limit1) x = -INFINITY;
            s5[2] = x * M_LOG2E_F;
            if (s5[2] > most1 || x != x) most1 = s5[2];
        }
        {
            const int j = j0 + 41 + part * 2;
            float x = s5[3] * 0.1767766952966369f;
            if (j >= limit1) x = -INFINITY;
            s5[3] = x * M_LOG2E_F;
            if (s5[3] > most1 || x != x) most1 = s5[3];
        }
        {
            const int j = j0 + 48 + part * 2;
            float x = s6[0] * 0.1767766952966369f;
            if (j >= limit0) x = -INFINITY;
            s6[0] = x * M_LOG2E_F;
            if (s6[0] > most0 || x != x) most0 = s6[0];
        }
        {
            const int j = j0 + 49 + part * 2;
            float x = s6[1] * 0.1767766952966369f;
            if (j >= limit0) x = -INFINITY;
            s6[1] = x * M_LOG2E_F;
            if (s6[1] > most0 || x != x) most0 = s6[1];
        }
        {
            const int j = j0 + 48 + part * 2;
            float x = s6[2] * 0.1767766952966369f;
            if (j >= limit1) x = -INFINITY;
            s6[2] = x * M_LOG2E_F;
            if (s6[2] > most1 || x != x) most1 = s6[2];
        }
        {
            const int j = j0 + 49 + part * 2;
            float x = s6[3] * 0.1767766952966369f;
            if (j >= limit1) x = -INFINITY;
            s6[3] = x * M_LOG2E_F;
            if (s6[3] > most1 || x != x) most1 = s6[3];
        }
        {
            const int j = j0 + 56 + part * 2;
            float x = s7[0] * 0.1767766952966369f;
            if (j >= limit0) x = -INFINITY;
            s7[0] = x * M_LOG2E_F;
            if (s7[0] > most0 || x != x) most0 = s7[0];
        }
        {
            const int j = j0 + 57 + part * 2;
            float x = s7[1] * 0.1767766952966369f;
            if (j >= limit0) x = -INFINITY;
            s7[1] = x * M_LOG2E_F;
            if (s7[1] > most0 || x != x) most0 = s7[1];
        }
        {
            const int j = j0 + 56 + part * 2;
            float x = s7[2] * 0.1767766952966369f;
            if (j >= limit1) x = -INFINITY;
            s7[2] = x * M_LOG2E_F;
            if (s7[2] > most1 || x != x) most1 = s7[2];
        }
        {
            const int j = j0 + 57 + part * 2;
            float x = s7[3] * 0.1767766952966369f;
            if (j >= limit1) x = -INFINITY;
            s7[3] = x * M_LOG2E_F;
            if (s7[3] > most1 || x != x) most1 = s7[3];
        }
        { const float a = most0, b = NPU_SWAP(a, 1); most0 = b > a || b != b ? b : a; }
        { const float a = most0, b = NPU_SWAP(a, 2); most0 = b > a || b != b ? b : a; }
const float new0 = most0 > top0 || most0 != most0 ? most0 : top0;
        const float shrink0 = new0 == -INFINITY ? 1.0f : exp2(top0 - new0), from0 = new0 == -INFINITY ? 0.0f : new0;
        top0 = new0;
        total0 *= shrink0;
        { const float a = most1, b = NPU_SWAP(a, 1); most1 = b > a || b != b ? b : a; }
        { const float a = most1, b = NPU_SWAP(a, 2); most1 = b > a || b != b ? b : a; }
const float new1 = most1 > top1 || most1 != most1 ? most1 : top1;
        const float shrink1 = new1 == -INFINITY ? 1.0f : exp2(top1 - new1), from1 = new1 == -INFINITY ? 0.0f : new1;
        top1 = new1;
        total1 *= shrink1;
        s0[0] = exp2(s0[0] - from0);
        total0 += s0[0];
        s0[1] = exp2(s0[1] - from0);
        total0 += s0[1];
        s0[2] = exp2(s0[2] - from1);
        total1 += s0[2];
        s0[3] = exp2(s0[3] - from1);
        total1 += s0[3];
        s1[0] = exp2(s1[0] - from0);
        total0 += s1[0];
        s1[1] = exp2(s1[1] - from0);
        total0 += s1[1];
        s1[2] = exp2(s1[2] - from1);
        total1 += s1[2];
        s1[3] = exp2(s1[3] - from1);
        total1 += s1[3];
        s2[0] = exp2(s2[0] - from0);
        total0 += s2[0];
        s2[1] = exp2(s2[1] - from0);
        total0 += s2[1];
        s2[2] = exp2(s2[2] - from1);
        total1 += s2[2];
        s2[3] = exp2(s2[3] - from1);
        total1 += s2[3];
        s3[0] = exp2(s3[0] - from0);
        total0 += s3[0];
        s3[1] = exp2(s3[1] - from0);
        total0 += s3[1];
        s3[2] = exp2(s3[2] - from1);
        total1 += s3[2];
        s3[3] = exp2(s3[3] - from1);
        total1 += s3[3];
        s4[0] = exp2(s4[0] - from0);
        total0 += s4[0];
        s4[1] = exp2(s4[1] - from0);
        total0 += s4[1];
        s4[2] = exp2(s4[2] - from1);
        total1 += s4[2];
        s4[3] = exp2(s4[3] - from1);
        total1 += s4[3];
        s5[0] = exp2(s5[0] - from0);
        total0 += s5[0];
        s5[1] = exp2(s5[1] - from0);
        total0 += s5[1];
        s5[2] = exp2(s5[2] - from1);
        total1 += s5[2];
        s5[3] = exp2(s5[3] - from1);
        total1 += s5[3];
        s6[0] = exp2(s6[0] - from0);
        total0 += s6[0];
        s6[1] = exp2(s6[1] - from0);
        total0 += s6[1];
        s6[2] = exp2(s6[2] - from1);
        total1 += s6[2];
        s6[3] = exp2(s6[3] - from1);
        total1 += s6[3];
        s7[0] = exp2(s7[0] - from0);
        total0 += s7[0];
        s7[1] = exp2(s7[1] - from0);
        total0 += s7[1];
        s7[2] = exp2(s7[2] - from1);
        total1 += s7[2];
        s7[3] = exp2(s7[3] - from1);
        total1 += s7[3];
        o0[0] *= shrink0, o0[1] *= shrink0, o0[2] *= shrink1, o0[3] *= shrink1;
        o1[0] *= shrink0, o1[1] *= shrink0, o1[2] *= shrink1, o1[3] *= shrink1;
        o2[0] *= shrink0, o2[1] *= shrink0, o2[2] *= shrink1, o2[3] *= shrink1;
        o3[0] *= shrink0, o3[1] *= shrink0, o3[2] *= shrink1, o3[3] *= shrink1;
        {
            const uint a0 = NPU_PAIR_f16(s0[0], s0[1]), a1 = NPU_PAIR_f16(s0[2], s0[3]);
            const uint a2 = NPU_PAIR_f16(s1[0], s1[1]), a3 = NPU_PAIR_f16(s1[2], s1[3]);
            uint b0, b1, b2, b3;
            NPU_TURNED(b0, b1, b2, b3, lines + 0);
            NPU_MMA_f16(o0, a0, a1, a2, a3, b0, b1);
            NPU_MMA_f16(o1, a0, a1, a2, a3, b2, b3);
            NPU_TURNED(b0, b1, b2, b3, lines + 2);
            NPU_MMA_f16(o2, a0, a1, a2, a3, b0, b1);
            NPU_MMA_f16(o3, a0, a1, a2, a3, b2, b3);
        }
        {
            const uint a0 = NPU_PAIR_f16(s2[0], s2[1]), a1 = NPU_PAIR_f16(s2[2], s2[3]);
            const uint a2 = NPU_PAIR_f16(s3[0], s3[1]), a3 = NPU_PAIR_f16(s3[2], s3[3]);
            uint b0, b1, b2, b3;
            NPU_TURNED(b0, b1, b2, b3, lines + 80);
            NPU_MMA_f16(o0, a0, a1, a2, a3, b0, b1);
            NPU_MMA_f16(o1, a0, a1, a2, a3, b2, b3);
            NPU_TURNED(b0, b1, b2, b3, lines + 82);
            NPU_MMA_f16(o2, a0, a1, a2, a3, b0, b1);
            NPU_MMA_f16(o3, a0, a1, a2, a3, b2, b3);
        }
        {
            const uint a0 = NPU_PAIR_f16(s4[0], s4[1]), a1 = NPU_PAIR_f16(s4[2], s4[3]);
            const uint a2 = NPU_PAIR_f16(s5[0], s5[1]), a3 = NPU_PAIR_f16(s5[2], s5[3]);
            uint b0, b1, b2, b3;
            NPU_TURNED(b0, b1, b2, b3, lines + 160);
            NPU_MMA_f16(o0, a0, a1, a2, a3, b0, b1);
            NPU_MMA_f16(o1, a0, a1, a2, a3, b2, b3);
            NPU_TURNED(b0, b1, b2, b3, lines + 162);
            NPU_MMA_f16(o2, a0, a1, a2, a3, b0, b1);
            NPU_MMA_f16(o3, a0, a1, a2, a3, b2, b3);
        }
        {
            const uint a0 = NPU_PAIR_f16(s6[0], s6[1]), a1 = NPU_PAIR_f16(s6[2], s6[3]);
            const uint a2 = NPU_PAIR_f16(s7[0], s7[1]), a3 = NPU_PAIR_f16(s7[2], s7[3]);
            uint b0, b1, b2, b3;
            NPU_TURNED(b0, b1, b2, b3, lines + 240);
            NPU_MMA_f16(o0, a0, a1, a2, a3, b0, b1);
            NPU_MMA_f16(o1, a0, a1, a2, a3, b2, b3);
            NPU_TURNED(b0, b1, b2, b3, lines + 242);
            NPU_MMA_f16(o2, a0, a1, a2, a3, b0, b1);
            NPU_MMA_f16(o3, a0, a1, a2, a3, b2, b3);
        }
    }
        { const float a = total0, b = NPU_SWAP(a, 1); total0 = a + b; }
        { const float a = total0, b = NPU_SWAP(a, 2); total0 = a + b; }
const float scale0 = total0 == 0.0f ? 0.0f : 1.0f / total0;
    if (i0 + 0 < queries) {
        out[row0 * (32) + (0 + part * 2) * (1)] = (o0[0] * scale0);
        out[row0 * (32) + (1 + part * 2) * (1)] = (o0[1] * scale0);
        out[row0 * (32) + (8 + part * 2) * (1)] = (o1[0] * scale0);
        out[row0 * (32) + (9 + part * 2) * (1)] = (o1[1] * scale0);
        out[row0 * (32) + (16 + part * 2) * (1)] = (o2[0] * scale0);
        out[row0 * (32) + (17 + part * 2) * (1)] = (o2[1] * scale0);
        out[row0 * (32) + (24 + part * 2) * (1)] = (o3[0] * scale0);
        out[row0 * (32) + (25 + part * 2) * (1)] = (o3[1] * scale0);
    }
        { const float a = total1, b = NPU_SWAP(a, 1); total1 = a + b; }
        { const float a = total1, b = NPU_SWAP(a, 2); total1 = a + b; }
const float scale1 = total1 == 0.0f ? 0.0f : 1.0f / total1;
    if (i0 + 8 < queries) {
        out[row1 * (32) + (0 + part * 2) * (1)] = (o0[2] * scale1);
        out[row1 * (32) + (1 + part * 2) * (1)] = (o0[3] * scale1);
        out[row1 * (32) + (8 + part * 2) * (1)] = (o1[2] * scale1);
        out[row1 * (32) + (9 + part * 2) * (1)] = (o1[3] * scale1);
        out[row1 * (32) + (16 + part * 2) * (1)] = (o2[2] * scale1);
        out[row1 * (32) + (17 + part * 2) * (1)] = (o2[3] * scale1);
        out[row1 * (32) + (24 + part * 2) * (1)] = (o3[2] * scale1);
        out[row1 * (32) + (25 + part * 2) * (1)] = (o3[3] * scale1);
    }
}
