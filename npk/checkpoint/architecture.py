"""The network around the weights: from its description, or from the user's own code."""

import contextlib
import difflib
import importlib
import importlib.util
import operator
import re
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npk.checkpoint import libraries
from npk.checkpoint.described import check_described
from npk.checkpoint.files import first_line
from npk.errors import CheckpointError, OptionError
from npk.files import digest

if TYPE_CHECKING:
    from torch import nn


def rebuild(path: Path, architecture: Any) -> "nn.Module":
    """The network that npk itself described in the file."""
    from npk import networks

    try:
        check_described(path, architecture)
        return without_drawing(networks.build, architecture)
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"{path}: npk.networks.build cannot make the architecture described in it "
            f"({first_line(error)}). Use the npk that wrote it, or give arch='module:callable'."
        ) from error


def make(arch: "str | Callable[..., nn.Module]", arguments: dict[str, Any]) -> "nn.Module":
    """The network that the user's own code makes."""
    import torch

    if isinstance(arch, torch.nn.Module) or not (isinstance(arch, str) or callable(arch)):
        raise OptionError(
            f"arch is a {type(arch).__name__}. Give what makes the network: a class, "
            f"a function or 'module:callable'."
        )
    if isinstance(arch, str):
        libraries.check_options(arch, arguments)
    with _first_on_the_path(Path.cwd()):
        make = _imported(arch) if isinstance(arch, str) else arch
        try:
            net = without_drawing(make, arguments)
        except Exception as error:
            raise CheckpointError(
                f"arch={arch!r} failed with {first_line(error)}. Give its "
                f"arguments as arch_options."
            ) from error
    if not isinstance(net, torch.nn.Module):
        raise CheckpointError(
            f"arch={arch!r} made a {type(net).__name__}. Name something that "
            f"makes a torch.nn.Module."
        )
    return net


def without_drawing(make: "Callable[..., nn.Module]", arguments: dict[str, Any]) -> "nn.Module":
    """Call ``make``; its initial weights are thrown away, so torch's random state stays."""
    import torch

    with torch.random.fork_rng(devices=[]):
        return make(**arguments)


@contextlib.contextmanager
def _first_on_the_path(folder: Path) -> Iterator[None]:
    """Import from a folder before all others, inside the block, as ``python -m`` does too."""
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _imported(arch: str) -> "Callable[..., nn.Module]":
    if (known := libraries.named(arch)) is not None:
        return known
    name, _, attribute = arch.rpartition(":")
    if not (name and attribute):
        raise OptionError(
            f"arch={arch!r} names no callable. Write 'module:callable', such as "
            f"'models.small:make_network', or 'file.py:callable'."
        )
    module = _from_file(Path(name), arch) if name.endswith(".py") else _module(name, arch)
    try:
        make: Callable[..., nn.Module] | None = operator.attrgetter(attribute)(module)
    except AttributeError:
        make = None
    if not callable(make):
        callables = [
            key
            for key, value in vars(module).items()
            if callable(value) and not key.startswith("_")
        ]
        near = difflib.get_close_matches(attribute, callables, n=1) or callables[:5]
        raise CheckpointError(
            f"arch={arch!r}: {name} has no callable {attribute}. Did you mean "
            f"{', '.join(near) or 'another module'}?"
        )
    return make


def _module(name: str, arch: str) -> types.ModuleType:
    """The module of a dotted name."""
    try:
        return importlib.import_module(name)
    except Exception as error:
        file = Path(*name.split(".")).with_suffix(".py")
        place = (
            f"Start npk in the folder that holds {name}, name its file as "
            f"'path/to/{file.name}:callable', or install it"
        )
        raise CheckpointError(
            f"arch={arch!r}: importing {name} failed with {first_line(error)}. {place}."
        ) from error


def _from_file(file: Path, arch: str) -> types.ModuleType:
    """The module in a file, as a part of its package if the folder is one."""
    if not file.is_file():
        raise CheckpointError(f"arch={arch!r}: there is no file {file}. Check its name and folder.")
    file = file.resolve()
    names, folder = [file.stem], file.parent
    while (folder / "__init__.py").is_file():
        names, folder = [folder.name, *names], folder.parent
    name = ".".join(names)
    try:
        with _first_on_the_path(folder):
            known = sys.modules.get(name)
            if known is None and all(part.isidentifier() for part in names):
                known = importlib.import_module(name)
            return known if known is not None and _is_from(known, file) else _apart(file)
    except Exception as error:
        raise CheckpointError(
            f"arch={arch!r}: importing {file} failed with {first_line(error)}. "
            f"Mend it, or name another file."
        ) from error


def _is_from(module: types.ModuleType, file: Path) -> bool:
    return bool(module.__file__) and Path(module.__file__).resolve() == file


def _apart(file: Path) -> types.ModuleType:
    """The module in a file whose name another module has already, under a name of its own."""
    name = f"{re.sub(r'[^0-9A-Za-z]', '_', file.stem)}_{digest(str(file).encode())[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None  # a file that ends in .py has a loader
    assert spec.loader is not None
    # dataclasses look themselves up there
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
