"""Every spelling of a gate becomes an operator with a rule, or a value times ``q > 0``."""

import math
from typing import Any

import torch
from torch import fx

from npk.reading.exported import NUMBER, arguments, constant_behind, name_of
from npk.reading.plain.constants import Leaves, tensor_of
from npk.reading.plain.rewriting import ATEN, depending, made, replace
from npk.reading.plain.sided import Forms, Sided, constant, forms_of, operands
from npk.reading.rules.gates import is_gate

_CHOICES = ("where", "maximum", "minimum", "threshold")
_PLAIN = ("relu", "leaky_relu", "abs", "clamp", "clamp_min")


def spell_out(program: fx.GraphModule, leaves: Leaves, read: set[str]) -> None:
    """Rewrite the gates of a program, and mark the values that are a number for every sample.

    Args:
        program: exported, its constants folded; it is changed.
        leaves: of the computed tensors.
        read: takes the names of the tensors whose numbers are taken for slopes and bounds.
    """
    forms: dict[fx.Node, Forms] = {}
    own = {n for n, _ in program.named_buffers(remove_duplicate=False)} - leaves.keys()
    own |= {n for n, _ in program.named_parameters(remove_duplicate=False)}
    samples = depending(program.graph)
    for node in list(program.graph.nodes):
        if node.op == "get_attr":
            forms[node] = _held(program, node, leaves, own)
            read.update([str(node.target)] if forms[node] else [])
        elif node.op == "placeholder":
            forms[node] = forms_of(node, forms)
        elif node.op == "call_function":
            plain = _rewritten(node, forms, samples) if node in samples else None
            for new in _new_nodes(plain, forms):
                forms[new] = forms_of(new, forms)
                samples.add(new)
            if plain is None:
                forms[node] = _filled_with(node) or forms_of(node, forms)
            else:
                replace(node, plain)
                forms[node] = forms[plain]
            _mark(node, forms[node])


def _new_nodes(last: fx.Node | None, known: dict[fx.Node, Forms]) -> list[fx.Node]:
    """The nodes behind one that are not known yet, in order."""
    if last is None or last in known:
        return []
    return [*(new for a in last.all_input_nodes for new in _new_nodes(a, known)), last]


def _mark(node: fx.Node, forms: Forms) -> None:
    if None in forms and not forms[None].weighted and name_of(node) not in _PLAIN:
        number = forms[None].number
    else:
        number = None
    if number is not None and isinstance(node.meta.get("val"), torch.Tensor):
        node.meta[NUMBER] = number


def _held(program: fx.GraphModule, node: fx.Node, leaves: Leaves, own: set[str]) -> Forms:
    """A tensor of the program, if it is one number; ``own``: the network's parameters, buffers."""
    name = str(node.target)
    tensor: Any = tensor_of(program, name)
    if not isinstance(tensor, torch.Tensor) or not tensor.numel() or tensor.is_complex():
        return {}
    of_network = bool(own & leaves.get(name, frozenset({name})))
    learned = isinstance(tensor, torch.nn.Parameter)
    if tensor.numel() > 1 and (learned or bool((tensor != tensor.reshape(-1)[0]).any())):
        return {}
    return {None: constant(float(tensor.detach().reshape(-1)[0]), weighted=of_network)}


def _filled_with(node: fx.Node) -> Forms | None:
    """Tensors that are made of one number."""
    name = name_of(node)
    if name in ("zeros", "zeros_like", "new_zeros", "ones", "ones_like", "new_ones"):
        return {None: constant("ones" in name)}
    place = {"full": 1, "full_like": 1, "new_full": 2, "scalar_tensor": 0}.get(name)
    number = None if place is None or len(node.args) <= place else node.args[place]
    return {None: constant(number)} if isinstance(number, int | float) else None


# ------------------------------------------------------------------------------------------------ from functions to operators


def _rewritten(node: fx.Node, known: dict[fx.Node, Forms], samples: set[fx.Node]) -> fx.Node | None:
    """The plain operator that a node is a spelling of, if it is one."""
    if bounded := _bounds(node, known):
        return bounded
    rule_and_args = None if name_of(node).removesuffix("_") in _PLAIN else operands(node)
    if rule_and_args is None:
        return None
    rule, args = rule_and_args
    computed = [a for a in args if isinstance(a, fx.Node) and a in samples]
    if rule not in _CHOICES and (rule not in ("add", "sub", "mul") or len(computed) < 2):
        return None
    forms = forms_of(node, known)
    if None in forms:
        return None
    if rule in ("add", "sub", "mul") and (other := _with_number(node, rule, args, known)):
        return other
    bases = [base for base in forms if base is not None and base is not node]
    for base in sorted(bases, key=_place, reverse=True):
        if (
            (slopes := forms[base].slopes)
            and any(slopes)
            and _is_spelling(rule, slopes, [_form(a, base, known) for a in args])
        ):
            return _gate(node, base, *slopes)
    return (
        _chosen(node, rule, args, known)
        or _clamped(node, rule, args, known)
        or _switched(node, rule, args, known)
    )


def _place(node: fx.Node) -> Any:
    """The place of a node in the program: what is computed later is larger."""
    return node._sort_key


def _with_number(
    node: fx.Node, rule: str, args: list[Any], known: dict[fx.Node, Forms]
) -> fx.Node | None:
    """A sum with zeros, or a product with a number, written as tensors of the value's shape."""
    numbers = [_number(a, known) for a in args]
    if (numbers[0] is None) == (numbers[1] is None):
        return None
    value, number = (args[0], numbers[1]) if numbers[0] is None else (args[1], numbers[0])
    same = tuple(map(str, value.meta["val"].shape)) == tuple(map(str, node.meta["val"].shape))
    if not same or is_gate(value, clamps=True):
        return None
    if rule == "mul":
        return made(node, ATEN.mul.Tensor, value, number)
    return value if number == 0 and (rule == "add" or value is args[0]) else None


def _form(argument: object, base: fx.Node, known: dict[fx.Node, Forms]) -> Sided:
    forms = known.get(argument, {}) if isinstance(argument, fx.Node) else {}
    return forms.get(base) or forms.get(None) or constant(0)


def _is_spelling(rule: str, slopes: tuple[float, float], parts: list[Sided]) -> bool:
    """Whether a line on each side is a gate: the slope of a choice may be a weight; a sum must
    leave one side out, or its parts must.
    """
    if rule in _CHOICES:
        return slopes[0] != slopes[1] or not any(part.weighted for part in parts)
    if any(part.weighted for part in parts):
        return False
    one_sided = all(part.slopes and 0 in part.slopes for part in parts)
    if rule == "mul":
        return slopes[0] != slopes[1]
    return 0 in slopes or slopes[0] == -slopes[1] or (one_sided and slopes[0] != slopes[1])


def _gate(node: fx.Node, base: fx.Node, above: float, below: float) -> fx.Node:
    """A line through 0 on each side."""
    if above == below:
        return made(node, ATEN.mul.Tensor, base, above)
    if above == 0:
        turned = made(node, ATEN.relu.default, made(node, ATEN.neg.default, base))
        return turned if below == -1 else made(node, ATEN.mul.Tensor, turned, -below)
    slope = below / above
    if slope == -1:
        gated = made(node, ATEN.abs.default, base)
    elif slope:
        gated = made(node, ATEN.leaky_relu.default, base, slope)
    else:
        gated = made(node, ATEN.relu.default, base)
    return gated if above == 1 else made(node, ATEN.mul.Tensor, gated, above)


def _number(argument: object, known: dict[fx.Node, Forms]) -> float | None:
    """The number that an argument is, whether the code or a tensor of the network says so."""
    if isinstance(argument, int | float):
        return float(argument)
    form = known.get(argument, {}).get(None) if isinstance(argument, fx.Node) else None
    return form.number if form else None


def _bounds(node: fx.Node, known: dict[fx.Node, Forms]) -> fx.Node | None:
    """A clamp whose bounds are tensors of one number."""
    if name_of(node).removesuffix("_") not in ("clamp", "clamp_min", "clamp_max"):
        return None
    names = {"clamp_min": ("min",), "clamp_max": ("max",)}.get(
        name_of(node).removesuffix("_"), ("min", "max")
    )
    given = dict(zip(names, arguments(node, *((name, None) for name in names)), strict=True))
    if not any(isinstance(bound, fx.Node) for bound in given.values()):
        if names == ("max",):
            return made(node, ATEN.clamp.default, node.args[0], None, given["max"])
        return None
    bounds = {
        name: None if bound is None else _number(bound, known) for name, bound in given.items()
    }
    if any(bounds[name] is None for name, bound in given.items() if bound is not None):
        return None
    return made(node, ATEN.clamp.default, node.args[0], bounds.get("min"), bounds.get("max"))


def _clamped(
    node: fx.Node, rule: str, args: list[Any], known: dict[fx.Node, Forms]
) -> fx.Node | None:
    """The larger or smaller of a value and a number, or a value filled where it passes one."""
    if rule == "where":
        return _filled(node, args, known)
    if rule == "threshold":
        threshold, value = arguments(node, ("threshold", 0), ("value", 0))
        return made(node, ATEN.clamp.default, args[0], threshold) if threshold == value else None
    numbers = [_number(a, known) for a in args]
    if rule not in ("maximum", "minimum") or (numbers[0] is None) == (numbers[1] is None):
        return None
    value, bound = (args[0], numbers[1]) if numbers[0] is None else (args[1], numbers[0])
    return _between(node, value, *((bound, math.inf) if rule == "maximum" else (-math.inf, bound)))  # type: ignore[arg-type]


def _filled(node: fx.Node, args: list[Any], known: dict[fx.Node, Forms]) -> fx.Node | None:
    condition, yes, no = args
    compared = name_of(condition) if isinstance(condition, fx.Node) else ""
    if compared not in ("gt", "ge", "lt", "le"):
        return None
    low, high = condition.args[:2]
    bound, larger = _number(high, known), compared in ("gt", "ge")
    filled, value = _number(yes, known), no
    if filled is None:
        filled, value, larger = _number(no, known), yes, not larger
    if bound is None or filled != bound or not _same(low, value):
        return None
    return _between(node, value, *((-math.inf, bound) if larger else (bound, math.inf)))


def _source(value: object) -> object:
    """A value before it was copied."""
    while isinstance(value, fx.Node) and name_of(value) in (
        "clone",
        "detach",
        "alias",
        "contiguous",
    ):
        value = value.args[0]
    return value


def _same(one: object, other: object) -> bool:
    """Whether two values are computed alike."""
    one, other = _source(one), _source(other)
    if not isinstance(one, fx.Node) or not isinstance(other, fx.Node) or one is other:
        return one is other or (not isinstance(one, fx.Node) and one == other)
    alike = (
        one.op == other.op == "call_function"
        and one.target == other.target
        and one.kwargs == other.kwargs
    )
    return alike and len(one.args) == len(other.args) and all(map(_same, one.args, other.args))


def _between(node: fx.Node, value: fx.Node, low: float, high: float) -> fx.Node | None:
    """A clamp, or one with that of its value: clamps in a row are a clamp."""
    name = name_of(value)
    if name in ("relu", "hardtanh", "clamp"):
        if name == "hardtanh":
            names = (("min_val", -1.0), ("max_val", 1.0))
        else:
            names = (("min", None), ("max", None))
        first, last = (0.0, None) if name == "relu" else arguments(value, *names)
        ends = -math.inf if first is None else first, math.inf if last is None else last
        if all(isinstance(end, int | float) for end in ends) and max(ends[0], low) < min(
            ends[1], high
        ):
            low, high, value = max(ends[0], low), min(ends[1], high), value.args[0]  # type: ignore[assignment]
    limits = [bound if math.isfinite(bound) else None for bound in (low, high)]
    if limits == [0.0, None]:
        return made(node, ATEN.relu.default, value)
    return made(node, ATEN.clamp.default, value, *limits) if low < high else None


# ------------------------------------------------------------------------------------------------ other values by the sign of one


def _chosen(
    node: fx.Node, rule: str, args: list[Any], known: dict[fx.Node, Forms]
) -> fx.Node | None:
    """``where(q > 0, q, a * q)`` with a slope a channel, in a tensor of the network, is a PReLU."""
    if rule != "where" or not isinstance(args[2], fx.Node) or name_of(args[2]) != "mul":
        return None
    condition, value, product = args
    slope = next((a for a in product.args if constant_behind(a)), None)
    other = next((a for a in product.args if a is not slope), None)
    switch = (known.get(condition, {}).get(_source(value)) or constant(0)).switch  # type: ignore[arg-type]
    if (
        slope is None
        or not _same(other, value)
        or switch is None
        or (switch[0], switch[2]) != (1.0, 0.0)
    ):
        return None
    sides = tuple(slope.meta["val"].shape)
    wide = (1,) * (value.meta["val"].dim() - len(sides)) + sides
    if (
        len(wide) < 2
        or any(side != 1 for axis, side in enumerate(wide) if axis != 1)
        or wide[1] != value.meta["val"].shape[1]
    ):
        return None
    return made(node, ATEN.prelu.default, value, made(node, ATEN.reshape.default, slope, [-1]))


def _switched(
    node: fx.Node, rule: str, args: list[Any], known: dict[fx.Node, Forms]
) -> fx.Node | None:
    """A value times a switch by the sign of another: an external gate."""
    if rule == "where":
        return _gated_choice(node, args, known)
    if rule != "mul":
        return None
    for gate, value in (args, args[::-1]):
        if (
            isinstance(gate, fx.Node)
            and isinstance(value, fx.Node)
            and (switch := _switch(gate, known))
        ):
            base, on, _, off = switch
            opened = _opened(node, base, on, switch[2], off)
            if opened is not None and not (name_of(gate) == "gt" and on == 1):
                scale = on or off
                product = made(node, ATEN.mul.Tensor, value, opened)
                return product if scale == 1 else made(node, ATEN.mul.Tensor, product, scale)
    return None


def _gated_choice(node: fx.Node, args: list[Any], known: dict[fx.Node, Forms]) -> fx.Node | None:
    condition, yes, no = args
    switch = _switch(condition, known) if isinstance(condition, fx.Node) else None
    kept, zero = (yes, no) if _number(no, known) == 0 else (no, yes)
    if switch is None or _number(zero, known) != 0 or not isinstance(kept, fx.Node):
        return None
    base, *levels = switch
    on, at, off = levels if zero is no else [1 - level for level in levels]
    opened = _opened(node, base, on, at, off)
    if opened is None or kept.meta["val"].dim() != node.meta["val"].dim():
        return None
    return made(node, ATEN.mul.Tensor, kept, opened)


def _switch(
    gate: fx.Node, known: dict[fx.Node, Forms]
) -> tuple[fx.Node, float, float, float] | None:
    """The value whose sign switches a node between two numbers, with levels above, at, below 0."""
    for base, form in known.get(gate, {}).items():
        if (
            base is not None
            and base is not gate
            and (levels := form.switch)
            and levels[0] != levels[2]
        ):
            return base, *levels
    return None


def _opened(node: fx.Node, base: fx.Node, on: float, at: float, off: float) -> fx.Node | None:
    """The gate that is on above 0 alone, or below 0 alone; npk's gates are off at 0."""
    if at != 0 or (on and off):
        return None
    seen = base if on else made(node, ATEN.neg.default, base)
    return made(node, ATEN.gt.Scalar, seen, 0)
