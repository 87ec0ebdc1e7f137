"""What each figure of a page shows, in words, for those who do not see it."""

from collections.abc import Callable

from npk.report.style import hundredths, percent, scientific
from npk.report.subjects import accuracy_of, baselines, groups, models, short_model, subjects
from npk.report.words import listed
from npk.results import KernelSummary, RunResult


def _accuracy(run: RunResult) -> str:
    said = [
        f"{a.network} {short_model(a.model)} {percent(a.accuracy)}"
        for subject in subjects(run)
        for model in models(run)
        if (a := accuracy_of(run, subject.name, model))
    ]
    said += [f"{a.model} on pixels {percent(a.accuracy)}" for a in baselines(run)]
    return f"Test accuracy: {'; '.join(said)}."


def _kernels(run: RunResult) -> str:
    names = listed([kernel.network for kernel in run.kernels if kernel.heat])
    return f"Heat maps of the cosine kernels of {names}, samples sorted by class."


def ranks(run: RunResult) -> str:
    """The effective rank of each kernel that has a spectrum."""
    shown = [kernel for kernel in run.kernels if kernel.spectrum]
    return ", ".join(f"{k.network} has effective rank {k.effective_rank:.1f}" for k in shown)


def _spectra(run: RunResult) -> str:
    return f"Eigenvalues of the kernels on logarithmic axes: {ranks(run)}."


def _overlaps(run: RunResult) -> str:
    def pair(kernel: KernelSummary, layer: int) -> str:
        same, different = kernel.overlap_same[layer], kernel.overlap_different[layer]
        return f"{hundredths(same)} in one class and {hundredths(different)} across classes"

    shown = [kernel for kernel in run.kernels if kernel.overlap_same]
    gaps = "; ".join(f"{k.network} {pair(k, 0)}, then {pair(k, -1)}" for k in shown)
    return f"Mean share of gates that are on for both of a pair, first and last layer: {gaps}."


def _training(run: RunResult) -> str:
    return f"Training loss and validation accuracy by epoch for {listed(list(groups(run)))}."


_CHECKS = {
    "duality": "Deviation of the output from features times values",
    "invariance": "Deviation of the kernel where the input is moved",
    "ensemble": (
        "Share of the kernel by depth of sub-network and by block, and deviation of each form "
        "of the sum"
    ),
    "tangent": "Mean slopes of random value networks beside the tangent kernel, in standard errors",
}


def _check(run: RunResult, name: str) -> str:
    what = _CHECKS.get(name, f"Deviation of each case of the check {name}")
    checks = [check for check in run.checks if check.name == name]
    measured = [f"{check.network} {scientific(check.measured)}" for check in checks]
    return f"{what}: {', '.join(measured)}."


_OTHERS: dict[str, Callable[[RunResult], str]] = {
    "accuracy": _accuracy,
    "kernels": _kernels,
    "spectra": _spectra,
    "overlaps": _overlaps,
    "training": _training,
}


def alternative(run: RunResult, name: str) -> str:
    """What the figure of this name shows; one that is no other's is that of a check."""
    return _OTHERS[name](run) if name in _OTHERS else _check(run, name)
