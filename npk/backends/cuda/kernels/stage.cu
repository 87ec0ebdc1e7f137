// Convolutions of stride 1 on one grid, masked layer by layer: V(s, t) = sum over a window of V(s + k, t + k), times an overlap, and so on.
//
// A window adds cells (s, t) that all have one displacement t - s, so a block takes one pair of samples and one difference of rows d at
// a time: the cells (y, x, x') of positions (y, x) and (y + d, x') go through all layers without leaving the chip. A warp owns OWN rows
// y. Its cells of a row are the fragments that the binary tensor cores leave in its registers: lane 4g + q has RUNS positions
// x = RUNS g + r and SPANS positions x' = SPANS q + c, so that most neighbors (x + k, x' + k) are its own; the others come by shuffles.
// Neighbors in y come through shared memory, four cells of a lane at a time, in two buffers: one barrier each.
//
// The compiler is given: NPK_H, NPK_W (grid), NPK_OWN, NPK_RUNS, NPK_SPANS, NPK_CIRCULAR (padding; else zeros), NPK_CHUNKS (of 128
// channels), NPK_WINDOWS: a list of W(number, rows, first row, columns, first column); NPK_FROM_FIELD (begin with V from memory, else
// with the input Gram), NPK_TO_FIELD (write all cells, else their sum), NPK_SLOTS (residual: planes wait in slots of memory, and a
// collapse adds up several of them, each times an overlap of its own) and NPK_BIASED (before an overlap every cell V becomes
// factor * V + bias).
#include "mma.cuh"
#define WARPS (NPK_H / NPK_OWN)
#define QUADS ((NPK_RUNS * NPK_SPANS + 3) / 4)        // fours of cells of a lane and row
#define TILES_A ((NPK_RUNS + 1) / 2)                  // fragments of 16 positions x
#define TILES_B ((NPK_SPANS + 1) / 2)                 // fragments of 8 positions x'
#define GROUPS (NPK_CIRCULAR ? NPK_W / NPK_RUNS : 8)  // of lanes that hold positions x: cells go around in a circle of them
#define SPREAD (NPK_CIRCULAR ? NPK_W / NPK_SPANS : 4)
#define WORDS (4 * NPK_CHUNKS)
#define THREADS (32 * WARPS)
#define ALL 0xffffffffu
#if NPK_TO_FIELD
#define NPK_RESULT float
#else
#define NPK_RESULT double
#endif
#define MAGIC 0x4b000000   // of an integer accumulator: its bits are then those of the float 2^23 + count

typedef float npk_row[4 * QUADS];

// The pair of samples, the difference of rows, and where a thread stands.
struct Place { int row, col, d, lane, g, q, y0; };

// The row that many steps around the grid.
static __device__ __forceinline__ int npk_around(int y)
{
    return y < 0 ? y + NPK_H : y < NPK_H ? y : y - NPK_H;
}

// Masks of a sample: (layers, H, W, WORDS) words of this stage, and (H, W, numbers) numbers, on both sides.
struct Masks {
    const unsigned int* __restrict__ row_bits;
    const unsigned int* __restrict__ col_bits;
    const float* __restrict__ row_reals;
    const float* __restrict__ col_reals;
    long long words;   // of a sample
    int numbers, layers;
};

// What cells are before an overlap, and what that is scaled by: factor * V + bias, or V.
struct Scaled {
    float scale, factor, bias;
    __device__ __forceinline__ float of(float value) const { return NPK_BIASED ? __fmaf_rn(value, factor, bias) : value; }
};

// Where a lane reads: the words of a layer.
struct Words {
    const unsigned int* rows;
    const unsigned int* cols;
    const unsigned int* wrapped;   // for rows beyond the edge
};

// The words of one chunk: rows of A are positions x, columns of B positions x'; 0 outside the grid.
struct Fragments { unsigned int a[TILES_A][2], b[TILES_B]; };

// `at`: the words of the layer, of row y0 and (around the edge) row y0 + d, where the lane begins.
static __device__ __forceinline__ void npk_fetch(Fragments& f, const Words& at, const Place& p, int j, int chunk)
{
    const int column = p.lane / 8, odd = p.lane / 4 % 2;
    const unsigned int* rows = at.rows + j * NPK_W * WORDS + 4 * chunk;
    const unsigned int* cols = (p.y0 + p.d + j < NPK_H ? at.cols : at.wrapped) + j * NPK_W * WORDS + 4 * chunk;
#pragma unroll
    for (int r = 0; r < 2 * TILES_A; ++r)
        f.a[r / 2][r % 2] = r < NPK_RUNS && NPK_RUNS * p.g + r < NPK_W ? rows[r * WORDS] : 0u;
#pragma unroll
    for (int c = 0; c < TILES_B; ++c)
        f.b[c] = 2 * c + odd < NPK_SPANS && NPK_SPANS * column + 2 * c + odd < NPK_W ? cols[2 * c * WORDS] : 0u;
}

// cells *= scale * overlap of the masks of row j, or cells += `added` times it, each with its bias; `f` has the first chunk, and then that
// of the next row, under way.
static __device__ __forceinline__ void npk_masked(npk_row& cells, Fragments& f, const Words& at, const Place& p, int j, const Scaled& by,
                                                  [[maybe_unused]] const float4* added)
{
    const float scale = by.scale;
    const int AT_ONCE = NPK_SLOTS && NPK_CHUNKS == 1 ? 1 : TILES_A;   // tiles of A: residual stages have fewer registers left
    int sum[AT_ONCE][TILES_B][4];
#pragma unroll
    for (int first = 0; first < TILES_A; first += AT_ONCE) {
#pragma unroll
        for (int i = 0; i < AT_ONCE * TILES_B * 4; ++i) sum[i / 4 / TILES_B][i / 4 % TILES_B][i % 4] = MAGIC;
#pragma unroll 1
        for (int chunk = 0;;) {
#pragma unroll
            for (int a = 0; a < AT_ONCE; ++a)
#pragma unroll
                for (int b = 0; b < TILES_B; ++b) {
                    int(&s)[4] = sum[a][b];
                    npk_mma_b1_and_m16n8k128(s[0], s[1], s[2], s[3], f.a[first + a], f.b[b]);
                }
            if (++chunk == NPK_CHUNKS) break;
            npk_fetch(f, at, p, j, chunk);
        }
        if (first + AT_ONCE == TILES_A && j + 1 < NPK_OWN) npk_fetch(f, at, p, j + 1, 0);
#define OVERLAP(r, c) __fmaf_rn(__int_as_float(sum[(r) / 2 - first][(c) / 2][(r) % 2 * 2 + (c) % 2]), scale, -8388608.0f * scale)
        const int BEGIN = 2 * first * NPK_SPANS, END = first + AT_ONCE < TILES_A ? BEGIN + 2 * AT_ONCE * NPK_SPANS : NPK_RUNS * NPK_SPANS;
#if NPK_SLOTS
        if (added) {
#pragma unroll
            for (int i = 0; i < NPK_RUNS * NPK_SPANS; i += 4) {
                if (i + 4 <= BEGIN || i >= END) continue;
                const float4 value = added[i / 4 * THREADS];
                const float four[4] = {value.x, value.y, value.z, value.w};
#pragma unroll
                for (int e = 0; e < 4; ++e)
                    if (i + e >= BEGIN && i + e < END)
                        cells[i + e] = __fmaf_rn(by.of(four[e]), OVERLAP((i + e) / NPK_SPANS, (i + e) % NPK_SPANS), cells[i + e]);
            }
        } else
#endif
#pragma unroll
            for (int i = 0; i < NPK_RUNS * NPK_SPANS; ++i)
                if (i >= BEGIN && i < END) cells[i] = by.of(cells[i]) * OVERLAP(i / NPK_SPANS, i % NPK_SPANS);
    }
}

// The cell (x + k, x' + k) of the cell (r, c): of this lane or of another one.
[[maybe_unused]] static __device__ __forceinline__ float npk_neighbor(const npk_row& cells, const Place& p, int r, int c)
{
    const int down = (r + NPK_W * NPK_RUNS) / NPK_RUNS - NPK_W, right = (c + NPK_W * NPK_SPANS) / NPK_SPANS - NPK_W;   // lanes further
    const float value = cells[(r - down * NPK_RUNS) * NPK_SPANS + c - right * NPK_SPANS];
    if (down == 0 && right == 0) return value;
    int g = p.g + down, q = p.q + right;
    const bool inside = g >= 0 && g < GROUPS && q >= 0 && q < SPREAD;
    g = g < 0 ? g + GROUPS : g >= GROUPS ? g - GROUPS : g;
    q = q < 0 ? q + SPREAD : q >= SPREAD ? q - SPREAD : q;
    const float there = __shfl_sync(ALL, value, 4 * g + q);
    return NPK_CIRCULAR || inside ? there : 0.0f;
}

// cells(x, x') = sum over the window's columns k of cells(x + k, x' + k).
template <int COLUMNS, int FIRST>
static __device__ __forceinline__ void npk_columns(npk_row& cells, const Place& p)
{
    const int BEFORE = FIRST < 0 ? -FIRST : 0, AFTER = FIRST + COLUMNS - 1 > 0 ? FIRST + COLUMNS - 1 : 0;
    const int LONGEST = NPK_RUNS < NPK_SPANS ? NPK_RUNS : NPK_SPANS;
    // what the ends of each diagonal need of other lanes is fetched before anything is overwritten
    float before[BEFORE + 1][NPK_RUNS + NPK_SPANS - 1], after[AFTER + 1][NPK_RUNS + NPK_SPANS - 1];
#pragma unroll
    for (int i = 0; i < NPK_RUNS + NPK_SPANS - 1; ++i) {
        const int r = i < NPK_SPANS ? 0 : i - NPK_SPANS + 1, c = i < NPK_SPANS ? i : 0;
        const int length = NPK_RUNS - r < NPK_SPANS - c ? NPK_RUNS - r : NPK_SPANS - c;
#pragma unroll
        for (int k = 1; k <= BEFORE; ++k) before[k][i] = npk_neighbor(cells, p, r - k, c - k);
#pragma unroll
        for (int k = 1; k <= AFTER; ++k) after[k][i] = npk_neighbor(cells, p, r + length - 1 + k, c + length - 1 + k);
    }
#pragma unroll
    for (int i = 0; i < NPK_RUNS + NPK_SPANS - 1; ++i) {
        const int r = i < NPK_SPANS ? 0 : i - NPK_SPANS + 1, c = i < NPK_SPANS ? i : 0;
        const int length = NPK_RUNS - r < NPK_SPANS - c ? NPK_RUNS - r : NPK_SPANS - c;
        float line[LONGEST + BEFORE + AFTER];
#pragma unroll
        for (int k = -BEFORE; k < LONGEST + AFTER; ++k)
            if (k < length + AFTER)
                line[k + BEFORE] = k < 0        ? before[k < 0 ? -k : 0][i]
                                   : k < length ? cells[k < length ? (r + k) * NPK_SPANS + c + k : 0]
                                                : after[k < length ? 0 : k - length + 1][i];
#pragma unroll
        for (int k = 0; k < LONGEST; ++k) {
            float total = line[k + BEFORE + FIRST];
#pragma unroll
            for (int t = 1; t < COLUMNS; ++t) total += line[k + BEFORE + FIRST + t];
            if (k < length) cells[(r + k) * NPK_SPANS + c + k] = total;
        }
    }
}

// Whether the rows y and y + 1, and those of the other sample, follow one another in the pictures: 1, else 0.
[[maybe_unused]] static __device__ __forceinline__ float npk_joined(const Place& p, int y)
{
    const int other = npk_around(y + p.d);
    return NPK_CIRCULAR || (y >= 0 && y + 1 < NPK_H && other + 1 < NPK_H) ? 1.0f : 0.0f;
}

[[maybe_unused]] static __device__ __forceinline__ float4 npk_four(const npk_row& cells, int i)
{
    return make_float4(cells[i], cells[i + 1], cells[i + 2], cells[i + 3]);
}

// cells(y) = sum over the window's rows k of cells(y + k).
template <int ROWS, int FIRST>
static __device__ __forceinline__ void npk_rows(npk_row (&cells)[NPK_OWN], float4 (&buffers)[2][NPK_H][32], const Place& p)
{
    const int LAST = FIRST + ROWS - 1;
#pragma unroll
    for (int i = 0; i < 4 * QUADS; i += 4) {
        float4(&buffer)[NPK_H][32] = buffers[i / 4 % 2];
#pragma unroll
        for (int j = 0; j < NPK_OWN; ++j)
            if (j < LAST || j >= NPK_OWN + FIRST)   // that other warps look at
                buffer[p.y0 + j][p.lane] = npk_four(cells[j], i);
        __syncthreads();   // the rows are complete
        float near[NPK_OWN + ROWS - 1][4];
#pragma unroll
        for (int j = FIRST; j < FIRST + NPK_OWN + ROWS - 1; ++j) {
            const bool own = j >= 0 && j < NPK_OWN;
            const int y = npk_around(p.y0 + j);
            const float4 value = own ? npk_four(cells[own ? j : 0], i) : buffer[y][p.lane];
            near[j - FIRST][0] = value.x, near[j - FIRST][1] = value.y, near[j - FIRST][2] = value.z, near[j - FIRST][3] = value.w;
        }
#pragma unroll
        for (int j = 0; j < NPK_OWN; ++j)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                // a break in the pictures takes away all that lies beyond it
                float above = FIRST < 0 ? near[j][e] : 0, below = LAST > 0 ? near[j + ROWS - 1][e] : 0, total = near[j - FIRST][e];
#pragma unroll
                for (int k = FIRST + 1; k < 0; ++k) above = above * npk_joined(p, p.y0 + j + k - 1) + near[j + k - FIRST][e];
#pragma unroll
                for (int k = LAST - 1; k > 0; --k) below = below * npk_joined(p, p.y0 + j + k) + near[j + k - FIRST][e];
                if (FIRST < 0) total += above * npk_joined(p, p.y0 + j - 1);
                if (LAST > 0) total += below * npk_joined(p, p.y0 + j);
                cells[j][i + e] = total;
            }
    }
    if (QUADS % 2) __syncthreads();   // all have read the buffer that the next layer begins with
}

// A convolution: the window's sums of masked cells.
template <int ROWS, int FIRST_ROW, int COLUMNS, int FIRST_COLUMN>
static __device__ __forceinline__ void npk_window(npk_row (&cells)[NPK_OWN], float4 (&buffers)[2][NPK_H][32], const Place& p,
                                                  Fragments& next, const Words& at)
{
#pragma unroll
    for (int j = 0; j < NPK_OWN; ++j)
        if constexpr (COLUMNS > 1 || FIRST_COLUMN) npk_columns<COLUMNS, FIRST_COLUMN>(cells[j], p);
    if constexpr (ROWS <= 3) npk_fetch(next, at, p, 0, 0);   // under way while the rows are exchanged
    if constexpr (ROWS > 1 || FIRST_ROW) npk_rows<ROWS, FIRST_ROW>(cells, buffers, p);
    if constexpr (ROWS > 3) npk_fetch(next, at, p, 0, 0);    // which takes all registers
}

#if NPK_FROM_FIELD
// cells = V(s, t) of the pair, which memory has at `from`, position by position.
static __device__ __forceinline__ void npk_begin(npk_row& cells, const float* __restrict__ from, const Place& p, int y)
{
    const int other = npk_around(y + p.d), x = NPK_RUNS * p.g, x2 = NPK_SPANS * p.q;
    const float* at = from + ((long long)(y * NPK_W + x) * NPK_H + other) * NPK_W + x2;
#pragma unroll
    for (int i = 0; i < 4 * QUADS; ++i) {
        const int r = i / NPK_SPANS, c = i % NPK_SPANS;
        cells[i] = r < NPK_RUNS && x + r < NPK_W && x2 + c < NPK_W ? at[(long long)r * (NPK_H * NPK_W) + c] : 0.0f;
    }
}
#else
// cells = scale * input Gram of the positions.
static __device__ __forceinline__ void npk_begin(npk_row& cells, const Masks& m, const Place& p, int y, float scale)
{
    const int other = npk_around(y + p.d), x = NPK_RUNS * p.g, x2 = NPK_SPANS * p.q;
    const float* rows = m.row_reals + ((long long)p.row * NPK_H * NPK_W + y * NPK_W + x) * m.numbers;
    const float* cols = m.col_reals + ((long long)p.col * NPK_H * NPK_W + other * NPK_W + x2) * m.numbers;
#pragma unroll
    for (int i = 0; i < 4 * QUADS; ++i) cells[i] = 0;
#pragma unroll 1
    for (int c = 0; c < m.numbers; ++c) {
        float a[NPK_RUNS], b[NPK_SPANS];
#pragma unroll
        for (int r = 0; r < NPK_RUNS; ++r) a[r] = x + r < NPK_W ? rows[r * m.numbers + c] * scale : 0.0f;
#pragma unroll
        for (int s = 0; s < NPK_SPANS; ++s) b[s] = x2 + s < NPK_W ? cols[s * m.numbers + c] : 0.0f;
#pragma unroll
        for (int i = 0; i < NPK_RUNS * NPK_SPANS; ++i) cells[i] += a[i / NPK_SPANS] * b[i % NPK_SPANS];
    }
}
#endif

#if NPK_TO_FIELD
// Memory gets V(s, t) of the pair, position by position.
static __device__ __forceinline__ void npk_keep(const npk_row& cells, float* __restrict__ to, const Place& p, int y)
{
    const int other = npk_around(y + p.d), x = NPK_RUNS * p.g, x2 = NPK_SPANS * p.q;
    float* at = to + ((long long)(y * NPK_W + x) * NPK_H + other) * NPK_W + x2;
#pragma unroll
    for (int i = 0; i < NPK_RUNS * NPK_SPANS; ++i)
        if (x + i / NPK_SPANS < NPK_W && x2 + i % NPK_SPANS < NPK_W)
            at[(long long)(i / NPK_SPANS) * (NPK_H * NPK_W) + i % NPK_SPANS] = cells[i];
}
#endif

// What a row of the layers does: a window; in a residual stage, before it, cells = slot `load`, and then slot `keep` = cells; then the
// mask: MULTIPLIED, UNMASKED, or the slot that is added times the overlap.
#if NPK_SLOTS
enum { WINDOW, LOAD, KEEP, MASK, ROW };
#else
enum { WINDOW, ROW };
#endif
#define NONE (-1)
#define MULTIPLIED (-1)
#define UNMASKED (-2)

// The same place, in a way that the compiler does not see through: all that follows from it would be kept from layer to layer, in
// registers that residual stages, and warps with many rows, do not have.
static __device__ __forceinline__ void npk_forget(Place& p)
{
    if (!NPK_SLOTS && NPK_OWN <= 6) return;
    p.d = __shfl_sync(ALL, p.d, 0);
    p.y0 = __shfl_sync(ALL, p.y0, 0);
    p.lane = __shfl_sync(ALL, p.lane, p.lane);
    p.g = p.lane / 4;
    p.q = p.lane % 4;
}

// Slots of all blocks, `held` of each.
struct Slots { float4* first; int held; };

#if NPK_SLOTS
// What a thread has in a slot: fours of cells, lane beside lane.
static __device__ __forceinline__ float4* npk_slot(const Slots& slots, int slot)
{
    return slots.first + ((long long)blockIdx.x * slots.held + slot) * (NPK_OWN * QUADS * THREADS) + threadIdx.x;
}

static __device__ __forceinline__ void npk_wait(const npk_row (&cells)[NPK_OWN], float4* slot)
{
#pragma unroll
    for (int i = 0; i < NPK_OWN * QUADS; ++i) slot[i * THREADS] = npk_four(cells[i / QUADS], i % QUADS * 4);
}

static __device__ __forceinline__ void npk_load(npk_row (&cells)[NPK_OWN], const float4* slot)
{
#pragma unroll
    for (int i = 0; i < NPK_OWN * QUADS; ++i) {
        const float4 value = slot[i * THREADS];
        float* four = cells[i / QUADS] + i % QUADS * 4;
        four[0] = value.x, four[1] = value.y, four[2] = value.z, four[3] = value.w;
    }
}
#endif

// All layers, or rows of a residual stage; `scales`: that of the input Gram first; `biases`: factor and bias before each mask.
static __device__ __forceinline__ void npk_layers(npk_row (&cells)[NPK_OWN], const Masks& m, const int* __restrict__ windows,
                                                  const float* __restrict__ scales, [[maybe_unused]] const float* __restrict__ biases,
                                                  float4 (&buffers)[2][NPK_H][32], Place p, [[maybe_unused]] const Slots& slots)
{
    npk_forget(p);
    const int word = p.lane % 4;
    Words at = {m.row_bits + p.row * m.words + (p.y0 * NPK_W + NPK_RUNS * p.g) * WORDS + word,
                m.col_bits + p.col * m.words + ((p.y0 + p.d) * NPK_W + NPK_SPANS * (p.lane / 8) + p.lane / 4 % 2) * WORDS + word, nullptr};
    at.wrapped = at.cols - NPK_H * NPK_W * WORDS;
    Fragments next;
    int masks = 0;
#pragma unroll 1
    for (int layer = 0; layer < m.layers; ++layer) {
        npk_forget(p);
#if NPK_SLOTS
        const int load = windows[ROW * layer + LOAD];
        if (load != NONE) npk_load(cells, npk_slot(slots, load));
#endif
        switch (windows[ROW * layer + WINDOW]) {
#define W(number, rows, first_row, columns, first_column) \
    case number: npk_window<rows, first_row, columns, first_column>(cells, buffers, p, next, at); break;
            NPK_WINDOWS
#undef W
        }
#if NPK_SLOTS
        // read late: registers are scarce
        const int keep = windows[ROW * layer + KEEP], mask = windows[ROW * layer + MASK];
        if (keep != NONE) npk_wait(cells, npk_slot(slots, keep));
        if (mask == UNMASKED) continue;
        const float4* added = mask == MULTIPLIED ? nullptr : npk_slot(slots, mask);
#else
        const float4* added = nullptr;
#endif
        const Scaled by = {scales[masks + 1], NPK_BIASED ? biases[2 * masks] : 1.0f, NPK_BIASED ? biases[2 * masks + 1] : 0.0f};
        ++masks;
#pragma unroll
        for (int j = 0; j < NPK_OWN; ++j) npk_masked(cells[j], next, at, p, j, by, added ? added + j * (QUADS * THREADS) : nullptr);
        at.rows += NPK_H * NPK_W * WORDS;
        at.cols += NPK_H * NPK_W * WORDS;
        at.wrapped += NPK_H * NPK_W * WORDS;
    }
}

// A block takes one pair, counted from `first` on, row by row of the tile, and one of `count` differences of rows. `from`: fields
// (pairs, H W, H W); `to`: the same, or sums (pairs, count). `windows` (layers): number of the window before each mask; `scales`
// (layers + 1); `biases` (layers, 2), of a biased kernel. `left`: number of the first column minus that of the first row; what is left of
// the diagonal is skipped.
// A residual stage: `windows` (layers, 4), rows, and behind them slots of the second output and so on; `scales`: of the input Gram and
// each mask; `from` has `fields` of them, `apart` numbers apart: the first one begins, the others begin in slots; so has `to` its
// `outputs`; `slots`: those of all blocks, `held` of each.
extern "C" __global__ void __launch_bounds__(THREADS, NPK_BLOCKS)
npk_stage(const unsigned int* __restrict__ row_bits, const unsigned int* __restrict__ col_bits,
          const float* __restrict__ row_reals, const float* __restrict__ col_reals, const float* __restrict__ from,
          const int* __restrict__ windows, const float* __restrict__ scales, const float* __restrict__ biases,
          const int* __restrict__ differences,
          NPK_RESULT* __restrict__ to,
          [[maybe_unused]] float4* __restrict__ slots,
          long long words, long long first, int m, int numbers, int layers, int count, long long left,
          [[maybe_unused]] int held, [[maybe_unused]] int fields, [[maybe_unused]] int outputs, [[maybe_unused]] long long apart)
{
    __shared__ float4 buffers[2][NPK_H][32];
    const long long place = blockIdx.x / (unsigned int)count, pair = first + place;
    const int row = (int)(pair / m), col = (int)(pair % m), thread = threadIdx.x;
    if (left + col < row) return;
    const int d = differences[blockIdx.x % (unsigned int)count];
    const Masks masks = {row_bits, col_bits, row_reals, col_reals, words, numbers, layers};
    Place p = {row, col, d, thread % 32, thread % 32 / 4, thread % 4, thread / 32 * NPK_OWN};
    npk_row cells[NPK_OWN];
    const Slots own = {slots, held};
#if NPK_SLOTS && NPK_FROM_FIELD
#pragma unroll 1
    for (int field = fields - 1; field >= 0; --field) {
        const float* at = from + field * apart + place * (NPK_H * NPK_W) * (NPK_H * NPK_W);
#pragma unroll
        for (int j = 0; j < NPK_OWN; ++j) npk_begin(cells[j], at, p, p.y0 + j);
        if (field) npk_wait(cells, npk_slot(own, field - 1));
    }
#else
#pragma unroll
    for (int j = 0; j < NPK_OWN; ++j)
#if NPK_FROM_FIELD
        npk_begin(cells[j], from + place * (NPK_H * NPK_W) * (NPK_H * NPK_W), p, p.y0 + j);
#else
        npk_begin(cells[j], masks, p, p.y0 + j, scales[0]);
#endif
#endif
    npk_layers(cells, masks, windows, scales, biases, buffers, p, own);
#if NPK_TO_FIELD
#if NPK_SLOTS
#pragma unroll 1
    for (int output = 0; output < outputs; ++output) {
        if (output) npk_load(cells, npk_slot(own, windows[ROW * layers + output - 1]));
#else
    const int output = 0;
    {
#endif
        npk_forget(p);
        float* at = to + output * apart + place * (NPK_H * NPK_W) * (NPK_H * NPK_W);
#pragma unroll
        for (int j = 0; j < NPK_OWN; ++j) npk_keep(cells[j], at, p, p.y0 + j);
    }
#else
    __shared__ double sums[WARPS];
    float mine = 0;
#pragma unroll
    for (int i = 0; i < NPK_OWN * NPK_RUNS * NPK_SPANS; ++i) mine += cells[i / (NPK_RUNS * NPK_SPANS)][i % (NPK_RUNS * NPK_SPANS)];
    double total = mine;
#pragma unroll
    for (int s = 16; s; s /= 2) total += __shfl_xor_sync(ALL, total, s);
    if (thread % 32 == 0) sums[thread / 32] = total;
    __syncthreads();   // the sums are complete
    if (thread) return;
#pragma unroll 1
    for (int w = 1; w < WARPS; ++w) total += sums[w];
    to[blockIdx.x] = total;
#endif
}
