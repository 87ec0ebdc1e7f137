"""One self-contained HTML page of a run. Whatever the run does not have is left out."""

import functools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from npk.files import written_whole
from npk.progress import Progress, as_progress
from npk.report import plots, tables, words
from npk.report.alternatives import alternative, ranks
from npk.report.figures import figures
from npk.report.style import NOTHING, duration, house_style, scientific
from npk.report.subjects import KINDS, subjects
from npk.results import DETAILS, RunResult

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

# In the order of the page: a section's anchor, which is the name of its template, and its heading.
_SECTIONS = {
    "accuracy": "Accuracy",
    "families": "What each family is good for",
    "kernels": "Kernels",
    "checks": "Checks of the theory",
    "training": "Training",
    "glossary": "Glossary",
    "made": "How this was made",
    "again": "Do it again",
}


@dataclass(frozen=True)
class Section:
    """A part of the page, with a place in its contents."""

    anchor: str
    heading: str
    content: "Markup"


@dataclass(frozen=True)
class Drawn:
    """A figure as SVG: for a desktop, and for a phone."""

    wide: "Markup"
    narrow: "Markup"


def write_page(run: RunResult, path: str | os.PathLike, progress: bool | Progress = False) -> None:
    """Write the page of a run: one HTML file that loads nothing from anywhere.

    Args:
        run: what a run found; networks, accuracies, kernels or checks may be empty.
        path: the HTML file; an older one is replaced.
        progress: ``True`` for a bar, or a :class:`npk.progress.Progress`.

    Raises:
        StoreError: the folder of ``path`` is missing or cannot be written.
    """
    sections, said = [], _said(run)
    with house_style(), as_progress(progress).task("page", len(_SECTIONS)) as advance:
        for anchor, heading in _SECTIONS.items():
            content = rendered(f"{anchor}.html", said)
            sections += [Section(anchor, heading, content)] if content else []
            advance(1)
    text = rendered("page.html", {**said, **_interactive(run), "sections": sections})
    with written_whole(path) as temporary:
        temporary.write_text(f"{text}\n", encoding="utf-8")


def _said(run: RunResult) -> dict[str, Any]:
    """What the templates say of a run; they hold the words that are the same in every page."""
    return {
        "run": run,
        "title": f"The neural path kernel on {run.data}",
        "lead": words.summary(run),
        "families": words.families(run),
        "facts": words.facts(run),
        "commands": words.commands(run),
        "accuracies": tables.accuracies(run),
        "baselines": tables.baseline_rows(run),
        "heats": [kernel.network for kernel in run.kernels if kernel.heat],
        "ranks": ranks(run),
        "kind_of": {subject.name: subject.kind for subject in subjects(run)},
        "checks": list(DETAILS),
        "draw": functools.partial(_drawn, run),
    }


def _drawn(run: RunResult, name: str) -> Drawn | None:
    """A figure in both widths; ``None`` where the run has nothing to draw."""
    draw = figures()[name]
    wide, narrow = draw(run, 2), draw(run, 1)
    if wide is None or narrow is None:
        return None
    words = alternative(run, name)
    return Drawn(
        wide=plots.inline_svg(wide, words, f"{name}-w"),
        narrow=plots.inline_svg(narrow, words, f"{name}-n"),
    )


def _interactive(run: RunResult) -> dict[str, Any]:
    """Plotly and the data of its plots, where there are some."""
    figures = plots.interactive(run)
    if not figures:
        return {"plots": None}
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    return {"plots": figures, "plotly": Markup(get_plotlyjs())}


def rendered(name: str, values: dict[str, Any]) -> "Markup":
    """A template with its values."""
    from markupsafe import Markup

    return Markup(_environment().get_template(name).render(values).strip())


@functools.cache
def _environment() -> "Environment":
    """The templates; what they are given is escaped, and what they are not given is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("npk.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    environment.globals.update(kinds=KINDS, nothing=NOTHING)
    environment.filters.update(chosen=tables.chosen, duration=duration, scientific=scientific)
    environment.filters["count"] = "{:,}".format
    return environment
