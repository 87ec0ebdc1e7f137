"""The options of a kernel that are chosen from a list, each with one text for another value, those
that are names, and the names of the checks.
"""

from collections.abc import Sequence

from npk.errors import OptionError

CHOICES = {
    "scale": ("fan_in", "count", "cosine"),
    "dtype": ("float32", "float64"),
    "gates": ("auto", "hard", "soft"),
    "value_input": ("auto", "x", "ones"),
    "bias": ("auto", "ignore", "paths"),
    "backend": ("auto", "cpu", "cuda", "reference"),
}

CHECKS = ("duality", "invariance", "ensemble", "tangent")  # the keys of DETAILS, for the help


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
