"""Layer descriptions: linear operators, and the gate points between them.

One description serves every kind of network. A plain network (``dnn``) puts a ReLU at each gate
point; gated networks walk the same description twice, once for the gates and once for the values.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence


@dataclasses.dataclass(frozen=True)
class Conv:
    """A convolution with circular or zero padding; kernel and padding along height and width."""

    inputs: int
    outputs: int
    kernel: tuple[int, int]
    stride: int
    padding: tuple[int, int]
    circular: bool
    bias: bool


@dataclasses.dataclass(frozen=True)
class Linear:
    """A dense layer."""

    inputs: int
    outputs: int
    bias: bool


@dataclasses.dataclass(frozen=True)
class Norm:
    """A batch norm over channels."""

    channels: int
    images: bool


@dataclasses.dataclass(frozen=True)
class GatePoint:
    """Where a gate acts; ``shape`` is that of the pre-activation, channels first."""

    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Pool:
    """Pooling over windows that do not overlap."""

    size: int
    maximum: bool


@dataclasses.dataclass(frozen=True)
class GlobalPool:
    """Mean over all positions."""


@dataclasses.dataclass(frozen=True)
class Flatten:
    """All but the batch in one axis."""


@dataclasses.dataclass(frozen=True)
class Skip:
    """``body(x) + shortcut(x)``; an empty shortcut is the identity."""

    body: "tuple[Layer, ...]"
    shortcut: "tuple[Layer, ...]"


Layer = Conv | Linear | Norm | GatePoint | Pool | GlobalPool | Flatten | Skip
Layers = tuple[Layer, ...]


def gate_points(layers: Layers) -> Iterator[GatePoint]:
    """The gate points in the order in which a forward pass meets them."""
    for layer in layers:
        if isinstance(layer, GatePoint):
            yield layer
        elif isinstance(layer, Skip):
            yield from gate_points(layer.body)


def up_to_last_gate(layers: Layers) -> Layers:
    """The layers of a gating network: every architecture has a gate point after the last skip."""
    last = max((i for i, layer in enumerate(layers) if isinstance(layer, GatePoint)), default=-1)
    return layers[: last + 1]


def without_first_norm(layers: Layers) -> Layers:
    """The layers without the first batch norm, which would divide by 0 when samples are ones."""
    first = next((i for i, layer in enumerate(layers) if isinstance(layer, Norm)), len(layers))
    return layers[:first] + layers[first + 1 :]


@dataclasses.dataclass(frozen=True)
class _Reach:
    """What one position of the current grid sees of the input: ``kernel`` pixels a side, ``stride``
    apart, ``padding`` beyond the edge.
    """

    kernel: int = 1
    stride: int = 1
    padding: int = 0
    circular: bool = False
    pooled: bool = False

    def through(self, layer: Layer) -> "_Reach":
        match layer:
            case Conv():
                circular = self.circular or layer.circular
                return self._grown(layer.kernel[0], layer.stride, layer.padding[0], circular)
            case Pool():
                return self._grown(layer.size, layer.size, 0, self.circular)
            case GlobalPool():
                return dataclasses.replace(self, pooled=True)
        return self

    def _grown(self, kernel: int, stride: int, padding: int, circular: bool) -> "_Reach":
        grown = (
            self.kernel + (kernel - 1) * self.stride,
            self.stride * stride,
            self.padding + padding * self.stride,
        )
        return dataclasses.replace(
            self, kernel=grown[0], stride=grown[1], padding=grown[2], circular=circular
        )


def shallow_maps(layers: Layers, shape: Sequence[int]) -> list[Layers]:
    """For each gate point the layers of one linear map from input to pre-activation (DLGN-SF)."""
    maps: list[Layers] = []
    _collect_maps(layers, tuple(shape), _Reach(), maps)
    return maps


def _collect_maps(
    layers: Layers, shape: tuple[int, ...], reach: _Reach, found: list[Layers]
) -> _Reach:
    norm: tuple[Norm, ...] = ()
    bias = False
    for layer in layers:
        if isinstance(layer, Skip):
            reach = _collect_maps(layer.body, shape, reach, found)
            norm = ()
            bias = _biased(layer.body)
        elif isinstance(layer, GatePoint):
            found.append((*_one_map(shape, layer.shape, reach, bias), *norm))
        elif isinstance(layer, Norm):
            norm = (layer,)
        else:
            reach, norm = reach.through(layer), ()
            bias = layer.bias if isinstance(layer, Conv | Linear) else bias
    return reach


def _biased(layers: Layers) -> bool:
    return any(layer.bias for layer in layers if isinstance(layer, Conv | Linear))


def _one_map(shape: tuple[int, ...], target: tuple[int, ...], reach: _Reach, bias: bool) -> Layers:
    if len(target) == 1:
        pooled = reach.pooled and len(shape) == 3
        before: Layers = (GlobalPool(),) if pooled else (Flatten(),)
        return (*before, Linear(shape[0] if pooled else math.prod(shape), target[0], bias))
    # the kernel need not go round a torus of any size more than once, it would see nothing new
    spare = [
        max(0, reach.kernel - s - (reach.kernel - s) % 2) if reach.circular else 0
        for s in shape[1:]
    ]
    kernel = reach.kernel - spare[0], reach.kernel - spare[1]
    padding = reach.padding - spare[0] // 2, reach.padding - spare[1] // 2
    return (Conv(shape[0], target[0], kernel, reach.stride, padding, reach.circular, bias),)
