"""The page, the table and the pictures of a suite of invariance, made of its results alone."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npk.files import written_whole
from npk.report import invariance_figures, plots
from npk.report.page import Drawn, Section, rendered
from npk.report.style import NOTHING, duration, house_style, percent, scientific
from npk.results import EnsembleSuite, InvarianceCase, InvarianceSuite

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure

INVARIANCE_HEAD = (
    "network",
    "group",
    "predicted",
    "holds",
    "worst",
    "beyond",
    "worst",
    "hold too",
    "gates left",
    "output",
    "same label",
)


def invariance_row(case: InvarianceCase, passed: bool) -> list[str]:
    """A network in a row: prediction, the elements that it promises, and those beyond.

    Args:
        case: of a check.
        passed: whether the check passed.
    """
    looked_at = [one for one in case.moved if one.predicted is False] or list(case.moved)
    gates = [share for one in looked_at for share in one.gates if share is not None]
    outputs = [one.output for one in looked_at if one.output is not None]
    labels = [one.labels for one in looked_at if one.labels is not None]
    return [
        case.label,
        case.group.replace(" shifts", ""),
        case.predicted or "nothing",
        f"{case.holds} of {case.inside}" + ("" if passed else " (FAIL)"),
        _number(case.worst_inside),
        _number(case.outside_median) if case.outside else NOTHING,
        _number(case.outside_worst) if case.outside else NOTHING,
        f"{case.also} of {case.outside}" if case.outside else NOTHING,
        percent(sum(gates) / len(gates)) if gates else NOTHING,
        _number(sum(outputs) / len(outputs)) if outputs else NOTHING,
        percent(sum(labels) / len(labels)) if labels else NOTHING,
    ]


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.2g}"


def suite_figures(suite: InvarianceSuite) -> "dict[str, Figure]":
    """The pictures of a suite, those that there is something to draw for."""
    cases = [case for _, case in suite.cases()]
    kinds = {
        "maps": ([c for c in cases if invariance_figures.has_map(c)], invariance_figures.maps),
        "levels": ([c for c in cases if c.curves], invariance_figures.levels),
        "elements": ([c for c in cases if not c.curves], invariance_figures.elements),
    }
    return {name: draw(some) for name, (some, draw) in kinds.items() if some}


def write_suite(suite: InvarianceSuite, folder: str | os.PathLike) -> None:
    """Write the page of a suite and its pictures.

    Args:
        suite: what was found.
        folder: takes ``report.html``, ``maps.png``, ``levels.png`` and ``elements.png``.

    Raises:
        StoreError: the folder is missing or cannot be written.
    """
    said = {
        "run": suite,
        "title": "Which motions of the input does a network ignore?",
        "lead": _lead(suite),
        "head": INVARIANCE_HEAD,
        "rows": [invariance_row(case, check.passed) for check, case in suite.cases()],
        "reasons": [
            (case.label, "; ".join(case.reasons)) for _, case in suite.cases() if case.reasons
        ],
        "facts": facts(suite),
    }
    names = {
        "suite": "Prediction and measurement",
        "suite_figures": "Pictures",
        "made": "How this was made",
    }
    write_page(Path(folder), said, names, lambda: suite_figures(suite), _WORDS)


def write_page(
    place: Path,
    said: dict[str, Any],
    names: dict[str, str],
    figures: "Callable[[], dict[str, Figure]]",
    words: dict[str, str],
) -> None:
    """Write the page of any suite and its pictures.

    Args:
        place: folder of the page.
        said: what the templates say; ``drawn`` has the pictures.
        names: heading of each template, in order.
        figures: makes the pictures, by name.
        words: what each picture shows.
    """
    drawn: dict[str, Drawn] = {}
    with house_style():
        for name, figure in figures().items():
            with written_whole(place / f"{name}.png") as temporary:
                figure.savefig(temporary, format="png", dpi=150)
            svg = plots.inline_svg(figure, words[name], name)
            drawn[name] = Drawn(wide=svg, narrow=svg)
    said = {**said, "drawn": drawn}
    sections = [Section(n, heading, rendered(f"{n}.html", said)) for n, heading in names.items()]
    text = rendered("page.html", {**said, "plots": None, "sections": sections})
    with written_whole(place / "report.html") as temporary:
        temporary.write_text(f"{text}\n", encoding="utf-8")


_WORDS = {
    "maps": "For each network a map of all shifts: how far each moves the kernel.",
    "levels": "For each network, input, gates, kernel and output against the distance moved.",
    "elements": "For each turn and reflection, how far it moves the kernel.",
}


def _lead(suite: InvarianceSuite) -> str:
    cases = suite.cases()
    holds = sum(check.passed for check, _ in cases)
    also = [case.label for _, case in cases if case.also]
    worst = max((case.worst_inside or 0.0 for _, case in cases), default=0.0)
    text = (
        f"{len(cases)} networks. What structure promises was measured to hold on {holds} of them: "
        f"where it promises that the kernel stays, it moved by a relative {scientific(worst)} at most."
    )
    if also:
        text += f" More than it promises holds on {', '.join(also)}."
    return text


def facts(suite: InvarianceSuite | EnsembleSuite) -> tuple[tuple[str, str], ...]:
    """How a suite was made."""
    return (
        ("Data", f"{suite.data}, {suite.samples} samples"),
        ("Seed", str(suite.seed)),
        ("Time", duration(suite.seconds)),
        ("npk", suite.version),
    )
