"""Networks out of layer descriptions: plain ones, and a gating network beside a value network.

DGN: the gating network is a ReLU network of the same shape. DLGN: it is deep *linear*. DLGN-SF:
each layer of gates is one linear map
on the input. Gated networks pool by averages in both halves, because a maximum is a non-linearity.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from npk.errors import OptionError
from npk.networks import layers as descriptions
from npk.networks.gating import Gate

AtGate = Callable[[Tensor], Tensor]


class GatePoint(nn.Module):
    """A named place where the caller's function acts."""

    def forward(self, q: Tensor, at_gate: AtGate) -> Tensor:
        """Whatever ``at_gate`` makes of the pre-activation ``q``."""
        return at_gate(q)


class Skip(nn.Module):
    """``body(x) + shortcut(x)``."""

    def __init__(self, layer: descriptions.Skip):
        super().__init__()
        self.body = Stack(layer.body)
        self.shortcut = Stack(layer.shortcut)

    def forward(self, x: Tensor, at_gate: AtGate) -> Tensor:
        """The sum of both branches."""
        return self.body(x, at_gate) + self.shortcut(x, at_gate)


class Stack(nn.Module):
    """The layers of a description, one after the other."""

    def __init__(self, layers: descriptions.Layers):
        super().__init__()
        self.layers = nn.ModuleList(_module(layer) for layer in layers)

    def forward(self, x: Tensor, at_gate: AtGate) -> Tensor:
        """Pass ``x`` through; ``at_gate`` says what happens at the gate points."""
        for layer in self.layers:
            x = layer(x, at_gate) if isinstance(layer, GatePoint | Skip) else layer(x)
        return x


def _module(layer: descriptions.Layer) -> nn.Module:
    match layer:
        case descriptions.Conv():
            mode = "circular" if layer.circular and any(layer.padding) else "zeros"
            sizes = layer.kernel, layer.stride, layer.padding
            return nn.Conv2d(
                layer.inputs, layer.outputs, *sizes, bias=layer.bias, padding_mode=mode
            )
        case descriptions.Linear():
            return nn.Linear(layer.inputs, layer.outputs, layer.bias)
        case descriptions.Norm():
            return (
                nn.BatchNorm2d(layer.channels) if layer.images else nn.BatchNorm1d(layer.channels)
            )
        case descriptions.Pool():
            return nn.MaxPool2d(layer.size) if layer.maximum else nn.AvgPool2d(layer.size)
        case descriptions.GlobalPool():
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        case descriptions.Flatten():
            return nn.Flatten()
        case descriptions.Skip():
            return Skip(layer)
        case descriptions.GatePoint():
            return GatePoint()


class PlainNetwork(nn.Module):
    """A network with a ReLU at each gate point.

    Args:
        layers: what it is made of.
    """

    architecture: dict

    def __init__(self, layers: descriptions.Layers):
        super().__init__()
        self.value = Stack(layers)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, classes) of the samples ``x``."""
        return self.value(x, torch.relu)


class GatingNetwork(nn.Module):
    """Gives the pre-activation of each gate point: a ReLU network (DGN) or a deep linear one
    (DLGN).

    Args:
        layers: of the value network; those after the last gate point are left out.
        linear: nothing at the gate points instead of a ReLU.
    """

    def __init__(self, layers: descriptions.Layers, linear: bool):
        super().__init__()
        self.stack, self.linear = Stack(descriptions.up_to_last_gate(layers)), linear

    def forward(self, x: Tensor) -> list[Tensor]:
        """The pre-activations of the samples ``x``, gate point by gate point."""
        gates: list[Tensor] = []

        def record(q: Tensor) -> Tensor:
            gates.append(q)
            return q if self.linear else torch.relu(q)

        self.stack(x, record)
        return gates


class ShallowGatingNetwork(nn.Module):
    """Gives each pre-activation by one linear map on the input (DLGN-SF).

    At a gate point of a convolutional layer the map is one convolution with the layer's whole
    receptive field.

    Args:
        layers: of the value network.
        shape: of one sample.
    """

    def __init__(self, layers: descriptions.Layers, shape: Sequence[int]):
        super().__init__()
        self.maps = nn.ModuleList(
            Stack(found) for found in descriptions.shallow_maps(layers, shape)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """The pre-activations of the samples ``x``, gate point by gate point."""
        return [stack(x, _no_gate) for stack in self.maps]


def _no_gate(q: Tensor) -> Tensor:
    return q


class GatedNetwork(nn.Module):
    """A gating network beside a value network of the same shape (DGN, DLGN, DLGN-SF).

    Args:
        gating: gives the pre-activations.
        layers: what the value network is made of.
        gate: makes gates of pre-activations.
        ones: the value network sees an all-ones input instead of the samples.
        order: gate point i of the value network uses gates ``order[i]`` of the gating network.
    """

    architecture: dict

    def __init__(
        self,
        gating: GatingNetwork | ShallowGatingNetwork,
        layers: descriptions.Layers,
        *,
        gate: Gate,
        ones: bool,
        order: Sequence[int],
    ):
        super().__init__()
        self.layers = layers
        self.gating, self.value, self.gate = gating, Stack(layers), gate
        self.ones, self.order = ones, tuple(order)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, classes) of the samples ``x``."""
        return self.under(x, self.gates(x))

    def gates(self, x: Tensor) -> list[Tensor]:
        """The gates of the samples ``x`` at each gate point of the value network."""
        made = [self.gate(q) for q in self.gating(x)]
        return [made[i] for i in self.order]

    def under(self, x: Tensor, gates: Sequence[Tensor]) -> Tensor:
        """Logits (n, classes) of the value network on ``x`` under these gates."""
        left: Iterator[Tensor] = iter(gates)
        return self.value(
            torch.ones_like(x) if self.ones else x, lambda h: torch.mul(h, next(left))
        )

    def is_frozen(self) -> bool:
        """Whether the gating network does not learn."""
        return not any(p.requires_grad for p in self.gating.parameters())

    def train(self, mode: bool = True) -> "GatedNetwork":
        """Switch the mode; a frozen gating network stays in evaluation, for its batch norms."""
        super().train(mode)
        self.gating.train(mode and not self.is_frozen())
        return self


def permute_gates(net: GatedNetwork, order: Sequence[int]) -> GatedNetwork:
    """Let gate point i of the value network use the gates ``order[i]`` of the gating network, in
    place.

    For a fully connected network with an all-ones input the kernel does not change.

    Args:
        net: a gated network made by :func:`npk.networks.build`.
        order: a permutation of the gate points, counted from 0.

    Returns:
        The same network.

    Raises:
        OptionError: not a gated network, not a permutation, or gate layers of different shapes.
    """
    if not isinstance(net, GatedNetwork):
        raise OptionError(
            f"only a gated network has gates to permute, this is a "
            f"{type(net).__name__}. Build one of kind dgn or dlgn."
        )
    shapes = [point.shape for point in descriptions.gate_points(net.layers)]
    net.order = check_order(order, shapes)
    net.architecture = {**net.architecture, "gate_order": list(net.order)}
    return net


def check_order(order: Sequence[int], shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The order as a tuple.

    Raises:
        OptionError: not a permutation of the gate points, or gate layers of different shapes.
    """
    if sorted(order) != list(range(len(shapes))):
        raise OptionError(
            f"gate_order is {list(order)}, it must be a permutation of 0 to "
            f"{len(shapes) - 1}. Name each gate point once."
        )
    for i, j in enumerate(order):
        if shapes[i] != shapes[j]:
            raise OptionError(
                f"gate point {i} has shape {shapes[i]}, gates {j} have {shapes[j]}. "
                f"Permute gate layers of equal shape only."
            )
    return tuple(order)
