// out (n, m) from row `first` on: sums of the `count` parts of each pair, in their order. `left`: number of the first column minus that of
// the first row; entries left of the diagonal have no parts, and stay as they are.
#define THREADS 256

extern "C" __global__ void __launch_bounds__(THREADS)
npk_sums(const double* __restrict__ parts, float* __restrict__ out, int first, int n, int m, int count, long long left)
{
    const long long pair = (long long)blockIdx.x * THREADS + threadIdx.x, row = first + pair / m, col = pair % m;
    if (row >= n || left + col < row) return;
    double total = 0;
#pragma unroll 1
    for (int i = 0; i < count; ++i) total += parts[pair * count + i];
    out[row * m + col] = (float)total;
}
