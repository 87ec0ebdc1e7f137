"""What a traced value is as a function of another one: a line on each side of 0.

ReLU has many spellings: ``where(q > 0, q, 0)``, ``q * (q > 0)``, ``max(q, 0)``, ``(q + |q|) / 2``.
All of them are a line through 0
where q > 0 and another one where q < 0, so they are understood by what they compute. Which side q =
0 is on does not matter: both lines meet there.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from npk.reading.exported import CASTS, SAME, arguments, name_of

Line = tuple[float, float]  # (slope, level): slope * q + level
_SIDES = (1.0, 0.0, -1.0)  # q > 0, q = 0, q < 0


@dataclass(frozen=True)
class Sided:
    """Lines where q > 0, q = 0 and q < 0; ``weighted``: a tensor is in their slopes."""

    lines: tuple[Line, Line, Line]
    weighted: bool = False

    @property
    def number(self) -> float | None:
        """The number that it is, if it is one everywhere."""
        if len({level for _, level in self.lines}) == 1 and not any(s for s, _ in self.lines):
            return self.lines[0][1]
        return None

    @property
    def slopes(self) -> tuple[float, float] | None:
        """Slopes above and below 0, if both lines go through 0."""
        return (
            None if any(level for _, level in self.lines) else (self.lines[0][0], self.lines[2][0])
        )

    @property
    def switch(self) -> tuple[float, float, float] | None:
        """The levels above, at and below 0, if there are no slopes."""
        return (
            None
            if any(slope for slope, _ in self.lines)
            else tuple(level for _, level in self.lines)
        )  # type: ignore[return-value]


# by the value that it is a function of; None: of nothing, it is a number
Forms = dict[fx.Node | None, Sided]
IDENTITY = Sided(((1.0, 0.0), (0.0, 0.0), (1.0, 0.0)))


def constant(number: float, *, weighted: bool = False) -> Sided:
    """The same number everywhere."""
    line = (0.0, float(number))
    return Sided((line, line, line), weighted)


def _sign(line: Line, side: float) -> float | None:
    """The sign of a line on one side of 0, if it has one."""
    slope, level = line[0] * side, line[1]
    if slope >= 0 and level >= 0:
        return float(slope > 0 or level > 0)
    return -1.0 if slope <= 0 and level <= 0 else None


def _plus(u: Line, v: Line, times: float = 1.0) -> Line:
    return u[0] + times * v[0], u[1] + times * v[1]


def _times(u: Line, v: Line) -> Line | None:
    if u[0] and v[0]:
        return None
    return (u[1] * v[0], u[1] * v[1]) if not u[0] else (v[1] * u[0], v[1] * u[1])


def _larger(u: Line, v: Line, side: float) -> Line | None:
    sign = _sign(_plus(u, v, -1.0), side)
    return None if sign is None else u if sign >= 0 else v


def _smaller(u: Line, v: Line, side: float) -> Line | None:
    sign = _sign(_plus(u, v, -1.0), side)
    return None if sign is None else u if sign <= 0 else v


def _compared(holds: Callable[[float], bool]) -> Callable[..., Line | None]:
    def rule(u: Line, v: Line, side: float) -> Line | None:
        sign = _sign(_plus(u, v, -1.0), side)
        return None if sign is None else (0.0, float(holds(sign)))

    return rule


def _chosen(condition: Line, u: Line, v: Line, side: float) -> Line | None:
    return None if condition[0] else u if condition[1] else v


def _signed(u: Line, side: float) -> Line | None:
    sign = _sign(u, side)
    return None if sign is None else (0.0, sign)


def _absolute(u: Line, side: float) -> Line | None:
    sign = _sign(u, side)
    return None if sign is None else (u[0] * (sign or 1), u[1] * (sign or 1))


def _stepped(u: Line, v: Line, side: float) -> Line | None:
    sign = _sign(u, side)
    return None if sign is None else v if sign == 0 else (0.0, float(sign > 0))


def _leaky(u: Line, slope: Line, side: float) -> Line | None:
    sign = _sign(u, side)
    return None if sign is None else u if sign >= 0 else _times(u, slope)


def _denied(u: Line, side: float) -> Line | None:
    return None if u[0] else (0.0, float(not u[1]))


COMPARED = {
    **{"gt": lambda s: s > 0, "ge": lambda s: s >= 0, "lt": lambda s: s < 0},
    **{"le": lambda s: s <= 0, "eq": lambda s: s == 0, "ne": lambda s: s != 0},
}
_RULES: dict[str, Callable[..., Line | None]] = {
    **{name: _compared(holds) for name, holds in COMPARED.items()},
    "add": lambda u, v, side: _plus(u, v),
    "sub": lambda u, v, side: _plus(u, v, -1.0),
    "mul": lambda u, v, side: _times(u, v),
    "div": lambda u, v, side: None if v[0] or not v[1] else (u[0] / v[1], u[1] / v[1]),
    "neg": lambda u, side: (-u[0], -u[1]),
    "maximum": _larger,
    "minimum": _smaller,
    "where": _chosen,
    "sign": _signed,
    "sgn": _signed,
    "abs": _absolute,
    "heaviside": _stepped,
    "leaky_relu": _leaky,
    "logical_not": _denied,
    "bitwise_not": _denied,
}


def operands(node: fx.Node) -> tuple[str, list[Any]] | None:
    """A node as one of the operators that have a rule, and what it works on; ``None``: it has none."""
    name, args = name_of(node).removesuffix("_"), list(node.args)
    match name:
        case "relu":
            return "maximum", [args[0], 0.0]
        case "leaky_relu":
            return name, [args[0], arguments(node, ("negative_slope", 0.01))[0]]
        case "rsub":
            return ("sub", [args[1], args[0]]) if node.kwargs.get("alpha", 1) == 1 else None
        case "add" | "sub":
            return (name, args[:2]) if node.kwargs.get("alpha", 1) == 1 else None
        case "div":
            return None if node.kwargs.get("rounding_mode") else (name, args[:2])
        case "max" | "min":
            if len(args) == 2 and isinstance(args[1], fx.Node):
                return {"max": "maximum", "min": "minimum"}[name], args
            return None
        case "clamp" | "clamp_min":
            low, high = arguments(node, ("min", None), ("max", None))
            return (
                None
                if (low is None) == (high is None)
                else ("maximum", [args[0], low])
                if high is None
                else ("minimum", [args[0], high])
            )
        case "masked_fill":
            return "where", [args[1], args[2], args[0]]
        case "index_put":
            return _filled(node)
        case "where":
            return (name, args) if len(args) == 3 else None
        case "threshold":
            return None if arguments(node, ("threshold", 0))[0] else ("threshold", args)
    return (name, args) if name in _RULES else None


def _filled(node: fx.Node) -> tuple[str, list[Any]] | None:
    """``q[condition] = value`` is a choice, if the condition is one of every element."""
    arguments: Any = node.args
    q, indices, value, *added = arguments
    if len(indices) != 1 or not isinstance(indices[0], fx.Node) or any(added):
        return None
    condition = indices[0]
    same = condition.meta["val"].dtype == torch.bool and _shape(condition) == _shape(node)
    return ("where", [condition, value, q]) if same and value.meta["val"].numel() == 1 else None


def _shape(node: fx.Node) -> tuple[str, ...]:
    return tuple(map(str, node.meta["val"].shape))


def forms_of(node: fx.Node, known: dict[fx.Node, Forms]) -> Forms:
    """All the values that a node is such a function of, itself first.

    Args:
        node: of the traced program.
        known: the forms of the nodes before it.

    Returns:
        Function by value; under ``None`` alone where it is a number.
    """
    name = name_of(node)
    own: Forms = {node: IDENTITY}
    if not isinstance(node.meta.get("val"), torch.Tensor):
        return own
    if name in (*SAME, *CASTS, "expand", "positive") and _keeps_numbers(node):
        passed = known.get(node.args[0], {})  # type: ignore[arg-type]
        return passed if None in passed else {**own, **(passed if name != "expand" else {})}
    rule_and_args = operands(node)
    if rule_and_args is None:
        return own
    rule, args = rule_and_args
    if rule == "threshold":  # where(q > 0, q, value)
        rule, args = "where", [None, args[0], arguments(node, ("threshold", 0), ("value", 0))[1]]
    inputs = [_forms(a, known) for a in args]
    if rule == "where" and args[0] is None:
        inputs[0] = {
            base: one
            for base, form in inputs[1].items()
            if (one := _apply("gt", [form, constant(0)]))
        }
    if rule == "mul" and any(
        form.number == 0 and not form.weighted for one in inputs for form in one.values()
    ):
        return {None: constant(0)}
    derived = _combined(rule, inputs, node)
    return derived if None in derived else {**own, **derived}


def _forms(argument: object, known: dict[fx.Node, Forms]) -> Forms:
    if isinstance(argument, int | float):
        return {None: constant(argument)}
    return known.get(argument, {}) if isinstance(argument, fx.Node) else {}


def _keeps_numbers(node: fx.Node) -> bool:
    """Whether a cast keeps every number: to a floating-point type, or from a truth value."""
    value: Any = node.args[0]
    kept = value.meta["val"].dtype
    return node.meta["val"].is_floating_point() or not (
        kept.is_floating_point or node.meta["val"].dtype == torch.bool != kept
    )


def _combined(rule: str, inputs: list[Forms], node: fx.Node) -> Forms:
    bases = {base for one in inputs for base in one if base is not None}
    combined: Forms = {}
    for base in sorted(bases, key=lambda b: b.name) or [None]:
        chosen = [one.get(base, one.get(None)) for one in inputs]
        same_shape = base is None or _shape(base) == _shape(node)
        if (
            all(form is not None for form in chosen)
            and same_shape
            and (form := _apply(rule, chosen))  # type: ignore[arg-type]
        ):
            if form.number is not None and not form.weighted:
                return {None: form}
            combined[base] = form
    return combined


def _apply(rule: str, forms: list[Sided]) -> Sided | None:
    lines = [
        _RULES[rule](*(form.lines[i] for form in forms), side) for i, side in enumerate(_SIDES)
    ]
    if any(line is None or not all(map(math.isfinite, line)) for line in lines):
        return None
    middle = (0.0, lines[1][1])  # type: ignore[index]
    return Sided((lines[0], middle, lines[2]), any(form.weighted for form in forms))  # type: ignore[arg-type]
