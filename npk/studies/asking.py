"""The door of a study: what is asked is checked, answered, and written to a folder."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npk.choices import BackendName, BiasName, GatesName, ScaleName, ValueInputName, as_patterns
from npk.data import Dataset
from npk.errors import REPORT, OptionError, check_installed
from npk.progress import Progress, as_progress
from npk.report import write_figures, write_page
from npk.results import StudyResult
from npk.studies import running
from npk.studies.checking import CHECKS
from npk.studies.cost import LARGER, parse_budget
from npk.studies.draws import SPLITS, Labeled, drawn, labeled, whole_number
from npk.studies.kernels import Asked
from npk.studies.running import BASELINES, Question, within_budget
from npk.studies.subjects import as_subjects

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

_SEEN = {None: "not known", True: "seen", False: "fresh"}


def study(
    net: "nn.Module | Sequence[nn.Module] | Mapping[str, nn.Module]",
    X: "np.ndarray | Dataset",
    y: "np.ndarray | None" = None,
    *,
    test: "Dataset | tuple[np.ndarray, np.ndarray] | np.ndarray | None" = None,
    names: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    seen: bool | None = None,
    n: int | Sequence[int] | None = None,
    splits: int = SPLITS,
    budget: float | str | None = None,
    baselines: Sequence[str] = BASELINES,
    checks: Sequence[str] = tuple(CHECKS),
    untrained: "Callable[[int], nn.Module] | None" = None,
    fixed: str | Sequence[str] = (),
    scale: ScaleName = "cosine",
    gates: GatesName = "auto",
    value_input: ValueInputName = "auto",
    bias: BiasName = "auto",
    backend: BackendName = "auto",
    seed: int = 0,
    out: str | os.PathLike,
    progress: bool | Progress = True,
) -> StudyResult:
    r"""Find what the gates of networks have learnt, and write a page about it.

    With :math:`\hat y_G` the classes that ridge regression on the kernel of gates G gives after n
    fresh samples, the question is

    .. math:: P(\hat y_\text{trained} = y) - P(\hat y_\text{untrained} = y)

    Args:
        net: a network in eval mode, a list of networks, or networks by name.
        X: fresh samples ``(n, *input_shape)``, or a data set with its labels.
        y: class of each sample: numbers of the networks' outputs, or text; ``None``: what needs no
            labels is studied.
        test: samples that accuracies are measured on, as ``(X, y)`` or a data set; ``None``: half of
            X, at most 1,000.
        names: of the networks.
        classes: names of the classes 0, 1, 2, ...
        seen: whether the networks were trained on these samples: ``True``, ``False`` (fresh), or
            ``None``: the page says that it is not known.
        n: how many fresh samples the machines are fitted to; ``None``: 30, 100 and 300 as far as
            there are enough, up to 3,000 with a budget.
        splits: how many draws of fresh samples, each with a network made anew of its own.
        budget: seconds, or text such as "10min": chooses n and the number of test samples.
        baselines: of "untrained", "random gates", "penultimate", "RBF", "logistic".
        checks: of "duality", "invariance", "ensemble".
        untrained: makes the network before training from a seed; ``None``: its description, or
            ``reset_parameters`` of its modules.
        fixed: names of tensors that are coefficients and no weights, as in :func:`npk.trace`; the
            networks before training have the same ones.
        scale: of the kernels, as in :func:`npk.kernel`; "cosine" suits machines.
        gates: as in :func:`npk.kernel`.
        value_input: as in :func:`npk.kernel`.
        bias: "auto": paths of biases where the network has some, because only then the kernel is
            that of its function; "ignore" or "paths".
        backend: as in :func:`npk.kernel`.
        seed: of all that is drawn.
        out: folder for ``results.json``, ``report.html``, ``figures/`` and kernels. A run that was
            stopped goes on with the kernels that are there.
        progress: ``True`` for bars on a terminal, or a :class:`npk.progress.Progress`.

    Returns:
        Everything that was found; the same is in ``results.json``. Accuracies and their paired
        differences have standard errors over draws and test samples, measures over draws.

    Raises:
        DataError: samples or labels that cannot be used: one class, one sample of a class, networks
            with another number of outputs than there are classes.
        OptionError: an option with another value, or a budget that is too small.
        ShapeError: samples and labels, or samples and networks, that do not fit together.
        StoreError: the folder cannot be written.
        UnsupportedGraphError: a network whose paths are not wholly understood.
    """
    question = ask(
        net,
        X,
        y,
        test=test,
        names=names,
        classes=classes,
        seen=seen,
        n=n,
        splits=splits,
        budget=budget,
        baselines=baselines,
        checks=checks,
        untrained=untrained,
        fixed=fixed,
        asked=Asked(scale, gates, value_input, bias, backend),
        seed=seed,
    )
    return conduct(question, Path(out), as_progress(progress))


def ask(
    net: Any,
    X: Any,
    y: Any = None,
    *,
    test: Any = None,
    names: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    seen: bool | None = None,
    n: Any = None,
    splits: int = SPLITS,
    budget: float | str | None = None,
    baselines: Sequence[str] = BASELINES,
    checks: Sequence[str] = tuple(CHECKS),
    untrained: Callable[[int], Any] | None = None,
    fixed: str | Sequence[str] = (),
    asked: Asked | None = None,
    seed: int = 0,
    **more: Any,
) -> Question:
    """Check what is asked, and draw the samples; nothing is computed yet.

    Args:
        net: as in :func:`study`, and so the others.
        X: as there.
        y: as there.
        test: as there.
        names: as there.
        classes: as there.
        seen: as there.
        n: as there.
        splits: as there.
        budget: as there.
        baselines: as there.
        checks: as there.
        untrained: as there.
        fixed: as there.
        asked: options of the kernels.
        seed: as there.
        **more: other fields of the question.

    Returns:
        The question.

    Raises:
        OptionError: an option with another value.
    """
    if seen not in _SEEN:
        raise OptionError(f"seen is {seen!r}. Give True, False, or None where it is not known.")
    seconds = parse_budget(budget)
    given = as_subjects(net, names)
    if untrained is not None:
        given = tuple(dataclasses.replace(one, untrained=untrained) for one in given)
    if names_fixed := as_patterns(fixed):
        given = tuple(dataclasses.replace(one, fixed=names_fixed) for one in given)
    whole_number("seed", seed, least=0)
    samples = labeled(X, y, classes, "the samples")
    held = None if test is None else _held(test, samples)
    n = _possible(samples, held, splits) if n is None and seconds is not None else n
    return Question(
        given,
        drawn(samples, held, n, splits, seed),
        asked or Asked(),
        _SEEN[seen],
        tuple(baselines),
        tuple(checks),
        seed,
        seconds,
        **more,
    )


def _held(test: Any, samples: Labeled) -> Labeled:
    """Test samples with the classes of the fresh ones."""
    X, y = test if isinstance(test, tuple) else (test, None)
    return labeled(X, y, samples.classes or None, "the test samples")


def _possible(samples: Labeled, held: Labeled | None, splits: int) -> list[int] | None:
    """Sizes that a budget may choose from."""
    fresh = len(samples) if held is not None else len(samples) // 2
    present = 2 if samples.y is None else len(set(samples.y.tolist()))
    found = [size for size in LARGER if present <= size <= fresh // max(1, splits)]
    return found or None


def conduct(question: Question, out: Path, progress: Progress) -> StudyResult:
    """Answer a question, and write results, figures and page.

    Args:
        question: what :func:`ask` returned.
        out: the folder.
        progress: what is told meanwhile.

    Returns:
        Everything that was found.

    Raises:
        MissingPackageError: what draws figures and pages is not installed.
    """
    check_installed(*REPORT)
    if question.budget is not None:
        question, plan = within_budget(question, out)
        progress.note("plan", str(plan), seconds=plan.seconds)
    result = running.answer(question, out, progress)
    write(result, out, progress)
    return result


def write(result: StudyResult, out: Path, progress: Progress) -> None:
    """Write what was found: results, figures, page.

    Args:
        result: what was found.
        out: the folder.
        progress: what is told meanwhile.
    """
    result.save(out / "results.json")
    for left in (out / "figures").glob("*.png"):  # of an earlier run, which may have drawn others
        with contextlib.suppress(OSError):
            left.unlink()
    write_figures(result, out / "figures", progress)
    write_page(result, out / "report.html", progress)
