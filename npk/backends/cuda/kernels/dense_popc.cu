// A chain of dense layers with __popc, on every architecture: 256 threads, each with 4 x 4 pairs.
#include "dense.cuh"

struct Popc {
    static const int THREADS = 256, ROWS = 4, COLS = 4;
    static const int LINE = TILE + 4;   // words lie word by word; 4 more: a warp stores to 32 different banks
    static const int WORDS = STAGE * LINE;

    static __device__ __forceinline__ int at(int r, int c) { return c * LINE + r; }
    static __device__ __forceinline__ int row(int i) { return (int)threadIdx.x / 16 + 16 * i; }
    static __device__ __forceinline__ int col(int j) { return (int)threadIdx.x % 16 + 16 * j; }

    static __device__ __forceinline__ void count(int (&sum)[ROWS][COLS], const unsigned int* rows, const unsigned int* cols, int rest)
    {
        const int depth = rest < STAGE ? rest : STAGE;
#pragma unroll 2
        for (int c = 0; c < depth; ++c) {
            unsigned int a[ROWS], b[COLS];
#pragma unroll
            for (int i = 0; i < ROWS; ++i) a[i] = rows[at(row(i), c)];
#pragma unroll
            for (int j = 0; j < COLS; ++j) b[j] = cols[at(col(j), c)];
#pragma unroll
            for (int i = 0; i < ROWS; ++i)
#pragma unroll
                for (int j = 0; j < COLS; ++j) sum[i][j] += __popc(a[i] & b[j]);
        }
    }
};

extern "C" __global__ void __launch_bounds__(256, NPK_BLOCKS)
npk_dense_popc(const unsigned int* __restrict__ row_bits, const unsigned int* __restrict__ col_bits,
               const NPK_REAL* __restrict__ row_reals, const NPK_REAL* __restrict__ col_reals,
               const int* __restrict__ factors, const NPK_REAL* __restrict__ scales, const NPK_REAL* __restrict__ biases,
               NPK_REAL* __restrict__ out,
               int n, int m, int words, int numbers, int count, long long left)
{
    npk_dense<Popc>(row_bits, col_bits, row_reals, col_reals, factors, scales, biases, out, n, m, words, numbers, count, left);
}
