// Fields of one grid from those of another: V(s, t) = sum over k of U(at(s, k), at(t, k)), a window of any stride; or over all k and k',
// U(at(s, k), at(t, k')), an average pool; plus `added`. `table` (width, family) has the positions, -1 for none; `wanted` tells which
// differences of rows, around the grid of `height` rows, will be looked at. A thread makes one cell. Pairs and `left`: as in sums.cu.
#define THREADS 256

extern "C" __global__ void __launch_bounds__(THREADS, NPK_BLOCKS)
npk_gather(const float* __restrict__ from, float* __restrict__ to, const int* __restrict__ table, const int* __restrict__ wanted,
           long long first, int m, int before, int width, int family, int height, int crossed, long long pairs, long long left, float added)
{
    const long long cell = (long long)blockIdx.x * THREADS + threadIdx.x, size = (long long)width * width, place = cell / size;
    const long long row = (first + place) / m, col = (first + place) % m;
    if (place >= pairs || left + col < row) return;
    const int s = (int)(cell % size / width), t = (int)(cell % width), columns = width / height;
    if (!wanted[(t / columns - s / columns + height) % height]) return;
    const float* field = from + place * before * before;
    float total = 0;
#pragma unroll 1
    for (int k = 0; k < family; ++k) {
        const int a = table[s * family + k];
        if (a < 0) continue;
#pragma unroll 1
        for (int l = crossed ? 0 : k; l < (crossed ? family : k + 1); ++l) {
            const int b = table[t * family + l];
            if (b >= 0) total += field[(long long)a * before + b];
        }
    }
    to[cell] = total + added;
}
