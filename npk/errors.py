"""The errors npk raises on purpose, and its warnings, which name the line of the user's code.

Every message says what is wrong, what came and what to do. The command line prints an error on one
line and exits with code 2.
"""

import importlib
import sys
import warnings
from types import FrameType

REPORT = ("matplotlib", "jinja2")  # what figures and pages need: the extra "report"
# No line of these is the user's: scikit-learn calls estimators by itself, on its own or by joblib.
_NOT_THE_USERS = {"npk", "sklearn", "joblib"}
_WHEELS = {"PIL": "pillow", "sklearn": "scikit-learn"}  # packages whose modules are named otherwise


class NpkError(Exception):
    """Base of every error that a user can cause and mend."""


class DataError(NpkError, ValueError):
    """A data set, array or DATA notation that cannot be used."""


class DataTypeError(DataError, TypeError):
    """Data of a type that holds no numbers."""


class ShapeError(NpkError, ValueError):
    """Two things whose shapes do not fit together."""


class OptionError(NpkError, ValueError):
    """An option whose value is not one of the values allowed, or that contradicts another."""


class CheckpointError(NpkError, ValueError):
    """A checkpoint that is truncated, foreign, of another version, or of another architecture."""


class UnsupportedGraphError(NpkError, TypeError):
    """A network with a node whose paths npk does not wholly understand."""


class ScaleError(NpkError, OverflowError):
    """Kernel values outside the range of the arithmetic asked for."""


class StoreError(NpkError, OSError):
    """A file or folder that cannot be read, written, or does not belong to this computation."""


class BackendError(NpkError, RuntimeError):
    """A backend that is not available here, or cannot do what was asked."""


class DeviceMemoryError(BackendError):
    """A device that has no room for what was asked; a smaller part may fit."""


class MissingPackageError(NpkError, ImportError):
    """A package that is needed and not installed."""


def missing(error: ModuleNotFoundError) -> MissingPackageError | None:
    """What an import that found nothing means to who installed npk.

    Args:
        error: of the import.

    Returns:
        The error that names the package and how to get it; ``None`` if the module is one of npk's
        own, which is a mistake in npk.
    """
    package = (error.name or "").partition(".")[0]
    if package in ("", "npk"):
        return None
    extra = ".[report]" if package in REPORT else "."
    return MissingPackageError(
        f"npk needs the package {_WHEELS.get(package, package)} for this, which is not installed "
        f"here. Run pip install '{extra}' in npk's folder, or pip install "
        f"{_WHEELS.get(package, package)}."
    )


def check_installed(*packages: str) -> None:
    """Refuse a long work whose end would need a package that is not there.

    Args:
        packages: names of modules, such as those of :data:`REPORT`.

    Raises:
        MissingPackageError: one of them is not installed.
    """
    for package in packages:
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as error:
            raise missing(error) or error from error


class DataWarning(UserWarning):
    """Samples that can be used and may still not be what the network was given."""


class KernelWarning(UserWarning):
    """A kernel that is right and still not what one may think: dead inputs, lost entries."""


class CheckpointWarning(UserWarning):
    """A checkpoint that was read, and holds more tensors than the network has."""


def warn(text: str, category: type[Warning]) -> None:
    """Warn at the line that called npk, however deep in npk the reason is found.

    The threads that npk starts have no such line above them. They hand what they find to the thread
    that was called, and that one warns.

    Args:
        text: what is to be known, and what to do about it.
        category: :class:`KernelWarning` or another class of warnings.
    """
    frame, level = sys._getframe(1), 2  # level 1 is the line below
    while frame.f_back is not None and not _is_the_users(frame):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, category, stacklevel=level)


def _is_the_users(frame: FrameType) -> bool:
    package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    return package not in _NOT_THE_USERS
