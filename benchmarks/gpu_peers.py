"""What npk on a GPU is compared with: the same numbers by torch, on whatever device its tensors
are.
"""

import math
from typing import Any

import numpy as np
import torch
from bench_conv import separable_sums

from npk import GateTable

ROOM = 1 << 28  # numbers in the fields of all pairs together


def layers_of(table: GateTable, device: str) -> list[torch.Tensor]:
    """Inputs and gates of each layer as float32, ``(samples, channels, ...)``."""
    rows = [table.inputs, *(table[name] for name in table.names)]
    return [torch.as_tensor(np.asarray(values, np.float32), device=device) for values in rows]


class MatrixProducts:
    """The kernel of dense layers as one matrix product a layer; gates in ``dtype``, whose products
    torch adds up in float32.

    Counts up to 2048 are exact in float16.
    """

    def __init__(self, table: GateTable, device: str, dtype: torch.dtype) -> None:
        self.inputs, *layers = layers_of(table, device)
        self.layers = [layer.flatten(1).to(dtype) for layer in layers]

    def __call__(self) -> torch.Tensor:
        """The kernel of all pairs, scaled by fan-in, left on the device."""
        K = self.inputs @ self.inputs.T / math.prod(self.inputs.shape[1:])
        for gates in self.layers:
            K *= (gates @ gates.T).float() / gates.shape[1]
        return K


class Fields:
    """The kernel of circular 3 x 3 convolutions with a global pool, each layer's field written to
    memory.

    So do published codes with kernels of their own for each layer (CNTK); this one is made of
    torch's operations.
    """

    def __init__(self, table: GateTable, side: int, device: str, room: int = ROOM) -> None:
        self.side, self.pairs = side, min(len(table), max(1, room // side**4))
        layers = [values.flatten(2) for values in layers_of(table, device)]
        self.one = [values[0].T.contiguous() for values in layers]
        self.others = [values[: self.pairs].contiguous() for values in layers]

    def __call__(self) -> torch.Tensor:
        """The kernel of the first sample with ``pairs`` others, scaled by fan-in, left on the
        device.
        """
        field = self.one[0] @ self.others[0] / (9 * self.others[0].shape[1])
        for one, others in zip(self.one[1:], self.others[1:], strict=True):
            summed = separable_sums(field.view(-1, *[self.side] * 4)).view_as(field)
            field = summed.mul_(one @ others)
            field /= 9 * others.shape[1]
        return field.mean((1, 2)) * 9


def cholesky(K: torch.Tensor, y: torch.Tensor, ridge: float) -> torch.Tensor:
    """Ridge by torch's own Cholesky."""
    system = K.clone()
    system.diagonal().add_(ridge)
    return torch.cholesky_solve(y, torch.linalg.cholesky(system))


def cuml_ridge(ridge: float) -> Any:
    """cuML's kernel ridge for a precomputed kernel; ``None`` where it is not installed."""
    try:
        from cuml.kernel_ridge import KernelRidge
    except ImportError:
        return None
    return KernelRidge(alpha=ridge, kernel="precomputed")
