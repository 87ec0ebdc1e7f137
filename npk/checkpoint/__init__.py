"""Weights on disk, and how to rebuild the network around them.

- ``.safetensors``: the weights, and in the metadata the architecture, npk's version, free details
  and a SHA-256 over all of it
- ``.pt2``: weights and graph, by ``torch.export``; takes any batch size; always in evaluation mode
- what ``torch.save`` wrote, ``.pt`` and under many other names: a state dict; loading needs
  ``arch``
- TorchScript: its graph is followed, not run by torch
- ``.onnx``: weights and graph; read, not written; needs the extra ``onnx``

Reading, the bytes of a file say which of them it is. Nothing in a file runs while it is loaded: a
pickled network is refused, in a ``.pt2`` file too; torch gets a ``.pt2`` file only after a whole
check, and a TorchScript file never. Foreign state dicts may be half precision (becomes float32),
wrapped in dictionaries and lists, and carry a prefix such as ``module.``.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npk.checkpoint import architecture, fitting, folders, program, weights
from npk.checkpoint.configured import NAME, configured
from npk.checkpoint.files import check_file, written_suffix
from npk.checkpoint.given import preparation_of
from npk.checkpoint.kinds import INDEX, ONNX, PROGRAM, SAFETENSORS, SCRIPT, kind_of
from npk.checkpoint.weights import fingerprint, finite
from npk.data import Preparation
from npk.errors import CheckpointError, OptionError
from npk.files import written_whole

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

__all__ = ["fingerprint", "load", "preparation_of", "read_details", "save"]


def save(
    net: "nn.Module",
    path: str | os.PathLike,
    *,
    example: "Tensor | np.ndarray | None" = None,
    preparation: Preparation | None = None,
    **details: Any,
) -> None:
    """Save a network; the suffix of ``path`` chooses the format.

    Args:
        net: any network. One from :func:`npk.networks.build` is rebuilt by :func:`load` from a
            ``.safetensors`` file alone.
        path: ends in ``.safetensors``, ``.pt2``, ``.pt`` or ``.pth``.
        example: one or more inputs (n, *input_shape), needed for ``.pt2`` only.
        preparation: what was done to the samples that the network was trained on (``.safetensors``
            only); :func:`preparation_of` gives it back, and the command line follows it.
        **details: JSON values to keep with the weights (``.safetensors`` only);
            :func:`read_details` gives them back.

    Raises:
        CheckpointError: a suffix that npk does not write, details that are no JSON values, or a
            network that cannot be exported.
        OptionError: no network, ``example`` missing or not wanted, or details where the format has
            no room for them.
        StoreError: the folder is missing, read-only or full.
    """
    import torch

    from npk.networks.given import as_network

    path = Path(path)
    suffix = written_suffix(path)
    net = as_network(net)
    if (example is not None) != (suffix == ".pt2"):
        raise OptionError(
            f"{path}: example is for .pt2 files, and needed there. Use save(net, "
            f"'x.pt2', example=X[:1])."
        )
    named = [*details, *(["preparation"] if preparation is not None else [])]
    if named and suffix != ".safetensors":
        raise OptionError(
            f"{path}: a {suffix} file has no room for {', '.join(named)}. Save "
            f"details in a .safetensors file."
        )
    if not isinstance(preparation, Preparation | None):
        raise OptionError(
            f"preparation is of type {type(preparation).__name__}. Give what npk.data.preparation "
            f"made, such as that of a data set."
        )
    if suffix == ".safetensors":
        content = weights.to_safetensors(net, details, preparation)
    else:
        content = (
            weights.to_pt(net) if example is None else program.to_pt2(net, torch.as_tensor(example))
        )
    with written_whole(path) as temporary:
        temporary.write_bytes(content)


def load(
    path: "str | os.PathLike | Callable[..., nn.Module]",
    arch: "str | Callable[..., nn.Module] | None" = None,
    *,
    weights: str | os.PathLike | None = None,
    arch_options: "Mapping[str, Any] | None" = None,
    key: str | int | None = None,
    output: int | str | None = None,
    layout: str = "nchw",
    **options: Any,
) -> "nn.Module":
    """Load a network, on the CPU and in evaluation mode.

    The two ways to say what makes it: ``load("resnet.pth", arch="torchvision:resnet18")`` and
    ``load("torchvision:resnet18", weights="resnet.pth")``.

    Args:
        path: a file that :func:`save` wrote, or a foreign one: safetensors, a state dict of
            ``torch.save``, TorchScript, a ``.pt2`` program, ONNX (needs the extra ``onnx``). What
            it is, its bytes say. Or a folder with ``model.safetensors``, ``pytorch_model.bin`` or
            the index of several such files; a ``config.json`` beside them, of transformers or timm,
            describes the architecture. With ``weights``, what makes the network, as ``arch``.
        arch: what makes the network around the weights: a callable, ``"module:callable"`` in your
            own code, imported from the current directory first, or ``"file.py:callable"``; or the
            name of a network of a library, ``"timm:resnet26"`` or ``"torchvision:resnet18"``, which
            is made without the library's weights. Needed where the file does not describe its
            architecture.
        weights: the file or folder of weights, where the first argument says what makes the
            network. Nothing is downloaded.
        arch_options: keyword arguments of ``arch``.
        key: which dictionary of tensors is meant, where the file has several: the key or the number
            in a list that leads to it, several with dots between, or the beginning of the names in
            it.
        output: number or key of an output, or name of a module whose output is taken; see
            :func:`choose_output`.
        layout: ``"nhwc"`` for a network that takes samples as (H, W, C): it is wrapped to take them
            as (C, H, W).
        **options: keyword arguments of ``arch`` too, such as ``num_classes=10``.

    Returns:
        The network, float64 if the file is, else float32: half precision becomes float32.

    Raises:
        CheckpointError: a missing, truncated, changed or foreign file, pickled code, a newer
            format, or weights that do not fit.
        OptionError: an option is malformed, or ``arch`` or ``key`` is given for a file that has no
            use for it.
        MissingPackageError: an ONNX file without the package ``onnx``, or a network of a library
            that is not installed.
    """
    file, arch = _file_and_arch(path, arch, weights)
    arch_options = {**(arch_options or {}), **options}
    if arch is None and arch_options:
        raise OptionError(
            f"{', '.join(arch_options)} are arguments of arch=, which is not given. "
            f"Add arch='module:callable'."
        )
    if layout not in ("nchw", "nhwc"):
        raise OptionError(
            f"layout={layout!r} is not known. Choose nchw (channels first) or nhwc (channels last)."
        )
    if isinstance(key, bool) or not isinstance(key, str | int | None):
        raise OptionError(
            f"key is {key!r}. Give the name or number under which the file has the "
            f"weights, such as 'state_dict'."
        )
    file = folders.weights_in(file) if file.is_dir() else file
    check_file(file)
    kind = kind_of(file)
    if kind in (PROGRAM, ONNX) or (kind == SCRIPT and arch is None):
        return finite(_own_graph(file, kind, arch, key, output, layout), file)
    net = _filled(file, kind, arch, arch_options, None if key is None else str(key))
    return _as_asked(finite(net.eval(), file), output, layout)


def _file_and_arch(path: Any, arch: Any, weights: Any) -> tuple[Path, Any]:
    """The file of weights, and what makes the network if that was said."""
    if weights is None:
        return Path(path), arch
    if arch is not None:
        raise OptionError(
            f"with weights={str(weights)!r} the first argument says what makes the network, and "
            f"arch={arch!r} came too. Leave one of them out."
        )
    return Path(weights), os.fspath(path) if isinstance(path, os.PathLike) else path


def _own_graph(
    path: Path, kind: str, arch: Any, key: Any, output: int | str | None, layout: str
) -> "nn.Module":
    """The network of a file that holds its own graph."""
    for name, value in (("arch", arch), ("key", key)):
        if value is not None:
            raise OptionError(
                f"{path} holds its own graph and has no use for {name}={value!r}. Leave {name} out."
            )
    if kind == ONNX:
        from npk.checkpoint.onnx.reader import read_onnx

        return _as_asked(read_onnx(path, output), None, layout)
    if kind == SCRIPT:
        from npk.checkpoint.script.program import read_script

        return _as_asked(read_script(path).eval(), output, layout)
    return _as_asked(program.read_pt2(path).eval(), output, layout)


def _filled(
    path: Path,
    kind: str,
    arch: "str | Callable[..., nn.Module] | None",
    arch_options: dict[str, Any],
    key: str | None,
) -> "nn.Module":
    """The network that ``arch`` or the file describes, with the weights of the file."""
    content, described = _weights(path, kind)
    if arch is not None:
        net = architecture.make(arch, arch_options)
        label = arch if isinstance(arch, str) else getattr(arch, "__qualname__", repr(arch))
    elif described is not None:
        net, label = architecture.rebuild(path, described), "the architecture described in it"
    elif (made := configured(path, content)) is not None:
        net, label = made, f"the architecture in {NAME}"
    else:
        raise CheckpointError(
            f"{path} does not describe its architecture. Say what makes the network: "
            f"arch='module:callable', or the name of one: arch='timm:resnet26'."
        )
    fitting.fill(net, content, path, label, key)
    return net


def _weights(path: Path, kind: str) -> tuple[Any, dict[str, Any] | None]:
    """What a file holds, and the architecture if it describes one."""
    if kind == SAFETENSORS:
        return weights.read_safetensors(path)
    if kind == SCRIPT:
        from npk.checkpoint.script.program import read_state

        return read_state(path), None
    if kind == INDEX:
        return folders.read_shards(path, lambda shard: _weights(shard, kind_of(shard))[0]), None
    return weights.read_pt(path), None


def _as_asked(net: "nn.Module", output: int | str | None, layout: str) -> "nn.Module":
    if output is None and layout == "nchw":
        return net
    from npk.networks.outputs import ChannelsFirst, choose_output

    net = net if output is None else choose_output(net, output)
    return ChannelsFirst(net) if layout == "nhwc" else net


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
    check_file(path)
    if kind_of(path) != SAFETENSORS:
        raise CheckpointError(
            f"{path} has no details, only .safetensors files do. Name a "
            f".safetensors file that npk wrote."
        )
    return weights.read_description(path)["details"]
