"""What a path may pass: the operators of a path graph, each with its facts.

What a fact means is said once, in :class:`~npk.graph.facts.Operator`.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from npk.graph.facts import Operator, Ungated, Unitwise, Unweighted, refuse_operator, with_tuples
from npk.graph.positions import AdaptiveWindow, Grid, Window


@dataclass(frozen=True)
class Input(Unweighted, Ungated):
    """Where paths start: the network's input, or ones in its place (``ones=True``).

    ``units``: flat number of the input value that each unit shows, -1 for a zero; ``None``: its
    own.
    """

    ones: bool = False
    units: tuple[int, ...] | None = None

    def starts(self, channels: int, positions: int) -> np.ndarray:
        """Where paths start, ``(channels, positions)`` bool: a zero starts none, be it beside the
        samples or beside ones in their place.
        """
        shown = np.zeros(channels * positions) if self.units is None else np.array(self.units)
        return (shown >= 0).reshape(channels, positions)

    def taps(self, before: tuple[Grid, ...], grid: Grid) -> tuple[np.ndarray, ...]:
        return ()

    def path_counts(self, inputs: list[list[int]], channels: int) -> list[int]:
        return [1] * channels

    def words(self, positions: int) -> tuple[str, str]:
        return ("ones" if self.ones else "input"), ""


@dataclass(frozen=True)
class Convolution(Ungated):
    """Linear layer whose weights are shared by all positions.

    A dense layer is the case of a window as large as the grid.
    """

    weight: str
    bias: str | None
    window: Window
    groups: int = 1

    @property
    def parameters(self) -> tuple[str, ...]:
        return (self.weight,)

    @property
    def matrices(self) -> tuple[str, ...]:
        return (self.weight,)

    @property
    def biases(self) -> tuple[str, ...]:
        return _if_any(self.bias)

    def bias_name(self, node: str) -> str | None:
        return self.bias

    @property
    def begins(self) -> bool:
        return self.bias is not None

    def taps(self, before: tuple[Grid, ...], grid: Grid) -> tuple[np.ndarray, ...]:
        return (self.window.taps(before[0]),)

    def fan_in(self, channels: int) -> int:
        return channels // self.groups * self.window.size

    def path_counts(self, inputs: list[list[int]], channels: int) -> list[int]:
        wide = len(inputs[0]) // self.groups
        starts = (group * wide for group in range(self.groups))
        sums = [sum(inputs[0][start : start + wide]) * self.window.size for start in starts]
        return [sums[channel * self.groups // channels] for channel in range(channels)]

    def words(self, positions: int) -> tuple[str, str]:
        groups = f", {self.groups} groups" if self.groups > 1 else ""
        if self.window.size == 1 and set(self.window.stride) <= {1}:
            return "linear", groups
        if positions == 1 and not any(map(any, self.window.padding)):
            return "linear", f" on {_sides(self.window.kernel)} positions{groups}"
        kind = "transposed convolution" if self.window.transposed else "convolution"
        return kind, _geometry(self.window) + groups

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Self:
        return super().from_fields({**fields, "window": _window(fields["window"])})


@dataclass(frozen=True)
class BatchNorm(Unitwise, Ungated):
    """Batch norm with fixed statistics: a diagonal weight, and a shift that is a bias."""

    weight: str | None
    bias: str | None
    mean: str
    variance: str
    epsilon: float

    @property
    def parameters(self) -> tuple[str, ...]:
        return (self.weight or self.variance,)

    @property
    def biases(self) -> tuple[str, ...]:
        return _if_any(self.bias)

    def bias_name(self, node: str) -> str | None:
        return self.mean

    @property
    def begins(self) -> bool:
        return True

    def words(self, positions: int) -> tuple[str, str]:
        return "batch norm", ""


@dataclass(frozen=True)
class Scale(Unitwise, Ungated):
    """Multiply by a number of the code (a coefficient of the paths) and by a tensor of the network.

    The tensor has one weight a channel, or one for all.
    """

    factor: float = 1.0
    weight: str | None = None
    inverse: bool = False  # divide by the tensor

    @property
    def parameters(self) -> tuple[str, ...]:
        return () if self.weight is None else (self.weight,)

    @property
    def biases(self) -> tuple[str, ...]:
        return ()

    def bias_name(self, node: str) -> str | None:
        return None

    @property
    def begins(self) -> bool:
        return False

    def words(self, positions: int) -> tuple[str, str]:
        if not self.weight:
            return "scale", f" by {self.factor:g}"
        return "scale", (", inverse" if self.inverse else "") + _times(self.factor)


@dataclass(frozen=True)
class Shift(Unitwise, Ungated):
    """Add factor times a tensor of the network, or a number.

    That is a bias with one value a channel, or one for all.
    """

    bias: str | None = None
    factor: float = 1.0

    @property
    def parameters(self) -> tuple[str, ...]:
        return ()

    @property
    def biases(self) -> tuple[str, ...]:
        return _if_any(self.bias)

    def bias_name(self, node: str) -> str | None:
        return node if self.bias is None else self.bias

    @property
    def begins(self) -> bool:
        return True

    def words(self, positions: int) -> tuple[str, str]:
        return "shift", _times(self.factor) if self.bias else f" by {self.factor:g}"


@dataclass(frozen=True)
class Gate(Unitwise, Unweighted):
    """Multiply by gate ``gate`` of the gate table.

    A hard gate that is off lets ``slope`` pass (0; that of a leaky ReLU; one a channel in a PReLU;
    -1 in an absolute value). ``levels``: entries of the gate table that say where the operator
    saturates, and the constant that it then gives: paths of its own start there.
    """

    gate: str
    slope: float | tuple[float, ...] = 0.0
    levels: tuple[tuple[str, float], ...] = ()

    @property
    def entries(self) -> tuple[str, ...]:
        return (self.gate, *(name for name, _ in self.levels))

    @property
    def begins(self) -> bool:
        return bool(self.levels)

    def words(self, positions: int) -> tuple[str, str]:
        if isinstance(self.slope, tuple):
            return "gate", ", a slope a channel"
        return "gate", f", slope {self.slope:g}" if self.slope else ""


@dataclass(frozen=True)
class AveragePool(Unweighted, Ungated):
    """Mean over a window, or a sum with fixed coefficients.

    ``counted``: width of the padding, before and after each axis, whose zeros count in the mean;
    ``None``: positions alone count. ``divisor``: divides the sum in place of the count.
    ``weights``: coefficients in place of the mean's, a row a channel or one for all, a number an
    offset of the window.
    """

    window: Window | AdaptiveWindow
    counted: tuple[tuple[int, int], ...] | None = None
    divisor: int | None = None
    weights: tuple[tuple[float, ...], ...] | None = None

    def taps(self, before: tuple[Grid, ...], grid: Grid) -> tuple[np.ndarray, ...]:
        return (self.window.taps(before[0]),)

    def coefficients(self, before: Grid) -> np.ndarray:
        """Coefficient of each tap, 0 outside: ``(channels, offsets, positions)``, with a single
        channel where all have the same.

        Args:
            before: the grid of the input.
        """
        inside = self.window.taps(before) >= 0
        if self.weights is not None:
            return np.where(inside, np.array(self.weights)[:, :, None], 0.0)
        count = self._counts(before, inside)
        return np.where(inside, 1.0 / (self.divisor or np.maximum(count, 1)), 0.0)[None]

    def by_channel(self, before: Grid, channels: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """The channels with the same coefficients, and these, ``(offsets, positions)``.

        Args:
            before: the grid of the input.
            channels: how many there are.
        """
        rows, number = np.unique(self.coefficients(before), axis=0, return_inverse=True)
        number = np.broadcast_to(number.reshape(-1), channels)
        return [(np.flatnonzero(number == k), row) for k, row in enumerate(rows)]

    def _counts(self, before: Grid, inside: np.ndarray) -> np.ndarray:
        """Places that each window counts."""
        window, count = self.window, inside.sum(0)
        if self.counted is not None and isinstance(window, Window):
            sides = zip(window.padding, self.counted, strict=True)
            left = tuple((pad[0] - own[0], pad[1] - own[1]) for pad, own in sides)
            padded = tuple(n + sum(own) for n, own in zip(before, self.counted, strict=True))
            count = (dataclasses.replace(window, padding=left).taps(padded) >= 0).sum(0)
        return count

    def path_counts(self, inputs: list[list[int]], channels: int) -> list[int]:
        return [count * self.window.size for count in inputs[0]]

    def words(self, positions: int) -> tuple[str, str]:
        if self.weights is not None:
            return "fixed filter", _geometry(self.window)
        return _pool("average pool", self.window, positions)

    def to_dict(self) -> dict[str, Any]:
        """Type and fields; without coefficients as before there were any."""
        fields = super().to_dict()
        return {k: v for k, v in fields.items() if k != "weights" or v is not None}

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Self:
        return super().from_fields({**fields, "window": _window(fields["window"])})


@dataclass(frozen=True)
class MaxPool(Unweighted):
    """Selection ``gate`` of the gate table: each window lets one of its positions pass."""

    gate: str
    window: Window | AdaptiveWindow

    @property
    def entries(self) -> tuple[str, ...]:
        return (self.gate,)

    def taps(self, before: tuple[Grid, ...], grid: Grid) -> tuple[np.ndarray, ...]:
        return (self.window.taps(before[0]),)

    def path_counts(self, inputs: list[list[int]], channels: int) -> list[int]:
        return [count * self.window.size for count in inputs[0]]

    def words(self, positions: int) -> tuple[str, str]:
        return _pool("max pool", self.window, positions)

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Self:
        return super().from_fields({**fields, "window": _window(fields["window"])})


@dataclass(frozen=True)
class Part:
    """A rectangle of a rearrangement.

    Channels ``into`` of the result show ``channels`` of input number ``input``. ``taps``: position
    of the input that each position of the result shows, -1 for a zero; ``None``: its own.
    """

    input: int
    into: tuple[int, ...]
    channels: tuple[int, ...]
    taps: tuple[int, ...] | None = None

    def places(self, positions: int) -> np.ndarray:
        """The taps written out, ``(1, positions)``; ``positions``: of the result."""
        if self.taps is None:
            return np.arange(positions)[None]
        return np.array(self.taps, np.int64).reshape(1, -1)


@dataclass(frozen=True)
class Rearrange(Unweighted, Ungated):
    """Units put in other places: concatenation, slices, shuffles, padding, upsampling.

    What no part fills is zero.
    """

    parts: tuple[Part, ...]

    def taps(self, before: tuple[Grid, ...], grid: Grid) -> tuple[np.ndarray, ...]:
        count = math.prod(grid)
        seen = [[p.places(count) for p in self.parts if p.input == i] for i in range(len(before))]
        return tuple(np.array(places, np.int64).reshape(-1, count) for places in seen)

    def path_counts(self, inputs: list[list[int]], channels: int) -> list[int]:
        counts = [0] * channels
        for part in self.parts:
            for into, channel in zip(part.into, part.channels, strict=True):
                counts[into] = max(counts[into], inputs[part.input][channel])
        return counts

    def words(self, positions: int) -> tuple[str, str]:
        parts = self.parts
        if len({part.input for part in parts}) > 1:
            return f"concatenation, {len(parts)} parts", ""
        if len(parts) == 1 and parts[0].into == parts[0].channels:
            return "positions moved", ""
        if all(part.taps is None for part in parts):
            return "channels moved", ""
        return f"rearrangement, {len(parts)} part" + ("s" if len(parts) > 1 else ""), ""

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Self:
        parts = [Part(**with_tuples(part)) for part in fields["parts"]]
        return super().from_fields({**fields, "parts": parts})


@dataclass(frozen=True)
class Add(Unitwise, Unweighted, Ungated):
    """Sum of branches; no path type may lead through two of them."""

    def words(self, positions: int) -> tuple[str, str]:
        return "add", ""


OPERATORS: dict[str, type[Operator]] = {
    cls.__name__: cls
    for cls in (
        Input,
        Convolution,
        BatchNorm,
        Scale,
        Shift,
        Gate,
        AveragePool,
        MaxPool,
        Rearrange,
        Add,
    )
}


def operator_from(values: dict[str, Any]) -> Operator:
    """The operator that :meth:`~npk.graph.facts.Operator.to_dict` wrote.

    Args:
        values: JSON values, or those themselves.

    Returns:
        The operator.

    Raises:
        UnsupportedGraphError: of a type that this npk does not have.
    """
    name, fields = values["type"], {key: value for key, value in values.items() if key != "type"}
    if name not in OPERATORS:
        refuse_operator("JSON form", name)
    return OPERATORS[name].from_fields(fields)


def _if_any(name: str | None) -> tuple[str, ...]:
    return (name,) if name else ()


def _window(fields: dict[str, Any]) -> Window | AdaptiveWindow:
    sides = with_tuples(fields)
    return AdaptiveWindow(**sides) if "sides" in sides else Window(**sides)


def _pool(name: str, window: Window | AdaptiveWindow, positions: int) -> tuple[str, str]:
    return (f"global {name}", "") if positions == 1 else (name, _geometry(window))


def _geometry(window: Window | AdaptiveWindow) -> str:
    if isinstance(window, AdaptiveWindow):
        return f" to {_sides(window.sides)}, windows of at most {_sides(window.kernel)}"
    stride, padding = set(window.stride), max(map(max, window.padding))
    parts = [f" {_sides(window.kernel)}"]
    parts += [f"stride {_sides(window.stride)}"] if stride != {1} else []
    parts += [f"padding {padding}"] if padding else []
    parts += [f"dilation {max(window.dilation)}"] if max(window.dilation) > 1 else []
    return ", ".join(parts)


def _sides(sides: Grid) -> str:
    return str(sides[0]) if len(sides) == 1 else "x".join(map(str, sides))


def _times(factor: float) -> str:
    return "" if factor == 1 else f", times {factor:g}"
