"""The checks by name."""

import importlib
from collections.abc import Callable

from npk.errors import OptionError
from npk.results import DETAILS, CheckResult


def named(name: str) -> Callable[..., CheckResult]:
    """The check of a statement of the theory.

    Raises:
        OptionError: no such check.
    """
    if name not in DETAILS:
        what = "in this version of npk" if name == "tangent" else "known"
        raise OptionError(f"the check {name!r} is not {what}. Choose {', '.join(DETAILS)}.")
    return getattr(importlib.import_module(f"npk.checks.{name}"), f"check_{name}")
