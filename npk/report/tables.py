"""The tables of a page, as HTML."""

import json
from html import escape

from npk.report.style import NOTHING, duration, percent, scientific
from npk.report.subjects import (
    KINDS,
    PAPER_RATIO,
    accuracy_of,
    baselines,
    group_title,
    groups,
    models,
    subjects,
)
from npk.report.words import standard_error
from npk.results import Accuracy, RunResult


def table(name: str, caption: str, head: list[str], rows: list[str], *, words: tuple[int, ...] = (0,)) -> str:
    """A table that scrolls sideways on its own where it is wider than the page; ``words`` are the columns that hold no numbers."""
    cells = "".join(f'<th scope="col"{_num(i not in words)}>{escape(heading)}</th>' for i, heading in enumerate(head))
    return (
        f'<p class="caption" id="table-{name}">{escape(caption)}</p>\n'
        f'<div class="scroll" tabindex="0" role="region" aria-labelledby="table-{name}">\n'
        f'<table class="{name}" aria-labelledby="table-{name}">\n'
        f"<thead><tr>{cells}</tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody></table>\n</div>"
    )


def _num(is_number: bool) -> str:
    return ' class="num"' if is_number else ""


def network_name(name: str, kind: str) -> str:
    """The head of a row: the network with the dot of its kind."""
    words = " ".join(f'<span class="word">{escape(word)}</span>' for word in name.split())
    return f'<th scope="row" class="name"><span class="dot {kind if kind in KINDS else ""}"></span>{words}</th>'


def accuracy_table(run: RunResult) -> str:
    """Networks down, models across; with the standard error, and the share of the DNN's accuracy."""
    if not subjects(run) or not models(run):
        return ""
    rows = []
    for members in groups(run).values():
        rows.append(f'<tr><th scope="rowgroup" colspan="{len(models(run)) + 2}">{escape(group_title(members))}</th></tr>')
        dnn = next((found for m in members if m.kind == "dnn" and (found := accuracy_of(run, m.name, "network"))), None)
        for member in members:
            own = accuracy_of(run, member.name, "network")
            share = percent(own.accuracy / dnn.accuracy) if own and dnn and dnn.accuracy else NOTHING
            cells = "".join(_accuracy_cell(run, accuracy_of(run, member.name, model)) for model in models(run))
            rows.append(f'<tr>{network_name(member.name, member.kind)}{cells}<td class="num">{share}</td></tr>')
    caption = (
        f"Test accuracy in per cent, ± one standard error of {run.samples_test:,} test samples."
        " Last column: the network's accuracy as a share of the accuracy of its DNN;"
        f" the paper reports at least {PAPER_RATIO} % for the DLGN."
    )
    heads = ["the network itself" if model == "network" else model for model in models(run)]
    return table("accuracies", caption, ["network", *heads, "of the DNN"], rows)


def _accuracy_cell(run: RunResult, found: Accuracy | None) -> str:
    if found is None:
        return f'<td class="num">{NOTHING}</td>'
    error = 100 * standard_error(found.accuracy, run.samples_test)
    return f'<td class="num">{100 * found.accuracy:.1f} <span class="se">±\N{NO-BREAK SPACE}{error:.1f}</span></td>'


def baseline_table(run: RunResult) -> str:
    """The models that see pixels and no network."""
    rows = [f'<tr><th scope="row">{escape(a.model)}</th>{_accuracy_cell(run, a)}</tr>' for a in baselines(run)]
    return table("baselines", "The same task without a network, on the pixels alone.", ["model", "test accuracy, %"], rows) if rows else ""


def choices_table(run: RunResult) -> str:
    """What was chosen for each model and how long it took, folded away."""
    rows = [
        f'<tr><th scope="row">{escape(a.network)}</th><td>{escape(a.model)}</td>'
        f'<td>{escape(_chosen(a))}</td><td class="num">{duration(a.seconds)}</td></tr>'
        for a in run.accuracies
    ]
    if not rows:
        return ""
    made = table("choices", "Choices and times.", ["network", "model", "chosen", "time"], rows, words=(0, 1, 2))
    return f"<details><summary>What was chosen for each model, and how long it took</summary>\n{made}\n</details>"


def _chosen(found: Accuracy) -> str:
    values = found.parameters.items()
    chosen = (f"{name} = {value if isinstance(value, str) else _short(value)}" for name, value in values)
    return ", ".join(chosen) or NOTHING


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)


def networks_table(run: RunResult) -> str:
    """The networks of the run, one line each."""
    rows = [
        f'<tr>{network_name(n.name, n.kind)}<td>{escape(n.description)}</td><td class="num">{n.parameters:,}</td></tr>'
        for n in run.networks
    ]
    return table("networks", "The networks of the run.", ["network", "what it is", "parameters"], rows, words=(0, 1)) if rows else ""


def kernel_table(run: RunResult) -> str:
    """Size, time, effective rank and dead inputs of each kernel."""
    kinds = {subject.name: subject.kind for subject in subjects(run)}
    rows = [
        f"<tr>{network_name(k.network, kinds.get(k.network, ''))}<td>{escape(k.scale)}</td>"
        + f'<td class="num">{k.samples:,}</td><td class="num">{k.effective_rank:.1f}</td><td class="num">{k.dead_inputs:,}</td>'
        + f'<td class="num">{duration(k.seconds)}</td></tr>'
        for k in run.kernels
    ]
    caption = "The kernels. Effective rank: the exponential of the entropy of the spectrum. Dead inputs: samples without an active path."
    return (
        table("kernel-sizes", caption, ["network", "scale", "samples", "effective rank", "dead inputs", "time"], rows, words=(0, 1))
        if rows
        else ""
    )


def checks_table(run: RunResult) -> str:
    """What each check compared, measured and tolerated."""
    rows = []
    for check in run.checks:
        verdict = '<span class="passed">✓ passed</span>' if check.passed else '<span class="failed">✗ not passed</span>'
        rows.append(
            f'<tr><th scope="row">{escape(check.name)}<br><span class="quiet">{escape(check.network)}</span></th>'
            f"<td>{escape(check.statement)}</td>"
            f'<td class="num" data-label="measured">{scientific(check.measured)}</td>'
            f'<td class="num" data-label="tolerance">{scientific(check.tolerance)}</td><td>{verdict}</td></tr>'
        )
    head = ["check", "what was compared", "measured", "tolerance", "result"]
    return table("checks", "Worst deviation of each check, beside what rounding may cause.", head, rows, words=(0, 1, 4)) if rows else ""
