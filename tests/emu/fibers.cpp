// The run time of the emulator by C++: fibers, barriers, warp collectives, atomics and (NPK_EMU_CHECK)
// the checker.  The checker is fed by the calls that `g++ -fsanitize=thread,undefined` puts into the kernel;
// this file defines those call-backs itself, so neither libtsan nor libubsan is linked (the Linux kernel's
// KCSAN uses the compiler's instrumentation in the same way).  This file itself is compiled without sanitizers.
#include <algorithm>
#include <atomic>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <tuple>
#include <vector>
#include <link.h>
#include <sys/mman.h>
#if !defined(__x86_64__) || defined(NPK_EMU_UCONTEXT)
#include <ucontext.h>
#endif
#ifndef NPK_EMU_CHECK
#define NPK_EMU_CHECK 0
#endif

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
};
typedef void (*thunk_t)(void**);

// ------------------------------------------------------------------ context switch
#if defined(__x86_64__) && !defined(NPK_EMU_UCONTEXT)
extern "C" __attribute__((visibility("hidden"))) void npk_emu_swap(void** save, void* load);
asm(R"(.text
.globl npk_emu_swap
.hidden npk_emu_swap
.type npk_emu_swap,@function
npk_emu_swap:
    pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
    ret
.size npk_emu_swap,.-npk_emu_swap
)");
struct Context {
    void* sp = nullptr;
};
static void ctx_make(Context& c, char* stack, size_t size, void (*entry)()) {
    uintptr_t top = ((uintptr_t)stack + size) & ~(uintptr_t)15;
    void** sp = (void**)top;
    *--sp = nullptr;      // return address of entry(): it never returns
    *--sp = (void*)entry; // rsp % 16 == 8 at entry, as the ABI wants
    for (int i = 0; i < 6; ++i) *--sp = nullptr;
    c.sp = sp;
}
static void ctx_swap(Context& from, Context& to) { npk_emu_swap(&from.sp, to.sp); }
#else
struct Context {
    ucontext_t u;
};
static void ctx_make(Context& c, char* stack, size_t size, void (*entry)()) {
    getcontext(&c.u);
    c.u.uc_stack.ss_sp = stack;
    c.u.uc_stack.ss_size = size;
    c.u.uc_link = nullptr;
    makecontext(&c.u, entry, 0);
}
static void ctx_swap(Context& from, Context& to) { swapcontext(&from.u, &to.u); }
#endif

// ------------------------------------------------------------------ state
enum State { READY, AT_BARRIER, AT_WARP, DONE };
struct Fiber {
    Context ctx;
    uint3 tid;
    unsigned lin, lane, warp;
    State state;
    int line;
    unsigned mask;
    int op;
    unsigned long long val, snap[32];
    int pred;
    const void* blob;
    unsigned char* blob_all;
    int blob_n;
};
struct Opts {
    int schedule;
    unsigned seed;
    int threads;
    size_t stack;
    int poison;
}; // schedule 0 forward, 1 reverse, 2 random
struct Launch {
    thunk_t fn;
    void** args;
    dim3 grid, block;
    size_t smem;
    Opts o;
    std::atomic<unsigned long long> next{0};
    std::atomic<bool> abort{false};
};
struct Block {
    Launch* L;
    uint3 bid;
    unsigned n, live;
    std::vector<Fiber> f;
    std::vector<unsigned> order;
    char* stacks = nullptr;
    size_t stack = 0;
    std::vector<unsigned char> smem;
    Context sched;
    Fiber* cur = nullptr;
    unsigned epoch;
    std::vector<unsigned> warp_clock;
    int red;
    bool dead;
    unsigned long long lin;
    std::mt19937 rng;
    ~Block() {
        if (stacks) munmap(stacks, stack * n);
    }
};
static thread_local Block* volatile g_b = nullptr; // volatile: poisoning rewrites the TLS block it lives in
static thread_local volatile int g_touch;          // makes sure that the TLS block of this library exists

static std::vector<std::string> g_errors;
static std::set<std::string> g_seen;
static std::atomic_flag g_lock = ATOMIC_FLAG_INIT;
static void report(const std::string& key, const char* fmt, ...) {
    char buf[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(buf, sizeof buf, fmt, ap);
    va_end(ap);
    while (g_lock.test_and_set()) {}
    if (g_seen.insert(key).second && g_errors.size() < 50) g_errors.push_back(buf);
    g_lock.clear();
}
static std::string who(const Block& b, unsigned lin) {
    const Fiber& f = b.f[lin];
    char s[96];
    snprintf(s, sizeof s, "block (%u,%u,%u) thread (%u,%u,%u)", b.bid.x, b.bid.y, b.bid.z, f.tid.x, f.tid.y, f.tid.z);
    return s;
}
static void yield_() {
    Block& b = *g_b;
    ctx_swap(b.cur->ctx, b.sched);
}
[[noreturn]] static void die() {
    g_b->dead = true;
    g_b->L->abort = true;
    for (;;) yield_();
}
static void fiber_main() {
    Block& b = *g_b;
    b.L->fn(b.L->args);
    b.cur->state = DONE;
    --b.live;
    for (;;) yield_();
}

#if NPK_EMU_CHECK
#include "fiber_checker.h"
#endif

// ------------------------------------------------------------------ device functions
extern "C" {
uint3 npk_emu_tid() { return g_b->cur->tid; }
uint3 npk_emu_bid() { return g_b->bid; }
dim3 npk_emu_bdim() { return g_b->L->block; }
dim3 npk_emu_gdim() { return g_b->L->grid; }
void* npk_emu_dynamic_smem() { return g_b->smem.data(); }
void npk_emu_trap(int line) {
    report("trap" + std::to_string(line), "TRAP line %d by %s", line, who(*g_b, g_b->cur->lin).c_str());
    die();
}

int npk_emu_syncthreads_reduce(int line, int op, int pred) {
    Fiber& f = *g_b->cur;
    f.state = AT_BARRIER;
    f.line = line;
    f.op = op;
    f.pred = pred;
    yield_();
    return g_b->red;
}
void npk_emu_syncthreads(int line) { npk_emu_syncthreads_reduce(line, -1, 0); }

static void warp_sync(int line, int op, unsigned mask, unsigned long long v) { // ends with f.snap filled
    Block& b = *g_b;
    Fiber& f = *b.cur;
    if (!(mask >> f.lane & 1)) {
        report("mask" + std::to_string(line), "WARP line %d: the caller is not in its own mask %08x, %s", line, mask,
               who(b, f.lin).c_str());
        die();
    }
    f.state = AT_WARP;
    f.line = line;
    f.op = op;
    f.mask = mask;
    f.val = v;
    unsigned first = f.warp * 32;
    bool all = true;
    unsigned live = 0;
    for (unsigned l = 0; l < 32; ++l) {
        bool exists = first + l < b.n;
        if (exists && b.f[first + l].state != DONE) live |= 1u << l;
        if (!(mask >> l & 1)) continue;
        if (!exists) continue; // a partial last warp: CUDA accepts the full mask there
        Fiber& g = b.f[first + l];
        all = all && g.state == AT_WARP && g.line == line && g.op == op && g.mask == mask;
    }
    if (all) {
        unsigned long long s[32] = {};
        for (unsigned l = 0; l < 32 && first + l < b.n; ++l)
            if (mask >> l & 1) s[l] = b.f[first + l].val;
        if (op == 'w' && (mask & live) == live) ++b.warp_clock[f.warp];
        for (unsigned l = 0; l < 32 && first + l < b.n; ++l)
            if (mask >> l & 1) {
                Fiber& g = b.f[first + l];
                memcpy(g.snap, s, sizeof s);
                g.state = READY;
            }
        if (op == 'g')
            for (unsigned l = 0; l < 32 && first + l < b.n; ++l) {
                Fiber& g = b.f[first + l];
                for (unsigned k = 0; k < 32; ++k) memcpy(g.blob_all + k * g.blob_n, b.f[first + k].blob, g.blob_n);
            }
    }
    yield_(); // the last to arrive yields too, so that no order within the warp can be relied upon
}
void npk_emu_syncwarp(int line, unsigned mask) { warp_sync(line, 'w', mask, 0); }
unsigned npk_emu_ballot(int line, unsigned mask, int pred) {
    warp_sync(line, 'b', mask, pred != 0);
    unsigned r = 0;
    for (int l = 0; l < 32; ++l) r |= (unsigned)(g_b->cur->snap[l] & 1) << l;
    return r & mask;
}
unsigned long long npk_emu_shfl(int line, int mode, unsigned mask, unsigned long long v, int arg, int width, int) {
    warp_sync(line, 's', mask, v);
    Fiber& f = *g_b->cur;
    int lane = f.lane, seg = lane & ~(width - 1), src;
    switch (mode) {
    case 0: src = seg + (arg & (width - 1)); break;
    case 1:
        src = lane - arg;
        if (src < seg) src = lane;
        break;
    case 2:
        src = lane + arg;
        if (src >= seg + width) src = lane;
        break;
    default:
        src = lane ^ arg;
        if (src >= seg + width) src = lane;
        break;
    }
    if (!(mask >> src & 1)) {
        report("shfl" + std::to_string(line), "WARP line %d: shuffle reads lane %d, which is not in mask %08x, %s", line, src, mask,
               who(*g_b, f.lin).c_str());
        return 0xDEADBEEFDEADBEEFull;
    }
    return f.snap[src];
}
void npk_emu_warp_gather(int line, const void* mine, int n, void* all) {
    Fiber& f = *g_b->cur;
    f.blob = mine;
    f.blob_all = (unsigned char*)all;
    f.blob_n = n;
    warp_sync(line, 'g', 0xffffffffu, 0);
}
}
template <class U, class S, class F> static U rmw(void* p, int op, U v, U cmp) {
    U* q = (U*)p;
    U old = __atomic_load_n(q, __ATOMIC_RELAXED), neu;
    do {
        switch (op) {
        case 0: neu = old + v; break;
        case 1: neu = std::min(old, v); break;
        case 2: neu = std::max(old, v); break;
        case 3: neu = old & v; break;
        case 4: neu = old | v; break;
        case 5: neu = old ^ v; break;
        case 6: neu = v; break;
        case 7: neu = old == cmp ? v : old; break;
        case 8: {
            F a, c;
            memcpy(&a, &old, sizeof a);
            memcpy(&c, &v, sizeof c);
            a += c;
            memcpy(&neu, &a, sizeof a);
            break;
        }
        case 9: neu = (U)std::min((S)old, (S)v); break;
        default: neu = (U)std::max((S)old, (S)v); break;
        }
    } while (!__atomic_compare_exchange_n(q, &old, neu, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return old;
}
#if NPK_EMU_CHECK
#define NPK_AT(n)                                                                                                                          \
    access(p, n, false, true, __builtin_return_address(0));                                                                                \
    access(p, n, true, true, __builtin_return_address(0));
#else
#define NPK_AT(n)
#endif
extern "C" unsigned npk_emu_rmw32(void* p, int op, unsigned v, unsigned c) { NPK_AT(4) return rmw<unsigned, int, float>(p, op, v, c); }
extern "C" unsigned long long npk_emu_rmw64(void* p, int op, unsigned long long v, unsigned long long c) {
    NPK_AT(8) return rmw<unsigned long long, long long, double>(p, op, v, c);
}

// ------------------------------------------------------------------ scheduler
static void run_block(Block& b) {
    Launch& L = *b.L;
    b.live = b.n;
    b.epoch = 1;
    b.dead = false;
    std::fill(b.warp_clock.begin(), b.warp_clock.end(), 1);
    for (unsigned i = 0; i < b.n; ++i) {
        Fiber& f = b.f[i];
        f.lin = i;
        f.lane = i % 32;
        f.warp = i / 32;
        f.state = READY;
        f.tid = {i % L.block.x, i / L.block.x % L.block.y, i / L.block.x / L.block.y};
        ctx_make(f.ctx, b.stacks + b.stack * i, b.stack, fiber_main);
    }
    if (L.o.poison) { // shared memory starts as garbage
#if NPK_EMU_CHECK
        Block* keep = g_b;
        memset(g_tls.lo, 0xA5, g_tls.n);
        g_b = keep;
        shared_reset(g_tls);
        shared_reset(g_dyn);
#endif
        memset(b.smem.data(), 0xA5, b.smem.size());
    }
    for (unsigned i = 0; i < b.n; ++i) b.order[i] = L.o.schedule == 1 ? b.n - 1 - i : i;
    while (b.live && !L.abort) {
        bool progress = false;
        if (L.o.schedule == 2) std::shuffle(b.order.begin(), b.order.end(), b.rng);
        for (unsigned i : b.order) {
            if (b.f[i].state != READY) continue;
            progress = true;
            b.cur = &b.f[i];
            ctx_swap(b.sched, b.cur->ctx);
            b.cur = nullptr;
            if (b.dead) return;
        }
        if (!b.live) break;
        unsigned at = 0;
        int line = -1, other = -1, red_and = 1, red_or = 0, red_n = 0, op = -1;
        unsigned who2 = 0;
        for (Fiber& f : b.f)
            if (f.state == AT_BARRIER) {
                ++at;
                red_n += f.pred;
                red_and &= f.pred;
                red_or |= f.pred;
                op = f.op;
                if (line < 0)
                    line = f.line;
                else if (f.line != line) {
                    other = f.line;
                    who2 = f.lin;
                }
            }
        if (at == b.live) {
            if (other >= 0) {
                report("div" + std::to_string(line), "BARRIER threads of one block wait at different __syncthreads: lines %d and %d, %s",
                       line, other, who(b, who2).c_str());
                L.abort = true;
                return;
            }
            if (NPK_EMU_CHECK && at != b.n)
                report("exit" + std::to_string(line), "BARRIER line %d: %u threads of block (%u,%u,%u) had already returned", line,
                       b.n - at, b.bid.x, b.bid.y, b.bid.z);
            b.red = op == 0 ? red_n : op == 1 ? red_and : red_or;
            ++b.epoch;
            for (Fiber& f : b.f)
                if (f.state == AT_BARRIER) f.state = READY;
            continue;
        }
        if (!progress) {
            for (Fiber& f : b.f)
                if (f.state != DONE) {
                    report("dead", "DEADLOCK block (%u,%u,%u): %u of %u live threads at __syncthreads; e.g. %s waits at line %d (%s)",
                           b.bid.x, b.bid.y, b.bid.z, at, b.live, who(b, f.lin).c_str(), f.line,
                           f.state == AT_WARP ? "warp collective" : "barrier");
                    if (f.state == AT_WARP) break;
                }
            L.abort = true;
            return;
        }
    }
}
static void worker(Launch* L) {
    g_touch = 1;
    Block b;
    b.L = L;
    b.n = L->block.x * L->block.y * L->block.z;
    b.f.resize(b.n);
    b.order.resize(b.n);
    b.warp_clock.resize((b.n + 31) / 32);
    b.stack = L->o.stack;
    b.smem.resize(L->smem + 16);
    b.stacks = (char*)mmap(nullptr, b.stack * b.n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    g_b = &b;
#if NPK_EMU_CHECK
    void* t[2] = {};
    dl_iterate_phdr(phdr_cb, t);
    g_tls.lo = (char*)t[0];
    g_tls.n = (size_t)t[1];
    g_tls.name = "__shared__";
    g_tls.shared = true;
    g_tls.ro = false;
    g_tls.c.assign(g_tls.n, Cell{});
    g_dyn.lo = (char*)b.smem.data();
    g_dyn.n = L->smem;
    g_dyn.name = "dynamic __shared__";
    g_dyn.shared = true;
    g_dyn.ro = false;
    g_dyn.c.assign(g_dyn.n, Cell{});
    g_last = nullptr;
#endif
    unsigned long long total = (unsigned long long)L->grid.x * L->grid.y * L->grid.z, i;
    while (!L->abort && (i = L->next++) < total) {
        unsigned long long k = L->o.schedule == 0 ? i : total - 1 - i;
        b.lin = k;
        b.rng.seed(L->o.seed + (unsigned)k);
        b.bid = {(unsigned)(k % L->grid.x), (unsigned)(k / L->grid.x % L->grid.y), (unsigned)(k / L->grid.x / L->grid.y)};
        run_block(b);
#if NPK_EMU_CHECK
        if (g_profile) prof_flush();
#endif
    }
    g_b = nullptr;
}
extern "C" {
__attribute__((visibility("default"))) int npk_emu_launch(thunk_t fn, const unsigned* g, const unsigned* bl, size_t smem, void** args,
                                                          int schedule, unsigned seed, int threads, size_t stack, int profile) {
    Launch L;
    L.fn = fn;
    L.args = args;
    L.grid = {g[0], g[1], g[2]};
    L.block = {bl[0], bl[1], bl[2]};
    L.smem = smem;
    L.o = {schedule, seed, threads, stack, 1};
    g_errors.clear();
    g_seen.clear();
    (void)profile;
    if ((unsigned long long)bl[0] * bl[1] * bl[2] > 1024 || !bl[0] || !bl[1] || !bl[2] || bl[2] > 64 || g[1] > 65535 || g[2] > 65535) {
        report("cfg", "LAUNCH block or grid is over the CUDA limits");
        return 1;
    }
#if NPK_EMU_CHECK
    g_profile = profile;
    g_checked = 0;
    g_psum.clear();
    worker(&L);
    for (auto& r : g_ranges)
        for (auto& c : r.c) { c.w = c.r = 0; }
#else
    if (threads <= 1)
        worker(&L);
    else {
        std::vector<std::thread> t;
        for (int i = 0; i < threads; ++i) t.emplace_back(worker, &L);
        for (auto& x : t) x.join();
    }
#endif
    return (int)g_errors.size();
}
__attribute__((visibility("default"))) int npk_emu_error(int i, char* buf, int n) {
    if (i >= (int)g_errors.size()) return 0;
    snprintf(buf, n, "%s", g_errors[i].c_str());
    return 1;
}
__attribute__((visibility("default"))) void npk_emu_buffer(const char* name, void* p, size_t n, int ro, int uninit) {
#if NPK_EMU_CHECK
    if (!name) {
        g_ranges.clear();
        g_last = nullptr;
        return;
    }
    Range r;
    r.lo = (char*)p;
    r.n = n;
    r.name = name;
    r.shared = false;
    r.ro = ro;
    Cell c{};
    c.init = !uninit;
    r.c.assign(n, c);
    g_ranges.push_back(std::move(r));
    g_last = nullptr;
#endif
}
__attribute__((visibility("default"))) unsigned long long npk_emu_checked() {
#if NPK_EMU_CHECK
    return g_checked;
#else
    return 0;
#endif
}
__attribute__((visibility("default"))) int npk_emu_profile(int i, unsigned* pc, int* shared, int* write, unsigned* size,
                                                           unsigned long long* v) {
#if NPK_EMU_CHECK
    for (auto& kv : g_psum)
        if (i-- == 0) {
            *pc = kv.first;
            *shared = kv.second.shared;
            *write = kv.second.write;
            *size = kv.second.size;
            v[0] = kv.second.req;
            v[1] = kv.second.ideal;
            v[2] = kv.second.actual;
            return 1;
        }
#endif
    return 0;
}
}
