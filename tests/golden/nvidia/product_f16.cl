cast_f16_pointwise__h28e38309 (270592, 1) (256, 1)
linear_f16_mma__t64x96_hba8eeddf (384, 2, 1) (128, 1, 1)

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
__kernel void cast_f16_pointwise__h28e38309(__global const float *restrict p0, __global ushort *restrict out)
{
    const int begin = (int)get_global_id(0) * 1;
    const int end = min(begin + 1, (int)(270400));
    const int first = (int)get_global_id(1) * 1;
    const int last = min(first + 1, (int)(1));
    for (int row = first; row < last; ++row) {
        __global const float *restrict s0 = p0 + (0);
        __global ushort *restrict t = out + (0);
        for (int i = begin; i < end; ++i) {
            const float i0 = (s0[i]);
            const float t0 = ((float)i0);
            t[i] = npu_to_f16(t0);
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

__kernel __attribute__((reqd_work_group_size(128, 1, 1)))
void linear_f16_mma__t64x96_hba8eeddf(__global const ushort *restrict x, __global const ushort *restrict w, __global const float *restrict bias, __global float *y)
{
    // NOTE: NVIDIA's driver puts 16 bytes before; a vector's row that crosses lines of 128 made products take 1.6 times as long
    __local __attribute__((aligned(128))) uint4 left[4][256], right[4][384];
    const int tid = get_local_id(0), lane = tid % 32, warp = tid / 32, part = tid % 4;
    const int mine = warp % 2 * 32, column = warp / 2 * 48, kept = tid / 4 * 4 + (part ^ (tid / 8 % 4));
    const int turn = lane / 2 % 4, a_low = (mine + lane % 16) * 4 + (lane / 16 ^ turn);
    const int b_low = (column + lane / 16 * 8 + lane % 8) * 4 + (lane / 8 % 2 ^ turn);
    const int p0 = (int)get_group_id(0) * 64, o0 = (int)get_group_id(1) * 96, g = get_group_id(2);
    x += 0 + g * (2080) * (1);
    w += (size_t)g * (136) * (2080);
    y += 0 + g * (136) * (1);
    bias += g * (136);
    const int q0 = min(p0 + tid / 4 + 0, (130) - 1);
    const int x0 = q0 * (2080);
    const int q1 = min(p0 + tid / 4 + 32, (130) - 1);
    const int x1 = q1 * (2080);
    __global const ushort *w0 = w + (size_t)min(o0 + tid / 4 + 0, (136) - 1) * (2080) + part * 8;
    __global const ushort *w1 = w + (size_t)min(o0 + tid / 4 + 32, (136) - 1) * (2080) + part * 8;
    __global const ushort *w2 = w + (size_t)min(o0 + tid / 4 + 64, (136) - 1) * (2080) + part * 8;
    float c0_0[4] = {0.0f, 0.0f, 0.0f, 0.0f}, c0_1[4] = {0.0f, 0.0f, 0.0f, 0.0f}, c0_2[4] = {0.0f, 0.0f, 0.0f, 0.0f}, c0_3[4] = {0.0f, 0.0f, 0.0f, 0.0f}, c0_4[4] = {0.0f, 0.0f, 0.0f, 0.0f}, c0_5[4] = {0.0f, 0.0f, 0.0f, 0.0f}, c1_0[4] = {0.0f, 0.0f, 0.0f, 0.0f}, c1_1[4] = {0.0f, 0.0f, 0.0f, 0.0f}, c1_2[4] = {0.0f, 0.0f, 0.0f, 0.0f}, c1_3[4] = {0.0f, 0.0f, 0.0f, 0.0f}, c1_4[4] = {0.0f, 0.0f, 0.0f, 0.0f}, c1_5[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    int k = part * 8;
        int ic = k;
    uint a0_00, a0_01, a0_02, a0_03, a1_00, a1_01, a1_02, a1_03, b0_00, b0_01, b1_00, b1_01, b2_00, b2_01, b3_00, b3_01, b4_00, b4_01, b5_00, b5_01;
    uint a0_10, a0_11, a0_12, a0_13, a1_10, a1_11, a1_12, a1_13, b0_10, b0_11, b1_10, b1_11, b2_10, b2_11, b3_10, b3_11, b4_10, b4_11, b5_10, b5_11;
            {
                const int in0 = k < (2080);
                NPU_COPY16(&left[0][kept + 0], in0 ? x + (x0 + ic * (1)) : x, in0);
                const int in1 = k < (2080);
                NPU_COPY16(&left[0][kept + 128], in1 ? x + (x1 + ic * (1)) : x, in1);
                NPU_COPY16(&right[0][kept + 0], w0 + min(k, (2080) - 8) - part * 8, k < (2080));
                NPU_COPY16(&right[0][kept + 128], w1 + min(k, (2080) - 8) - part * 8, k < (2080));
                NPU_COPY16(&right[0][kept + 256], w2 + min(k, (2080) - 8) - part * 8, k < (2080));
                NPU_COPIED();
            }
            k += 32;
            ic += 32;
            {
                const int in0 = k < (2080);
                NPU_COPY16(&left[1][kept + 0], in0 ? x + (x0 + ic * (1)) : x, in0);
                const int in1 = k < (2080);
                NPU_COPY16(&left[1][kept + 128], in1 ? x + (x1 + ic * (1)) : x, in1);
                NPU_COPY16(&right[1][kept + 0], w0 + min(k, (2080) - 8) - part * 8, k < (2080));
                NPU_COPY16(&right[1][kept + 128], w1 + min(k, (2080) - 8) - part * 8, k < (2080));
                NPU_COPY16(&right[1][kept + 256], w2 + min(k, (2080) - 8) - part * 8, k < (2080));
                NPU_COPIED();
            }
            k += 32;
            ic += 32;
            {
                const int in0 = k < (2080);
                NPU_COPY16(&left[2][kept + 0], in0 ? x + (x0 + ic * (1)) : x, in0);
                const int in1 = k < (2080);
                NPU_COPY16(&left[2][kept + 128], in1 ? x + (x1 + ic * (1)) : x, in1);
                NPU_COPY16(&right[2][kept + 0], w0 + min(k, (2080) - 8) - part * 8, k < (2080));
                NPU_COPY16(&right[2][kept + 128], w1 + min(k, (2080) - 8) - part * 8, k < (2080));
                NPU_COPY16(&right[2][kept + 256], w2 + min(k, (2080) - 8) - part * 8, k < (2080));
                NPU_COPIED();
            }
            k += 32;
            ic += 32;
    NPU_ARRIVED(2);
    barrier(CLK_LOCAL_MEM_FENCE);
        NPU_LINES(b0_00, b0_01, b1_00, b1_01, &right[0][b_low + 0]);
        NPU_LINES(b2_00, b2_01, b3_00, b3_01, &right[0][b_low + 64]);
        NPU_LINES(b4_00, b4_01, b5_00, b5_01, &right[0][b_low + 128]);
        NPU_LINES(a0_00, a0_01, a0_02, a0_03, &left[0][a_low + 0]);
        NPU_LINES(a1_00, a1_01, a1_02, a1_03, &left[0][a_low + 64]);
for (int k0 = 0, at = 0, to = 3; k0 < (2080); k0 += 32) {
        NPU_LINES(b0_10, b0_11, b1_10, b1_11, &right[at][(b_low ^ 2) + 0]);
        NPU_LINES(b2_10, b2_11, b3_10, b3_11, &right[at][(b_low ^ 2) + 64]);
        NPU_LINES(b4_10, b4_11, b5_10, b5_11, &right[at][(b_low ^ 2) + 128]);
        NPU_LINES(a0_10, a0_11, a0_12, a0_13, &left[at][(a_low ^ 2) + 0]);
        NPU_LINES(a1_10, a1_11, a1_12, a1_13, &left[at][(a_low ^ 2) + 64]);
            {
                const int in0 = k < (2080);
                NPU_COPY16(&left[to][kept + 0], in0 ? x + (x0 + ic * (1)) : x, in0);
                const int in1 = k < (2080);
                NPU_COPY16(&left[to][kept + 128], in1 ? x + (x1 + ic * (1)) : x, in1);
                NPU_COPY16(&right[to][kept + 0], w0 + min(k, (2080) - 8) - part * 8, k < (2080));
                NPU_COPY16(&right[to][kept + 128], w1 + min(k, (2080) - 8) - part * 8, k < (2080));
                NPU_COPY16(&right[to][kept + 256], w2 + min(k, (2080) - 8) - part * 8, k < (2080));
                NPU_COPIED();
            }
            k += 32;
            ic += 32;
        NPU_MMA_f16(c0_0, a0_00, a0_01, a0_02, a0_03, b0_00, b0_01);
        NPU_MMA_f16(c0_1, a0_00, a0_01, a0_02, a0_03, b1_00, b1_01);
        NPU_MMA_f16(c0_2, a0_00, a0_01, a0_02, a0_03, b2_00, b2_01);
        NPU_MMA_f16(c0_3, a0_00, a0_01, a0_02, a0_03, b3_00, b3_01);
        NPU_MMA_f16(c0_4, a0_00, a0_01, a0_02, a0_03, b4_00, b4_01);
        NPU_MMA_f16(c0_5, a0_00, a0_01, a0_02, a0_03, b5_00, b5_01);
        NPU_MMA_f16(c1_0, a1_00, a1_01, a1_02, a1_03, b0_00, b0_01);
        NPU_MMA_f16(c1_1, a1_00, a1_01, a1_02, a1_03, b1_00, b1_01);
        NPU_MMA_f16(c1_2, a1_00, a1_01, a1_02, a1_03, b2_00, b2_01);
        NPU_MMA_f16(c1_3, a1_00, a1_01, a1_02, a1_03, b3_00, b3_01);
        NPU_MMA_f16(c1_4, a1_00, a1_01, a1_02, a1_03, b4_00, b4_01);
        NPU_MMA_f16(c1_5, a1_00, a1_01, a1_02, a1_03, b5_00, b5_01);
at = at == 3 ? 0 : at + 1;
        to = to == 3 ? 0 : to + 1;
        NPU_ARRIVED(2);
        barrier(CLK_LOCAL_MEM_FENCE);
        NPU_LINES(b0_00, b0_01, b1_00, b1_01, &right[at][b_low + 0]);
        NPU_LINES(b2_00, b2_01, b3_00, b3_01, &right[at][b_low + 64]);
        NPU_LINES(b4_00, b4_01, b5_00, b5_01, &right[at][b_low + 128]);
        NPU_LINES(a0_00, a0_01, a0_02, a0_03, &left[at][a_low + 0]);
        NPU_LINES(a1_00, a1_01, a1_02, a1_03, &left[at][a_low + 64]);
        NPU_MMA_f16(c0_0, a0_10, a0_11, a0_12, a0_13, b0_10, b0_11);
        NPU_MMA_f16(c0_1, a0_10, a0_11, a0_12, a0_13, b1_10, b1_11);
        NPU_MMA_f16(c0_2, a0_10, a0_11, a0_12, a0_13, b2_10, b2_11);
        NPU_MMA_f16(c0_3, a0_10, a0_11, a0_12, a0_13, b3_10, b3_11);
        NPU_MMA_f16(c0_4, a0_10, a0_11, a0_12, a0_13, b4_10, b4_11);
        NPU_MMA_f16(c0_5, a0_10, a0_11, a0_12, a0_13, b5_10, b5_11);
        NPU_MMA_f16(c1_0, a1_10, a1_11, a1_12, a1_13, b0_10, b0_11);
        NPU_MMA_f16(c1_1, a1_10, a1_11, a1_12, a1_13, b1_10, b1_11);
        NPU_MMA_f16(c1_2, a1_10, a1_11, a1_12, a1_13, b2_10, b2_11);
        NPU_MMA_f16(c1_3, a1_10, a1_11, a1_12, a1_13, b3_10, b3_11);
        NPU_MMA_f16(c1_4, a1_10, a1_11, a1_12, a1_13, b4_10, b4_11);
        NPU_MMA_f16(c1_5, a1_10, a1_11, a1_12, a1_13, b5_10, b5_11);
}
    {
        const int p = p0 + mine + lane / 4 + 0, o = (o0 + column + 0) / 1 + part * 2;
if (p < (130) && o < (136)) { float2 made; { float v = c0_0[0]; v += bias[o]; made.x = v; } { float v = c0_0[1]; v += bias[(o + 1)]; made.y = v; } *(__global float2 *)(y + (p) * (136) + (o) * (1)) = made; }
    }
    {
        const int p = p0 + mine + lane / 4 + 8, o = (o0 + column + 0) / 1 + part * 2;
if (p < (130) && o < (136)) { float2 made; { float v = c0_0[2]; v += bias[o]; made.x = v; } { float v = c0_0[3]; v += bias[(o + 1)]; made.y = v; } *(__global float2 *)(y + (p) * (136) + (o) * (1)) = made; }
    }
    {
        const int p = p0 + mine + lane / 4 + 0, o = (o0 + column + 8) / 1 + part * 2;
if (p < (130) && o < (136)) { float2 made; { float v = c0_1[0]; v += bias[o]; made.x = v; } { float v = c0_1[1]; v += bias[(o + 1)]; made.y = v; } *(__global float2 *)(y + (p) * (136) + (o) * (1)) = made; }
    }
    {
        const int p = p0 + mine + lane / 4 + 8, o = (o0 + column + 8) / 1 + part * 2;
if (p < (130) && o < (136)) { float2 made; { float v = c0_1[2]; v += bias[o]; made.x = v; } { float v = c0_1[3]; v += bias[(o + 1)]; made.y = v; } *(__global float2 *)(y + (p) * (136) + (o) * (1)) = made; }
    }
    {
        const int p = p0 + mine + lane / 4 + 0, o = (o0 + column + 16) / 1 + part * 2;
if (p < (130) && o < (136)) { float2 made; { float v = c0_2[0]; v += bias[o]; made.x = v; } { float v = c0_2[1]; v += bias[(o + 1)]; made.y = v; } *(__global float2 *)(y + (p) * (136) + (o) * (1)) = made; }
    }
    {
        const int p = p0 + mine + lane / 4 + 8, o = (o0 + column + 16) / 1 + part * 2;
if (p < (130) && o < (136)) { float2 made; { float v = c0_2[2]; v += bias[o]; made.x = v; } { float v = c0_2[3]; v += bias[(o + 1)]; made.y = v; } *(__global float2 *)(y + (p) * (136) + (o) * (1)) = made; }
    }
    {
        const int p = p0 + mine + lane / 4 + 0, o = (o0 + column + 24) / 1 + part * 2;
if (p < (130) && o < (136)) { float2 made; { float v = c0_3[0]; v += bias[o]; made.x = v; } { float v = c0_3[1]; v += bias[(o + 1)]; made.y = v; } *(__global float2 *)(y + (p) * (136) + (o) * (1)) = made; }
    }
    {
        const int p = p0 + mine + lane / 4 + 8, o = (o0 + column + 24) / 1 + part * 2;
if (p < (130) && o < (136)) { float2 made; { float v = c0_3[2]; v += bias[o]; made.x = v; } { float v = c0_3[3]; v += bias[(o + 1)]; made.y = v; } *(__global float2 *)(y + (p) * (136) + (o) * (1)) = made; }
    }
    {
        const int p = p0 + mine + lane / 4 + 0, o = (o0 + column + 32) / 1 + part * 2;
if (p < (130) && o < (136)) { float2 made; { float v = c0_4[0]; v += bias[o]; made.x = v; } { float v = c0_4[1]; v += bias[(o + 1)]; made.y = v; } *(__global float2 *)(y + (p) * (136) + (o) * (1)) = made; }
    }
    {
        const int p = p0 + mine + lane / 4 + 8, o = (o0 + column + 32) / 1 + part * 2;
if (p < (130) && o < (136)) { float2 made; { float v = c0_4[2]; v += bias[o]; made.x = v; } { float v = c0_4[3]; v += bias[(o + 1)]; made.y = v; } *(__global float2 *)(y + (p) * (136) + (o) * (1)) = made; }
    }
    {
        const int p = p0 + mine + lane / 4 + 0, o = (o0 + column + 40) / 1 + part * 2;
if (p < (130) && o < (136)) { float2 made; { float v = c0_5[0]; v += bias[o]; made.x = v; } { float v = c0_5[1]; v += bias[(o + 1)]; made.y = v; } *(__global float2 *)(y + (p) * (136) + (o) * (1)) = made; }
    }
    {
        const int p = p0 + mine + lane / 4 + 8, o = (o0 + column + 40) / 1 + part * 2;
if (p < (130) && o < (136)) { float2 made; { float v = c0_5[2]; v += bias[o]; made.x = v; } { float v = c0_5[3]; v += bias[(o + 1)]; made.y = v; } *(__global float2 *)(y + (p) * (136) + (o) * (1)) = made; }
    }
    {
        const int p = p0 + mine + lane / 4 + 16, o = (o0 + column + 0) / 1 + part * 2;
if (p < (130) && o < (136)) { float2 made; { float v = c1_0[0]; v += bias[o]; made.x = v; } { float v = c1_0[1]; v += bias[(o + 1)]; made.y = v; } *(__global float2 *)(y + (p) * (136) + (o) * (1)) = made; }
    }
    {
        const int p = p0 + mine + lane / 4 + 24, o = (o0 + column + 0) / 1 + part * 2;
if (p < (130) && o < (136)) { float2 made; { float v = c1_0[2]; v += bias[o]; made.x = v; } { float v = c1_0[3]; v += bias[(o + 1)]; made.y = v; } *(__global float2 *)(y + (p) * (136) + (o) * (1)) = made; }
    }
    {
        const int p = p0 + mine + lane / 4 + 16, o = (o0 + column + 8) / 1 + part * 2;
if (p < (130) && o < (136)) { float2 made; { float v = c1_1[0]; v += bias[o]; made.x = v; } { float v = c1_1[1]; v += bias[(o + 1)]; made.y = v; } *(__global float2 *)(y + (p) * (136) + (o) * (1)) = made; }
    }
    {
        const int p = p0 + mine + lane / 4 + 24, o = (o0 + column + 8) / 1 + part * 2;
if (p < (130) && o < (136)) { float2 made; { float v = c1_1[2]; v += bias[o]; made.x = v; } { float v = c1_1[3]; v += bias[(o + 1)]; made.y = v; } *(__global float2 *)(y + (p) * (136) + (o) * (1)) = made; }
    }
    {
        const int p = p0 + mine + lane / 4 + 16, o = (o0 + column + 16) / 1 + part * 2;
if (p < (130) && o < (136)) { float2 made; { float v = c1_2[0]; v += bias[o]; made.x = v; } { float v = c1_2[1]; v += bias[(o + 1)]; made.y = v; } *(__global float2 *)(y + (p) * (136) + (o) * (1)) = made; }
    }
    {
        const int p = p0 + mine + lane / 4 + 24, o = (o0 + column + 16) / 1 + part * 2;
if (p < (130) && o < (136)) { float2 made; { float v = c1_2[2]; v += bias[o]; made.x = v; } { float v = c1_2[3]; v += bias[(o + 1)]; made.y = v; } *(__global float2 *)(y + (p) * (136) + (o) * (1)) = made; }
    }
    {
        const int p = p0 + mine + lane / 4 + 16, o = (o0 + column + 24) / 1 + part * 2;
if (p < (130) && o < (136)) { float2 made; { float v = c1_3[0]; v += bias[o]; made.x = v; } { float v = c1_3[1]; v += bias[(o + 1)]; made.y = v; } *(__global float2 *)(y + (p) * (136) + (o) * (1)) = made; }
    }
    {
        const int p = p0 + mine + lane / 4 + 24, o = (o0 + column + 24) / 1 + part * 2;
if (p < (130) && o < (136)) { float2 made; { float v = c1_3[2]; v += bias[o]; made.x = v; } { float v = c1_3[3]; v += bias[(o + 1)]; made.y = v; } *(__global float2 *)(y + (p) * (136) + (o) * (1)) = made; }
    }
    {
        const int p = p0 + mine + lane / 4 + 16, o = (o0 + column + 32) / 1 + part * 2;
if (p < (130) && o < (136)) { float2 made; { float v = c1_4[0]; v += bias[o]; made.x = v; } { float v = c1_4[1]; v += bias[(o + 1)]; made.y = v; } *(__global float2 *)(y + (p) * (136) + (o) * (1)) = made; }
    }
    {
        const int p = p0 + mine + lane / 4 + 24, o = (o0 + column + 32) / 1 + part * 2;
if (p < (130) && o < (136)) { float2 made; { float v = c1_4[2]; v += bias[o]; made.x = v; } { float v = c1_4[3]; v += bias[(o + 1)]; made.y = v; } *(__global float2 *)(y + (p) * (136) + (o) * (1)) = made; }
    }
    {
        const int p = p0 + mine + lane / 4 + 16, o = (o0 + column + 40) / 1 + part * 2;
if (p < (130) && o < (136)) { float2 made; { float v = c1_5[0]; v += bias[o]; made.x = v; } { float v = c1_5[1]; v += bias[(o + 1)]; made.y = v; } *(__global float2 *)(y + (p) * (136) + (o) * (1)) = made; }
    }
    {
        const int p = p0 + mine + lane / 4 + 24, o = (o0 + column + 40) / 1 + part * 2;
if (p < (130) && o < (136)) { float2 made; { float v = c1_5[2]; v += bias[o]; made.x = v; } { float v = c1_5[3]; v += bias[(o + 1)]; made.y = v; } *(__global float2 *)(y + (p) * (136) + (o) * (1)) = made; }
    }
}
