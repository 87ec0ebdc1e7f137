"""The checks by name, and what the command line asks of them."""

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from npk.errors import OptionError
from npk.results import CheckResult


def named(name: str) -> Callable[..., CheckResult]:
    """The check of a statement of the theory."""
    return getattr(importlib.import_module(f"npk.checks.{name}"), f"check_{name}")


def asked(name: str, options: Mapping[str, Any]) -> Callable[..., CheckResult]:
    """The check with the options that were given.

    Args:
        name: of the check.
        options: what may be given; empty values were not.

    Returns:
        The check, which takes network, samples and name.

    Raises:
        OptionError: the check does not take an option.
    """
    test = named(name)
    given = {option: value for option, value in options.items() if value}
    for option in given.keys() - inspect.signature(test).parameters.keys():
        raise OptionError(f"`npk check {name}` does not take --{option}. Leave it out.")
    if "shifts" in given:
        given["shifts"] = as_shifts(given["shifts"])
    return functools.partial(test, **given)


def as_shifts(text: str) -> str | int | list[tuple[int, ...]]:
    """Shifts as :func:`npk.check_invariance` takes them.

    Args:
        text: a word, a number, or a list such as ``0,1;2,2``.

    Raises:
        OptionError: a list that is not of whole numbers.
    """
    if text.isdigit():
        return int(text)
    if "," not in text and ";" not in text:
        return text
    try:
        return [tuple(int(side) for side in shift.split(",")) for shift in text.split(";")]
    except ValueError:
        raise OptionError(
            f"--shifts {text!r} is not understood. Write auto, all, a number, or shifts such as "
            f"0,1;2,2."
        ) from None
