// Compile a CUDA C++ kernel file as C++: this file is included before it.
//
// One CUDA thread = one fiber.  The fibers of a block share one OS thread, so a `__shared__` variable is
// `static thread_local`: seen by the whole block, private to it.  What cannot be emulated faithfully
// (`__activemask`, `extern __shared__`, named barriers, inline PTX, device-side launch, grid sync, textures)
// is deliberately left undefined, so that using it is a compile error here and not a silent lie.
#pragma once
#define NPK_EMU 1

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static thread_local
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) alignas(n)
#define warpSize 32

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x, y, z; };
#define NPK_VEC(T, N2, N4) \
    struct alignas(2 * sizeof(T)) N2 { T x, y; }; struct alignas(sizeof(T) == 8 ? 16 : 4 * sizeof(T)) N4 { T x, y, z, w; }; \
    static inline N2 make_##N2(T x, T y) { return {x, y}; } \
    static inline N4 make_##N4(T x, T y, T z, T w) { return {x, y, z, w}; }
NPK_VEC(int, int2, int4) NPK_VEC(unsigned, uint2, uint4) NPK_VEC(float, float2, float4)
NPK_VEC(unsigned long long, ulonglong2, ulonglong4)

extern "C" {                    // fibers.cpp; constant for the life of a fiber, hence attribute const
__attribute__((const)) uint3 npk_emu_tid();  __attribute__((const)) uint3 npk_emu_bid();
__attribute__((const)) dim3 npk_emu_bdim();  __attribute__((const)) dim3 npk_emu_gdim();
__attribute__((const)) void* npk_emu_dynamic_smem();
void npk_emu_syncthreads(int line);
int npk_emu_syncthreads_reduce(int line, int op, int pred);      // op 0 count, 1 and, 2 or
void npk_emu_syncwarp(int line, unsigned mask);
unsigned long long npk_emu_shfl(int line, int mode, unsigned mask, unsigned long long v, int arg, int width, int size);
unsigned npk_emu_ballot(int line, unsigned mask, int pred);
void npk_emu_warp_gather(int line, const void* mine, int bytes, void* all);   // full warp, all[32][bytes]
unsigned npk_emu_rmw32(void* p, int op, unsigned v, unsigned cmp);
unsigned long long npk_emu_rmw64(void* p, int op, unsigned long long v, unsigned long long cmp);
void npk_emu_trap(int line);
}
#define threadIdx (npk_emu_tid())
#define blockIdx (npk_emu_bid())
#define blockDim (npk_emu_bdim())
#define gridDim (npk_emu_gdim())

#define __syncthreads() npk_emu_syncthreads(__LINE__)
#define __syncthreads_count(p) npk_emu_syncthreads_reduce(__LINE__, 0, !!(p))
#define __syncthreads_and(p) npk_emu_syncthreads_reduce(__LINE__, 1, !!(p))
#define __syncthreads_or(p) npk_emu_syncthreads_reduce(__LINE__, 2, !!(p))
#define __threadfence() ((void)0)
#define __threadfence_block() ((void)0)
#define __trap() npk_emu_trap(__LINE__)

namespace npk_emu {
static inline void syncwarp(int line, unsigned mask = 0xffffffffu) { npk_emu_syncwarp(line, mask); }
template <class T> static inline T shfl(int line, int mode, unsigned mask, T v, int arg, int width = 32) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "CUDA shuffles move 4 or 8 bytes");
    unsigned long long u = 0;
    __builtin_memcpy(&u, &v, sizeof(T));
    u = npk_emu_shfl(line, mode, mask, u, arg, width, sizeof(T));
    __builtin_memcpy(&v, &u, sizeof(T));
    return v;
}
}
#define __syncwarp(...) npk_emu::syncwarp(__LINE__ __VA_OPT__(,) __VA_ARGS__)
#define __shfl_sync(...) npk_emu::shfl(__LINE__, 0, __VA_ARGS__)
#define __shfl_up_sync(...) npk_emu::shfl(__LINE__, 1, __VA_ARGS__)
#define __shfl_down_sync(...) npk_emu::shfl(__LINE__, 2, __VA_ARGS__)
#define __shfl_xor_sync(...) npk_emu::shfl(__LINE__, 3, __VA_ARGS__)
#define __ballot_sync(m, p) npk_emu_ballot(__LINE__, m, !!(p))
#define __any_sync(m, p) (npk_emu_ballot(__LINE__, m, !!(p)) != 0)
#define __all_sync(m, p) (npk_emu_ballot(__LINE__, m, !(p)) == 0)

// ---- arithmetic intrinsics
static inline float __int_as_float(int x) { float f; __builtin_memcpy(&f, &x, 4); return f; }
static inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }
static inline unsigned __brev(unsigned x) { unsigned r = 0; for (int i = 0; i < 32; ++i) r |= ((x >> i) & 1u) << (31 - i); return r; }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)(((unsigned long long)a * b) >> 32); }
static inline unsigned __funnelshift_l(unsigned lo, unsigned hi, unsigned s) { s &= 31; return s ? (hi << s) | (lo >> (32 - s)) : hi; }
static inline unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned s) { s &= 31; return s ? (lo >> s) | (hi << (32 - s)) : lo; }
static inline unsigned __byte_perm(unsigned x, unsigned y, unsigned s) {
    unsigned long long v = ((unsigned long long)y << 32) | x; unsigned r = 0;
    for (int i = 0; i < 4; ++i) r |= (unsigned)((v >> (8 * ((s >> (4 * i)) & 7))) & 0xff) << (8 * i);
    return r;
}
static inline int __dp4a(int a, int b, int c) {
    unsigned s = (unsigned)c;                              // wraps, as on the GPU
    for (int i = 0; i < 4; ++i) s += (unsigned)((int)(signed char)(a >> (8 * i)) * (int)(signed char)(b >> (8 * i)));
    return (int)s;
}
static inline unsigned __dp4a(unsigned a, unsigned b, unsigned c) {
    for (int i = 0; i < 4; ++i) c += ((a >> (8 * i)) & 0xff) * ((b >> (8 * i)) & 0xff);
    return c;
}
template <class T> static inline T __ldg(const T* p) { return *p; }
template <class T> static inline T min(T a, T b) { return b < a ? b : a; }
template <class T> static inline T max(T a, T b) { return a < b ? b : a; }

// ---- atomics (op: 0 add 1 min 2 max 3 and 4 or 5 xor 6 exch 7 cas 8 float/double add 9/10 signed min/max)
static inline int atomicAdd(int* p, int v) { return (int)npk_emu_rmw32(p, 0, (unsigned)v, 0); }
static inline unsigned atomicAdd(unsigned* p, unsigned v) { return npk_emu_rmw32(p, 0, v, 0); }
static inline unsigned long long atomicAdd(unsigned long long* p, unsigned long long v) { return npk_emu_rmw64(p, 0, v, 0); }
static inline float atomicAdd(float* p, float v) { unsigned u; __builtin_memcpy(&u, &v, 4); u = npk_emu_rmw32(p, 8, u, 0); __builtin_memcpy(&v, &u, 4); return v; }
static inline double atomicAdd(double* p, double v) { unsigned long long u; __builtin_memcpy(&u, &v, 8); u = npk_emu_rmw64(p, 8, u, 0); __builtin_memcpy(&v, &u, 8); return v; }
static inline int atomicMax(int* p, int v) { return (int)npk_emu_rmw32(p, 10, (unsigned)v, 0); }
static inline int atomicMin(int* p, int v) { return (int)npk_emu_rmw32(p, 9, (unsigned)v, 0); }
static inline unsigned atomicOr(unsigned* p, unsigned v) { return npk_emu_rmw32(p, 4, v, 0); }
static inline unsigned atomicAnd(unsigned* p, unsigned v) { return npk_emu_rmw32(p, 3, v, 0); }
static inline unsigned atomicXor(unsigned* p, unsigned v) { return npk_emu_rmw32(p, 5, v, 0); }
static inline unsigned atomicExch(unsigned* p, unsigned v) { return npk_emu_rmw32(p, 6, v, 0); }
static inline unsigned atomicCAS(unsigned* p, unsigned cmp, unsigned v) { return npk_emu_rmw32(p, 7, v, cmp); }

// ---- launch thunk: void** arguments exactly as cuLaunchKernel takes them
namespace npk_emu {
template <int... I> struct seq {};
template <int N, int... I> struct mk : mk<N - 1, N - 1, I...> {};
template <int... I> struct mk<0, I...> { typedef seq<I...> type; };
template <class T> struct bare { typedef T type; };
template <class T> struct bare<const T> { typedef T type; };
template <class... A, int... I> __attribute__((no_sanitize("thread", "undefined")))
void call(void (*k)(A...), void** a, seq<I...>) { k(*(typename bare<A>::type*)a[I]...); }
}
#define NPK_EMU_EXPORT(kernel) \
    template <class... A> static void npk_emu_call_##kernel(void (*k)(A...), void** a) { \
        npk_emu::call(k, a, typename npk_emu::mk<sizeof...(A)>::type()); } \
    extern "C" __attribute__((visibility("default"))) void npk_emu_thunk_##kernel(void** a) { npk_emu_call_##kernel(kernel, a); }
#include "tensor_cores.h"
