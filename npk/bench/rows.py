"""What a row of a suite is: a network with weights of its own."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """A network for samples of a shape."""

    name: str
    make: Callable[[Shape], nn.Module]

    def network(self, shape: Shape, seed: int) -> nn.Module:
        """The network with weights of its own, in float64.

        Args:
            shape: of a sample.
            seed: of the weights.

        Returns:
            The network, in eval mode.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.make(shape).double().eval()
