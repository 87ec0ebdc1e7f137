"""Recording: run a network over samples and keep its gates."""

import dataclasses
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from npk.dual.gate_table import GateLayer, GateTable, is_on, pack
from npk.dual.path_graph import PathGraph
from npk.errors import DataError, OptionError
from npk.progress import Progress, as_progress

if TYPE_CHECKING:
    import torch

    from npk.dual.positions import AdaptiveWindow, Window
    from npk.dual.tracing import Recording, Trace

_RUN_BYTES = 64 << 20  # activations of one batch while recording


def record_gates(
    net: "torch.nn.Module", X: "np.ndarray | torch.Tensor", *, gates: str = "auto", progress: bool | Progress = False
) -> GateTable:
    """Run a network over samples and keep its gates.

    Args:
        net: a network in eval mode.
        X: samples, ``(n, *input_shape)``; NumPy array or tensor.
        gates: "hard" (q > 0), "soft" (the real gate values), "auto": as the network evaluates.
        progress: ``True`` for a bar on a terminal, or a :class:`npk.progress.Progress`.

    Returns:
        The gates of all samples, packed.

    Raises:
        DataError: X is empty or not finite, or the network gives values that are not finite.
        OptionError: soft gates of a network that has only hard ones.
        UnsupportedGraphError: the network's paths are not wholly understood.
    """
    from npk.dual.tracing import trace_network

    X = as_samples(X)
    return record_trace(trace_network(net, X.shape[1:]), X, gates=gates, progress=as_progress(progress))


def as_samples(X: "np.ndarray | torch.Tensor") -> np.ndarray:
    """Samples as a finite floating-point array with at least one row.

    Raises:
        DataError: empty, of no number type, or not finite.
    """
    X = np.asarray(X) if isinstance(X, np.ndarray) or not hasattr(X, "detach") else X.detach().cpu().numpy()
    if X.dtype.kind not in "fiub":
        raise DataError(f"X has dtype {X.dtype}. Give an array of numbers.")
    X = X if X.dtype in (np.float32, np.float64) else X.astype(np.float32)
    if X.ndim < 2 or X.size == 0:
        raise DataError(f"X has shape {X.shape}. Give samples as (n, *input_shape) with n at least 1.")
    if not np.isfinite(X).all():
        raise DataError(f"X has {np.count_nonzero(~np.isfinite(X))} values that are NaN or infinite. Clean the data first.")
    return X


def record_trace(trace: "Trace", X: np.ndarray, *, gates: str, progress: Progress) -> GateTable:
    """Gates of ``X`` under a traced network; see :func:`record_gates`."""
    import torch

    recordings = [_as_asked(recording, gates) for recording in trace.recordings]
    tensor = next(iter([*trace.program.parameters(), *trace.program.buffers()]), torch.zeros(()))
    dtype = tensor.dtype if tensor.dtype.is_floating_point else torch.float32
    size = _batch_size(trace)
    parts: dict[str, list[np.ndarray]] = {recording.gate: [] for recording in recordings}
    with torch.no_grad(), progress.task("recording gates", len(X)) as advance:
        for start in range(0, len(X), size):
            batch = _batch(X[start : start + size]).to(tensor.device, dtype)
            values = _run(trace, recordings, batch)
            for recording in recordings:
                parts[recording.gate].append(_read(recording, values[recording.node]))
            advance(len(batch))
    ordered = _in_order(trace.graph, recordings)
    entries = {r.gate: GateLayer(_KINDS.get(r.rule, "soft"), r.shape, np.concatenate(parts[r.gate])) for r in ordered}
    return GateTable(trace.graph, X, entries)


_KINDS = {"positive": "hard", "between": "hard", "above": "saturation", "below": "saturation", "selection": "selection"}
_SOFT = ("value", "sigmoid", "hardsigmoid", "normal")


def _in_order(graph: PathGraph, recordings: "list[Recording]") -> "list[Recording]":
    by_name = {recording.gate: recording for recording in recordings}
    return [by_name[name] for node in graph.gates for name in node.entries]


def _as_asked(recording: "Recording", gates: str) -> "Recording":
    if gates not in ("auto", "hard", "soft"):
        raise OptionError(f'gates={gates!r} is not known. Choose "auto", "hard" or "soft".')
    if gates == "soft" and recording.rule in ("positive", "between"):
        raise OptionError(f'gates="soft", but layer {recording.gate!r} has hard gates. Choose "auto" or "hard".')
    if gates != "hard" or recording.rule not in _SOFT:
        return recording
    if recording.hard is None:
        raise OptionError(f'gates="hard", but layer {recording.gate!r} has soft gates without a pre-activation. Choose "auto" or "soft".')
    node, units = recording.hard
    return dataclasses.replace(recording, node=node, units=units, rule="positive")


def _batch(X: np.ndarray) -> "torch.Tensor":
    """A copy (X may be read-only) with the plain strides of its shape: those of an axis of length 1 are arbitrary, and convolutions
    round by them.
    """
    import torch

    copied = torch.tensor(X)
    return torch.empty(X.shape, dtype=copied.dtype).copy_(copied)


def _batch_size(trace: "Trace") -> int:
    """Samples whose recorded values fill about 64 MB."""
    cells = sum(int(np.prod(node.shape)) for node in trace.graph.nodes)
    return max(1, min(4096, _RUN_BYTES // (8 * max(cells, 1))))


def _run(trace: "Trace", recordings: "list[Recording]", batch: "torch.Tensor") -> dict[str, "torch.Tensor"]:
    """Values of the nodes to record; the others are freed as soon as they are used."""
    import torch
    from torch.utils._pytree import tree_leaves

    wanted, kept = {recording.node for recording in recordings}, {}

    class Keep(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            result = super().run_node(n)
            if n.name in wanted:
                kept[n.name] = result
            return result

        def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
            # traced as a view, flatten must copy where a convolution has put the channels last
            view = target is torch.ops.aten.view.default
            return super().call_function(torch.ops.aten.reshape.default if view else target, args, kwargs)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's remarks on the user's operators came when the user ran the network
        results = Keep(trace.program).run(batch)
    if not all(bool(torch.isfinite(result).all()) for result in tree_leaves(results)):
        raise DataError("the network gives NaN or infinite values. Are its weights finite, and X of the size it was trained on?")
    return kept


def _read(recording: "Recording", value: "torch.Tensor") -> np.ndarray:
    """One recorded value as the table keeps it, positions before channels."""
    import torch

    if recording.window is not None:
        return _selection(recording.window, value)
    gate = _gate(recording, value).reshape(len(value), -1)
    gate = gate if recording.units is None else gate[:, torch.as_tensor(recording.units, device=gate.device)]
    flat = gate.reshape(len(value), recording.shape[0], -1).transpose(1, 2).contiguous().cpu().numpy()
    return flat if recording.rule in _SOFT else pack(flat)


def _gate(recording: "Recording", value: "torch.Tensor") -> "torch.Tensor":
    """The gate that a value makes; the tie rule is that of the gate table."""
    import torch

    low, high = recording.bounds
    match recording.rule:
        case "positive":
            return is_on(value)
        case "between":
            return is_on(value - low) & is_on(high - value)
        case "below":
            return ~is_on(value - low)
        case "above":
            return ~is_on(high - value)
        case "sigmoid":
            return torch.sigmoid(value)
        case "hardsigmoid":
            return torch.nn.functional.hardsigmoid(value)
        case "normal":
            return torch.special.ndtr(value)
    return value


def _selection(window: "Window | AdaptiveWindow", value: "torch.Tensor") -> np.ndarray:
    """Offset of the first maximum of each window."""
    import torch

    taps = torch.as_tensor(window.taps(tuple(value.shape[2:])), device=value.device)
    flat = value.reshape(*value.shape[:2], -1)
    seen = torch.where(taps >= 0, flat[..., taps.clamp(min=0)], -torch.inf)
    best = seen.argmax(2).transpose(1, 2).contiguous().cpu().numpy()
    return best.astype(np.uint8 if window.size <= 256 else np.int32)
