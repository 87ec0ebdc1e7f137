"""Instructions that the threads of a warp run together: ``COLLECTIVES[name](run, instruction,
active)`` gives values of the target(s).

``active`` is ``(warps, 32)``: which threads run the instruction.
"""

import numpy as np

from emu.ptx_program import members

LANES = np.arange(32)
# words of a row
BIT_PRODUCTS = {f"m16n8k{32 * words}.row.col.s32.b1.b1.s32.and.popc": words for words in (4, 8)}


def check_mask(run, mask, active):
    """The threads that a mask names must be here, and the caller among them."""
    here = (active * (1 << LANES)).sum(1).astype(np.uint32)
    missing = np.where(active, mask & ~here[:, None], 0)
    if missing.any():
        run.fail("WARP threads named in the mask are not here", missing.reshape(-1).nonzero()[0][0])
    outside = active & (mask >> LANES.astype(np.uint32) & 1 == 0)
    if outside.any():
        run.fail("WARP the caller is not in its own mask", outside.reshape(-1).nonzero()[0][0])


def shuffle(run, ins, active):
    """Registers of other threads; the second target tells whether there was such a thread."""
    check_mask(run, run.by_warp(ins.args[-1]), active)
    value, by, clamp = (
        run.by_warp(ins.args[1]),
        *(run.by_warp(arg).astype(np.int64) for arg in ins.args[2:4]),
    )
    by, segment = by & 31, (clamp >> 8) & 31
    last, mode = (LANES & segment) | (clamp & 31 & ~segment), ins.op[2]
    source = {
        "up": LANES - by,
        "down": LANES + by,
        "bfly": LANES ^ by,
        "idx": (LANES & segment) | (by & ~segment),
    }[mode]
    inside = source >= last if mode == "up" else source <= last
    source = np.where(inside, source, LANES)
    if (active & ~np.take_along_axis(active, source, 1)).any():
        run.fail("WARP shuffle reads a thread that is not here")
    targets = [name.strip() for name in ins.args[0].split("|")]
    return zip(targets, (np.take_along_axis(value, source, 1), inside), strict=False)


def vote(run, ins, active):
    """What the predicates of a warp say."""
    check_mask(run, run.by_warp(ins.args[-1]), active)
    said = run.predicate(ins.args[1]).reshape(-1, 32) & active
    found = {
        "ballot": lambda: (said * (1 << LANES)).sum(1).astype(np.uint32),
        "any": lambda: said.any(1),
        "all": lambda: (said | ~active).all(1),
    }[ins.op[2]]()
    return [(ins.args[0], np.repeat(found[:, None], 32, axis=1))]


def bit_product(run, ins, active):
    """mma.sync of bits, with the fragments of the PTX ISA: a thread holds row lane / 4 (and 8
    below), words lane % 4 and 4 farther on.
    """
    words = BIT_PRODUCTS.get(".".join(ins.op[3:]))
    if words is None:
        run.fail("UNSUPPORTED tensor core instruction")
    if not active[active.any(1)].all():
        run.fail("WARP mma without the whole warp")
    targets, a, b, c = (members(arg) for arg in ins.args)
    if [len(names) for names in (targets, a, b, c)] != [4, words // 2, words // 4, 4]:
        run.fail("UNSUPPORTED number of registers of a tensor core instruction")
    group, place = LANES // 4, LANES % 4
    warps = len(active)
    A, B = np.zeros((warps, 16, words), np.uint32), np.zeros((warps, 8, words), np.uint32)
    for r, name in enumerate(a):
        A[:, group + 8 * (r % 2), place + 4 * (r // 2)] = run.by_warp(name)
    for r, name in enumerate(b):
        B[:, group, place + 4 * r] = run.by_warp(name)
    product = np.bitwise_count(A[:, :, None] & B[:, None]).sum(-1, dtype=np.uint32)
    return [
        (name, product[:, group + 8 * (v // 2), 2 * place + v % 2] + run.by_warp(before))
        for v, (name, before) in enumerate(zip(targets, c, strict=True))
    ]


COLLECTIVES = {"shfl": shuffle, "vote": vote, "mma": bit_product}
