"""One self-contained HTML page of a study. Whatever the study does not have is left out."""

import functools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from npk.files import written_whole
from npk.progress import Progress, as_progress
from npk.report import plots, tables, words
from npk.report.alternatives import alternative
from npk.report.figures import figures
from npk.report.pictures import Album
from npk.report.style import NOTHING, duration, house_style, percent, scientific
from npk.report.subjects import KINDS, subjects
from npk.results import DETAILS, StudyResult

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

# In the order of the page: a section's anchor, which is the name of its template, and its heading.
_SECTIONS = {
    "curves": "Learning curves",
    "kernels": "Kernels before and after",
    "layers": "Layer by layer",
    "samples": "What is alike, what is mistaken",
    "measures": "Measures",
    "likeness": "How alike the networks are",
    "checks": "Checks of the theory",
    "training": "Training",
    "made": "How this was made",
    "glossary": "Glossary",
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


def write_page(
    run: StudyResult, path: str | os.PathLike, progress: bool | Progress = False
) -> None:
    """Write the page of a study: one HTML file that loads nothing from anywhere.

    Args:
        run: what a study found; networks, accuracies, kernels or checks may be empty.
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
    text = rendered("page.html", {**said, "sections": sections})
    with written_whole(path) as temporary:
        temporary.write_text(f"{text}\n", encoding="utf-8")


def _said(run: StudyResult) -> dict[str, Any]:
    """What the templates say of a study; they hold the words that are the same in every page."""
    album = Album(run)
    return {
        "run": run,
        "title": words.title(run),
        "lead": words.finding(run),
        "beside": words.beside(run),
        "facts": words.facts(run),
        "commands": words.commands(run),
        "accuracies": tables.accuracies(run),
        "measures": tables.measures(run),
        "neighbors": album.neighbors(),
        "mistakes": album.mistakes(),
        "plots": plots.interactive(run),
        "kind_of": {subject.name: subject.kind for subject in subjects(run)},
        "checks": list(DETAILS),
        "draw": functools.partial(_drawn, run),
    }


def _drawn(run: StudyResult, name: str) -> Drawn | None:
    """A figure in both widths; ``None`` where the study has nothing to draw."""
    draw = figures()[name]
    wide, narrow = draw(run, 2), draw(run, 1)
    if wide is None or narrow is None:
        return None
    words = alternative(run, name)
    return Drawn(
        wide=plots.inline_svg(wide, words, f"{name}-w"),
        narrow=plots.inline_svg(narrow, words, f"{name}-n"),
    )


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
    environment.filters.update(duration=duration, scientific=scientific, percent=percent)
    environment.filters["count"] = "{:,}".format
    return environment
