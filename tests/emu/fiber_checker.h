// What the emulator by C++ looks at in check mode: every access to memory, which the compiler's instrumentation calls in. Part of fibers.cpp.
#pragma once
struct Cell {
    uint32_t wthr, wblk, wep, wclk, rthr, rblk, rep, rclk;
    uint8_t w, r, init, wat, rat;
    uint32_t wpc, rpc;
}; // r: 0 none 1 one 2 one warp 3 several warps of a block 4 several blocks
struct Range {
    char* lo;
    size_t n;
    std::string name;
    bool shared, ro;
    std::vector<Cell> c;
};
static std::vector<Range> g_ranges;
static Range g_tls, g_dyn;
static uintptr_t g_base;
static Range* g_last;
static char *g_mod_lo, *g_mod_hi;
static unsigned long long g_checked;
static bool g_profile;
struct Access {
    std::vector<std::pair<uint64_t, unsigned>> a;
};
static std::map<std::tuple<uint32_t, unsigned, unsigned>, Access> g_prof;
static std::map<std::pair<uint32_t, unsigned>, unsigned> g_occ;
struct ProfSum {
    unsigned long long req = 0, ideal = 0, actual = 0;
    bool shared, write;
    unsigned size;
};
static std::map<uint32_t, ProfSum> g_psum;

static Range* find(char* p, size_t n) {
    auto in = [&](Range& r) { return p >= r.lo && p + n <= r.lo + r.n; };
    if (g_last && in(*g_last)) return g_last;
    if (in(g_tls)) return g_last = &g_tls;
    if (in(g_dyn)) return g_last = &g_dyn;
    for (auto& r : g_ranges)
        if (in(r)) return g_last = &r;
    return nullptr;
}
static void race(Block& b, Range& r, char* p, uint32_t pc, const char* now, uint32_t opc, uint32_t othr, uint32_t oblk,
                 const char* before) {
    char key[96];
    snprintf(key, sizeof key, "race%x/%x", std::min(pc, opc), std::max(pc, opc));
    report(key, "RACE %s of %s+%zu by %s @pc=%x is not ordered after the %s by block #%u thread #%u @pc=%x", now, r.name.c_str(),
           (size_t)(p - r.lo), who(b, b.cur->lin).c_str(), pc, before, oblk, othr, opc);
}
static void access(void* a, size_t n, bool write, bool atomic, void* ret) {
    Block* bp = g_b;
    if (!bp || !bp->cur) return;
    Block& b = *bp;
    Fiber& f = *b.cur;
    char* p = (char*)a;
    uint32_t pc = (uint32_t)((uintptr_t)ret - g_base - 1);
    char* st = b.stacks + b.stack * f.lin;
    if (p >= st && p + n <= st + b.stack) return; // this thread's own local memory
    ++g_checked;
    Range* r = find(p, n);
    if (!r) {
        if (p >= b.stacks && p < b.stacks + b.stack * b.n) {
            report("loc", "BOUNDS access to another thread's local memory by %s @pc=%x", who(b, f.lin).c_str(), pc);
            die();
        }
        if (p >= g_mod_lo && p + n <= g_mod_hi) return; // __constant__ / __device__ tables
        const Range* best = nullptr;
        size_t bd = ~(size_t)0;
        auto near = [&](const Range& q) {
            size_t d = p < q.lo ? q.lo - p : p >= q.lo + q.n ? p - (q.lo + q.n) : 0;
            if (q.n && d < bd) {
                bd = d;
                best = &q;
            }
        };
        near(g_tls);
        near(g_dyn);
        for (auto& q : g_ranges) near(q);
        char key[64];
        snprintf(key, sizeof key, "oob%x", pc);
        report(key, "BOUNDS %s of %zu bytes at %s%+lld (it has %zu bytes) by %s @pc=%x", write ? "write" : "read", n,
               best ? best->name.c_str() : "?", best ? (long long)(p - best->lo) : 0, best ? best->n : 0, who(b, f.lin).c_str(), pc);
        die();
    }
    if ((uintptr_t)p % std::min<size_t>(n & -n, 16)) {
        report("al" + std::to_string(pc), "ALIGN %zu-byte access at %s+%zu by %s @pc=%x", n, r->name.c_str(), (size_t)(p - r->lo),
               who(b, f.lin).c_str(), pc);
    }
    if (write && r->ro) {
        report("ro" + std::to_string(pc), "READONLY write to const buffer %s+%zu by %s @pc=%x", r->name.c_str(), (size_t)(p - r->lo),
               who(b, f.lin).c_str(), pc);
    }
    if (g_profile) {
        unsigned k = g_occ[{pc, f.lin}]++;
        g_prof[{pc, f.warp, k}].a.push_back({(uint64_t)(p - r->lo) + (r->shared ? 0 : (uint64_t)1 << 40), (unsigned)n});
        auto& s = g_psum[pc];
        s.shared = r->shared;
        s.write = write;
        s.size = n;
    }
    uint32_t blk = (uint32_t)b.lin, clk = b.warp_clock[f.warp];
    for (size_t i = 0; i < n; ++i) {
        Cell& c = r->c[p - r->lo + i];
        auto ordered = [&](uint32_t t, uint32_t bl, uint32_t ep, uint32_t ck) {
            if (bl != blk) return false;                  // blocks of one launch are never ordered
            if (t == f.lin || ep != b.epoch) return true; // same thread, or a __syncthreads between
            return t / 32 == f.warp && ck < clk;          // or a full __syncwarp between
        };
        if (!write && !c.init) {
            report("un" + std::to_string(pc), "UNINIT read of %s+%zu by %s @pc=%x", r->name.c_str(), (size_t)(p - r->lo),
                   who(b, f.lin).c_str(), pc);
        }
        if (c.w && !(atomic && c.wat) && !ordered(c.wthr, c.wblk, c.wep, c.wclk))
            race(b, *r, p + i, pc, write ? "write" : "read", c.wpc, c.wthr, c.wblk, "write");
        if (write && c.r && !(atomic && c.rat)) {
            bool ok = c.r == 1           ? ordered(c.rthr, c.rblk, c.rep, c.rclk)
                      : c.r == 4         ? false
                      : c.rblk != blk    ? false
                      : c.rep != b.epoch ? true
                                         : c.r == 2 && c.rthr / 32 == f.warp && c.rclk < clk;
            if (!ok) race(b, *r, p + i, pc, "write", c.rpc, c.rthr, c.rblk, "read");
        }
        if (write) {
            c.w = 1;
            c.wthr = f.lin;
            c.wblk = blk;
            c.wep = b.epoch;
            c.wclk = clk;
            c.init = 1;
            c.wat = atomic;
            c.wpc = pc;
        } else {
            if (!c.r)
                c.r = 1;
            else if (c.rblk != blk)
                c.r = 4;
            else if (c.r != 4) {
                if (c.rep != b.epoch)
                    c.r = 1;
                else if (c.rthr != f.lin)
                    c.r = (c.r != 3 && c.rthr / 32 == f.warp) ? 2 : 3;
            }
            c.rat = atomic && (c.r == 1 ? true : c.rat);
            c.rthr = f.lin;
            c.rblk = blk;
            c.rep = b.epoch;
            c.rclk = clk;
            c.rpc = pc;
        }
    }
}
#define RET __builtin_return_address(0)
extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void*, void*) {}
void __tsan_vptr_read(void*) {}
#define NPK_TS(n)                                                                                                                          \
    void __tsan_read##n(void* p) { access(p, n, false, false, RET); }                                                                      \
    void __tsan_write##n(void* p) { access(p, n, true, false, RET); }                                                                      \
    void __tsan_unaligned_read##n(void* p) { access(p, n, false, false, RET); }                                                            \
    void __tsan_unaligned_write##n(void* p) { access(p, n, true, false, RET); }                                                            \
    void __tsan_volatile_read##n(void* p) { access(p, n, false, false, RET); }                                                             \
    void __tsan_volatile_write##n(void* p) { access(p, n, true, false, RET); }
NPK_TS(1) NPK_TS(2) NPK_TS(4) NPK_TS(8) NPK_TS(16) void __tsan_read_range(void* p, long n) { access(p, n, false, false, RET); }
void __tsan_write_range(void* p, long n) { access(p, n, true, false, RET); }
// UBSan handlers: the first member of (almost) every descriptor is {const char* file; uint32 line; uint32 column}
struct UbLoc {
    const char* file;
    uint32_t line, col;
};
static void ub(const char* kind, UbLoc* l, bool fatal) {
    if (!g_b || !g_b->cur) return;
    report(std::string("ub") + kind + std::to_string(l->line), "UB %s at %s:%u by %s", kind, l->file ? l->file : "?", l->line,
           who(*g_b, g_b->cur->lin).c_str());
    if (fatal) die();
}
#define NPK_UB(name, kind, fatal)                                                                                                          \
    void __ubsan_handle_##name(UbLoc* l, ...) { ub(kind, l, fatal); }                                                                      \
    void __ubsan_handle_##name##_abort(UbLoc* l, ...) { ub(kind, l, true); }
NPK_UB(out_of_bounds, "array index out of bounds", true)
NPK_UB(shift_out_of_bounds, "shift out of range", false) NPK_UB(add_overflow, "signed overflow", false)
    NPK_UB(sub_overflow, "signed overflow", false) NPK_UB(mul_overflow, "signed overflow", false)
        NPK_UB(negate_overflow, "signed overflow", false) NPK_UB(divrem_overflow, "division", true)
            NPK_UB(type_mismatch_v1, "null or misaligned pointer", false) NPK_UB(pointer_overflow, "pointer overflow", false)
                NPK_UB(load_invalid_value, "invalid bool/enum", false) NPK_UB(float_cast_overflow, "float cast overflow", false)
                    NPK_UB(vla_bound_not_positive, "vla", true) void __ubsan_handle_builtin_unreachable(UbLoc* l) {
    ub("unreachable", l, true);
    abort();
}
void __ubsan_handle_missing_return(UbLoc* l) {
    ub("missing return", l, true);
    abort();
}
}
static int phdr_cb(struct dl_phdr_info* i, size_t, void* out) {
    uintptr_t me = (uintptr_t)&g_errors;
    bool mine = false;
    char *lo = nullptr, *hi = nullptr;
    size_t tls = 0;
    for (int k = 0; k < i->dlpi_phnum; ++k) {
        auto& h = i->dlpi_phdr[k];
        uintptr_t a = i->dlpi_addr + h.p_vaddr;
        if (h.p_type == PT_LOAD) {
            if (me >= a && me < a + h.p_memsz) mine = true;
            if (!lo) lo = (char*)a;
            hi = (char*)a + h.p_memsz;
        }
        if (h.p_type == PT_TLS) tls = h.p_memsz;
    }
    if (!mine) return 0;
    g_mod_lo = lo;
    g_mod_hi = hi;
    g_base = i->dlpi_addr;
    ((void**)out)[0] = i->dlpi_tls_data;
    ((void**)out)[1] = (void*)tls;
    return 1;
}
static void shared_reset(Range& r) { std::fill(r.c.begin(), r.c.end(), Cell{}); }
static void prof_flush() {
    for (auto& kv : g_prof) {
        auto& s = g_psum[std::get<0>(kv.first)];
        std::set<uint64_t> words, sectors;
        std::map<unsigned, std::set<uint64_t>> banks;
        for (auto& x : kv.second.a)
            for (uint64_t o = x.first & ~3ull; o < x.first + x.second; o += 4) {
                words.insert(o / 4);
                sectors.insert(o / 32);
                banks[(o / 4) % 32].insert(o / 4);
            }
        ++s.req;
        if (s.shared) {
            size_t mx = 0;
            for (auto& q : banks) mx = std::max(mx, q.second.size());
            s.actual += mx;
            s.ideal += (words.size() + 31) / 32;
        } else {
            s.actual += sectors.size();
            s.ideal += (words.size() + 7) / 8;
        }
    }
    g_prof.clear();
    g_occ.clear();
}
