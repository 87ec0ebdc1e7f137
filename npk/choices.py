"""The options of a kernel that are chosen from a list, each with one text for another value."""

from npk.errors import OptionError

CHOICES = {
    "scale": ("fan_in", "count", "cosine"),
    "dtype": ("float32", "float64"),
    "gates": ("auto", "hard", "soft"),
    "value_input": ("auto", "x", "ones"),
    "bias": ("ignore", "paths"),
    "backend": ("auto", "cpu", "cuda", "reference"),
}


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
