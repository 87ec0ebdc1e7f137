"""Weights in files: safetensors, and what ``torch.save`` wrote."""

import contextlib
import io
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npk.checkpoint.beside import stand_ins
from npk.checkpoint.files import check_archive, first_line, quiet_torch
from npk.data import Preparation
from npk.errors import CheckpointError, NpkError
from npk.files import digest

if TYPE_CHECKING:
    from torch import Tensor, nn

# of the metadata of a .safetensors file; counts up when an older npk could misread a file
FORMAT = 1
_READING = threading.Lock()  # torch's list of names that a file may have belongs to the process


def fingerprint(net: "nn.Module") -> str:
    """SHA-256 of all parameters and buffers with their names, shapes and dtypes, ordered by name.

    Args:
        net: any network, on any device.

    Returns:
        64 hexadecimal digits; any change of a weight, however small, changes them.
    """
    named = (
        *net.named_parameters(remove_duplicate=False),
        *net.named_buffers(remove_duplicate=False),
    )
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


def to_safetensors(
    net: "nn.Module", details: dict[str, Any], preparation: Preparation | None = None
) -> bytes:
    """Weights and description as safetensors writes them."""
    from safetensors.torch import save as to_bytes

    from npk import __version__

    architecture = getattr(net, "architecture", None)
    described = {
        "format": FORMAT,
        "version": __version__,
        "architecture": architecture,
        "details": details,
    }
    if preparation is not None:
        described["preparation"] = preparation.to_values()
    try:
        text = json.dumps(described, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"the architecture and the details must be JSON values ({error}). Use numbers, texts, "
            f"lists, dicts."
        ) from error
    state = {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in net.state_dict().items()
    }
    return to_bytes(state, metadata={"npk": text, "sha256": _digest(state, text)})


@contextlib.contextmanager
def _opened(path: Path, framework: str) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework=framework) as file:
            yield file
    except NpkError:
        raise
    except (
        SafetensorError,
        OSError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        RuntimeError,
        MemoryError,
    ) as error:
        raise CheckpointError(
            f"{path} is truncated or no safetensors file ({first_line(error)}). "
            f"Copy or save it again."
        ) from error


def read_safetensors(path: Path) -> "tuple[dict[str, Tensor], dict[str, Any] | None]":
    """The weights, and the architecture if npk wrote the file for a network that it can rebuild."""
    with _opened(path, "pt") as file:
        header = file.metadata() or {}
        text = header.get("npk")
        # before the weights: a newer format may hold them otherwise
        described = None if text is None else _parsed(path, text)
        state = {name: file.get_tensor(name) for name in file.keys()}
    if text is None or described is None:
        return state, None
    if header.get("sha256") != _digest(state, text):
        raise CheckpointError(
            f"{path} was changed after it was saved: its SHA-256 does not match. "
            f"Copy it again from where it was made."
        )
    return state, described["architecture"]


def read_description(path: Path) -> dict[str, Any]:
    """What npk wrote about the network; the weights are not read."""
    with _opened(path, "np") as file:
        header = file.metadata() or {}
    if "npk" not in header:
        raise CheckpointError(
            f"{path} was not written by npk and has no details. Name a "
            f".safetensors file that npk wrote."
        )
    return _parsed(path, header["npk"])


def _parsed(path: Path, text: str) -> dict[str, Any]:
    """What npk wrote about the network, in a format that this version reads."""
    from npk import __version__

    try:
        described = json.loads(text)
        version = int(described["format"])
        made_by = described["version"]
        _ = described["architecture"], described["details"]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: its description is damaged ({first_line(error)}). Copy it "
            f"again from where it was made."
        ) from error
    if version > FORMAT:
        raise CheckpointError(
            f"{path} has format {version}, written by npk {made_by}; this npk {__version__} reads "
            f"formats up to {FORMAT}. Update npk."
        )
    return described


def read_pt(path: Path) -> Any:
    """What ``torch.save`` wrote, without running any code."""
    import torch

    check_archive(path)
    try:
        # Opened here: by a name with another suffix torch would take it for another kind of file.
        with (
            path.open("rb") as file,
            _READING,
            quiet_torch(),
            torch.serialization.safe_globals(stand_ins()),
        ):
            return torch.load(file, weights_only=True, map_location="cpu")
    except Exception as error:
        code = re.search(r"GLOBAL (\S+)", str(error))
        if code:
            raise CheckpointError(
                f"{path} holds pickled code ({code[1]}), which npk never runs. Where it was made, "
                "write torch.save(net.state_dict(), 'weights.pt'), and load that with arch=; or use "
                "torch.export.save."
            ) from error
        raise CheckpointError(
            f"{path} is truncated or was not written by torch.save. Copy or save it again."
        ) from error


def finite(net: "nn.Module", path: Path) -> "nn.Module":
    """The network, if its weights are numbers; constants in the graph of a file and other buffers
    may be infinite, as masks are.

    Raises:
        CheckpointError: a parameter, a mean or a variance holds NaN or infinity.
    """
    import torch

    for name, tensor in (*net.named_parameters(), *net.named_buffers()):
        last = name.rpartition(".")[2]
        is_weight = not last.startswith("constant") and (
            isinstance(tensor, torch.nn.Parameter) or last.startswith("running_")
        )
        if is_weight and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(
                f"{path}: the weight {name} holds NaN or infinity. Was it "
                f"changed, or did its training diverge?"
            )
    return net
