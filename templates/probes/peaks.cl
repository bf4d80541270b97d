// What a device can do at most: independent multiply-adds in registers, reading once, and starting a kernel.
// Written without library functions: PoCL calls them out of line.
#pragma OPENCL FP_CONTRACT ON

__kernel void multiply_adds(__global float *out, int rounds)
{
    const float seed = (float)get_global_id(0);
    const float8 by = (float8)(0.5f + seed * 1e-9f), more = (float8)(seed);
    float8 a = more, b = more + 1, c = more + 2, d = more + 3, e = more + 4, f = more + 5;
    float8 g = more + 6, h = more + 7, i = more + 8, j = more + 9;
    for (int round = 0; round < rounds; ++round) {
        a = a * by + more, b = b * by + more, c = c * by + more, d = d * by + more, e = e * by + more;
        f = f * by + more, g = g * by + more, h = h * by + more, i = i * by + more, j = j * by + more;
    }
    const float8 all = ((a + b) + (c + d)) + ((e + f) + (g + h)) + (i + j);
    out[get_global_id(0)] = all.s0 + all.s1 + all.s2 + all.s3 + all.s4 + all.s5 + all.s6 + all.s7;
}

__kernel void read_once(__global const float8 *data, __global float *out, int first, int step, int count)
{
    __global const float8 *from = data + (size_t)get_global_id(0) * first;
    float8 a = 0, b = 0, c = 0, d = 0;
    for (int index = 0; index < count; index += 4) {
        a += from[(size_t)index * step], b += from[(size_t)(index + 1) * step];
        c += from[(size_t)(index + 2) * step], d += from[(size_t)(index + 3) * step];
    }
    const float8 all = (a + b) + (c + d);
    out[get_global_id(0)] = all.s0 + all.s1 + all.s2 + all.s3 + all.s4 + all.s5 + all.s6 + all.s7;
}

__kernel void nothing(__global float *out)
{
    if (get_global_id(0) > 1000000)
        out[0] = 0;
}
