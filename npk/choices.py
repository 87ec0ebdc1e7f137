"""The options of a kernel that are chosen from a list, each with one text for another value, those
that are names, and the names of the checks.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias, Union, get_args

from npk.errors import OptionError

if TYPE_CHECKING:
    import numpy as np
    import torch

# Of a kernel. The command line and the types of all functions read them here.
ScaleName = Literal["fan_in", "count", "cosine"]
DtypeName = Literal["float32", "float64"]
GatesName = Literal["auto", "hard", "soft"]
ValueInputName = Literal["auto", "x", "ones"]
BiasName = Literal["auto", "ignore", "paths"]
BackendName = Literal["auto", "cpu", "cuda", "reference"]
# a type of NumPy or PyTorch goes by its name
DtypeLike: TypeAlias = Union[DtypeName, "np.dtype", "type[np.floating]", "torch.dtype"]

CHOICES: dict[str, tuple[str, ...]] = {
    "scale": get_args(ScaleName),
    "dtype": get_args(DtypeName),
    "gates": get_args(GatesName),
    "value_input": get_args(ValueInputName),
    "bias": get_args(BiasName),
    "backend": get_args(BackendName),
}
# Of checkpoints, trainings and commands.
LayoutName = Literal["nchw", "nhwc"]
ArchName = Literal["fc", "conv", "residual", "vgg16", "resnet110"]
KindName = Literal["dnn", "dgn", "dlgn", "dlgn-sf"]
RegimeName = Literal["relu", "dlnpf", "flnpf", "frnpf-ii", "frnpf-di"]
OptimizerName = Literal["adam", "sgd", "rmsprop"]
LossName = Literal["cross-entropy", "mse"]
ScheduleName = Literal["one-cycle", "cosine", "step", "constant"]
SelectName = Literal["last", "accuracy", "loss"]
DeviceName = Literal["cpu", "cuda"]
SubsetName = Literal["train", "test"]
SolverName = Literal["ridge", "svm", "gp", "nystroem", "features"]
FigureName = Literal["kernel", "alignment", "spectrum", "statistics", "overlap"]
SuiteName = Literal["invariance", "ensemble"]
CheckName = Literal["duality", "invariance", "ensemble", "tangent"]  # the keys of DETAILS
GroupName = Literal["circular", "filled", "reflections", "turns", "dihedral"]


_BIASES = {"paths": "biases start paths", "ignore": "no paths from biases"}


def bias_words(taken: str) -> str:
    """What a kernel takes of a network's biases, in a few words.

    Args:
        taken: "paths" or "ignore".
    """
    return _BIASES[taken]


def bias_choice(taken: str, option: str = 'bias="{}"') -> str:
    """What a kernel takes of a network's biases, and how to get the other.

    Args:
        taken: "paths" or "ignore".
        option: how the option is written.
    """
    if taken == "paths":
        return f"{bias_words(taken)} ({option.format('ignore')} leaves these out)"
    return f"{bias_words(taken)} ({option.format('paths')} takes those that a network has)"


def chosen(name: str, value: object) -> str:
    """An option's value, if it is one of those that there are.

    Args:
        name: of the option.
        value: what came.

    Returns:
        The value.

    Raises:
        OptionError: another value.
    """
    names = CHOICES[name]
    if isinstance(value, str) and value in names:
        return str(value)
    raise OptionError(f"{name}={value!r} is not known. Choose one of {', '.join(names)}.")


def as_patterns(fixed: str | Sequence[str]) -> tuple[str, ...]:
    """The names that ``fixed=`` gives: one, or several.

    Args:
        fixed: names of parameters and buffers, with ``*`` for any text.

    Returns:
        The names.

    Raises:
        OptionError: something else.
    """
    names = (fixed,) if isinstance(fixed, str) else fixed
    if not isinstance(names, list | tuple) or not all(isinstance(n, str) and n for n in names):
        raise OptionError(
            f"fixed={fixed!r} is not understood. Give names of parameters and buffers, such as "
            f"fixed=['blur.*']."
        )
    return tuple(names)
