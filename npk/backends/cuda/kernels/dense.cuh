// A chain of dense layers: out[r, c] = product over the factors of scale * overlap of row sample r and column sample c; with NPK_BIASED
// a bias is added to the product behind each factor.
//
// A factor is a mask: words of 32 bits, whose overlap is the number of ones that both have, or numbers, whose overlap is a dot product
// (the input, soft gates). One block computes TILE x TILE pairs and keeps their products in registers through all factors, so that the
// overlaps of a single layer are never written. `Way` says which pairs a thread owns and how ones are counted:
//   ROWS x COLS  pairs of a thread: those of row(i) and col(j), for all i < ROWS and j < COLS
//   WORDS        words of shared memory that hold STAGE words of TILE samples; word c of sample r lies at at(r, c)
//   count(...)   adds the overlaps of a stage
#define TILE 64   // samples on each side of a block
#define STAGE 8   // words, or numbers, of each sample that are in shared memory together
#define PITCH (TILE + 16 / (int)sizeof(NPK_REAL))   // numbers lie number by number; what is added sends a warp to 32 banks
#define BITS 0    // form of a factor; any other: numbers

// The values of a stage that a thread brings: those of every STEP-th sample from its first one on, 0 where there is none.
// All are asked for before the first is waited for.
template <int LOADS, class T>
static __device__ __forceinline__ void npk_load(T (&values)[LOADS], const T* __restrict__ from, long long at, long long stride, int step,
                                                int samples, bool inside)
{
#pragma unroll
    for (int i = 0; i < LOADS; ++i) values[i] = inside && i * step < samples ? from[at + i * stride] : (T)0;
}

template <class Way>
static __device__ __forceinline__ void npk_dense(
    const unsigned int* __restrict__ row_bits, const unsigned int* __restrict__ col_bits,    // (n, words), (m, words)
    const NPK_REAL* __restrict__ row_reals, const NPK_REAL* __restrict__ col_reals,          // (n, numbers), (m, numbers)
    const int* __restrict__ factors, const NPK_REAL* __restrict__ scales,                    // (count, 3): form, first, width; (count)
    [[maybe_unused]] const NPK_REAL* __restrict__ biases,                                    // (count) with NPK_BIASED, else (0)
    NPK_REAL* __restrict__ out,                                                              // (n, m)
    int n, int m, int words, int numbers, int count,
    long long left)   // number of the first column minus that of the first row: blocks wholly left of the diagonal are skipped
{
    __shared__ unsigned int row_words[Way::WORDS], col_words[Way::WORDS];
    __shared__ NPK_REAL row_numbers[STAGE * PITCH], col_numbers[STAGE * PITCH];

    const unsigned int across = ((unsigned int)m + TILE - 1) / TILE;
    const long long row0 = (long long)(blockIdx.x / across) * TILE, col0 = (long long)(blockIdx.x % across) * TILE;
    if (left + col0 + TILE <= row0) return;

    // what the thread brings to shared memory: word or number `place` of every stage, of every STEP-th sample from `sample` on
    const int STEP = Way::THREADS / STAGE, LOADS = TILE / STEP;
    const int place = threadIdx.x % STAGE, sample = threadIdx.x / STAGE;
    const long long row = row0 + sample, col = col0 + sample;
    const int row_rest = n - row < TILE ? (int)(n - row) : TILE, col_rest = m - col < TILE ? (int)(m - col) : TILE;

    NPK_REAL product[Way::ROWS][Way::COLS];
#pragma unroll
    for (int i = 0; i < Way::ROWS; ++i)
#pragma unroll
        for (int j = 0; j < Way::COLS; ++j) product[i][j] = 1;

    for (int f = 0; f < count; ++f) {
        const int form = factors[3 * f], first = factors[3 * f + 1], width = factors[3 * f + 2];
        const NPK_REAL scale = scales[f];
        if (form == BITS) {
            int sum[Way::ROWS][Way::COLS] = {};
            for (int w0 = 0; w0 < width; w0 += STAGE) {
                const bool inside = w0 + place < width;
                unsigned int a[LOADS], b[LOADS];
                npk_load(a, row_bits, row * words + first + w0 + place, (long long)STEP * words, STEP, row_rest, inside);
                npk_load(b, col_bits, col * words + first + w0 + place, (long long)STEP * words, STEP, col_rest, inside);
#pragma unroll
                for (int i = 0; i < LOADS; ++i) {
                    row_words[Way::at(sample + i * STEP, place)] = a[i];
                    col_words[Way::at(sample + i * STEP, place)] = b[i];
                }
                __syncthreads();   // the words are complete
                Way::count(sum, row_words, col_words, width - w0);
                __syncthreads();   // all have read the words
            }
#pragma unroll
            for (int i = 0; i < Way::ROWS; ++i)
#pragma unroll
                for (int j = 0; j < Way::COLS; ++j) product[i][j] *= (NPK_REAL)sum[i][j] * scale;
        } else {
            NPK_REAL sum[Way::ROWS][Way::COLS] = {};
            for (int k0 = 0; k0 < width; k0 += STAGE) {
                const bool inside = k0 + place < width;
                NPK_REAL a[LOADS], b[LOADS];
                npk_load(a, row_reals, row * numbers + first + k0 + place, (long long)STEP * numbers, STEP, row_rest, inside);
                npk_load(b, col_reals, col * numbers + first + k0 + place, (long long)STEP * numbers, STEP, col_rest, inside);
#pragma unroll
                for (int i = 0; i < LOADS; ++i) {
                    row_numbers[place * PITCH + sample + i * STEP] = a[i];
                    col_numbers[place * PITCH + sample + i * STEP] = b[i];
                }
                __syncthreads();   // the numbers are complete
                const int depth = width - k0 < STAGE ? width - k0 : STAGE;
#pragma unroll 2
                for (int k = 0; k < depth; ++k) {
                    NPK_REAL a[Way::ROWS], b[Way::COLS];
#pragma unroll
                    for (int i = 0; i < Way::ROWS; ++i) a[i] = row_numbers[k * PITCH + Way::row(i)];
#pragma unroll
                    for (int j = 0; j < Way::COLS; ++j) b[j] = col_numbers[k * PITCH + Way::col(j)];
#pragma unroll
                    for (int i = 0; i < Way::ROWS; ++i)
#pragma unroll
                        for (int j = 0; j < Way::COLS; ++j) sum[i][j] += a[i] * b[j];
                }
                __syncthreads();   // all have read the numbers
            }
#pragma unroll
            for (int i = 0; i < Way::ROWS; ++i)
#pragma unroll
                for (int j = 0; j < Way::COLS; ++j) product[i][j] *= sum[i][j] * scale;
        }
#if NPK_BIASED
        const NPK_REAL bias = biases[f];
#pragma unroll
        for (int i = 0; i < Way::ROWS; ++i)
#pragma unroll
            for (int j = 0; j < Way::COLS; ++j) product[i][j] += bias;
#endif
    }
#pragma unroll
    for (int i = 0; i < Way::ROWS; ++i)
#pragma unroll
        for (int j = 0; j < Way::COLS; ++j) {
            const long long r = row0 + Way::row(i), c = col0 + Way::col(j);
            if (r < n && c < m) out[r * m + c] = product[i][j];
        }
}
