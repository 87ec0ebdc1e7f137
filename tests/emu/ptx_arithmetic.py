"""What instructions compute that look at registers alone: ``OPERATIONS[name](run, instruction)``
gives the value of the first argument.
"""

import numpy as np

from emu.ptx_program import SIGNED, UNSIGNED, dtype_of

COMPARISONS = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "lo": np.less, "ls": np.less_equal, "hi": np.greater, "hs": np.greater_equal,
}  # fmt: skip
BINARY = {
    "add": np.add, "sub": np.subtract, "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
    "min": np.minimum, "max": np.maximum,
}  # fmt: skip
UNARY = {"not": np.bitwise_not, "neg": np.negative, "abs": np.abs}
LOGIC = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}
ROUNDINGS = {"rzi": np.trunc, "rni": np.rint, "rmi": np.floor, "rpi": np.ceil}


def _operands(run, ins, count=2):
    kind = dtype_of(ins.op[-1])
    return [run.get(arg, kind) for arg in ins.args[1 : 1 + count]]


def _binary(run, ins):
    if ins.op[-1] == "pred":
        return LOGIC[ins.op[0]](run.predicate(ins.args[1]), run.predicate(ins.args[2]))
    return BINARY[ins.op[0]](*_operands(run, ins))


def _unary(run, ins):
    return (
        ~run.predicate(ins.args[1])
        if ins.op[-1] == "pred"
        else UNARY[ins.op[0]](*_operands(run, ins, 1))
    )


def _divide(run, ins):
    x, y = _operands(run, ins)
    if x.dtype.kind == "f":
        with np.errstate(all="ignore"):
            return x / y
    zero, one = y == 0, y.dtype.type(1)
    y = np.where(zero, one, y)
    quotient = x // y
    rest = x - quotient * y
    fix = (rest != 0) & ((rest < 0) != (x < 0))  # NumPy rounds down, PTX towards zero
    quotient, rest = np.where(fix, quotient + one, quotient), np.where(fix, rest - y, rest)
    return np.where(zero, ~x.dtype.type(0), quotient if ins.op[0] == "div" else rest)


def _multiply(run, ins):
    x, y = _operands(run, ins)
    if "wide" in ins.op or "hi" in ins.op:
        bits = 8 * x.dtype.itemsize
        wide = np.dtype((SIGNED if x.dtype.kind == "i" else UNSIGNED)[2 * bits])
        product = x.astype(wide) * y.astype(wide)
        found = product if "wide" in ins.op else (product >> wide.type(bits)).astype(x.dtype)
    else:
        found = x * y
    return found + run.get(ins.args[3], found.dtype) if ins.op[0] == "mad" else found


def _fma(run, ins):
    x, y, z = _operands(run, ins, 3)
    # rounded once, but for the last bits of float64
    return (x.astype(np.longdouble) * y + z).astype(x.dtype)


def _shift(run, ins):
    kind = dtype_of(ins.op[-1])
    bits, x, by = (
        8 * kind.itemsize,
        run.get(ins.args[1], kind),
        run.get(ins.args[2], UNSIGNED[32]).astype(np.int64),
    )
    few = np.minimum(by, bits - 1).astype(kind)
    if ins.op[0] == "shl":
        return np.where(by >= bits, kind.type(0), x << few)
    return np.where(
        by >= bits, x >> kind.type(bits - 1) if kind.kind == "i" else kind.type(0), x >> few
    )


def _funnel(run, ins):
    low, high, by = (run.get(arg, UNSIGNED[32]).astype(np.uint64) for arg in ins.args[1:4])
    by = by & np.uint64(31) if "wrap" in ins.op else np.minimum(by, np.uint64(32))
    both = high << np.uint64(32) | low
    return ((both << by) >> np.uint64(32) if ins.op[1] == "l" else both >> by).astype(np.uint32)


def _compare(run, ins):
    found = COMPARISONS[ins.op[1]](*_operands(run, ins))
    return LOGIC[ins.op[2]](found, run.predicate(ins.args[3])) if len(ins.op) == 4 else found


def _select(run, ins):
    return np.where(run.predicate(ins.args[3]), *_operands(run, ins))


def _convert(run, ins):
    source, target = dtype_of(ins.op[-1]), dtype_of(ins.op[-2])
    value = run.get(ins.args[1], _register_type(source)).astype(source)
    if source.kind == "f" and target.kind != "f":  # saturates
        limits = np.iinfo(target)
        value = np.clip(
            np.nan_to_num(ROUNDINGS[ins.op[1]](value.astype(np.longdouble))), limits.min, limits.max
        )
    with np.errstate(over="ignore"):
        return widened(value.astype(target))


def _register_type(kind):
    """The register that holds a value: of 32 bits at least."""
    return kind if kind.itemsize >= 4 else np.dtype(np.int32 if kind.kind == "i" else np.uint32)


def widened(values):
    """Values as a register holds them."""
    return values.astype(_register_type(values.dtype))


def _population(run, ins):
    return np.bitwise_count(*_operands(run, ins, 1)).astype(np.uint32)


def _leading_zeros(run, ins):
    (x,) = _operands(run, ins, 1)
    return sum(
        ((x >> x.dtype.type(bit)) == 0).astype(np.uint32) for bit in range(8 * x.dtype.itemsize)
    )


def _reverse(run, ins):
    (x,) = _operands(run, ins, 1)
    return sum(((x >> np.uint32(i)) & np.uint32(1)) << np.uint32(31 - i) for i in range(32)).astype(
        np.uint32
    )


def _extract_field(run, ins):
    kind = dtype_of(ins.op[-1])
    x = run.get(ins.args[1], kind).astype(
        np.int64 if kind.kind == "i" or kind.itemsize < 8 else np.uint64
    )
    first, size = (
        run.get(arg, UNSIGNED[32]).astype(x.dtype) & x.dtype.type(255) for arg in ins.args[2:4]
    )
    one = x.dtype.type(1)
    field = (x >> first) & ((one << size) - one)
    if kind.kind == "i":
        field = np.where(
            (size > 0) & ((field >> np.maximum(size - 1, 0)) & 1 == 1), field - (one << size), field
        )
    return field.astype(kind)


def _insert_field(run, ins):
    kind = dtype_of(ins.op[-1])
    field, base = (run.get(arg, kind) for arg in ins.args[1:3])
    first, size = (run.get(arg, UNSIGNED[32]) & np.uint32(255) for arg in ins.args[3:5])
    one, bits = kind.type(1), 8 * kind.itemsize
    mask = np.where(
        size >= bits, ~kind.type(0), (one << np.minimum(size, bits - 1).astype(kind)) - one
    )
    shift = np.minimum(first, bits - 1).astype(kind)
    return np.where(first >= bits, base, (base & ~(mask << shift)) | (field & mask) << shift)


def _logic_table(run, ins):
    x, y, z = (run.get(arg, UNSIGNED[32]) for arg in ins.args[1:4])
    table, found = int(ins.args[4], 0), np.uint32(0)
    for i in range(8):
        if table >> i & 1:
            found = found | (x if i & 4 else ~x) & (y if i & 2 else ~y) & (z if i & 1 else ~z)
    return found


def _permute(run, ins):
    low, high, choice = (run.get(arg, UNSIGNED[32]).astype(np.uint64) for arg in ins.args[1:4])
    both, found = low | high << np.uint64(32), np.uint64(0)
    for i in range(4):
        pick = (choice >> np.uint64(4 * i)) & np.uint64(15)
        byte = (both >> (np.uint64(8) * (pick & np.uint64(7)))) & np.uint64(255)
        sign = np.where(byte & np.uint64(128), np.uint64(255), np.uint64(0))
        found = found | np.where(pick & np.uint64(8), sign, byte) << np.uint64(8 * i)
    return found.astype(np.uint32)


OPERATIONS = {
    **dict.fromkeys(BINARY, _binary), **dict.fromkeys(UNARY, _unary), "div": _divide, "rem": _divide, "mul": _multiply, "mad": _multiply,
    "fma": _fma, "shl": _shift, "shr": _shift, "shf": _funnel, "setp": _compare, "selp": _select, "cvt": _convert, "popc": _population,
    "clz": _leading_zeros, "brev": _reverse, "bfe": _extract_field, "bfi": _insert_field, "lop3": _logic_table, "prmt": _permute,
    "cvta": lambda run, ins: run.get(ins.args[1], np.dtype(np.uint64)),
}  # fmt: skip
