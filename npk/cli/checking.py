"""The checks by name."""

from collections.abc import Callable

from npk.errors import OptionError
from npk.results import CheckResult


def named(name: str) -> Callable[..., CheckResult]:
    """The check of a statement of the theory.

    Raises:
        OptionError: no such check.
    """
    from npk.checks.duality import check_duality
    from npk.checks.ensemble import check_ensemble
    from npk.checks.invariance import check_invariance

    known = {"duality": check_duality, "invariance": check_invariance, "ensemble": check_ensemble}
    if name not in known:
        what = "in this version of npk" if name == "tangent" else "known"
        raise OptionError(f"the check {name!r} is not {what}. Choose {', '.join(known)}.")
    return known[name]
