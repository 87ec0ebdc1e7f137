"""Figures of measures of kernels, of gate tables and of training."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from npk import measures
from npk.checks.spectrum import DepthSpectrum
from npk.errors import ShapeError
from npk.gates.store import GateStore
from npk.gates.table import GateTable
from npk.gram.matrix import Gram
from npk.measures import ClassOverlap, Flips, GateStatistics, Interval, RiskCurve
from npk.measures.given import labels_of
from npk.report.axes import COLORS, MARKERS, add_legend, drawn, heat_map, name_layers, style_of
from npk.report.style import BAR, MUTED, PANEL, PAPER, RULE
from npk.results import LesionTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHOWN = 400  # samples of a kernel that is drawn
_MANY = 30  # points of a line that has no markers
_RIDGES = tuple(float(ridge) for ridge in np.logspace(1, -6, 15))


def alignment(K: ArrayLike | Gram, y: ArrayLike, *, ax: "Axes | None" = None) -> "Axes":
    """The mean of the centred kernel for each pair of classes: a kernel that knows the labels has a
    light diagonal.

    Args:
        K: kernel of the samples, (n, n).
        y: class of each sample, (n,).
        ax: where to draw.

    Returns:
        The Axes, with the alignment in the title.

    Raises:
        NpkError: what :func:`npk.measures.alignment` refuses.
    """
    value = measures.alignment(K, y)
    gram = np.asarray(K, np.float64)
    classes, numbers = labels_of(y, len(gram))
    of_class = np.equal.outer(np.arange(len(classes)), numbers)
    means = of_class / of_class.sum(1, keepdims=True)
    means = means - 1 / len(gram)
    found = means @ gram @ means.T / (np.trace(gram) / len(gram))
    with drawn(ax, (PANEL, PANEL)) as axes:
        heat_map(axes, found, list(map(str, classes)), "centred kernel / mean diagonal")
        axes.set_title(f"alignment {value:.3f}")
    return axes


def kernel(K: ArrayLike | Gram, y: ArrayLike | None = None, *, ax: "Axes | None" = None) -> "Axes":
    r"""A kernel as a picture, each entry :math:`K(x, x') / \sqrt{K(x, x) K(x', x')}`.

    Args:
        K: kernel of the samples, (n, n); of more than 400 samples so many, evenly from all, are
            shown, and of a matrix on disk nothing else is read.
        y: class of each sample, (n,): samples of a class stand side by side.
        ax: where to draw.

    Returns:
        The Axes.

    Raises:
        ShapeError: K is not square, or y has another length.
    """
    shape = K.shape if isinstance(K, Gram) else np.shape(K)
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ShapeError(f"K has shape {shape}. Give the kernel of one set of samples, (n, n).")
    order, rows = np.arange(shape[0]), np.linspace(0, shape[0] - 1, min(shape[0], _SHOWN))
    if y is not None:
        order = np.argsort(labels_of(y, shape[0])[1], kind="stable")
    shown = order[rows.astype(int)]
    block = K[shown, shown] if isinstance(K, Gram) else np.asarray(K)[np.ix_(shown, shown)]
    values = np.asarray(block, np.float64)
    root = np.sqrt(np.diagonal(values))
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.nan_to_num(values / root[:, None] / root)
    with drawn(ax, (PANEL, PANEL)) as axes:
        heat_map(axes, values, [], "cosine of the kernel")
        count = f"{len(shown)} of {shape[0]} samples" if len(shown) < shape[0] else ""
        axes.set(xticks=[], yticks=[], xlabel=" ".join([count, *["by class"] * (y is not None)]))
    return axes


def cka(kernels: Mapping[str, ArrayLike | Gram], *, ax: "Axes | None" = None) -> "Axes":
    """CKA of every pair of some kernels: networks, layers, checkpoints.

    Args:
        kernels: of the same samples, by the names to show.
        ax: where to draw.

    Returns:
        The Axes.

    Raises:
        NpkError: what :func:`npk.measures.cka` refuses.
    """
    names, found = list(kernels), np.eye(len(kernels))
    for i, j in zip(*np.tril_indices(len(names), -1), strict=True):
        found[i, j] = found[j, i] = measures.cka(kernels[names[i]], kernels[names[j]])
    with drawn(ax, (PANEL, PANEL)) as axes:
        heat_map(axes, found, names, "CKA", low=0.0, high=1.0)
    return axes


def cka_interval(found: Mapping[str, Interval], *, ax: "Axes | None" = None) -> "Axes":
    """CKAs with their intervals, one a row.

    Args:
        found: what :func:`npk.measures.cka_interval` returned, by the names to show.
        ax: where to draw.

    Returns:
        The Axes.
    """
    with drawn(ax, (PANEL, 0.9 + 0.3 * len(found))) as axes:
        for row, interval in enumerate(found.values()):
            ends = [[interval.value - interval.low], [interval.high - interval.value]]
            axes.errorbar([interval.value], [row], xerr=ends, fmt="o", color=COLORS[0], capsize=2)
        axes.set_yticks(range(len(found)), list(found))
        axes.set(ylim=(len(found) - 0.5, -0.5), xlabel="CKA, with its interval")
        axes.grid(axis="x", color=RULE)
    return axes


def class_overlap(
    found: ClassOverlap | Mapping[str, ClassOverlap], *, ax: "Axes | None" = None
) -> "Axes":
    """Overlap of pairs of one class over that of pairs of different classes, from the input on.

    Args:
        found: what :func:`npk.measures.class_overlap` returned; or several, by the names to show.
        ax: where to draw.

    Returns:
        The Axes. The line at 1 is that of gates that know nothing of the classes.
    """
    several = {"": found} if isinstance(found, ClassOverlap) else found
    with drawn(ax) as axes:
        for i, (name, each) in enumerate(several.items()):
            axes.plot(range(1, 1 + len(each)), each.ratio, label=name, **style_of(i))
        name_layers(axes, next(iter(several.values())).names)
        axes.axhline(1, color=MUTED, linewidth=0.7, linestyle=(0, (1.5, 2)), zorder=1)
        axes.set_ylabel("overlap, same class / other class")
        add_legend(axes, several)
    return axes


def spectrum(
    found: ArrayLike | Gram | Mapping[str, ArrayLike | Gram], *, ax: "Axes | None" = None
) -> "Axes":
    """Eigenvalues as shares of the trace, both axes logarithmic; a ring at the effective rank.

    Args:
        found: what :func:`npk.measures.spectrum` returned, (n,), or a kernel, (n, n); or several,
            by the names to show.
        ax: where to draw.

    Returns:
        The Axes.

    Raises:
        NpkError: what :func:`npk.measures.spectrum` refuses.
    """
    several = found if isinstance(found, Mapping) else {"": found}
    with drawn(ax) as axes:
        for i, (name, each) in enumerate(several.items()):
            shares = np.asarray(each) if np.ndim(each) == 1 else measures.spectrum(each)
            shares = shares[shares > 0]
            rank, numbers = measures.effective_rank(shares), np.arange(1, 1 + len(shares))
            text = f"{name} effective rank {rank:.1f}".strip()
            line: dict[str, Any] = style_of(i) | {"marker": "", "markersize": 5}
            axes.loglog(numbers, shares, label=text, **line)
            height = np.exp(np.interp(np.log(rank), np.log(numbers), np.log(shares)))
            axes.plot(
                rank, height, color=COLORS[i % len(COLORS)], marker="o", markerfacecolor=PAPER
            )
        axes.set(xlabel="number of the eigenvalue", ylabel="share of the trace")
        axes.minorticks_off()
        axes.legend(loc="lower left")
    return axes


def nu(
    K: ArrayLike | Gram,
    y: ArrayLike,
    ridges: Sequence[float] = _RIDGES,
    *,
    ax: "Axes | None" = None,
) -> "Axes":
    """Nu against lambda, both axes logarithmic: its value means nothing without its lambda.

    Args:
        K: kernel of the samples, (n, n).
        y: as :func:`npk.measures.nu` takes it.
        ridges: the lambdas.
        ax: where to draw.

    Returns:
        The Axes.

    Raises:
        NpkError: what :func:`npk.measures.nu` refuses.
    """
    values = [measures.nu(K, y, ridge) for ridge in ridges]
    with drawn(ax) as axes:
        axes.loglog(ridges, values, **style_of(0))
        axes.set(xlabel=r"λ, in units of the mean diagonal", ylabel="ν")
        axes.minorticks_off()
    return axes


def predicted_risk(found: RiskCurve, *, ax: "Axes | None" = None) -> "Axes":
    """Leave-one-out error and GCV against the ridge; a dotted line at the ridge that is chosen.

    Args:
        found: what :func:`npk.measures.predicted_risk` returned.
        ax: where to draw.

    Returns:
        The Axes.
    """
    with drawn(ax) as axes:
        axes.loglog(found.ridges, found.leave_one_out, label="leave-one-out", **style_of(0))
        axes.loglog(found.ridges, found.gcv, label="GCV, KARE", **style_of(1) | {"linestyle": "--"})
        _ridge_axis(axes, found)
        axes.set_ylabel("squared error, predicted")
        axes.legend(loc="upper center")
    return axes


def leave_one_out(found: RiskCurve, *, ax: "Axes | None" = None) -> "Axes":
    """Leave-one-out accuracy against the ridge, with its standard error.

    Args:
        found: what :func:`npk.measures.predicted_risk` returned for classes.
        ax: where to draw.

    Returns:
        The Axes.

    Raises:
        ShapeError: the curve is of targets that are no classes.
    """
    accuracy, error = found.accuracy, found.accuracy_error
    if accuracy is None or error is None:
        raise ShapeError("the curve has no accuracy: its targets are numbers. Give class labels.")
    with drawn(ax) as axes:
        axes.errorbar(found.ridges, accuracy, yerr=error, capsize=2, **style_of(0))
        axes.set_xscale("log")
        _ridge_axis(axes, found)
        axes.set_ylabel(f"leave-one-out accuracy, n = {found.samples}")
    return axes


def gate_statistics(found: GateStatistics, *, ax: "Axes | None" = None) -> "Axes":
    """Shares of dead and of always-on units as bars, activity as dots, from the input on.

    Args:
        found: what :func:`npk.measures.gate_statistics` returned.
        ax: where to draw.

    Returns:
        The Axes.
    """
    places, layers = range(1, 1 + len(found.layers)), found.layers
    dead = np.array([layer.dead / layer.units for layer in layers])
    always = np.array([layer.always_on / layer.units for layer in layers])
    with drawn(ax) as axes:
        axes.bar(places, dead, color=BAR, width=0.6, label="dead units")
        axes.bar(places, -always, bottom=1, color=COLORS[4], width=0.6, label="always-on units")
        activity = [layer.activity for layer in layers]
        axes.plot(places, activity, label="activity", **style_of(0))
        name_layers(axes, [layer.name for layer in layers])
        axes.set(ylim=(0, 1), ylabel=f"share of the units, {found.samples} samples")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)
    return axes


def flips(found: Flips | Mapping[str, Flips], *, ax: "Axes | None" = None) -> "Axes":
    """Share of each layer's gates that differ, with its standard error over samples.

    Args:
        found: what :func:`npk.measures.flips` returned; or several, by the names to show.
        ax: where to draw.

    Returns:
        The Axes.
    """
    several = {"": found} if isinstance(found, Flips) else found
    with drawn(ax) as axes:
        for i, (name, each) in enumerate(several.items()):
            places = range(1, 1 + len(each.names))
            axes.errorbar(places, each.share, yerr=each.error, capsize=2, label=name, **style_of(i))
        name_layers(axes, next(iter(several.values())).names)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("share of the gates that flip")
        add_legend(axes, several)
    return axes


def naswot(table: GateTable | GateStore, *, ax: "Axes | None" = None) -> "Axes":
    """The share of gates that two samples have alike: NASWOT is the determinant of this picture.

    Args:
        table: hard gates of some samples.
        ax: where to draw.

    Returns:
        The Axes, with the score in the title.

    Raises:
        NpkError: what :func:`npk.measures.naswot` refuses.
    """
    score, alike = measures.naswot(table), measures.agreement(table)
    with drawn(ax, (PANEL, PANEL)) as axes:
        heat_map(axes, alike / alike[0, 0], [], "share of gates alike", high=1.0)
        axes.set(title=f"NASWOT {score:.1f}, n = {len(table)}", xlabel="sample", ylabel="sample")
    return axes


def depth_spectrum(
    found: DepthSpectrum | Mapping[str, DepthSpectrum], *, ax: "Axes | None" = None
) -> "Axes":
    """Share of K(x, x) by the number of layers of paths: the mean over samples, with a band of one
    standard deviation; a ring at the mean number of layers.

    Args:
        found: what :func:`npk.depth_spectrum` returned; or several, by the names to show.
        ax: where to draw.

    Returns:
        The Axes.
    """
    several = {"": found} if isinstance(found, DepthSpectrum) else found
    with drawn(ax) as axes:
        for i, (name, each) in enumerate(several.items()):
            shares = 100 * each.shares[each.live]
            mean, spread = (
                (shares.mean(0), shares.std(0)) if len(shares) else (0 * each.depths,) * 2
            )
            text = f"{name} mean {_mean_length(each):.1f} layers".strip()
            line: dict[str, Any] = style_of(i) | {
                "marker": "" if len(mean) > _MANY else MARKERS[i % len(MARKERS)]
            }
            axes.plot(each.depths, mean, label=text, **line)
            axes.fill_between(
                each.depths, mean - spread, mean + spread, color=line["color"], alpha=0.2, lw=0
            )
            length = _mean_length(each)
            height = np.interp(length, each.depths, mean)
            axes.plot(length, height, color=line["color"], marker="o", markerfacecolor=PAPER)
        axes.set(xlabel="layers of the path", ylabel="% of K(x, x)")
        axes.set_ylim(bottom=0)
        axes.locator_params(axis="x", integer=True)
        axes.legend(loc="best")
    return axes


def _mean_length(found: DepthSpectrum) -> float:
    return float(found.path_length[found.live].mean()) if found.live.any() else float("nan")


def lesions(found: LesionTable, *, ax: "Axes | None" = None) -> "Axes":
    """What each block's lesion loses: predicted by the kernel as bars, with frozen and with live
    gates as dots.

    Args:
        found: what :func:`npk.lesions` returned.
        ax: where to draw.

    Returns:
        The Axes.
    """
    places = [lesion.block for lesion in found.lesions]
    column = lambda name: [  # noqa: E731
        np.nan if getattr(lesion, name) is None else getattr(lesion, name)
        for lesion in found.lesions
    ]
    with drawn(ax) as axes:
        axes.bar(places, column("predicted"), color=BAR, width=0.6, label="predicted")
        for i, kind in enumerate(("frozen", "live")):
            dots: dict[str, Any] = style_of(i) | {"linestyle": ""}
            axes.plot(places, column(kind), label=f"{kind} gates", **dots)
        axes.set(xlabel="block", ylabel="share of the output's square", ylim=(0, None))
        axes.set_xticks(places[:: max(1, len(places) // 12)])
        axes.legend(loc="best")
    return axes


def through_training(
    epochs: Sequence[int],
    values: ArrayLike | Mapping[str, ArrayLike],
    *,
    label: str = "",
    ordered: bool = False,
    ax: "Axes | None" = None,
) -> "Axes":
    """Any measure against epochs: the mean over seeds, with its standard error.

    Args:
        epochs: of the snapshots, ascending; their axis is linear up to 1 and logarithmic beyond.
        values: of the measure, (seeds, epochs); or several, by the names to show.
        label: of the vertical axis.
        ordered: the names have an order, as layers do: colors go from light to dark.
        ax: where to draw.

    Returns:
        The Axes.

    Raises:
        ShapeError: not one value an epoch.
    """
    several = values if isinstance(values, Mapping) else {"": values}
    with drawn(ax) as axes:
        for i, (name, each) in enumerate(several.items()):
            table = np.atleast_2d(np.asarray(each, np.float64))
            if table.ndim != 2 or table.shape[1] != len(epochs):
                what = f"values have shape {table.shape} for {len(epochs)} epochs"
                raise ShapeError(f"{what}. Give one value a seed and epoch, (seeds, epochs).")
            seeds = len(table)
            error = table.std(0, ddof=1) / np.sqrt(seeds) if seeds > 1 else None
            line = style_of(i, len(several) if ordered else 0)
            axes.errorbar(epochs, table.mean(0), yerr=error, capsize=2, label=name, **line)
        axes.set_xscale("symlog", linthresh=1, linscale=0.5)
        axes.set_xticks(list(epochs), list(map(str, epochs)))
        axes.minorticks_off()
        axes.set(xlabel="epoch", ylabel=label)
        add_legend(axes, several)
    return axes


def kernel_weights(weights: Mapping[str, float], *, ax: "Axes | None" = None) -> "Axes":
    """Bars of the weights that kernels have in a sum.

    Args:
        weights: by name of the kernel, such as ``weights_`` of
            :class:`npk.NPKMultiKernelRidgeClassifier`.
        ax: where to draw.

    Returns:
        The Axes.

    Raises:
        ShapeError: there are no weights.
    """
    if not weights:
        raise ShapeError("there are no weights to draw. Pass a weight by name of its kernel.")
    places = np.arange(len(weights))
    with drawn(ax, (PANEL, 0.9 + 0.2 * len(weights))) as axes:
        axes.barh(places, list(weights.values()), color=COLORS[0], height=0.7)
        axes.set_yticks(places, list(weights))
        axes.invert_yaxis()
        axes.axvline(sum(weights.values()) / len(weights), color=MUTED, linewidth=0.7)
        axes.set(xlabel="weight (line: all alike)", xlim=(0, None))
    return axes


def _ridge_axis(ax: "Axes", found: RiskCurve) -> None:
    ax.axvline(found.ridges[found.chosen], color=MUTED, linewidth=0.7, linestyle=(0, (1.5, 2)))
    ax.set_xlabel("ridge, in units of the mean diagonal")
    ax.minorticks_off()
