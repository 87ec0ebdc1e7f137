"""The checks of the theory that a study runs on its networks."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from npk.checks.duality import check_duality
from npk.checks.ensemble import check_ensemble
from npk.checks.invariance import check_invariance
from npk.errors import NpkError
from npk.graph.operators import Add
from npk.progress import Progress, Silent
from npk.reading.inputs import trace_for
from npk.results import CheckResult
from npk.studies.kernels import Asked
from npk.studies.subjects import Subject

_SAMPLES, _DRAWS, _SHIFTS = 4, 100, 64


class NotForIt(NpkError):
    """A statement that says nothing of this network."""


def check_all(
    names: Sequence[str],
    subject: Subject,
    X: np.ndarray,
    seed: int,
    command: Callable[[str], str],
    asked: Asked = Asked(),  # noqa: B008
    progress: Progress = Silent(),  # noqa: B008
) -> tuple[list[CheckResult], list[tuple[str, str]]]:
    """Check a network.

    Args:
        names: of the checks.
        subject: the network.
        X: samples.
        seed: of what a check draws.
        command: that makes a check again, by its name.
        asked: options of the study's kernels, which those of the checks are too.
        progress: what is told meanwhile.

    Returns:
        What was measured; and of each check that was left out, its name and why.
    """
    results: list[CheckResult] = []
    left_out: list[tuple[str, str]] = []
    for name in names:
        try:
            found = CHECKS[name](subject, X, seed, asked, progress)
        except NpkError as error:
            left_out.append((name, str(error)))
        else:
            results.append(dataclasses.replace(found, command=command(name)))
    return results, left_out


def _duality(
    subject: Subject, X: np.ndarray, seed: int, asked: Asked, progress: Progress
) -> CheckResult:
    return check_duality(
        subject.net,
        X,
        draws=_DRAWS,
        seed=seed,
        bias=asked.bias,
        value_input=asked.value_input,
        name=subject.name,
        fixed=subject.fixed,
        progress=progress,
    )


def _ensemble(
    subject: Subject, X: np.ndarray, seed: int, asked: Asked, progress: Progress
) -> CheckResult:
    nodes = trace_for(subject.net, X).graph.nodes
    if not any(isinstance(node.operator, Add) for node in nodes):
        raise NotForIt("no skip connections")
    if subject.fixed:
        raise NotForIt("it takes no fixed coefficients")
    return check_ensemble(subject.net, X[:_SAMPLES], name=subject.name, **asked.of_paths)


def _invariance(
    subject: Subject, X: np.ndarray, seed: int, asked: Asked, progress: Progress
) -> CheckResult:
    if X.ndim < 3:
        raise NotForIt("samples have no positions to shift")
    shifts = "all" if math.prod(X.shape[2:]) <= _SHIFTS else _SHIFTS
    given = {"seed": seed, "name": subject.name, "progress": progress, **asked.of_paths}
    return check_invariance(subject.net, X[:_SAMPLES], shifts, fixed=subject.fixed, **given)


CHECKS: dict[str, Callable[[Subject, np.ndarray, int, Asked, Progress], CheckResult]] = {
    "duality": _duality,
    "invariance": _invariance,
    "ensemble": _ensemble,
}
