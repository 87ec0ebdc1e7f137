// Instructions of tensor cores, one function each: the only inline PTX of npk. An emulator that compiles kernels as C++ defines NPK_EMU
// and brings the same functions.
#ifndef NPK_EMU
// D (16 x 8, int32) += number of ones of A (16 x 256 bits, by rows) & B (256 bits x 8, by columns); sm_80 or newer.
// d0 and d1 are neighbors in the row lane / 4, d2 and d3 in the row 8 below.
__device__ __forceinline__ void npk_mma_b1_and_m16n8k256(int& d0, int& d1, int& d2, int& d3, const unsigned int (&a)[4],
                                                                const unsigned int (&b)[2])
{
    asm volatile("mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+r"(d0), "+r"(d1), "+r"(d2), "+r"(d3)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// The same with 128 bits.
__device__ __forceinline__ void npk_mma_b1_and_m16n8k128(int& d0, int& d1, int& d2, int& d3, const unsigned int (&a)[2], unsigned int b)
{
    asm volatile("mma.sync.aligned.m16n8k128.row.col.s32.b1.b1.s32.and.popc {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
                 : "+r"(d0), "+r"(d1), "+r"(d2), "+r"(d3)
                 : "r"(a[0]), "r"(a[1]), "r"(b));
}
#endif
