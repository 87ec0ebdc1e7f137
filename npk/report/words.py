"""The sentences of a page, made from the numbers of a run: no finding is written in advance."""

import math
import shlex

from npk.report.style import duration, percent, scientific
from npk.report.subjects import (
    PAPER_RATIO,
    UNTRAINED,
    accuracy_of,
    baselines,
    checks_of,
    dlgn_ratio,
    groups,
    subjects,
)
from npk.results import Accuracy, InvarianceDetails, RunResult


def standard_error(share: float, samples: int) -> float:
    """Binomial standard error of a share of ``samples`` test samples: sqrt(p (1 - p) / n)."""
    return math.sqrt(max(share * (1 - share), 0.0) / samples) if samples > 0 else 0.0


def listed(items: list[str]) -> str:
    """``a, b and c``."""
    return (
        items[0]
        if len(items) == 1
        else (f"{', '.join(items[:-1])} and {items[-1]}")
        if items
        else ""
    )


def _article(text: str) -> str:
    if text:
        return (
            f"{'an' if text[0].lower() in 'aeiou' or text.startswith(('NPK', 'RBF', 'SVM')) else 'a'} "
            f"{text}"
        )
    return text


def summary(run: RunResult) -> str:
    """What the run found, in one paragraph of plain words."""
    parts = [_best(run), _ratios(run), _pixels(run), _doubt(run), _verdict(run)]
    text = " ".join(part for part in parts if part)
    return text or "This run holds no accuracies and no checks yet."


def _setting(run: RunResult) -> str:
    return (
        f"On {run.data} ({len(run.classes)} classes, {run.samples_train:,} training and "
        f"{run.samples_test:,} test samples)"
    )


def _best(run: RunResult) -> str:
    networks = [a for a in run.accuracies if a.model == "network"]
    if not networks:
        return ""
    best = max(networks, key=lambda a: a.accuracy)
    text = f"{_setting(run)}, the best of {len(networks)} networks, {best.network},"
    text = text if len(networks) > 1 else f"{_setting(run)}, the network {best.network}"
    text += f" classifies {percent(best.accuracy)} of the test samples correctly."
    machines = [a for a in run.accuracies if a.network == best.network and a.model != "network"]
    trained = max(
        (a for a in machines if UNTRAINED not in a.model), key=lambda a: a.accuracy, default=None
    )
    if trained is None:
        return text
    text += f" {_sentence(_article(trained.model))} that is given nothing but"
    text += f" the network's neural path kernel reaches {percent(trained.accuracy)}"
    untrained = accuracy_of(run, best.network, f"{trained.model} {UNTRAINED}")
    if untrained:
        return (
            f"{text}, and {percent(untrained.accuracy)} with the kernel of the same network before "
            f"training."
        )
    return f"{text}."


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _ratios(run: RunResult) -> str:
    ratios = [(group, dlgn_ratio(run, members)) for group, members in groups(run).items()]
    kept = [f"{percent(ratio)} ({group})" for group, ratio in ratios if ratio is not None]
    if not kept:
        return ""
    return (
        f"A DLGN, whose gates are half-spaces of the input, keeps {listed(kept)} of the accuracy "
        f"of its DNN; the paper reports at least {PAPER_RATIO} %, on CIFAR-10 and CIFAR-100."
    )


def _pixels(run: RunResult) -> str:
    shown = [f"{a.model} {percent(a.accuracy)}" for a in baselines(run)]
    return f"Without any network, on the pixels alone: {listed(shown)}." if shown else ""


def _doubt(run: RunResult) -> str:
    networks = [a.accuracy for a in run.accuracies]
    if not networks or run.samples_test <= 0:
        return ""
    worst = max(standard_error(share, run.samples_test) for share in networks)
    return (
        f"With {run.samples_test:,} test samples an accuracy is uncertain by up to "
        f"{100 * worst:.1f} points (one standard error), so smaller differences say little."
    )


def _verdict(run: RunResult) -> str:
    failed = [f"{check.name} of {check.network}" for check in run.checks if not check.passed]
    if not run.checks:
        return ""
    if not failed:
        if len(run.checks) > 1:
            return f"All {len(run.checks)} checks of the theory passed."
        return "The check of the theory passed."
    return (
        f"{len(run.checks) - len(failed)} of {len(run.checks)} checks of the theory passed; not "
        f"passed: {listed(failed)}."
    )


def families(run: RunResult) -> tuple[str, ...]:
    """What each family of networks is good for in this run: a paragraph each, then all."""
    by_family: dict[str, list[str]] = {}
    for subject in subjects(run):
        if subject.family:
            by_family.setdefault(subject.family, []).append(subject.name)
    paragraphs = [
        text for family, names in by_family.items() if (text := _family(run, family, names))
    ]
    return tuple(text for text in [*paragraphs, _comparison(run, by_family), _shifted(run)] if text)


_NATURE = {
    "shift-invariant": "compares two pictures at every circular shift and adds up: it cannot use "
    "where in the picture a pattern lies",
    "position-keeping": (
        "compares two pictures place by place: it can use where in the picture a pattern lies, and "
        "has to learn each place anew"
    ),
}


def _family(run: RunResult, family: str, names: list[str]) -> str:
    own = [a for a in run.accuracies if a.network in names and a.model == "network"]
    machines = [
        a
        for a in run.accuracies
        if a.network in names and a.model != "network" and UNTRAINED not in a.model
    ]
    if family in _NATURE:
        text = f"The kernel of a {family} network ({listed(names)}) {_NATURE[family]}."
    else:
        text = f"{family}: {listed(names)}."
    if own:
        text += (
            (f" These networks reach {_span(own)}")
            if len(own) > 1
            else f" The network reaches {_span(own)}"
        )
        text += f", kernel machines on their kernels {_span(machines)}." if machines else "."
    return text


def _span(found: list[Accuracy]) -> str:
    low, high = min(a.accuracy for a in found), max(a.accuracy for a in found)
    return percent(low) if percent(low) == percent(high) else f"{100 * low:.1f} to {percent(high)}"


def _comparison(run: RunResult, by_family: dict[str, list[str]]) -> str:
    means = {}
    for family in ("shift-invariant", "position-keeping"):
        own = [
            a.accuracy
            for a in run.accuracies
            if a.network in by_family.get(family, []) and a.model == "network"
        ]
        if own:
            means[family] = sum(own) / len(own)
    if len(means) < 2:
        return ""
    gain = means["position-keeping"] - means["shift-invariant"]
    doubt = math.hypot(*(standard_error(mean, run.samples_test) for mean in means.values()))
    if abs(gain) <= 2 * doubt:
        verdict = (
            "less than two standard errors: this run does not tell which is better on this data."
        )
    elif gain > 0:
        verdict = (
            "more than two standard errors: on this data it matters where a pattern lies, "
            "and a network should keep it."
        )
    else:
        verdict = (
            "more than two standard errors: on this data it helps to forget where a pattern lies."
        )
    ahead = "position-keeping" if gain > 0 else "shift-invariant"
    return f"On average the {ahead} networks are ahead by {100 * abs(gain):.1f} points, {verdict}"


def _shifted(run: RunResult) -> str:
    worst: dict[str, list[float]] = {"invariant": [], "broken": []}
    for _, details in checks_of(run, InvarianceDetails):
        for case in details.cases:
            if case.inside > 1 and case.worst_inside is not None:
                worst["invariant"].append(case.worst_inside)
            if case.inside == 1 and case.outside_worst is not None:
                worst["broken"].append(case.outside_worst)
    text = ""
    if worst["invariant"]:
        most = scientific(max(worst["invariant"]))
        text = (
            f"Shifting a picture as structure allows changes the kernel of a shift-invariant "
            f"network by a relative {most} at most"
        )
        text += " (rounding)" if max(worst["invariant"]) < 1e-4 else ""
    if text and worst["broken"]:
        text += (
            f"; where padding or read-out break the invariance, by "
            f"{scientific(min(worst['broken']))} or more"
        )
    return f"{text}." if text else ""


def commands(run: RunResult) -> tuple[str, ...]:
    """The command lines that compute each kernel again from its checkpoint, in the run's folder."""
    kernels = {kernel.network: kernel for kernel in run.kernels}
    lines = []
    for network in run.networks:
        if network.checkpoint:
            out = f"{network.checkpoint.rsplit('/', 1)[-1].removesuffix('.safetensors')}.zarr"
            kernel = kernels.get(network.name)
            words = [
                "npk",
                "kernel",
                network.checkpoint,
                "--data",
                kernel.data if kernel else run.data,
                "--out",
                out,
            ]
            scale = kernel.scale if kernel else "fan_in"
            lines.append(shlex.join(words + (["--scale", scale] if scale != "fan_in" else [])))
    return tuple(lines)


def facts(run: RunResult) -> tuple[tuple[str, str], ...]:
    """How the run was made, as pairs of a name and a value."""
    reused = [network.name for network in run.networks if network.reused]
    return (
        (
            "Data",
            f"{run.data}, {len(run.classes)} classes "
            f"({', '.join(run.classes[:12])}{', …' if len(run.classes) > 12 else ''})",
        ),
        ("Samples", f"{run.samples_train:,} for training, {run.samples_test:,} for testing"),
        ("Seed", str(run.seed)),
        ("Time", duration(run.seconds)),
        ("Machine", run.machine),
        ("npk", run.version),
        (
            "Networks re-used",
            f"{listed(reused)}, from an earlier run in the same folder"
            if reused
            else "none: all trained in this run",
        ),
    )
