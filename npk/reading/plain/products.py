"""Products of a value with a matrix, however written, become linear layers."""

import math
import string
from collections.abc import Callable

from torch import fx

from npk.reading.exported import name_of
from npk.reading.plain.constants import turned
from npk.reading.plain.rewriting import ATEN, depending, made, replace


def as_layers(program: fx.GraphModule) -> None:
    """Write every product of one value with tensors that no sample changes as a linear layer;
    others stay as they are.

    Args:
        program: exported; it is changed.
    """
    changing = depending(program.graph)
    for node in list(program.graph.nodes):
        spelled = _SPELLED.get(name_of(node)) if node in changing else None
        product = spelled(node) if spelled else None
        result = product and _layer(node, *product[:3], changing)
        if product and result is not None:
            _finish(node, result, product[3], changing)
            changing |= depending(program.graph)


def _finish(node: fx.Node, result: fx.Node, shift: fx.Node | None, changing: set[fx.Node]) -> None:
    """Give a layer the bias that is added to it, by the operator itself or by a sum behind it."""
    last = node
    if shift is None and len(node.users) == 1:
        last = next(iter(node.users))
        added = [
            a for a in last.args if a is not node and isinstance(a, fx.Node) and a not in changing
        ]
        shift = added[0] if name_of(last) == "add" and not last.kwargs and added else None
    if shift is not None and name_of(result) == "linear" and _is_bias(shift, result):
        shift = (
            shift if shift.meta["val"].dim() == 1 else made(last, ATEN.reshape.default, shift, [-1])
        )
        replace(last, made(last, ATEN.linear.default, *result.args[:2], shift))
    else:
        replace(
            node,
            made(node, ATEN.add.Tensor, result, shift)
            if last is node and shift is not None
            else result,
        )


def _is_bias(shift: fx.Node, layer: fx.Node) -> bool:
    sides = tuple(shift.meta["val"].shape)
    return bool(sides) and sides[-1] == layer.meta["val"].shape[-1] == math.prod(sides)


def _layer(
    node: fx.Node, letters: str, first: fx.Node, second: fx.Node, changing: set[fx.Node]
) -> fx.Node | None:
    ins, _, out = letters.partition("->")
    xs, ws = ins.split(",")
    if (
        (first in changing) == (second in changing)
        and _repeated(second) is None
        and _repeated(first) is None
    ):
        return None
    x, w = first, second
    if first not in changing or _repeated(first) is not None:
        x, w, xs, ws = second, first, ws, xs
    if (held := _repeated(w)) is not None:  # one matrix for every sample, repeated over the batch
        w, ws = (
            (held, ws[1:])
            if held.meta["val"].dim() == len(ws) - 1
            else (made(node, ATEN.select.int, held, 0, 0), ws[1:])
        )
    if (
        w in changing
        or xs[0] != out[:1]
        or xs[0] in ws
        or len(set(xs)) < len(xs)
        or len(set(ws)) < len(ws)
    ):
        return None
    if len(ws) == 2 and (inner := turned(w)) is not None:
        w, ws = inner, ws[::-1]
    return _plain(node, x, xs, w, ws, out) or _contraction(node, x, xs, w, ws, out)


def _repeated(node: fx.Node) -> fx.Node | None:
    """The tensor that an ``expand`` repeats for every sample."""
    if name_of(node) != "expand" or not constant_like(node.args[0]):
        return None
    return node.args[0]  # type: ignore[return-value]


def constant_like(node: object) -> bool:
    """Whether no sample enters a value."""
    return isinstance(node, fx.Node) and node not in depending(node.graph)


def _plain(node: fx.Node, x: fx.Node, xs: str, w: fx.Node, ws: str, out: str) -> fx.Node | None:
    """A product with a matrix over the last axis."""
    if len(ws) != 2 or xs[-1] not in ws or out[:-1] != xs[:-1] or {xs[-1], out[-1]} != set(ws):
        return None
    weight = w if ws[1] == xs[-1] else made(node, ATEN.t.default, w)
    return made(node, ATEN.linear.default, x, weight)


def _contraction(node: fx.Node, x: fx.Node, xs: str, w: fx.Node, ws: str, out: str) -> fx.Node:
    """Any other contraction with a constant: a layer on one axis, grouped by shared letters."""
    shared = [c for c in xs if c in ws and c in out]
    summed = [c for c in xs if c in ws and c not in out]
    kept = [c for c in xs[1:] if c not in ws and c in out]
    fresh = [c for c in ws if c not in xs and c in out]
    sides = {
        **dict(zip(xs, x.meta["val"].shape, strict=True)),
        **dict(zip(ws, w.meta["val"].shape, strict=True)),
    }
    x, xs = _summed(node, x, xs, [c for c in xs if c not in ws and c not in out])
    w, ws = _summed(node, w, ws, [c for c in ws if c not in xs and c not in out])
    if not summed and not fresh:
        wide = [c if c in shared else "" for c in out]
        w = made(
            node,
            ATEN.reshape.default,
            _ordered(node, w, ws, [c for c in wide if c]),
            [sides[c] if c else 1 for c in wide[1:]],
        )
        return made(node, ATEN.mul.Tensor, _ordered(node, x, xs, list(out)), w)
    size = lambda letters: math.prod(int(sides[c]) for c in letters)  # noqa: E731
    x = _ordered(node, x, xs, [xs[0], *shared, *summed, *kept])
    count = len(shared) + len(summed)
    if count:
        x = made(node, ATEN.flatten.using_ints, x, 1, count)
    else:
        x = made(node, ATEN.unsqueeze.default, x, 1)
    if kept:
        x = made(node, ATEN.flatten.using_ints, x, 2, -1)
    else:
        x = made(node, ATEN.unsqueeze.default, x, 2)
    w = _ordered(node, w, ws, [*shared, *fresh, *summed])
    w = made(node, ATEN.reshape.default, w, [size(shared) * size(fresh), size(summed), 1])
    y = made(node, ATEN.conv1d.default, x, w, None, [1], [0], [1], size(shared))
    if kept:
        y = made(node, ATEN.unflatten.int, y, 2, [sides[c] for c in kept])
    else:
        y = made(node, ATEN.squeeze.dim, y, 2)
    wide = [*shared, *fresh]
    if wide:
        y = made(node, ATEN.unflatten.int, y, 1, [sides[c] for c in wide])
    else:
        y = made(node, ATEN.squeeze.dim, y, 1)
    return _ordered(node, y, "".join([xs[0], *wide, *kept]), list(out))


def _summed(node: fx.Node, value: fx.Node, letters: str, gone: list[str]) -> tuple[fx.Node, str]:
    if not gone:
        return value, letters
    axes = [letters.index(c) for c in gone]
    return made(node, ATEN.sum.dim_IntList, value, axes), "".join(
        c for c in letters if c not in gone
    )


def _ordered(node: fx.Node, value: fx.Node, letters: str, order: list[str]) -> fx.Node:
    axes = [letters.index(c) for c in order]
    return (
        value if axes == list(range(len(axes))) else made(node, ATEN.permute.default, value, axes)
    )


# ------------------------------------------------------------------------------------------------ spellings, in letters of an einsum

Spelled = tuple[str, fx.Node, fx.Node, fx.Node | None] | None


def _rank(node: object) -> int:
    return node.meta["val"].dim() if isinstance(node, fx.Node) else 0


def _of_matrices(first: fx.Node, second: fx.Node, shift: fx.Node | None = None) -> Spelled:
    """The rules of matmul: over the last axis of the first, the last but one of the second."""
    a, b = _rank(first), _rank(second)
    if not a or not b:
        return None
    batch = string.ascii_lowercase[: max(a, b, 2) - 2]
    left, right = batch[len(batch) - max(a - 2, 0) :], batch[len(batch) - max(b - 2, 0) :]
    rows, columns = ("y" if a > 1 else ""), ("z" if b > 1 else "")
    wide = left if len(left) >= len(right) else right
    if (
        any(int(s) == 1 for s in (*first.meta["val"].shape[1:-2], *second.meta["val"].shape[1:-2]))
        and left
        and right
    ):
        return None  # broadcasts over an axis
    return f"{left}{rows}x,{right}x{columns}->{wide}{rows}{columns}", first, second, shift


def _matmul(node: fx.Node) -> Spelled:
    return _of_matrices(*node.args[:2])  # type: ignore[arg-type]


def _added(node: fx.Node) -> Spelled:
    """addmm, baddbmm: a sum of a tensor and a product."""
    if node.kwargs.get("beta", 1) != 1 or node.kwargs.get("alpha", 1) != 1:
        return None
    shift, first, second = node.args[:3]
    return _of_matrices(first, second, shift)  # type: ignore[arg-type]


def _inner(node: fx.Node) -> Spelled:
    first, second = node.args[:2]
    a = string.ascii_lowercase[: _rank(first) - 1]
    b = string.ascii_lowercase[13 : 12 + _rank(second)]
    return f"{a}x,{b}x->{a}{b}", first, second, None  # type: ignore[return-value]


def _tensordot(node: fx.Node) -> Spelled:
    first, second, ours, theirs = node.args[:4]
    a = list(string.ascii_lowercase[: _rank(first)])
    b = list(string.ascii_lowercase[13 : 13 + _rank(second)])
    for i, j in zip(ours, theirs, strict=True):  # type: ignore[arg-type]
        b[j] = a[i]
    kept = [c for c in a if c not in b] + [c for c in b if c not in a]
    return f"{''.join(a)},{''.join(b)}->{''.join(kept)}", first, second, None  # type: ignore[return-value]


def _einsum(node: fx.Node) -> Spelled:
    letters, tensors = str(node.args[0]).replace(" ", ""), node.args[1]
    if len(tensors) != 2:  # type: ignore[arg-type]
        return None
    ins, _, out = letters.partition("->")
    sides = ins.split(",")
    free = [c for c in string.ascii_letters if c not in letters]
    ranks = [_rank(t) - len(s.replace("...", "")) for s, t in zip(sides, tensors, strict=True)]  # type: ignore[arg-type]
    most = max((r for r, s in zip(ranks, sides, strict=True) if "..." in s), default=0)
    dots = "".join(free[:most])
    sides = [s.replace("...", dots[most - r :]) for r, s in zip(ranks, sides, strict=True)]
    if "->" not in letters:
        out = "..." + "".join(sorted(c for c in set(ins) if c.isalpha() and ins.count(c) == 1))
    return f"{','.join(sides)}->{out.replace('...', dots)}", *tensors, None  # type: ignore[return-value]


_SPELLED: dict[str, Callable[[fx.Node], Spelled]] = {
    **dict.fromkeys(("matmul", "mm", "bmm", "mv"), _matmul),
    **dict.fromkeys(("addmm", "baddbmm"), _added),
    **{"inner": _inner, "tensordot": _tensordot, "einsum": _einsum},
}
