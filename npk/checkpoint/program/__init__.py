"""Exported programs (``.pt2``): the graph and the weights in one file."""

import copy
import io
import types
from pathlib import Path
from typing import TYPE_CHECKING

from npk.checkpoint.files import first_line, quiet_torch
from npk.checkpoint.program.batches import free_in_batch
from npk.checkpoint.program.records import checked_copy
from npk.errors import CheckpointError, OptionError

if TYPE_CHECKING:
    from torch import Tensor, nn


def to_pt2(net: "nn.Module", example: "Tensor") -> bytes:
    """The network exported in evaluation mode, for any batch size."""
    import torch

    if example.ndim < 2 or len(example) == 0:
        raise OptionError(
            f"example has shape {tuple(example.shape)}. Give one input or more, (n, *input_shape)."
        )
    net = copy.deepcopy(net).cpu().eval()
    kind = next((p.dtype for p in net.parameters() if p.is_floating_point()), torch.float32)
    # two: a batch of 1 is taken for a constant
    batch = example[:1].detach().cpu().to(kind).repeat(2, *[1] * (example.ndim - 1))
    buffer = io.BytesIO()
    try:
        with quiet_torch():
            program = torch.export.export(
                net, (batch,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
            )
            torch.export.save(program, buffer)
    except Exception as error:
        raise CheckpointError(
            f"torch.export cannot export this {type(net).__name__} ({first_line(error)}). Save it "
            f"as .safetensors and load it with arch=."
        ) from error
    return buffer.getvalue()


def read_pt2(path: Path) -> "nn.Module":
    """The network of an exported program, in evaluation mode."""
    import torch

    import npk.networks.gating  # noqa: F401 - registers the operator npk::gate

    copy = checked_copy(path)
    try:
        with quiet_torch():
            net = free_in_batch(torch.export.load(copy), path)
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read by torch {torch.__version__} ({first_line(error)}). Was it "
            f"written by torch.export.save?"
        ) from error
    net.eval = types.MethodType(_stay, net)  # torch's own eval() of an exported graph raises
    for module in net.modules():
        module.training = False
    return net


def _stay(net: "nn.Module") -> "nn.Module":
    """An exported graph has one mode for ever."""
    return net
