"""Weights: safetensors files, state dicts, and whether they fit a network."""

import argparse
import contextlib
import difflib
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npk.checkpoint.files import check_archive, first_line, quiet_torch
from npk.errors import CheckpointError
from npk.files import digest

if TYPE_CHECKING:
    from torch import Tensor, nn

FORMAT = 1  # of the metadata of a .safetensors file; counts up when an older npk could misread a file
# Under these names training scripts put the state dict, in the order in which they are looked for.
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params", "checkpoint", "ema", "model_ema")


def fingerprint(net: "nn.Module") -> str:
    """SHA-256 of all parameters and buffers with their names, shapes and dtypes, ordered by name.

    Args:
        net: any network, on any device.

    Returns:
        64 hexadecimal digits; any change of a weight, however small, changes them.
    """
    named = (*net.named_parameters(remove_duplicate=False), *net.named_buffers(remove_duplicate=False))
    return _digest(dict(named))


def _digest(state: "dict[str, Tensor]", *texts: str) -> str:
    import torch

    parts: list[bytes | memoryview] = [text.encode() for text in texts]
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        parts.append(json.dumps([name, list(tensor.shape), str(tensor.dtype)]).encode())
        parts.append(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest(*parts)


def to_pt(net: "nn.Module") -> bytes:
    """The state dict as torch writes it."""
    import torch

    buffer = io.BytesIO()
    torch.save({name: tensor.detach().cpu() for name, tensor in net.state_dict().items()}, buffer)
    return buffer.getvalue()


def to_safetensors(net: "nn.Module", details: dict[str, Any]) -> bytes:
    """Weights and description as safetensors writes them."""
    from safetensors.torch import save as to_bytes

    from npk import __version__

    architecture = getattr(net, "architecture", None)
    described = {"format": FORMAT, "version": __version__, "architecture": architecture, "details": details}
    try:
        text = json.dumps(described, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"the architecture and the details must be JSON values ({error}). Use numbers, texts, lists, dicts."
        ) from error
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in net.state_dict().items()}
    return to_bytes(state, metadata={"npk": text, "sha256": _digest(state, text)})


@contextlib.contextmanager
def _opened(path: Path, framework: str) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework=framework) as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is truncated or no safetensors file ({first_line(error)}). Copy or save it again.") from error


def read_safetensors(path: Path) -> "tuple[dict[str, Tensor], dict[str, Any] | None]":
    """The weights, and the architecture if npk wrote the file for a network that it can rebuild."""
    with _opened(path, "pt") as file:
        header = file.metadata() or {}
        text = header.get("npk")
        described = None if text is None else _parsed(path, text)  # before the weights: a newer format may hold them otherwise
        state = {name: file.get_tensor(name) for name in file.keys()}
    if text is None or described is None:
        return state, None
    if header.get("sha256") != _digest(state, text):
        raise CheckpointError(f"{path} was changed after it was saved: its SHA-256 does not match. Copy it again from where it was made.")
    return state, described["architecture"]


def read_description(path: Path) -> dict[str, Any]:
    """What npk wrote about the network; the weights are not read."""
    with _opened(path, "np") as file:
        header = file.metadata() or {}
    if "npk" not in header:
        raise CheckpointError(f"{path} was not written by npk and has no details. Name a .safetensors file that npk wrote.")
    return _parsed(path, header["npk"])


def _parsed(path: Path, text: str) -> dict[str, Any]:
    """What npk wrote about the network, in a format that this version reads."""
    from npk import __version__

    try:
        described = json.loads(text)
        version, made_by = int(described["format"]), described["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: its description is damaged ({first_line(error)}). Copy it again from where it was made.") from error
    if version > FORMAT:
        raise CheckpointError(
            f"{path} has format {version}, written by npk {made_by}; this npk {__version__} reads formats up to {FORMAT}. Update npk."
        )
    return described


def read_pt(path: Path) -> Any:
    """What a .pt file holds, without running any code."""
    import torch

    check_archive(path)
    try:
        with quiet_torch():
            with torch.serialization.safe_globals(_harmless()):
                return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        code = re.search(r"GLOBAL (\S+)", str(error))
        if code:
            raise CheckpointError(
                f"{path} holds pickled code ({code[1]}), which npk never runs. Where it was made, "
                "write torch.save(net.state_dict(), 'weights.pt'), and load that with arch; or use torch.export.save."
            ) from error
        raise CheckpointError(f"{path} is truncated or was not written by torch.save. Copy or save it again.") from error


def _harmless() -> list[Any]:
    """What training scripts keep beside the weights, and what runs no code of strangers: options, and NumPy numbers."""
    import numpy as np

    scalar = np.float64(0).__reduce__()[0]
    kinds = [type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")]
    return [argparse.Namespace, scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype, *kinds]


def plain_state(content: Any, path: Path) -> "dict[str, Tensor]":
    """The state dict inside wrappers; what is no tensor beside tensors (epoch, options) is left out."""
    import torch

    while isinstance(content, dict):
        inner = next((w for w in WRAPPERS if isinstance(content.get(w), dict)), None)
        if inner is None:
            break
        content = content[inner]
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a state dict with weights. Save net.state_dict().")
    state = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, torch.Tensor)}
    if not state:
        raise CheckpointError(
            f"{path} holds no weights under {', '.join(map(str, list(content)[:5]))}. Save net.state_dict() alone, or as 'state_dict'."
        )
    return state


def _by_names_of(net: "nn.Module", state: "dict[str, Tensor]") -> "dict[str, Tensor]":
    """Without the prefix (``module.``, ``_orig_mod.``, ...) that all names share, where only then some of the network's are met."""
    expected, stripped = net.state_dict(), state
    while not any(name in expected for name in stripped):
        if len({name.partition(".")[0] for name in stripped}) > 1 or not all("." in name for name in stripped):
            return state
        stripped = {name.partition(".")[2]: tensor for name, tensor in stripped.items()}
    return stripped


def fill(net: "nn.Module", state: "dict[str, Tensor]", misfit: str) -> None:
    """Put the weights into the network; every name and shape must fit, half precision becomes float32."""
    import torch

    state, expected = _by_names_of(net, state), net.state_dict()
    missing = [name for name in expected if name not in state and not name.endswith("num_batches_tracked")]  # old files have none
    unknown = [name for name in state if name not in expected]
    shapes = [name for name in state if name in expected and state[name].shape != expected[name].shape]
    reasons = [
        (len(missing), "missing", [f"{name}{_near(name, unknown)}" for name in missing[:3]]),
        (len(unknown), "unknown", [f"{name}{_near(name, missing)}" for name in unknown[:3]]),
        (len(shapes), "of another shape", [f"{n} is {tuple(state[n].shape)}, not {tuple(expected[n].shape)}" for n in shapes[:3]]),
    ]
    told = [f"{count} {what} ({'; '.join(first)}{'; ...' if count > 3 else ''})" for count, what, first in reasons if count]
    if told:
        raise CheckpointError(f"{misfit}: {', '.join(told)}. Give the arch, with its arguments, that the weights come from.")
    net.to(torch.float64 if any(tensor.dtype == torch.float64 for tensor in state.values()) else torch.float32)  # never half
    net.load_state_dict(state)


def _near(name: str, others: list[str]) -> str:
    near = difflib.get_close_matches(name, others, n=1)
    return f", near {near[0]}" if near else ""
