// Any recursion, as the program of operations that the CPU backend runs too: see npk/backends/cpu/program.py for what its columns mean.
//
// A thread owns one pair of samples at a time: a column sample for each lane, a row sample for each warp. It walks all operations with
// slots, sums and chains of its own, so nothing waits for anything. Those of a block lie thread by thread, so that a warp reads 32
// neighbors; all threads follow the same tables, so that no two of a warp part. Loops are not unrolled: turns are few or many as the
// network has it, and copies of what is in them would not fit the registers.
#define THREADS 128
#define LANES 32      // column samples of a block
#define ROWS 4        // row samples of a block
#define TOGETHER 32   // cells of a collapse that are finished before the next ones
#define FLUSH 16      // contributions that are added up before they go to a float64 sum
#define TURNS 4       // sums that the channels of numbers take turns on
#define COLUMNS 7
#define TERM_COLUMNS 14
#define LOAD 0
#define CLEAR 1
#define GATHER 2
#define BOX 3
#define COLLAPSE 4
#define BITS 0        // forms of masks: words of 32 bits, numbers, else ones
#define NUMBERS 1

typedef long long npk_int;

// Columns of operations and of terms, those of the mask's layout last. What cannot be large takes one register.
struct Operation { int kind; npk_int out, cells, first; int count; npk_int source, sums; };
struct Term { int k; npk_int source, pair, u, v, weight, out; int fresh, chain, start, form; npk_int first, stride; int width; };

struct Tables {
    const npk_int* __restrict__ operations;
    const NPK_REAL* __restrict__ scalars;   // scale and bias of each operation
    const npk_int* __restrict__ terms;
    const NPK_REAL* __restrict__ scales;    // of each term
    const int* __restrict__ tables;
    const NPK_REAL* __restrict__ weights;
};

// A pair of samples: where its masks begin, word by word, and the working memory of its thread, cell by cell.
struct Pair {
    const unsigned int* __restrict__ row_bits;
    const unsigned int* __restrict__ col_bits;
    const NPK_REAL* __restrict__ row_reals;
    const NPK_REAL* __restrict__ col_reals;
    npk_int n, m;
    NPK_REAL* slots;
    double* sums;
    unsigned int* chains;
};

static __device__ __forceinline__ Operation npk_operation(const npk_int* c)
{
    return {(int)c[0], c[1], c[2], c[3], (int)c[4], c[5], c[6]};
}

static __device__ __forceinline__ Term npk_term(const npk_int* c)
{
    return {(int)c[0], c[1], c[2], c[3], c[4], c[5], c[6], (int)c[7], (int)c[8], (int)c[9], (int)c[10], c[11], c[12], (int)c[13]};
}

// Overlap of the masks whose words or numbers begin at u in the row sample and at v in the column sample.
static __device__ __forceinline__ NPK_REAL npk_overlap(const Pair& pair, const Term& term, npk_int u, npk_int v)
{
    if (term.form == BITS) {
        int sum = 0;
#pragma unroll 1
        for (int w = 0; w < term.width; ++w) sum += __popc(pair.row_bits[(u + w) * pair.n] & pair.col_bits[(v + w) * pair.m]);
        return (NPK_REAL)sum;
    }
    NPK_REAL sum[TURNS] = {};
    int c = 0;
#pragma unroll 1
    for (; c + TURNS <= term.width; c += TURNS)
#pragma unroll
        for (int i = 0; i < TURNS; ++i) sum[i] += pair.row_reals[(u + c + i) * pair.n] * pair.col_reals[(v + c + i) * pair.m];
#pragma unroll 1
    for (; c < term.width; ++c) sum[0] += pair.row_reals[(u + c) * pair.n] * pair.col_reals[(v + c) * pair.m];
    return ((sum[0] + sum[1]) + sum[2]) + sum[3];
}

// Overlap of a mask that has one factor more than the one before of its chain, which the thread has kept for each cell.
static __device__ __forceinline__ NPK_REAL npk_chained(const Pair& pair, const Term& term, npk_int u, npk_int v, npk_int cell)
{
    unsigned int* kept = pair.chains + ((npk_int)term.chain * TOGETHER + cell) * term.width * THREADS;
    int sum = 0;
#pragma unroll 1
    for (int w = 0; w < term.width; ++w) {
        unsigned int common = pair.row_bits[(u + w) * pair.n] & pair.col_bits[(v + w) * pair.m];
        if (!term.start) common &= kept[w * THREADS];
        kept[w * THREADS] = common;
        sum += __popc(common);
    }
    return (NPK_REAL)sum;
}

// total + contribution j of a term: weight * cell of its source * overlap; an entry of -1 adds nothing.
static __device__ __forceinline__ NPK_REAL npk_added(NPK_REAL total, const Tables& t, const Pair& pair, const Term& term, NPK_REAL scale,
                                                     npk_int j, npk_int cell)
{
    const int entry = t.tables[term.pair + j];
    if (entry < 0 && term.chain < 0) return total;
    NPK_REAL overlap = 1;
    if (term.form <= NUMBERS) {
        const npk_int u = term.first + t.tables[term.u + j] * term.stride, v = term.first + t.tables[term.v + j] * term.stride;
        overlap = term.chain < 0 ? npk_overlap(pair, term, u, v) : npk_chained(pair, term, u, v, cell);
    }
    if (entry < 0) return total;
    const NPK_REAL factor = term.weight < 0 ? scale : scale * t.weights[term.weight + j];
    return total + pair.slots[(term.source + entry) * THREADS] * factor * overlap;
}

// Sum of the k cells base + tables[first ...]; -1 is left out.
static __device__ __forceinline__ NPK_REAL npk_column(const Tables& t, const Pair& pair, npk_int base, npk_int first, int k)
{
    NPK_REAL total = 0;
#pragma unroll 1
    for (int j = 0; j < k; ++j) {
        const int entry = t.tables[first + j];
        if (entry >= 0) total += pair.slots[(base + entry) * THREADS];
    }
    return total;
}

// Window sums that share columns: each column is summed once, the last two stay in registers.
static __device__ __forceinline__ void npk_box(const Tables& t, const Pair& pair, const Operation& op, NPK_REAL scale, NPK_REAL bias)
{
    npk_int first = op.first, out = op.out;
    for (npk_int run = 0; run < op.cells; ++run) {
        const int outputs = t.tables[first++];
        NPK_REAL left = npk_column(t, pair, op.source, first, op.count);
        NPK_REAL middle = npk_column(t, pair, op.source, first + op.count, op.count);
        first += 2 * (npk_int)op.count;
#pragma unroll 1
        for (int x = 0; x < outputs; ++x, first += op.count) {
            const NPK_REAL right = npk_column(t, pair, op.source, first, op.count);
            pair.slots[out++ * THREADS] = bias + ((left + middle) + right) * scale;
            left = middle;
            middle = right;
        }
    }
}

static __device__ __forceinline__ void npk_collapse(const Tables& t, const Pair& pair, const Operation& op)
{
    for (npk_int begin = 0; begin < op.cells; begin += TOGETHER) {
        const npk_int end = begin + TOGETHER < op.cells ? begin + TOGETHER : op.cells;
        for (npk_int i = op.first; i < op.first + op.count; ++i) {
            const Term term = npk_term(t.terms + TERM_COLUMNS * i);
            const NPK_REAL scale = t.scales[i];
#pragma unroll 1
            for (npk_int c = begin; c < end; ++c) {
                NPK_REAL* out = pair.slots + (term.out + c) * THREADS;
                NPK_REAL total = term.fresh ? (NPK_REAL)0 : *out;
#pragma unroll 1
                for (npk_int j = c * term.k; j < (c + 1) * term.k; ++j) total = npk_added(total, t, pair, term, scale, j, c - begin);
                *out = total;
            }
        }
    }
}

static __device__ __forceinline__ void npk_reduce(const Tables& t, const Pair& pair, const Operation& op)
{
    const Term term = npk_term(t.terms + TERM_COLUMNS * op.first);
    const NPK_REAL scale = t.scales[op.first];
    for (npk_int begin = 0; begin < op.cells;) {
        const int target = t.tables[op.out + begin];
        NPK_REAL total = 0;
        npk_int j = begin;
#pragma unroll 1
        do total = npk_added(total, t, pair, term, scale, j++, 0);
        while (j < op.cells && j - begin < FLUSH && t.tables[op.out + j] == target);
        pair.sums[(op.sums + target) * THREADS] += total;
        begin = j;
    }
}

static __device__ __forceinline__ void npk_run(const Tables& t, const Pair& pair, npk_int operations, npk_int sums)
{
    pair.slots[0] = 1;   // the field V = 1
#pragma unroll 1
    for (npk_int s = 0; s < sums; ++s) pair.sums[s * THREADS] = 0;
    for (npk_int o = 0; o < operations; ++o) {
        const Operation op = npk_operation(t.operations + COLUMNS * o);
        const NPK_REAL scale = t.scalars[2 * o], bias = t.scalars[2 * o + 1];
        if (op.kind == LOAD)
#pragma unroll 1
            for (npk_int c = 0; c < op.cells; ++c)
                pair.slots[(op.out + c) * THREADS] = (NPK_REAL)(pair.sums[(op.sums + c) * THREADS] + bias);
        else if (op.kind == CLEAR)
#pragma unroll 1
            for (npk_int c = 0; c < op.cells; ++c) pair.slots[(op.out + c) * THREADS] = 0;
        else if (op.kind == GATHER)
#pragma unroll 1
            for (npk_int c = 0; c < op.cells; ++c)
                pair.slots[(op.out + c) * THREADS] = bias + npk_column(t, pair, op.source, op.first + c * op.count, op.count) * scale;
        else if (op.kind == BOX)
            npk_box(t, pair, op, scale, bias);
        else if (op.kind == COLLAPSE)
            npk_collapse(t, pair, op);
        else
            npk_reduce(t, pair, op);
    }
}

// Masks of the rows are (words, n) and (numbers, n), those of the columns (words, m) and (numbers, m): equal places of all samples are
// neighbors. `slots`, `sums` and `chains` hold `cells`, `reductions` and `links` entries of each thread of the blocks in flight; `out` is
// (parts, n, m). `left`: number of the first column minus that of the first row; what is wholly left of the diagonal is skipped.
extern "C" __global__ void __launch_bounds__(THREADS, NPK_BLOCKS)
npk_program(const npk_int* __restrict__ operations, const NPK_REAL* __restrict__ scalars, const npk_int* __restrict__ terms,
            const NPK_REAL* __restrict__ scales, const int* __restrict__ tables, const NPK_REAL* __restrict__ weights,
            const unsigned int* __restrict__ row_bits, const unsigned int* __restrict__ col_bits,
            const NPK_REAL* __restrict__ row_reals, const NPK_REAL* __restrict__ col_reals,
            NPK_REAL* __restrict__ slots, double* __restrict__ sums, unsigned int* __restrict__ chains, NPK_REAL* __restrict__ out,
            npk_int count, npk_int cells, npk_int reductions, npk_int result, npk_int links, int parts, int n, int m, npk_int left)
{
    const Tables t = {operations, scalars, terms, scales, tables, weights};
    const npk_int across = ((npk_int)m + LANES - 1) / LANES, groups = ((npk_int)n + ROWS - 1) / ROWS;
    const npk_int block = blockIdx.x, thread = threadIdx.x;
    for (npk_int task = block; task < groups * across; task += gridDim.x) {
        const npk_int row0 = task / across * ROWS, col0 = task % across * LANES;
        if (left + col0 + LANES <= row0) continue;
        const npk_int row = row0 + thread / LANES, col = col0 + thread % LANES;
        if (row >= n || col >= m) continue;
        const Pair pair = {row_bits + row, col_bits + col, row_reals + row, col_reals + col, n, m,
                           slots + block * cells * THREADS + thread, sums + block * reductions * THREADS + thread,
                           chains + block * links * THREADS + thread};
        npk_run(t, pair, count, reductions);
        for (npk_int part = 0; part < parts; ++part) out[(part * n + row) * m + col] = pair.slots[(result + part) * THREADS];
    }
}
