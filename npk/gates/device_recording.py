"""Recording on the device of a network: samples go there, and no gate comes back."""

from typing import TYPE_CHECKING

import numpy as np

from npk.gates.device_table import DeviceGates
from npk.gates.recording import (
    as_the_first_weight_sees,
    batch_size,
    bytes_of_entries,
    place_of,
    record_entries,
)
from npk.progress import Progress

if TYPE_CHECKING:
    from npk.reading.tracing import Trace


def record_on_device(
    trace: "Trace", X: np.ndarray, *, gates: str, progress: Progress
) -> DeviceGates:
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

    seen = as_the_first_weight_sees(trace, X[:1])
    inputs = torch.empty(
        X.shape,
        dtype=torch.float64 if seen.dtype == np.float64 else torch.float32,
        device=place_of(trace)[0],
    )
    entries = record_entries(trace, X, gates, progress, size=batch_size(trace, X), inputs=inputs)
    if inputs.is_cuda:
        # masks are formed in other streams than torch's current one
        torch.cuda.synchronize(inputs.device)
    # what the layers' values took: others than torch use the device from now on
    torch.cuda.empty_cache()
    return DeviceGates(trace.graph, inputs, entries)


def device_bytes(trace: "Trace", X: np.ndarray) -> int:
    """Bytes of samples and their gates on a device, at most: hard gates of a network that has soft
    ones take less.

    Args:
        trace: of the network.
        X: samples.

    Returns:
        The bytes.
    """
    return X.nbytes + len(X) * bytes_of_entries(trace)


def free_on_device(trace: "Trace") -> int | None:
    """Bytes that are free on the CUDA device that a traced network is on.

    Args:
        trace: of the network.

    Returns:
        The bytes; ``None`` if the network is on no such device.
    """
    import torch

    device, _ = place_of(trace)
    if device.type != "cuda":
        return None
    torch.cuda.empty_cache()  # what torch keeps without need is free
    return torch.cuda.mem_get_info(device)[0]
