// out = sums of the `count` parts of each pair, in their order, plus `added`. Pairs are counted from `first` on, row by row of the tile,
// which has m columns; those left of the diagonal are skipped: `left` is the number of the first column minus that of the first row.
#define THREADS 256

extern "C" __global__ void __launch_bounds__(THREADS, NPK_BLOCKS)
npk_sums(const double* __restrict__ parts, float* __restrict__ out, long long first, int m, int count,
         long long pairs, long long left, float added)
{
    const long long place = (long long)blockIdx.x * THREADS + threadIdx.x, row = (first + place) / m, col = (first + place) % m;
    if (place >= pairs || left + col < row) return;
    double total = 0;
#pragma unroll 1
    for (int i = 0; i < count; ++i) total += parts[place * count + i];
    out[place] = (float)(total + added);
}
