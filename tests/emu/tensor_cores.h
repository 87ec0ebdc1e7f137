// What kernels/mma.cuh has, for the emulator by C++. Fragments: PTX ISA, "Matrix Fragments for mma.m16n8k256"; a test compares the
// maps with CuTe's MMA_Traits<SM80_16x8x256_S32U1U1S32_TN_ANDPOPC>, one bit at a time.
#pragma once
namespace npk_emu {
struct RowCol { int row, col; };
// bit i (0..127) of the registers of A -> (row, k); bit i (0..63) of those of B -> (k, col); value i (0..3) of C and D -> (row, col)
static inline RowCol bits_of_a(int lane, int i) { return {lane / 4 + i / 32 % 2 * 8, lane % 4 * 32 + i % 32 + i / 64 * 128}; }
static inline RowCol bits_of_b(int lane, int i) { return {lane % 4 * 32 + i % 32 + i / 32 * 128, lane / 4}; }
static inline RowCol values_of_d(int lane, int i) { return {lane / 4 + i / 2 * 8, lane % 4 * 2 + i % 2}; }
struct Fragments { unsigned a[4], b[2]; };

__attribute__((noinline)) static void mma_b1_and(int line, int& d0, int& d1, int& d2, int& d3, const Fragments& mine)
{
    Fragments all[32];
    npk_emu_warp_gather(line, const_cast<Fragments*>(&mine), sizeof mine, all);
    unsigned A[16][8], B[8][8];   // rows of A and columns of B, of 256 bits
    for (int lane = 0; lane < 32; ++lane) {
        for (int r = 0; r < 4; ++r) { RowCol p = bits_of_a(lane, 32 * r); A[p.row][p.col / 32] = all[lane].a[r]; }
        for (int r = 0; r < 2; ++r) { RowCol p = bits_of_b(lane, 32 * r); B[p.col][p.row / 32] = all[lane].b[r]; }
    }
    const uint3 tid = npk_emu_tid();
    const dim3 dim = npk_emu_bdim();
    const int lane = (int)((tid.x + dim.x * (tid.y + dim.y * tid.z)) % 32);
    int* d[4] = {&d0, &d1, &d2, &d3};
    for (int i = 0; i < 4; ++i) {
        RowCol p = values_of_d(lane, i);
        for (int w = 0; w < 8; ++w) *d[i] += __builtin_popcount(A[p.row][w] & B[p.col][w]);
    }
}
static inline void mma_k256(int line, int& d0, int& d1, int& d2, int& d3, const unsigned (&a)[4], const unsigned (&b)[2])
{
    mma_b1_and(line, d0, d1, d2, d3, {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}});
}
// 128 bits: the first half of the words, in the same places; the other half is nothing.
static inline void mma_k128(int line, int& d0, int& d1, int& d2, int& d3, const unsigned (&a)[2], unsigned b)
{
    mma_b1_and(line, d0, d1, d2, d3, {{a[0], a[1], 0, 0}, {b, 0}});
}
}
#define npk_mma_b1_and_m16n8k256(...) npk_emu::mma_k256(__LINE__, __VA_ARGS__)
#define npk_mma_b1_and_m16n8k128(...) npk_emu::mma_k128(__LINE__, __VA_ARGS__)
