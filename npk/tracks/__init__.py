"""A track: what gates and kernel do while a network is trained.

The networks of some epochs are studied on the same fresh samples, and each is compared with the
first and with the one before it.
"""

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npk.choices import BackendName, BiasName, GatesName, ScaleName, ValueInputName
from npk.errors import REPORT, check_installed
from npk.progress import Progress, as_progress
from npk.report.track_page import write_track
from npk.results import TrackResult
from npk.studies.asking import ask
from npk.studies.draws import SPLITS
from npk.studies.kernels import Asked
from npk.studies.running import Question
from npk.tracks.following import Curves, follow, moved
from npk.tracks.stages import checkpoints_of, in_order, snapshots_of

if TYPE_CHECKING:
    import numpy as np

    from npk.data import Dataset

_MOST = 100  # fresh samples of a draw, where nobody says


def track(
    run: Any,
    X: "np.ndarray | Dataset",
    y: "np.ndarray | None" = None,
    *,
    test: "Dataset | tuple[np.ndarray, np.ndarray] | np.ndarray | None" = None,
    classes: Sequence[str] | None = None,
    seen: bool | None = None,
    n: int | None = None,
    splits: int = SPLITS,
    fixed: str | Sequence[str] = (),
    scale: ScaleName = "cosine",
    gates: GatesName = "auto",
    value_input: ValueInputName = "auto",
    bias: BiasName = "auto",
    backend: BackendName = "auto",
    seed: int = 0,
    out: str | os.PathLike,
    progress: bool | Progress = True,
) -> TrackResult:
    r"""Follow kernel and gates through a training, and write a page about it.

    With :math:`K_t` the kernel of the gates of epoch t,

    .. math::

        \text{distance} = \arccos \operatorname{CKA}(K_0, K_t), \qquad
        \text{velocity} = \arccos \operatorname{CKA}(K_s, K_t) / (t - s)

    in radians and radians an epoch, s the epoch before t.

    Args:
        run: networks by epoch, ``{0: net, 8: other}``; what :func:`npk.networks.train` returned with
            ``snapshots=``, which brings its curves; or a folder of checkpoints that say themselves
            what network they are of, in the order of a number in their names.
        X: fresh samples, or a data set with its labels; as of :func:`npk.study`, and so the others.
        y: class of each sample; ``None``: what needs no labels is measured.
        test: samples that accuracies are measured on; ``None``: half of X.
        classes: names of the classes.
        seen: whether the network was trained on these samples; ``None``: not known.
        n: fresh samples of each draw; ``None``: 100, or as many as there are.
        splits: how many draws.
        fixed: names of tensors that are coefficients and no weights.
        scale: of the kernels.
        gates: as in :func:`npk.kernel`.
        value_input: as in :func:`npk.kernel`.
        bias: as in :func:`npk.study`.
        backend: as in :func:`npk.kernel`.
        seed: of all that is drawn.
        out: folder for ``results.json``, ``report.html``, ``figures/`` and kernels; a run that was
            stopped goes on.
        progress: ``True`` for bars on a terminal, or a :class:`npk.progress.Progress`.

    Returns:
        Accuracies and measures of each epoch, with standard errors as in a study; the way from the
        start and between neighboring epochs, with bootstrap intervals; the same is in
        ``results.json``.

    Raises:
        DataError: fewer than two networks, or samples that cannot be used.
        CheckpointError: a folder without checkpoints.
        OptionError: an option with another value.
        ShapeError: samples and labels, or samples and networks, that do not fit together.
        StoreError: the folder cannot be written.
        UnsupportedGraphError: a network whose paths are not wholly understood.

    References:
        Fort et al., *Deep learning versus kernel learning*, NeurIPS 2020 (kernel distance and
        velocity).
    """
    networks = snapshots_of(run)
    question = asked(
        list(networks.values()),
        X,
        y,
        n=n,
        names=names_of(networks),
        test=test,
        classes=classes,
        seen=seen,
        splits=splits,
        fixed=fixed,
        asked=Asked(scale, gates, value_input, bias, backend),
        seed=seed,
    )
    return conduct(question, list(networks), curves_of(run), Path(out), as_progress(progress))


def names_of(epochs: Any) -> list[str]:
    """What the networks of some epochs are called."""
    return [f"epoch {epoch}" for epoch in epochs]


def curves_of(run: Any) -> Curves:
    """Loss and validation accuracy of each epoch, where a training result has them."""
    return getattr(run, "curve_train", ()), getattr(run, "curve_validation", ())


def asked(nets: Any, X: Any, y: Any = None, *, n: int | None, **options: Any) -> Question:
    """The question that a track asks of each network.

    Args:
        nets: networks in the order of their epochs.
        X: as of :func:`npk.studies.asking.ask`, and so the others.
        y: as there.
        n: fresh samples of each draw; ``None``: 100, or as many as there are.
        **options: as there.

    Returns:
        The question, checked.
    """
    return of_one_size(
        ask(nets, X, y, n=n, baselines=("penultimate",), checks=(), **options), n is None
    )


def of_one_size(question: Question, chosen: bool) -> Question:
    """The question about the most fresh samples alone.

    Args:
        question: of several sizes.
        chosen: whether nobody gave the sizes, so that 100 are enough.
    """
    draws = question.draws
    draws = draws.smaller(_MOST, len(draws.test)) if chosen else draws
    return dataclasses.replace(question, draws=dataclasses.replace(draws, sizes=draws.sizes[-1:]))


def conduct(
    question: Question, epochs: Sequence[int], curves: Curves, out: Path, progress: Progress
) -> TrackResult:
    """Follow a training, and write results, figures and page.

    Args:
        question: what :func:`asked` returned.
        epochs: of its networks.
        curves: of the training.
        out: the folder.
        progress: what is told meanwhile.

    Returns:
        Everything that was found.

    Raises:
        MissingPackageError: what draws figures and pages is not installed.
    """
    check_installed(*REPORT)
    result = follow(question, epochs, curves, out, progress)
    result.save(out / "results.json")
    for left in (out / "figures").glob("*.png"):  # of an earlier run, which may have drawn others
        with contextlib.suppress(OSError):
            left.unlink()
    write_track(result, out / "report.html", out / "figures")
    return result


__all__ = [
    "asked",
    "checkpoints_of",
    "conduct",
    "curves_of",
    "in_order",
    "moved",
    "names_of",
    "of_one_size",
    "snapshots_of",
    "track",
]
