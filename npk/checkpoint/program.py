"""Exported programs (``.pt2``): the graph and the weights in one file."""

import copy
import io
import json
import types
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from npk.checkpoint.files import check_archive, first_line, quiet_torch
from npk.errors import CheckpointError, OptionError

if TYPE_CHECKING:
    from torch import Tensor, nn


def to_pt2(net: "nn.Module", example: "Tensor") -> bytes:
    """The network exported in evaluation mode, for any batch size."""
    import torch

    if example.ndim < 2 or len(example) == 0:
        raise OptionError(f"example has shape {tuple(example.shape)}. Give one input or more, (n, *input_shape).")
    net = copy.deepcopy(net).cpu().eval()
    kind = next((p.dtype for p in net.parameters() if p.is_floating_point()), torch.float32)
    batch = example[:1].detach().cpu().to(kind).repeat(2, *[1] * (example.ndim - 1))  # two: a batch of 1 is taken for a constant
    buffer = io.BytesIO()
    try:
        with quiet_torch():
            program = torch.export.export(net, (batch,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
            torch.export.save(program, buffer)
    except Exception as error:
        raise CheckpointError(
            f"torch.export cannot export this {type(net).__name__} ({first_line(error)}). Save it as .safetensors and load it with arch."
        ) from error
    return buffer.getvalue()


def read_pt2(path: Path) -> "nn.Module":
    """The network of an exported program, in evaluation mode."""
    import torch

    import npk.networks.gating  # noqa: F401 - registers the operator npk::gate

    check_archive(path)
    _refuse_code(path)
    try:
        with quiet_torch():
            net = torch.export.load(path).module()
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read by torch {torch.__version__} ({first_line(error)}). Was it written by torch.export.save?"
        ) from error
    net.eval = types.MethodType(_stay, net)  # torch's own eval() of an exported graph raises
    for module in net.modules():
        module.training = False
    return net


def _stay(net: "nn.Module") -> "nn.Module":
    """An exported graph has one mode for ever."""
    return net


def _refuse_code(path: Path) -> None:
    """Let through tensors and the graph; torch's loader would unpickle objects and run compiled libraries."""
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path} is truncated or was not written by torch.export.save. Copy or save it again.")
    with zipfile.ZipFile(path) as archive:
        code = [name for name in archive.namelist() if _is_code(name, archive.read(name))]
    if code:
        raise CheckpointError(
            f"{path} holds pickled or compiled code ({code[0]}), which npk never runs. Export a network of plain tensors."
        )


def _is_code(name: str, content: bytes) -> bool:
    """Whether torch's loader would run a part of the file; so is taken what cannot be read."""
    import torch

    try:
        if name.endswith("_config.json"):
            return any(entry["use_pickle"] for entry in json.loads(content)["config"].values())
        if name.endswith(".pt"):
            torch.load(io.BytesIO(content), weights_only=True)
    except Exception:
        return True
    return "aotinductor" in name or "/constants/custom_obj" in name or "/constants/opaque_obj" in name
