"""One self-contained HTML page: the run in words, tables and figures. Whatever the run does not have is left out."""

import os
from html import escape
from importlib import resources
from string import Template

from npk.files import written_whole
from npk.progress import Progress, as_progress
from npk.report import plots, words
from npk.report.captions import CAPTIONS
from npk.report.figures import FIGURES
from npk.report.style import house_style, hundredths, percent, scientific
from npk.report.subjects import accuracy_of, baselines, checks_of, groups, models, short_model, subjects
from npk.report.tables import accuracy_table, baseline_table, checks_table, choices_table, kernel_table, networks_table
from npk.results import DETAILS, KernelSummary, RunResult

Section = tuple[str, str, str]  # anchor, heading, HTML


def write_page(run: RunResult, path: str | os.PathLike, progress: bool | Progress = False) -> None:
    """Write the page of a run: one HTML file that loads nothing from anywhere.

    Args:
        run: what a run found; networks, accuracies, kernels or checks may be empty.
        path: the HTML file; an older one is replaced.
        progress: ``True`` for a bar, or a :class:`npk.progress.Progress`.

    Raises:
        StoreError: the folder of ``path`` is missing or cannot be written.
    """
    sections = []
    with house_style(), as_progress(progress).task("page", len(_SECTIONS)) as advance:
        for make in _SECTIONS:
            sections += [section for section in (make(run),) if section[2]]
            advance(1)
    links = "".join(f'<li><a href="#{anchor}">{heading}</a></li>' for anchor, heading, _ in sections)
    body = "\n".join(f'<section id="{anchor}">\n<h2>{heading}</h2>\n{content}\n</section>' for anchor, heading, content in sections)
    text = Template(_file("page.html")).substitute(
        title=escape(f"The neural path kernel on {run.data}"),
        version=escape(run.version),
        css=_file("page.css"),
        lead=escape(words.summary(run)),
        nav=f'<nav aria-label="Contents"><ul>{links}</ul></nav>',
        body=body,
        scripts=_scripts(run),
    )
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _file(name: str) -> str:
    return resources.files("npk.report").joinpath(name).read_text(encoding="utf-8")


def _scripts(run: RunResult) -> str:
    found = plots.interactive(run)
    if not found:
        return ""
    from plotly.offline import get_plotlyjs

    data = f'<script type="application/json" id="plots">{plots.script_json(found)}</script>'
    return f"<script>{get_plotlyjs()}</script>\n{data}\n<script>\n{_file('page.js')}</script>"


def _figure(run: RunResult, name: str, alt: str) -> str:
    wide, narrow = FIGURES[name](run, 2), FIGURES[name](run, 1)
    if wide is None or narrow is None:
        return ""
    drawn = [plots.inline_svg(figure, alt, f"{name}-{width}") for figure, width in ((wide, "w"), (narrow, "n"))]
    pictures = f'<div class="wide">{drawn[0]}</div>\n<div class="narrow">{drawn[1]}</div>'
    return f"<figure>\n{pictures}\n<figcaption>{CAPTIONS[name]}</figcaption>\n</figure>"


def _joined(*parts: str) -> str:
    return "\n".join(part for part in parts if part)


def _accuracy(run: RunResult) -> Section:
    said = [
        f"{a.network} {short_model(a.model)} {percent(a.accuracy)}"
        for subject in subjects(run)
        for model in models(run)
        if (a := accuracy_of(run, subject.name, model))
    ]
    said += [f"{a.model} on pixels {percent(a.accuracy)}" for a in baselines(run)]
    figure = _figure(run, "accuracy", f"Test accuracy: {'; '.join(said)}.")
    return "accuracy", "Accuracy", _joined(figure, accuracy_table(run), baseline_table(run), choices_table(run))


def _families(run: RunResult) -> Section:
    texts = [f"<p>{escape(text)}</p>" for text in words.families(run)]
    return "families", "What each family is good for", _joined(*texts, networks_table(run))


def _kernels(run: RunResult) -> Section:
    names = [kernel.network for kernel in run.kernels if kernel.heat]
    heat = _figure(run, "kernels", f"Heat maps of the cosine kernels of {words.listed(names)}, samples sorted by class.")
    spectra = _figure(run, "spectra", f"Eigenvalues of the kernels on logarithmic axes: {_ranks(run)}.")
    overlaps = _figure(run, "overlaps", f"Mean share of gates that are on for both of a pair, first and last layer: {_gaps(run)}.")
    close = _interactive_heat(names)
    return "kernels", "Kernels", _joined(heat, close, _interactive_spectrum(run, spectra), overlaps, kernel_table(run))


def _ranks(run: RunResult) -> str:
    return ", ".join(f"{kernel.network} has effective rank {kernel.effective_rank:.1f}" for kernel in run.kernels if kernel.spectrum)


def _gaps(run: RunResult) -> str:
    def pair(kernel: KernelSummary, layer: int) -> str:
        same, different = kernel.overlap_same[layer], kernel.overlap_different[layer]
        return f"{hundredths(same)} in one class and {hundredths(different)} across classes"

    shown = [kernel for kernel in run.kernels if kernel.overlap_same and kernel.overlap_different]
    return "; ".join(f"{kernel.network} {pair(kernel, 0)}, then {pair(kernel, -1)}" for kernel in shown)


def _interactive_heat(names: list[str]) -> str:
    if not names:
        return ""
    options = "".join(f"<option>{escape(name)}</option>" for name in names)
    alt = "Heat map of the chosen kernel; its values are those of the panels above."
    return (
        '<figure class="interactive" hidden>\n'
        f'<label>Read one kernel closely: <select data-plot="heat">{options}</select></label>\n'
        f'<div id="heat" class="plot heat" role="img" aria-label="{alt}"></div>\n'
        "<figcaption>Point at an entry for its two samples and their cosine; drag to enlarge, double-click to go back.</figcaption>\n"
        "</figure>"
    )


def _interactive_spectrum(run: RunResult, static: str) -> str:
    if not static:
        return ""
    alt = escape(f"Eigenvalues of the kernels: {_ranks(run)}.")
    return (
        f'<div class="fallback">{static}</div>\n<figure class="interactive" hidden>\n'
        f'<div id="spectrum" class="plot spectrum" role="img" aria-label="{alt}"></div>\n'
        f"<figcaption>{CAPTIONS['spectra']} Click a name to hide or show its line.</figcaption>\n</figure>"
    )


_CHECK_FIGURES = {
    "duality": "Deviation of the output from features times values",
    "invariance": "Deviation of the kernel under circular shifts",
    "ensemble": "Share of the kernel by depth of sub-network and by block, and deviation of each form of the sum",
}


def _checks(run: RunResult) -> Section:
    figures = []
    for name, alt in _CHECK_FIGURES.items():
        measured = [f"{check.network} {scientific(check.measured)}" for check, _ in checks_of(run, DETAILS[name])]
        figures.append(_figure(run, name, f"{alt}: {', '.join(measured)}."))
    return "checks", "Checks of the theory", _joined(checks_table(run), *figures)


def _training(run: RunResult) -> Section:
    alt = f"Training loss and validation accuracy by epoch for {words.listed(list(groups(run)))}."
    return "training", "Training", _figure(run, "training", alt)


def _glossary(_run: RunResult) -> Section:
    return "glossary", "Glossary", _file("glossary.html")


def _made(run: RunResult) -> Section:
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in words.facts(run))
    return "made", "How this was made", f'<dl class="facts">{items}</dl>'


def _again(run: RunResult) -> Section:
    lines = words.commands(run)
    if not lines:
        return "again", "Do it again", ""
    code = escape("\n".join(lines))
    text = "<p>In the folder of the run, each line computes the kernel of one checkpoint:</p>"
    after = "<p>The page itself is made again, without networks or data, by</p>\n<pre><code>npk report . --out report.html</code></pre>"
    return "again", "Do it again", f'{text}\n<pre tabindex="0"><code>{code}</code></pre>\n{after}'


_SECTIONS = (_accuracy, _families, _kernels, _checks, _training, _glossary, _made, _again)
