"""Reading: what the value of a node of the traced network becomes in the gate table."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from npk.gates.table import pack_on_device
from npk.graph.positions import AdaptiveWindow, Window
from npk.tie import is_on

if TYPE_CHECKING:
    import torch

    from npk.reading.builder import Recording

NARROW = 256  # offsets of a window that a byte can tell apart


def _hardsigmoid(q: "torch.Tensor", low: float, high: float) -> "torch.Tensor":
    import torch

    return torch.nn.functional.hardsigmoid(q)


def _normal(q: "torch.Tensor", low: float, high: float) -> "torch.Tensor":
    import torch

    return torch.special.ndtr(q)


def _mish(q: "torch.Tensor", low: float, high: float) -> "torch.Tensor":
    import torch

    return torch.nn.functional.softplus(q).tanh()


# What a value becomes, by the rule of its recording: the kind of its entry in the table, and the
# gate that the value and the recording's bounds make. The tie rule decides.
MADE: dict[str, tuple[str, Callable[["torch.Tensor", float, float], "torch.Tensor"]]] = {
    "positive": ("hard", lambda q, low, high: is_on(q)),
    "between": ("hard", lambda q, low, high: is_on(q - low) & is_on(high - q)),
    "below": ("saturation", lambda q, low, high: ~is_on(q - low)),
    "above": ("saturation", lambda q, low, high: ~is_on(high - q)),
    "selection": ("selection", lambda q, low, high: q),  # and the window's choice among it
    "value": ("soft", lambda q, low, high: q),
    "sigmoid": ("soft", lambda q, low, high: q.sigmoid()),
    "hardsigmoid": ("soft", _hardsigmoid),
    "normal": ("soft", _normal),
    "mish": ("soft", _mish),
}


def kind_of(recording: "Recording") -> str:
    """What kind of entry a recording makes: "hard", "soft", "saturation" or "selection"."""
    return MADE[recording.rule][0]


def read_entry(recording: "Recording", value: "torch.Tensor") -> "torch.Tensor":
    """One recorded value as the table keeps it, positions before channels; bits in bytes. It stays
    on its device.

    Args:
        recording: what to read.
        value: of its node, ``(n, ...)``.

    Returns:
        ``(n, positions, bytes)`` packed bits, or ``(n, positions, channels)``.
    """
    import torch

    if recording.window is not None:
        return _selection(recording.window, _images(recording, recording.window, value))
    kind, gate_of = MADE[recording.rule]
    gate = gate_of(value, *recording.bounds).reshape(len(value), -1)
    if recording.units is not None:
        gate = gate[:, torch.as_tensor(recording.units, device=gate.device)]
    gate = gate.reshape(len(value), recording.shape[0], -1)
    return gate.transpose(1, 2) if kind == "soft" else pack_on_device(gate)


def _images(
    recording: "Recording", window: Window | AdaptiveWindow, value: "torch.Tensor"
) -> "torch.Tensor":
    """A value with the channels first that a maximum over axes of another order, or over the
    channels themselves, is recorded with.
    """
    import torch

    if recording.units is None and value.ndim == len(recording.shape) + 1:
        return value
    flat = value.reshape(len(value), -1)
    if recording.units is not None:
        flat = flat[:, torch.as_tensor(recording.units, device=value.device)]
    grid = (side * size for side, size in zip(recording.shape[1:], window.kernel, strict=True))
    return flat.reshape(len(value), recording.shape[0], *grid)


def _selection(window: Window | AdaptiveWindow, value: "torch.Tensor") -> "torch.Tensor":
    """Offset of the first maximum of each window."""
    import torch

    if isinstance(window, Window) and len(window.kernel) <= 3:
        best = _pooled(window, value)
    else:
        best = _searched(window, value)
    return best.transpose(1, 2).to(torch.uint8 if window.size <= NARROW else torch.int32)


def _pooled(window: Window, value: "torch.Tensor") -> "torch.Tensor":
    """By torch's own pool, whose maximum is the first; it gives flat positions of the padded image."""
    import torch
    from torch.nn import functional

    pads = [side for sides in reversed(window.padding) for side in sides]
    # faster, and the order of the table
    seen = value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value
    seen = functional.pad(seen, pads, value=-torch.inf) if any(pads) else seen
    pool = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)[
        len(window.kernel) - 1
    ]
    _, places = pool(
        seen, window.kernel, window.stride, dilation=window.dilation, return_indices=True
    )
    taps = dataclasses.replace(window, padding=((0, 0),) * len(window.kernel)).taps(
        tuple(seen.shape[2:])
    )
    steps = taps[:, 0] - taps[0, 0]
    offsets = np.zeros(steps[-1] + 1, np.uint8 if window.size <= NARROW else np.int32)
    offsets[steps] = np.arange(window.size)
    first, offset = (torch.as_tensor(a, device=value.device) for a in (taps[0], offsets))
    return offset[places.flatten(2) - first]


def _searched(window: Window | AdaptiveWindow, value: "torch.Tensor") -> "torch.Tensor":
    """By comparing what each window sees."""
    import torch

    taps = torch.as_tensor(window.taps(tuple(value.shape[2:])), device=value.device)
    flat = value.reshape(*value.shape[:2], -1)
    return torch.where(taps >= 0, flat[..., taps.clamp(min=0)], -torch.inf).argmax(2)
