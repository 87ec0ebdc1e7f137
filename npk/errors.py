"""The errors npk raises on purpose.

Every message says what is wrong, what came and what to do. The command line prints it on one line and exits with code 2.
"""


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
    """A checkpoint that is truncated, foreign, of another version, or does not fit its architecture."""


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
    """An optional package that is needed and not installed."""


class KernelWarning(UserWarning):
    """A kernel that is right and still not what one may think: inputs without an active path, entries below the range."""


class CheckpointWarning(UserWarning):
    """A checkpoint that was read, and holds more tensors than the network has."""
