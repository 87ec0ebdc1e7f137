"""Recording on the device of a network: samples go there, and no gate comes back."""

from typing import TYPE_CHECKING

import numpy as np

from npk.dual.device_gates import DeviceGates
from npk.dual.recording import batch_size, bytes_of_entry, place_of, record_entries, tensor_of
from npk.progress import Progress

if TYPE_CHECKING:
    from npk.dual.tracing import Trace

_AT_ONCE = 64 << 20  # bytes of samples that are copied together, unless one has more


def record_on_device(trace: "Trace", X: np.ndarray, *, gates: str, progress: Progress) -> DeviceGates:
    """Gates of ``X`` under a traced network, kept on the network's device.

    Args:
        trace: of the network.
        X: finite samples.
        gates: as in :func:`npk.record_gates`.
        progress: as there.

    Returns:
        The gates of all samples.

    Raises:
        DataError: the network gives values that are not finite.
        OptionError: soft gates of a network that has only hard ones.
    """
    import torch

    device, _ = place_of(trace)
    entries = record_entries(trace, X, gates, progress, size=batch_size(trace, X), keep=device)
    inputs = torch.empty(X.shape, dtype=torch.float64 if X.dtype == np.float64 else torch.float32, device=device)
    for part in np.array_split(np.arange(len(X)), min(len(X), -(-X.nbytes // _AT_ONCE))):
        inputs[part[0] : part[-1] + 1] = tensor_of(X[part[0] : part[-1] + 1]).to(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)  # masks are formed in other streams than torch's current one
        torch.cuda.empty_cache()  # what the forward pass took is wanted for tiles
    return DeviceGates(trace.graph, inputs, entries)


def device_bytes(trace: "Trace", X: np.ndarray) -> int:
    """Bytes of samples and their gates on a device.

    Args:
        trace: of the network.
        X: samples.

    Returns:
        The bytes.
    """
    return X.nbytes + len(X) * sum(bytes_of_entry(recording, trace.program) for recording in trace.recordings)


def free_on_device(trace: "Trace") -> int | None:
    """Bytes that are free on the CUDA device that a traced network is on.

    Args:
        trace: of the network.

    Returns:
        The bytes; ``None`` if the network is on no such device.
    """
    import torch

    device, _ = place_of(trace)
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
