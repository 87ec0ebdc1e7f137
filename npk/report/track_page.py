"""The page and the pictures of a training that was followed, made of its results alone."""

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npk.files import written_whole
from npk.report import plots
from npk.report.figures import heat_panel, heat_range
from npk.report.page import Drawn, Section, rendered
from npk.report.style import (
    COLOR,
    INK,
    LAYERS,
    PANEL,
    duration,
    house_style,
    legend_above,
    panels,
    percent,
    points,
    power,
)
from npk.report.tables import Cell
from npk.report.words import listed, seen_in_words
from npk.results import MODELS, Measure, Move, TrackResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LOOK = {"network": (INK, "s"), "penultimate": (COLOR["dlgn"], "^"), "trained": (COLOR["dnn"], "o")}
_DECADES = 100  # between the ends of a loss that is drawn on a logarithmic axis
_LAYERED = {"class overlap": "overlap, same / other class", "activity": "share of the gates on"}
_HEADINGS = {
    "track": "Through training",
    "track_layers": "Layer by layer",
    "track_table": "Every epoch",
    "made": "How this was made",
}


def write_track(
    run: TrackResult, path: str | os.PathLike, figures: str | os.PathLike | None = None
) -> tuple[Path, ...]:
    """Write the page of a training that was followed, and its pictures.

    Args:
        run: what was found.
        path: the HTML file; an older one is replaced.
        figures: folder for the pictures as PNG files; ``None``: none are written.

    Returns:
        The pictures written.

    Raises:
        StoreError: a folder is missing or cannot be written.
    """
    drawn, written = {}, []
    with house_style():
        for name, draw in FIGURES.items():
            wide, narrow = draw(run, 2), draw(run, 1)
            if wide is None or narrow is None:
                continue
            words = _WORDS[name]
            drawn[name] = Drawn(
                wide=plots.inline_svg(wide, words, f"{name}-w"),
                narrow=plots.inline_svg(narrow, words, f"{name}-n"),
            )
            if figures is not None:
                place = Path(figures) / f"{name}.png"
                with written_whole(place) as temporary:
                    wide.savefig(temporary, format="png", dpi=200)
                written.append(place)
    said = {
        "run": run,
        "title": f"Through training: {run.data.rstrip('/').rsplit('/', 1)[-1]}",
        "lead": finding(run),
        "beside": seen_in_words(run.seen, several=False),
        "drawn": drawn,
        "head": ("epoch", *(name for name, _ in _COLUMNS)),
        "rows": [(str(epoch), _row(run, epoch)) for epoch in run.epochs],
        "facts": _facts(run),
        "commands": tuple(dict.fromkeys(filter(None, [*_commands(run), run.command]))),
    }
    parts = [Section(n, title, rendered(f"{n}.html", said)) for n, title in _HEADINGS.items()]
    said["sections"] = [part for part in parts if part.content]
    with written_whole(path) as temporary:
        text = rendered("page.html", {**said, "plots": None})
        temporary.write_text(f"{text}\n", encoding="utf-8")
    return tuple(written)


def finding(run: TrackResult) -> str:
    """What came of the training, in one or two sentences.

    Args:
        run: what was found.

    Returns:
        The sentences.
    """
    first, last = run.epochs[0], run.epochs[-1]
    parts = []
    if run.gain is not None:
        parts.append(
            f"From epoch {first} to {last} ridge regression on the kernel of the gates, with "
            f"{run.size:,} fresh samples, gains {points(run.gain, run.gain_error)} points."
        )
    way = [move for move in run.from_start if move.angle is not None]
    if way and way[-1].angle:
        whole = way[-1].angle
        half = next(move.epoch for move in way if (move.angle or 0) >= whole / 2)
        parts.append(
            f"The kernel has turned by {math.degrees(whole):.0f}°, half of that by epoch {half}."
        )
    if run.from_start and run.from_start[-1].layers:
        parts.append(_flipped(run.from_start[-1]))
    return " ".join(parts) or "Neither accuracies nor distances were found."


def _flipped(move: Move) -> str:
    most = max(range(len(move.flips)), key=lambda i: move.flips[i])
    least = min(range(len(move.flips)), key=lambda i: move.flips[i])
    return (
        f"Of the gates of a layer {percent(move.flips[least])} ({move.layers[least]}) to "
        f"{percent(move.flips[most])} ({move.layers[most]}) have flipped."
    )


def _values(run: TrackResult, name: str, layer: str = "") -> list[Measure | None]:
    """A measure of each epoch."""
    known = {m.network: m for m in run.measures if (m.name, m.layer) == (name, layer)}
    return [known.get(f"epoch {epoch}") for epoch in run.epochs]


def _layers(run: TrackResult, name: str) -> list[str]:
    return list(dict.fromkeys(m.layer for m in run.measures if m.name == name and m.layer))


def _axis(ax: "Axes", run: TrackResult) -> None:
    """Epochs: linear up to 1, logarithmic beyond, with as many numbers as there is room for."""
    ax.set_xscale("symlog", linthresh=1, linscale=0.4)
    shown = [run.epochs[0]]
    for epoch in run.epochs[1:]:
        if epoch <= 1 or shown[-1] == 0 or epoch / shown[-1] > 1.35 or epoch == run.epochs[-1]:
            shown.append(epoch)
    if len(shown) > 2 and shown[-1] / max(1, shown[-2]) < 1.25:
        shown.pop(-2)
    ax.set_xticks(shown, [f"{epoch:,}" for epoch in shown])
    ax.minorticks_off()
    ax.set_xlabel("epoch")
    ax.grid(axis="y")
    ax.set_axisbelow(True)


def _line(
    ax: "Axes", x: Sequence[float], y: Sequence[float], error: Sequence[Any], look: dict[str, Any]
) -> None:
    """A line with its errors, each a number or a pair of ends."""
    pairs = [e if isinstance(e, tuple) else (e or 0.0, e or 0.0) for e in error]
    bars = [[low for low, _ in pairs], [high for _, high in pairs]]
    plain = {"markersize": 3.6, "linewidth": 1.1, "capsize": 1.8, "elinewidth": 0.8}
    ax.errorbar(x, y, yerr=bars, **{**plain, **look})


def accuracy(run: TrackResult, columns: int) -> "Figure | None":
    """Accuracy of network and machines, and the curves of the training."""
    if not run.accuracies and not run.curve_train:
        return None
    kinds = [kind for kind in ("accuracies", "curve_train") if getattr(run, kind)]
    across = min(columns, len(kinds))
    figure, axes = panels(len(kinds), across, (columns * PANEL / across, 2.4))
    for ax, kind in zip(axes, kinds, strict=True):
        (_machines if kind == "accuracies" else _training)(ax, run)
    legend_above(figure, axes, 1 if columns == 1 else 2)
    return figure


def _machines(ax: "Axes", run: TrackResult) -> None:
    for model, (color, marker) in _LOOK.items():
        known = {a.network: a for a in run.accuracies if a.model == model}
        found = [(e, known[f"epoch {e}"]) for e in run.epochs if f"epoch {e}" in known]
        if found:
            y = [100 * a.accuracy for _, a in found]
            error = [100 * (a.error or 0.0) for _, a in found]
            look = {"color": color, "marker": marker, "label": MODELS[model]}
            _line(ax, [e for e, _ in found], y, error, look)
    _axis(ax, run)
    ax.set_ylabel("test accuracy, %")


def _training(ax: "Axes", run: TrackResult) -> None:
    epochs = range(1, 1 + len(run.curve_train))
    ax.plot(epochs, run.curve_train, color=COLOR["dgn"], linewidth=1.1, label="training loss")
    if max(run.curve_train) > _DECADES * max(min(run.curve_train), 0):
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(power)
        ax.minorticks_off()
    ax.set(xlabel="epoch", ylabel="loss")
    held = [math.nan if v is None else 100 * v for v in run.curve_validation]
    if any(math.isfinite(v) for v in held):
        other = ax.twinx()
        other.plot(range(1, 1 + len(held)), held, color=COLOR["dlgn-sf"], linewidth=1.1)
        other.set_ylabel("validation accuracy, %", color=COLOR["dlgn-sf"])
        other.spines["right"].set_visible(True)
        other.grid(visible=False)


def movement(run: TrackResult, columns: int) -> "Figure | None":
    """Distance of the kernel from the first epoch, and its velocity."""
    way = [move for move in run.from_start if move.angle is not None]
    steps = [move for move in run.steps if move.angle is not None]
    if not way:
        return None
    figure, axes = panels(2, columns, (PANEL, 2.2))
    error = [(m.angle - m.angle_low, m.angle_high - m.angle) for m in way]  # type: ignore[operator]
    x, y = [run.epochs[0], *(m.epoch for m in way)], [0.0, *(m.angle or 0.0 for m in way)]
    _line(axes[0], x, y, [0.0, *error], {"color": COLOR["dnn"], "marker": "o"})
    axes[0].set_ylabel("distance from the start, rad")
    spans = [m.epoch - m.since for m in steps]
    error = [
        ((m.angle - m.angle_low) / span, (m.angle_high - m.angle) / span)  # type: ignore[operator]
        for m, span in zip(steps, spans, strict=True)
    ]
    look = {"color": COLOR["dgn"], "marker": "s"}
    _line(axes[1], [m.epoch for m in steps], [m.velocity or 0.0 for m in steps], error, look)
    axes[1].set_ylabel("velocity, rad / epoch")
    for ax in axes:
        _axis(ax, run)
        ax.set_ylim(0, None)
    return figure


def kernel(run: TrackResult, columns: int) -> "Figure | None":
    """Alignment with the classes and effective rank."""
    names = [name for name in ("alignment", "effective rank") if any(_values(run, name))]
    if not names:
        return None
    across = min(columns, len(names))
    figure, axes = panels(len(names), across, (PANEL, 2.2))
    for ax, name in zip(axes, names, strict=True):
        _measure_line(ax, run, name, "", {"color": COLOR["dnn"], "marker": "o"})
        _axis(ax, run)
        ax.set_ylabel({"alignment": "alignment with the classes"}.get(name, name))
    return figure


def _measure_line(ax: "Axes", run: TrackResult, name: str, layer: str, look: dict) -> None:
    found = zip(run.epochs, _values(run, name, layer), strict=True)
    there = [
        (epoch, m.value, m.error) for epoch, m in found if m is not None and m.value is not None
    ]
    if there:
        epochs, values, errors = zip(*there, strict=True)
        _line(ax, epochs, values, errors, look)


def layers(run: TrackResult, columns: int) -> "Figure | None":
    """Overlap by class and flips of each layer, from the input (violet) to the output (orange)."""
    parts: list[tuple[Callable[[Any, TrackResult], None], str]] = [
        (_measure_lines(name), label) for name, label in _LAYERED.items() if _layers(run, name)
    ]
    if any(move.layers for move in run.from_start):
        parts.append((_flip_lines("from_start", 1), "gates flipped since the start, %"))
        parts.append((_flip_lines("steps", 0), "gates flipped, % an epoch"))
    if not parts:
        return None
    figure, axes = panels(len(parts), columns, (PANEL, 2.2))
    for ax, (draw, label) in zip(axes, parts, strict=True):
        draw(ax, run)
        _axis(ax, run)
        ax.set_ylabel(label)
    legend_above(figure, axes, 4 if columns > 1 else 2)
    return figure


def _shade(place: int, names: Sequence[str]) -> dict[str, Any]:
    """The look of a layer; of many only the first and the last are named."""
    from matplotlib import colormaps

    scale, first, last = LAYERS
    color = colormaps[scale](first + (last - first) * place / max(1, len(names) - 1))
    named = len(names) <= 8 or place in (0, len(names) - 1)
    label = names[place] if named else None
    return {"color": color, "marker": "o", "markersize": 2.6, "linewidth": 1, "label": label}


def _measure_lines(name: str) -> Callable[[Any, TrackResult], None]:
    def draw(ax: Any, run: TrackResult) -> None:
        names = _layers(run, name)
        for place, layer in enumerate(names):
            _measure_line(ax, run, name, layer, _shade(place, names))

    return draw


def _flip_lines(which: str, whole: int) -> Callable[[Any, TrackResult], None]:
    def draw(ax: Any, run: TrackResult) -> None:
        moves: Sequence[Move] = [move for move in getattr(run, which) if move.layers]
        names = moves[0].layers
        for place in range(len(names)):
            scales = [100 / (1 if whole else move.epoch - move.since) for move in moves]
            both = list(zip(moves, scales, strict=True))
            y = [scale * move.flips[place] for move, scale in both]
            error = [scale * (move.flips_error[place] or 0.0) for move, scale in both]
            x = [move.epoch for move in moves]
            if whole:
                x, y, error = [run.epochs[0], *x], [0.0, *y], [0.0, *error]
            _line(ax, x, y, error, _shade(place, names))
        ax.set_ylim(0, None)

    return draw


def heats(run: TrackResult, columns: int) -> "Figure | None":
    """Kernels of some epochs, samples sorted by class, under one scale of colors."""
    if not run.kernels:
        return None
    across = min(len(run.kernels), 4 if columns > 1 else 2)
    width = columns * PANEL / max(across, 2)
    figure, axes = panels(len(run.kernels), across, (width, width * 1.02 + 0.25))
    ends = heat_range([one.heat for one in run.kernels])
    for ax, one in zip(axes, run.kernels, strict=True):
        heat_panel(ax, run, one, ends)
        ax.set_title(one.network, pad=3, fontsize=7, fontweight="normal")
    return figure


FIGURES: dict[str, Callable[[TrackResult, int], "Figure | None"]] = {
    "accuracy": accuracy,
    "movement": movement,
    "kernel": kernel,
    "heats": heats,
    "layers": layers,
}
_WORDS = {
    "accuracy": "Accuracy of the network and of machines on its gates and features by epoch.",
    "movement": "Distance of the kernel from that of the first epoch, and its velocity, by epoch.",
    "kernel": "Alignment of the kernel with the classes, and its effective rank, by epoch.",
    "heats": "Heat maps of the kernels of some epochs, samples sorted by class.",
    "layers": "Overlap by class, activity and flips of the gates of each layer by epoch.",
}


def _accuracy_cell(model: str) -> Callable[[TrackResult, int], Cell | None]:
    def cell(run: TrackResult, epoch: int) -> Cell | None:
        key = (f"epoch {epoch}", model)
        found = next((a for a in run.accuracies if (a.network, a.model) == key), None)
        if found is None:
            return None
        return Cell(f"{100 * found.accuracy:.1f}", f"{100 * (found.error or 0.0):.1f}")

    return cell


def _measure_cell(name: str, digits: int) -> Callable[[TrackResult, int], Cell | None]:
    def cell(run: TrackResult, epoch: int) -> Cell | None:
        found = dict(zip(run.epochs, _values(run, name), strict=True))[epoch]
        if found is None or found.value is None:
            return None
        error = "" if found.error is None else f"{found.error:.{digits}f}"
        return Cell(f"{found.value:.{digits}f}", error)

    return cell


def _angle_cell(run: TrackResult, epoch: int) -> Cell | None:
    move = next((m for m in run.from_start if m.epoch == epoch), None)
    return None if move is None or move.angle is None else Cell(f"{move.angle:.2f}", "")


def _flips_cell(run: TrackResult, epoch: int) -> Cell | None:
    move = next((m for m in run.from_start if m.epoch == epoch), None)
    if move is None or not move.flips:
        return None
    return Cell(f"{100 * sum(move.flips) / len(move.flips):.1f}", "")


_COLUMNS: tuple[tuple[str, Callable[[TrackResult, int], Cell | None]], ...] = (
    ("network, %", _accuracy_cell("network")),
    ("NPK ridge, %", _accuracy_cell("trained")),
    ("penultimate, %", _accuracy_cell("penultimate")),
    ("alignment", _measure_cell("alignment", 3)),
    ("effective rank", _measure_cell("effective rank", 1)),
    ("distance, rad", _angle_cell),
    ("flipped, %", _flips_cell),
)


def _row(run: TrackResult, epoch: int) -> list[Cell | None]:
    return [cell(run, epoch) for _, cell in _COLUMNS]


def table(run: TrackResult) -> tuple[tuple[str, ...], list[list[str]]]:
    """The table of epochs in words.

    Args:
        run: what was found.

    Returns:
        Head and rows.
    """
    rows = []
    for epoch in run.epochs:
        cells = _row(run, epoch)
        said = (f"{c.value} ± {c.error}".removesuffix(" ± ") if c else "-" for c in cells)
        rows.append([str(epoch), *said])
    return ("epoch", *(name for name, _ in _COLUMNS)), rows


def _commands(run: TrackResult) -> list[str]:
    return [a.command for a in run.accuracies if a.model == "trained"][-1:]


def _facts(run: TrackResult) -> tuple[tuple[str, str], ...]:
    overlap = "no sample in two of them" if run.disjoint else "which share samples"
    biases = {network.bias for network in run.networks}
    said = listed(sorted("paths of their own" if b == "paths" else "none" for b in biases))
    found = (
        ("Data", f"{run.data}, {len(run.classes)} classes" if run.classes else run.data),
        ("Epochs", listed([str(epoch) for epoch in run.epochs])),
        (
            "Samples",
            f"{run.size:,} fresh samples in {run.splits} draws, {overlap}; {run.samples_test:,} for "
            f"testing",
        ),
        ("Seen in training", {"fresh": "no", "seen": "yes"}.get(run.seen, "not known")),
        ("Kernel", f"{run.scale}; biases: {said}"),
        ("Seed", str(run.seed)),
        ("Time", duration(run.seconds)),
        ("Machine", run.machine),
        ("npk", run.version),
    )
    return tuple((name, value) for name, value in found if value)
