"""The network around the weights: from its description, or from the user's own code."""

import contextlib
import difflib
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npk.checkpoint.files import first_line
from npk.errors import CheckpointError, OptionError

if TYPE_CHECKING:
    from torch import nn


def rebuild(path: Path, architecture: Any) -> "nn.Module":
    """The network that npk itself described in the file."""
    from npk import networks

    try:
        return _without_drawing(networks.build, architecture)
    except Exception as error:
        raise CheckpointError(
            f"{path}: npk.networks.build cannot make the architecture described in it ({first_line(error)}). "
            "Use the npk that wrote it, or give arch='module:callable'."
        ) from error


def make(arch: "str | Callable[..., nn.Module]", arguments: dict[str, Any]) -> "nn.Module":
    """The network that the user's own code makes."""
    import torch

    if isinstance(arch, torch.nn.Module) or not (isinstance(arch, str) or callable(arch)):
        raise OptionError(f"arch is a {type(arch).__name__}. Give what makes the network: a class, a function or 'module:callable'.")
    with _current_directory_first():
        make = _imported(arch) if isinstance(arch, str) else arch
        try:
            net = _without_drawing(make, arguments)
        except Exception as error:
            raise CheckpointError(f"arch={arch!r} failed with {first_line(error)}. Give its arguments as arch_options.") from error
    if not isinstance(net, torch.nn.Module):
        raise CheckpointError(f"arch={arch!r} made a {type(net).__name__}. Name something that makes a torch.nn.Module.")
    return net


def _without_drawing(make: "Callable[..., nn.Module]", arguments: dict[str, Any]) -> "nn.Module":
    """Call ``make``; its initial weights are thrown away, so torch's random state shall not move either."""
    import torch

    with torch.random.fork_rng(devices=[]):
        return make(**arguments)


@contextlib.contextmanager
def _current_directory_first() -> Iterator[None]:
    """Import from the current directory as ``python -m`` does, only inside the block."""
    here = os.getcwd()
    sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(here)


def _imported(arch: str) -> "Callable[..., nn.Module]":
    name, _, attribute = arch.partition(":")
    if not (name and attribute):
        raise OptionError(f"arch={arch!r} names no callable. Write 'module:callable', such as 'models.small:make_network'.")
    try:
        module = importlib.import_module(name)
    except Exception as error:
        raise CheckpointError(
            f"arch={arch!r}: importing {name} failed with {first_line(error)}. Start npk in the folder that holds {name}, or install it."
        ) from error
    make: Callable[..., nn.Module] | None = getattr(module, attribute, None)
    if not callable(make):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        near = difflib.get_close_matches(attribute, known, n=1) or known[:5]
        raise CheckpointError(f"arch={arch!r}: {name} has no callable {attribute}. Did you mean {', '.join(near) or 'another module'}?")
    return make
