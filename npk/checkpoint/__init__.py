"""Weights on disk, and how to rebuild the network around them.

- ``.safetensors``: the weights, and in the metadata the architecture, npk's version, free details and a SHA-256 over all of it
- ``.pt2``: weights and graph, by ``torch.export``; takes any batch size; always in evaluation mode
- ``.pt``, ``.pth``: a state dict; loading needs ``arch``

Pickled code is never run: a pickled network is refused, in a ``.pt2`` file too. Foreign files may be half precision (becomes
float32), wrapped as ``{"state_dict": ...}`` or ``{"model": ...}``, and carry the prefix ``module.`` on every name. A graph in a
``.pt2`` file is read by torch's own loader, which was not made for files from strangers.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npk.checkpoint import architecture, program, weights
from npk.checkpoint.files import check_file, known_suffix
from npk.checkpoint.weights import fingerprint
from npk.errors import CheckpointError, OptionError
from npk.files import written_whole

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

__all__ = ["fingerprint", "load", "read_details", "save"]


def save(net: "nn.Module", path: str | os.PathLike, *, example: "Tensor | np.ndarray | None" = None, **details: Any) -> None:
    """Save a network; the suffix of ``path`` chooses the format.

    Args:
        net: any network. One from :func:`npk.networks.build` is rebuilt by :func:`load` from a ``.safetensors`` file alone.
        path: ends in ``.safetensors``, ``.pt2``, ``.pt`` or ``.pth``.
        example: one or more inputs (n, *input_shape), needed for ``.pt2`` only.
        **details: JSON values to keep with the weights (``.safetensors`` only); :func:`read_details` gives them back.

    Raises:
        CheckpointError: a suffix that npk does not write, details that are no JSON values, or a network that cannot be exported.
        OptionError: no network, ``example`` missing or not wanted, or details where the format has no room for them.
        StoreError: the folder is missing, read-only or full.
    """
    import torch

    path = Path(path)
    suffix = known_suffix(path)
    if not isinstance(net, torch.nn.Module):
        raise OptionError(f"net is a {type(net).__name__}, only a torch.nn.Module can be saved. Give the network itself.")
    if (example is not None) != (suffix == ".pt2"):
        raise OptionError(f"{path}: example is for .pt2 files, and needed there. Use save(net, 'x.pt2', example=X[:1]).")
    if details and suffix != ".safetensors":
        raise OptionError(f"{path}: a {suffix} file has no room for {', '.join(details)}. Save details in a .safetensors file.")
    if suffix == ".safetensors":
        content = weights.to_safetensors(net, details)
    else:
        content = weights.to_pt(net) if example is None else program.to_pt2(net, torch.as_tensor(example))
    with written_whole(path) as temporary:
        temporary.write_bytes(content)


def load(path: str | os.PathLike, arch: "str | Callable[..., nn.Module] | None" = None, **arch_arguments: Any) -> "nn.Module":
    """Load a network, on the CPU and in evaluation mode.

    Args:
        path: a file of one of the kinds that :func:`save` writes, or a foreign ``.safetensors``, ``.pt2``, ``.pt`` or ``.pth`` file.
        arch: what makes the network around the weights: a callable, or ``"module:callable"`` in your own code, imported from
            the current directory first. Needed where the file does not describe its architecture.
        **arch_arguments: keyword arguments of ``arch``.

    Returns:
        The network, with the dtype of the file; half precision becomes float32.

    Raises:
        CheckpointError: a missing, truncated, changed or foreign file, pickled code, a newer format, or weights that do not fit.
        OptionError: ``arch`` is malformed, or given for a file that has no use for it.
    """
    path = Path(path)
    suffix = known_suffix(path)
    check_file(path)
    if arch is None and arch_arguments:
        raise OptionError(f"{', '.join(arch_arguments)} are arguments of arch, and arch is not given. Add arch='module:callable'.")
    if suffix == ".pt2":
        if arch is not None:
            raise OptionError(f"{path} holds its own graph and has no use for arch={arch!r}. Leave arch out.")
        return program.read_pt2(path)
    state, described = weights.read_safetensors(path) if suffix == ".safetensors" else (weights.read_pt(path), None)
    if arch is None and described is None:
        raise CheckpointError(f"{path} does not describe its architecture. Say what makes the network: arch='module:callable'.")
    if arch is not None:
        net, label = architecture.make(arch, arch_arguments), arch if isinstance(arch, str) else getattr(arch, "__qualname__", repr(arch))
    else:
        net, label = architecture.rebuild(path, described), "the architecture described in it"
    weights.fill(net, weights.plain_state(state, path), f"{path} does not fit {label}")
    return net.eval()


def read_details(path: str | os.PathLike) -> dict[str, Any]:
    """The details that were saved with a network; the weights are not read.

    Args:
        path: a ``.safetensors`` file that :func:`save` wrote.

    Returns:
        The keyword arguments ``**details`` of :func:`save`; tuples have become lists.

    Raises:
        CheckpointError: another kind of file, or one that cannot be read.
    """
    path = Path(path)
    if path.suffix.lower() != ".safetensors":
        raise CheckpointError(f"{path} has no details, only .safetensors files do. Name a .safetensors file that npk wrote.")
    check_file(path)
    return weights.read_description(path)["details"]
