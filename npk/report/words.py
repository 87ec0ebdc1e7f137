"""The sentences of a page, made from the numbers of a study: no finding is written in advance."""

from collections.abc import Sequence

from npk.choices import bias_choice
from npk.report.style import duration, percent, points
from npk.report.subjects import accuracies_of, differences_of, measures_of, subjects
from npk.results import MODELS, Difference, StudyResult

# whether samples were seen: of one network, and of several
_SEEN = {
    "fresh": (
        "No weight of the network has seen these samples.",
        "No weight of the networks has seen these samples.",
    ),
    "seen": (
        "The network was trained on these samples, so that all numbers are flattering: machines "
        "look better than they would on fresh ones.",
        "The networks were trained on these samples, so that all numbers are flattering: machines "
        "look better than they would on fresh ones.",
    ),
    "not known": (
        "Whether the network has seen these samples is not known; if it has, all numbers are "
        "flattering.",
        "Whether the networks have seen these samples is not known; where they have, all numbers "
        "are flattering.",
    ),
}


def listed(items: Sequence[str]) -> str:
    """``a, b and c``."""
    if not items:
        return ""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def seen_in_words(seen: str, several: bool) -> str:
    """Whether networks have seen the samples.

    Args:
        seen: "seen", "fresh" or "not known".
        several: whether there are several networks.
    """
    return _SEEN[seen][several]


def finding(run: StudyResult) -> str:
    """What the gates have learnt, in one sentence; every size and every network counts."""
    return _learnt(run) or _unlabeled(run) or "This study holds no accuracies."


def beside(run: StudyResult) -> str:
    """What has to be known with the finding: honest rivals, whether samples were seen, the checks."""
    parts = [_rivals(run), seen_in_words(run.seen, several=len(subjects(run)) != 1), verdict(run)]
    return " ".join(part for part in parts if part)


def title(run: StudyResult) -> str:
    """The heading of the page."""
    return f"What the gates have learnt: {run.data.rstrip('/').rsplit('/', 1)[-1]}"


def _over_all(run: StudyResult, against: str) -> tuple[Difference, ...]:
    """Trained gates less another model: the mean over networks, or of the only one."""
    names = [subject.name for subject in subjects(run)]
    name = names[0] if len(names) == 1 else ""
    return differences_of(run, name, against)


def _learnt(run: StudyResult) -> str:
    found = _over_all(run, "untrained")
    if not found:
        return _reached(run)
    several = len(subjects(run)) > 1
    text = (
        f"After {listed([f'{d.samples:,}' for d in found])} fresh samples, ridge regression with the "
        f"kernel of the trained gates classifies {_by_how_much(found)} more of the test samples "
        f"correctly than with that of the same {'networks' if several else 'network'} before training"
    )
    return f"{text}{_span(run) if several else ''}."


def _by_how_much(found: Sequence[Difference]) -> str:
    each = [points(d.difference, d.error) for d in found]
    return f"{listed(each)} points"


def _span(run: StudyResult) -> str:
    """Over how many networks the mean is, and between what they lie."""
    names = [subject.name for subject in subjects(run)]
    all_of = [d for name in names for d in differences_of(run, name, "untrained")]
    low, high = min(d.difference for d in all_of), max(d.difference for d in all_of)
    ends = f"single ones from {100 * low:+.1f} to {100 * high:+.1f}"
    return f" (mean over {len(names)} networks; {ends})"


def _reached(run: StudyResult) -> str:
    """What trained gates reach, where there is nothing to compare with."""
    found = [(s.name, accuracies_of(run, s.name, "trained")) for s in subjects(run)]
    said = [f"{percent(a[-1].accuracy)} ({name})" for name, a in found if a]
    if not said:
        return ""
    n = max(run.sizes)
    return f"Ridge regression on the kernel of the trained gates reaches {listed(said)} with {n:,} fresh samples."


def _rivals(run: StudyResult) -> str:
    """How far the trained gates are ahead of what needs no kernel of paths, or behind."""
    said = []
    for against in ("penultimate", "RBF"):
        found = _over_all(run, against)
        if found:
            said.append(f"{_by_how_much(found)} beside {MODELS[against]}")
    return f"Trained gates stand at {', and at '.join(said)}." if said else ""


def _unlabeled(run: StudyResult) -> str:
    if run.classes:
        return ""
    ranks = []
    for subject in subjects(run):
        for m in measures_of(run, subject.name, "trained", "effective rank"):
            if m.value is not None:
                ranks.append(f"{m.value:.1f} ({subject.name})")
    text = "Without labels nothing is said of accuracy."
    return f"{text} The effective rank of the kernel is {listed(ranks)}." if ranks else text


def verdict(run: StudyResult) -> str:
    """Whether the checks passed."""
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


def facts(run: StudyResult) -> tuple[tuple[str, str], ...]:
    """How the study was made, as pairs of a name and a value."""
    reused = [network.name for network in run.networks if network.reused]
    sizes = listed([f"{n:,}" for n in run.sizes])
    overlap = "no sample in two of them" if run.disjoint else "which share samples"
    drawn = (
        f"{sizes} fresh samples in {run.splits} draws, {overlap}; {run.samples_test:,} for testing"
    )
    learnt = f"{run.samples_train:,} for training; " if run.samples_train else ""
    biases = {network.bias for network in run.networks}
    found = [
        ("Data", _data(run)),
        ("Samples", f"{learnt}{drawn}"),
        ("Seen in training", {"fresh": "no", "seen": "yes"}.get(run.seen, "not known")),
        ("Kernel", f"{run.scale}; {listed([bias_choice(b) for b in sorted(biases)])}"),
        ("Before training", _anew(run)),
        ("Seed", str(run.seed)),
        ("Time", duration(run.seconds)),
        ("Machine", run.machine),
        ("npk", run.version),
    ]
    if reused:
        found.append(("Networks re-used", f"{listed(reused)}, from an earlier run in this folder"))
    return tuple((name, value) for name, value in found if value)


def _data(run: StudyResult) -> str:
    if not run.classes:
        return f"{run.data}, without labels"
    more = ", …" if len(run.classes) > 12 else ""
    return f"{run.data}, {len(run.classes)} classes ({', '.join(run.classes[:12])}{more})"


def _anew(run: StudyResult) -> str:
    return listed(list(dict.fromkeys(network.untrained for network in run.networks)))


def commands(run: StudyResult) -> tuple[str, ...]:
    """The command lines that give numbers of the study again, in its folder."""
    lines = []
    for model in ("trained", "untrained"):
        lines += [a.command for a in run.accuracies if a.model == model][-1:]
    lines += [m.command for m in run.measures][:1] + [c.command for c in run.checks][:1]
    return tuple(dict.fromkeys(line for line in [*lines, run.command] if line))
