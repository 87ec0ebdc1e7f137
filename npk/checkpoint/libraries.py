"""Networks that timm and torchvision make by name, without their weights: npk downloads nothing."""

import difflib
import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from npk.checkpoint.files import LIBRARIES, first_line, is_of_a_library
from npk.errors import CheckpointError, MissingPackageError, OptionError

if TYPE_CHECKING:
    from torch import nn

# Arguments by which the libraries fetch weights, or read a file of weights by themselves.
_FETCHING = ("pretrained", "weights", "weights_backbone", "pretrained_backbone", "checkpoint_path")


def named(arch: str) -> "Callable[..., nn.Module] | None":
    """What makes the network of a name such as ``"timm:resnet26"``.

    Args:
        arch: ``"timm:NAME"`` or ``"torchvision:NAME"``, or anything else.

    Returns:
        Takes the library's own options; ``None`` where the name is a callable of another kind, such
        as ``"timm:create_model"``.

    Raises:
        MissingPackageError: the library is not installed.
        CheckpointError: it cannot be imported, or has no network of this name.
    """
    if not is_of_a_library(arch):
        return None
    library, _, name = arch.partition(":")
    module = imported(library, arch)
    models = importlib.import_module(LIBRARIES[library])
    names = list(models.list_models())
    if name.partition(".")[0] in names:  # timm puts the training behind a dot: resnet26.bt_in1k
        return functools.partial(_make, library, models, name)
    if callable(getattr(module, name, None)):
        return None
    near = difflib.get_close_matches(name, names, n=3) or names[:3]
    raise CheckpointError(
        f"arch={arch!r}: {library} has no network {name}. Did you mean {', '.join(near)}?"
    )


def imported(library: str, needed_for: str) -> ModuleType:
    """The library, or one sentence on why it is not there."""
    try:
        return importlib.import_module(library)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == library:
            raise MissingPackageError(
                f"{needed_for} needs the package {library}, which is not installed here. Run: "
                f"pip install {library}"
            ) from error
        raise CheckpointError(
            f"{needed_for}: importing {library} failed with {first_line(error)}. Install the "
            f"version of {library} that goes with this torch."
        ) from error


def check_options(arch: str, options: Mapping[str, Any]) -> None:
    """Refuse to have a library fetch weights.

    Raises:
        OptionError: one of its options asks for that.
    """
    asked = [option for option in _FETCHING if options.get(option)]
    if is_of_a_library(arch) and asked:
        raise OptionError(
            f"{asked[0]}={options[asked[0]]!r} has {arch.partition(':')[0]} fetch weights, and npk "
            f"downloads none. Leave it out, and give the file of weights."
        )


def _make(library: str, models: ModuleType, name: str, **options: Any) -> "nn.Module":
    """The network with its initial weights."""
    options = {key: value for key, value in options.items() if key not in _FETCHING}
    if library == "timm":
        return models.create_model(name, pretrained=False, **options)
    builder = models.get_model_builder(name)
    known = inspect.signature(builder).parameters
    without = {key: None for key in ("weights", "weights_backbone") if key in known}
    return builder(**without, **options)
