"""What a path may pass: the operators of a path graph."""

from dataclasses import dataclass

from npk.dual.positions import AdaptiveWindow, Window


@dataclass(frozen=True)
class Input:
    """Where paths start: the network's input, or ones in its place (``ones=True``).

    ``units``: flat number of the input value that each unit shows, -1 for a zero; ``None``: its own.
    """

    ones: bool = False
    units: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Convolution:
    """Linear layer whose weights are shared by all positions. A dense layer is the case of a window as large as the grid."""

    weight: str
    bias: str | None
    window: Window
    groups: int = 1


@dataclass(frozen=True)
class BatchNorm:
    """Batch norm with fixed statistics: a diagonal weight, and a shift that is a bias."""

    weight: str | None
    bias: str | None
    mean: str
    variance: str
    epsilon: float


@dataclass(frozen=True)
class Scale:
    """Multiply by a number of the code (a coefficient of the paths) and by a tensor of the network, one weight a channel or one for all."""

    factor: float = 1.0
    weight: str | None = None
    inverse: bool = False  # divide by the tensor


@dataclass(frozen=True)
class Shift:
    """Add factor times a tensor of the network, or a number: a bias with one value a channel or one for all."""

    bias: str | None = None
    factor: float = 1.0


@dataclass(frozen=True)
class Gate:
    """Multiply by gate ``gate`` of the gate table.

    A hard gate that is off lets ``slope`` pass (0; that of a leaky ReLU; one a channel in a PReLU; -1 in an absolute value). ``levels``:
    entries of the gate table that say where the operator saturates, and the constant that it then gives: paths of its own start there.
    """

    gate: str
    slope: float | tuple[float, ...] = 0.0
    levels: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class AveragePool:
    """Mean over a window.

    ``counted``: width of the padding, before and after each axis, whose zeros count in the mean; ``None``: positions alone count.
    ``divisor``: divides the sum in place of the count.
    """

    window: Window | AdaptiveWindow
    counted: tuple[tuple[int, int], ...] | None = None
    divisor: int | None = None


@dataclass(frozen=True)
class MaxPool:
    """Selection ``gate`` of the gate table: each window lets one of its positions pass."""

    gate: str
    window: Window | AdaptiveWindow


@dataclass(frozen=True)
class Part:
    """A rectangle of a rearrangement: channels ``into`` of the result show ``channels`` of input number ``input``.

    ``taps``: position of the input that each position of the result shows, -1 for a zero; ``None``: its own.
    """

    input: int
    into: tuple[int, ...]
    channels: tuple[int, ...]
    taps: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Rearrange:
    """Units put in other places: concatenation, slices, shuffles, padding, upsampling. What no part fills is zero."""

    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Add:
    """Sum of branches; no path type may lead through two of them."""


Operator = Input | Convolution | BatchNorm | Scale | Shift | Gate | AveragePool | MaxPool | Rearrange | Add


def parameters_of(operator: Operator) -> tuple[str, ...]:
    """Names of the parameters that a path multiplies at this operator (biases, where other paths start, left aside)."""
    match operator:
        case Convolution(weight=weight):
            return (weight,)
        case BatchNorm(weight=weight, variance=variance):
            return (weight or variance,)
        case Scale(weight=str(weight)):
            return (weight,)
    return ()


def bias_of(operator: Operator, name: str) -> str | None:
    """What the paths that start at a node's bias are known by, or ``None``; ``name`` is the node's."""
    match operator:
        case Convolution(bias=str(bias)) | Shift(bias=str(bias)):
            return bias
        case BatchNorm(mean=mean):
            return mean
        case Shift():
            return name
    return None


def describe(operator: Operator) -> str:
    """The operator in a few words."""
    match operator:
        case Convolution(weight=weight, window=window):
            return f"{_layer(operator)} {weight}" + ("" if window.size == 1 else _geometry(window))
        case Gate(gate=gate, slope=slope):
            one = f" slope {slope:g}" if isinstance(slope, float | int) and slope else ""
            return f"gate {gate}" + (" slope a channel" if isinstance(slope, tuple) else one)
        case MaxPool(window=window) | AveragePool(window=window):
            return f"{type(operator).__name__}{_geometry(window)}"
        case Input(ones=ones):
            return "ones" if ones else "input"
        case Scale(factor=factor, weight=weight, inverse=inverse):
            return f"scale {factor:g}" + (f" {'/' if inverse else '*'} {weight}" if weight else "")
        case Shift(bias=bias, factor=factor):
            return f"shift {factor:g}" + (f" * {bias}" if bias else "")
        case Rearrange(parts=parts):
            return _movement(parts)
        case _:
            return type(operator).__name__


def _movement(parts: tuple[Part, ...]) -> str:
    """What a rearrangement does, in the words of its usual causes."""
    if len({part.input for part in parts}) > 1:
        return f"concatenation, {len(parts)} parts"
    if len(parts) == 1 and parts[0].into == parts[0].channels:
        return "positions moved"
    if all(part.taps is None for part in parts):
        return "channels moved"
    return f"rearrangement, {len(parts)} part" + ("s" if len(parts) > 1 else "")


def _layer(operator: Convolution) -> str:
    window = operator.window
    plain = window.size == 1 and all(s == 1 for s in window.stride) and not any(map(any, window.padding))
    kind = "linear" if plain else "transposed convolution" if window.transposed else "convolution"
    return kind if operator.groups == 1 else f"{kind} in {operator.groups} groups"


def _geometry(window: Window | AdaptiveWindow) -> str:
    if isinstance(window, AdaptiveWindow):
        return f" {window.kernel} adaptive to {window.sides}"
    dilated = f" dilation {window.dilation}" if max(window.dilation, default=1) > 1 else ""
    return f" {window.kernel} stride {window.stride} padding {window.padding}{dilated}"
