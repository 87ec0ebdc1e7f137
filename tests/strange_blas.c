/* A BLAS that rounds otherwise than any other: the order of a sum depends on how the operands lie in memory and on how many columns
   are asked for. Preloaded in front of the OpenBLAS that comes with NumPy, it shows which promise of bits rests on the kernels of one
   processor. At its end the process says on standard error how often it was called. */

#include <stdint.h>
#include <stdio.h>

typedef int64_t Size;
enum { COLUMN_MAJOR = 102, PLAIN = 111, TRANSPOSED = 112, UPPER = 121, LOWER = 122 };

static long calls;
__attribute__((destructor)) static void say(void) { fprintf(stderr, "strange BLAS: %ld calls\n", calls); }

/* The sum of term(k) over 0 <= k < K, from the last chunk to the first; each chunk has a sum of its own. */
#define SUM_IN_CHUNKS(T, total, K, chunk, term)                          \
  T total = 0;                                                           \
  for (Size start = (K - 1) / (chunk) * (chunk); start >= 0; start -= (chunk)) { \
    T part = 0;                                                          \
    for (Size k = start; k < start + (chunk) && k < (K); k++) part += (term); \
    total += part;                                                       \
  }

#define AT(A, lead, i, k, op) ((op) == PLAIN ? (A)[(i) * (lead) + (k)] : (A)[(k) * (lead) + (i)])
#define SCALED(alpha, total, beta, old) ((beta) == 0 ? (alpha) * (total) : (alpha) * (total) + (beta) * (old))
#define SWAP(T, a, b) do { T kept = a; a = b; b = kept; } while (0)

#define GEMM(T, NAME)                                                                                     \
  void NAME(int order, int opA, int opB, Size M, Size N, Size K, T alpha, const T *A, Size lda,           \
            const T *B, Size ldb, T beta, T *C, Size ldc) {                                               \
    const Size chunk = 3 + 2 * (opA != PLAIN) + (opB != PLAIN) + N % 5 + M % 3;                           \
    calls++;                                                                                              \
    if (order == COLUMN_MAJOR) {                                                                          \
      SWAP(const T *, A, B); SWAP(Size, lda, ldb); SWAP(Size, M, N); SWAP(int, opA, opB);                 \
    }                                                                                                     \
    for (Size i = 0; i < M; i++)                                                                          \
      for (Size j = 0; j < N; j++) {                                                                      \
        SUM_IN_CHUNKS(T, total, K, chunk, AT(A, lda, i, k, opA) * (opB == PLAIN ? B[k * ldb + j] : B[j * ldb + k])) \
        C[i * ldc + j] = SCALED(alpha, total, beta, C[i * ldc + j]);                                      \
      }                                                                                                   \
  }

#define SYRK(T, NAME)                                                                                     \
  void NAME(int order, int half, int op, Size N, Size K, T alpha, const T *A, Size lda, T beta, T *C, Size ldc) { \
    calls++;                                                                                              \
    if (order == COLUMN_MAJOR) {                                                                          \
      op = op == PLAIN ? TRANSPOSED : PLAIN;                                                              \
      half = half == UPPER ? LOWER : UPPER;                                                               \
    }                                                                                                     \
    for (Size i = 0; i < N; i++)                                                                          \
      for (Size j = half == UPPER ? i : 0; j < (half == UPPER ? N : i + 1); j++) {                        \
        SUM_IN_CHUNKS(T, total, K, 4, AT(A, lda, i, k, op) * AT(A, lda, j, k, op))                        \
        C[i * ldc + j] = SCALED(alpha, total, beta, C[i * ldc + j]);                                      \
      }                                                                                                   \
  }

/* Vectors start at their last element where their step is negative. */
#define GEMV(T, NAME)                                                                                     \
  void NAME(int order, int op, Size M, Size N, T alpha, const T *A, Size lda, const T *x, Size dx, T beta, T *y, Size dy) { \
    const Size rows = op == PLAIN ? M : N, columns = op == PLAIN ? N : M, chunk = 3 + (op != PLAIN);      \
    const int read = (order == COLUMN_MAJOR) == (op == PLAIN) ? TRANSPOSED : PLAIN;                       \
    calls++;                                                                                              \
    if (dx < 0) x -= (columns - 1) * dx;                                                                  \
    if (dy < 0) y -= (rows - 1) * dy;                                                                     \
    for (Size i = 0; i < rows; i++) {                                                                     \
      SUM_IN_CHUNKS(T, total, columns, chunk, AT(A, lda, i, k, read) * x[k * dx])                         \
      y[i * dy] = SCALED(alpha, total, beta, y[i * dy]);                                                  \
    }                                                                                                     \
  }

#define DOT(T, NAME)                                                                                      \
  T NAME(Size n, const T *x, Size dx, const T *y, Size dy) {                                              \
    calls++;                                                                                              \
    if (dx < 0) x -= (n - 1) * dx;                                                                        \
    if (dy < 0) y -= (n - 1) * dy;                                                                        \
    SUM_IN_CHUNKS(T, total, n, 5, x[k * dx] * y[k * dy])                                                  \
    return total;                                                                                         \
  }

/* The names in the OpenBLAS that comes with NumPy. */
GEMM(double, scipy_cblas_dgemm64_)
GEMM(float, scipy_cblas_sgemm64_)
SYRK(double, scipy_cblas_dsyrk64_)
SYRK(float, scipy_cblas_ssyrk64_)
GEMV(double, scipy_cblas_dgemv64_)
GEMV(float, scipy_cblas_sgemv64_)
DOT(double, scipy_cblas_ddot64_)
DOT(float, scipy_cblas_sdot64_)
