// A chain of dense layers with the binary tensor cores of sm_80 to sm_90: four warps, each with 32 x 32 pairs, which are 2 x 4
// fragments of 16 x 8. A thread owns the pairs that the instruction leaves in its registers.
#include "mma.cuh"
#include "dense.cuh"

struct Bmma {
    static const int THREADS = 128, ROWS = 4, COLS = 8;
    static const int WORDS = TILE * STAGE;   // STAGE words are the 256 bits of one instruction

    // Samples lie sample by sample; halves of samples 4 to 7 of every eight are swapped, so that a fragment comes from 32 banks.
    static __device__ __forceinline__ int at(int r, int c) { return r * STAGE + (c ^ (r & 4)); }
    static __device__ __forceinline__ int row(int i) { return (int)threadIdx.x / 64 * 32 + 8 * i + (int)threadIdx.x % 32 / 4; }
    static __device__ __forceinline__ int col(int j)
    {
        return (int)threadIdx.x / 32 % 2 * 32 + j / 2 * 8 + (int)threadIdx.x % 4 * 2 + j % 2;
    }

    static __device__ __forceinline__ void count(int (&sum)[ROWS][COLS], const unsigned int* rows, const unsigned int* cols, int)
    {
        const int t = (int)threadIdx.x % 4, col0 = (int)threadIdx.x / 32 % 2 * 32 + (int)threadIdx.x % 32 / 4;
        unsigned int a[2][4], b[4][2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            a[i][0] = rows[at(row(2 * i), t)];
            a[i][1] = rows[at(row(2 * i + 1), t)];
            a[i][2] = rows[at(row(2 * i), t + 4)];
            a[i][3] = rows[at(row(2 * i + 1), t + 4)];
        }
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            b[j][0] = cols[at(col0 + 8 * j, t)];
            b[j][1] = cols[at(col0 + 8 * j, t + 4)];
        }
#pragma unroll
        for (int i = 0; i < 2; ++i)
#pragma unroll
            for (int j = 0; j < 4; ++j)
                npk_mma_b1_and_m16n8k256(sum[2 * i][2 * j], sum[2 * i][2 * j + 1], sum[2 * i + 1][2 * j], sum[2 * i + 1][2 * j + 1],
                                         a[i], b[j]);
    }
};

extern "C" __global__ void __launch_bounds__(128, NPK_BLOCKS)
npk_dense_bmma(const unsigned int* __restrict__ row_bits, const unsigned int* __restrict__ col_bits,
               const NPK_REAL* __restrict__ row_reals, const NPK_REAL* __restrict__ col_reals,
               const int* __restrict__ factors, const NPK_REAL* __restrict__ scales, const NPK_REAL* __restrict__ biases,
               NPK_REAL* __restrict__ out,
               int n, int m, int words, int numbers, int count, long long left)
{
    npk_dense<Bmma>(row_bits, col_bits, row_reals, col_reals, factors, scales, biases, out, n, m, words, numbers, count, left);
}
