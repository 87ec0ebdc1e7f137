"""What the commands print on standard output. Each function is fed by results alone."""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from npk.choices import bias_choice
from npk.graph.path_graph import LISTED
from npk.progress import duration
from npk.report import track_page
from npk.report.ensemble_page import ENSEMBLE_HEAD, ensemble_row
from npk.report.suite_page import INVARIANCE_HEAD, invariance_row
from npk.report.tables import accuracies
from npk.report.words import beside, finding
from npk.results import (
    MODELS,
    Accuracy,
    CheckResult,
    EnsembleSuite,
    InspectReport,
    InvarianceSuite,
    KernelPlan,
    KernelReport,
    LesionTable,
    MachineTable,
    Node,
    StoreReport,
    StudyResult,
    TrackResult,
)

if TYPE_CHECKING:
    from npk.checks.spectrum import DepthSpectrum
    from npk.cli.training import TrainReport, Trial
    from npk.measures import GateReport

_WIDTH = 120  # where the output is no terminal
_TERMINAL = 80  # columns where operators are broken between words alone
_EPOCHS_SHOWN = 13  # of a training, and those that were taken


class _Output(Console):
    """Standard output, which says when its reader has gone."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # rich itself would end the process


def console() -> Console:
    """Standard output, as it is now."""
    output = _Output(highlight=False, markup=False, emoji=False)
    if output.is_terminal:
        return output
    return _Output(highlight=False, markup=False, emoji=False, width=_WIDTH)


def say(text: str) -> None:
    """One line, never wrapped."""
    console().print(text, soft_wrap=True)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> None:
    """A table; the first column is text, the others are numbers."""
    grid = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for i, heading in enumerate(head):
        grid.add_column(heading, justify="right" if i else "left", overflow="fold")
    for row in rows:
        grid.add_row(*row)
    console().print(grid, end="\n\n")


def study(run: StudyResult, out: Path) -> None:
    """A whole study: accuracies, what the gates have learnt, checks, where the files are."""
    head = ("test accuracy, %", *(f"n = {n}" for n in run.sizes))
    found = accuracies(run)
    rows: list[list[str]] = []
    for name, block in found.blocks.items():
        rows.append([name])
        for row in block:
            cells = (f"{c.value} ± {c.error}".removesuffix(" ± ") if c else "-" for c in row.cells)
            rows.append([f"  {row.name}", *cells])
    if rows:
        table(head, rows, f"{run.data}: {run.samples_test} test samples, {run.splits} draws")
    checks(run.checks)
    for note in run.notes:
        say(f"note: {note}")
    said = f"{finding(run)} {beside(run)}"
    say(said.replace("\N{NO-BREAK SPACE}", " "))
    say(
        f"{duration(run.seconds)} on {run.machine}. Results, figures and kernels are in {out}: "
        f"open {out / 'report.html'}."
    )


def track(run: TrackResult, out: Path) -> None:
    """A training that was followed, epoch by epoch."""
    table(
        *track_page.table(run), f"{run.data}: {run.samples_test} test samples, {run.splits} draws"
    )
    for note in run.notes:
        say(f"note: {note}")
    say(track_page.finding(run).replace("\N{NO-BREAK SPACE}", " "))
    say(
        f"{duration(run.seconds)} on {run.machine}. Results, figures and kernels are in {out}: "
        f"open {out / 'report.html'}."
    )


def checks(found: Iterable[CheckResult]) -> None:
    """One row a check, and of those that failed what was compared."""
    found = list(found)
    rows = [
        (f"{c.name} {c.network}", number(c.measured), number(c.tolerance), verdict(c))
        for c in found
    ]
    if rows:
        table(("check", "measured", "tolerance", "result"), rows)
    for c in found:
        if not c.passed:
            say(f"{c.name} {c.network}: {c.statement}")


def check(found: CheckResult) -> None:
    """One check, in full."""
    say(f"{found.name}: {found.statement}")
    say(f"measured {number(found.measured)}, tolerance {number(found.tolerance)}: {verdict(found)}")


def suite(found: InvarianceSuite, out: Path) -> None:
    """One row a network: what structure promises, and what was measured."""
    rows = [invariance_row(case, one.passed) for one, case in found.cases()]
    table(INVARIANCE_HEAD, rows, f"invariance on {found.data}, {found.samples} samples")
    agreed = sum(case.also == 0 and one.passed for one, case in found.cases())
    say(f"measured as predicted: {agreed} of {len(rows)}; {duration(found.seconds)}")
    say(f"Results, maps and the page are in {out}: open {out / 'report.html'}.")


def ensemble_suite(found: EnsembleSuite, out: Path) -> None:
    """One row a network: its depth spectrum, the identities, and its lesions."""
    rows = [ensemble_row(one) for one in found.runs]
    table(ENSEMBLE_HEAD, rows, f"sub-networks on {found.data}, {found.samples} samples")
    agreed = sum(one.passed for one in found.runs)
    say(f"as theory says: {agreed} of {len(rows)}; {duration(found.seconds)}")
    say(f"Results, pictures and the page are in {out}: open {out / 'report.html'}.")


def graph(found: InspectReport) -> None:
    """What a network looks like to npk, node by node; where gates were recorded on samples of the
    user's, which are dead or always on.
    """
    head = (*LISTED, "gates", *(("dead", "always on", "on") if found.data else ()))
    wide = console().width
    made = Table(
        title=f"gates on {found.samples} samples" if found.data else None,
        title_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 1) if wide >= _WIDTH else (0, 1, 0, 0),
    )
    for i, heading in enumerate(head):
        made.add_column(
            heading,
            justify="right" if i > 4 else "left",
            overflow="fold",
            min_width=_longest_word(found) if heading == "operator" and wide >= _TERMINAL else None,
        )
    for node in found.nodes:
        shape = "x".join(map(str, node.shape))
        cells = (str(node.number), node.module, node.operator, shape, node.source)
        made.add_row(*cells, *_gate_counts(node))
    console().print(made, end="\n\n")


def _longest_word(found: InspectReport) -> int:
    return max(len(word) for node in found.nodes for word in node.operator.split())


def _gate_counts(node: Node) -> tuple[str, ...]:
    """Gates of a layer; with samples, those off for all, those on for all, and the mean share that
    is on.
    """
    if not node.gates:
        return ()
    if node.on is None:
        return (str(node.gates),)
    return (str(node.gates), str(node.dead), str(node.always_on), percent(node.on))


def gate_statistics(found: "GateReport") -> None:
    """One row a gate layer, and how well all of them tell samples apart."""
    head = ("layer", "operator", "shape", "on", "dead", "always on", "patterns", "entropy")
    rows = [
        (
            layer.name,
            layer.operator,
            "x".join(map(str, layer.shape)),
            percent(layer.activity),
            str(layer.dead),
            str(layer.always_on),
            "-" if layer.patterns is None else str(layer.patterns),
            "-" if layer.entropy is None else f"{layer.entropy:.3f}",
        )
        for layer in found.statistics.layers
    ]
    table(head, rows, f"gates on {found.statistics.samples} samples")
    if found.statistics.patterns is not None:
        say(f"{found.statistics.patterns} distinct patterns of all layers together")
    score = f"none, for {found.no_naswot}" if found.naswot is None else f"{found.naswot:.2f}"
    say(f"NASWOT of the first {found.naswot_samples} samples: {score}")


def spectrum(found: "DepthSpectrum") -> None:
    """One row a depth, and the mean number of layers."""
    spread = found.shares[found.live].std(0) if found.live.any() else 0 * found.mean
    rows = [
        (str(depth), f"{share:.3e}", f"{error:.1e}")
        for depth, share, error in zip(found.depths, found.mean, spread, strict=True)
    ]
    dead = int((~found.live).sum())
    title = f"shares of K(x, x) on {len(found.kernel)} samples"
    title += f", {dead} without any active path left out" if dead else ""
    biases(found.bias)
    table(("layers", "mean share", "s.d. over samples"), rows, title)
    if found.live.any():
        say(
            f"mean number of layers of a path: {number(float(found.path_length[found.live].mean()))}"
        )


def lesions(found: LesionTable) -> None:
    """One row a block."""
    head = ("block", "predicted", "frozen gates", "live gates", "accuracy lost", "added at")
    rows = [
        (str(lesion.block), *lesion.words(found.accuracy), lesion.source)
        for lesion in found.lesions
    ]
    whole = "" if found.accuracy is None else f", accuracy {percent(found.accuracy)}"
    biases(found.bias)
    table(head, rows, f"lesions on {found.samples} samples{whole}")


def structure(found: InspectReport) -> None:
    """Paths, gates and invariances."""
    say(
        f"10^{found.log10_paths:.1f} paths reach one output unit; {found.gates} gates in "
        f"{found.gate_layers} layers"
    )
    say(f"K(rot(x, r), x') = K(x, x') for {found.shifts}")


def biases(taken: str, *, shifted: bool = False) -> None:
    """What a kernel takes of the network's biases, and how to get the other; and whether samples
    are shifted before the first weight.
    """
    say(bias_choice(taken, "--bias {}"))
    if shifted:
        say("samples are shifted by what the network adds to them before its first weight")


def cost(found: InspectReport) -> None:
    """What kernels of some sizes take on this machine."""
    pair = found.cost
    plan = "s" * (pair.fields != 1)
    say(
        f"the recursion forms {pair.masks} masks a sample and computes {pair.fields} field{plan} on "
        f"{pair.cells} pairs of positions"
    )
    say(
        f"a pair of samples multiplies {si(pair.words)}words of gates and adds "
        f"{si(pair.reads)}numbers: measured {si(pair.seconds_a_pair)}s"
    )
    say(
        f"a sample takes {si(pair.bytes_a_sample)}B for its gates and values and "
        f"{si(pair.bytes_of_masks)}B for its masks: measured {si(pair.seconds_a_sample)}s"
    )
    say(f"before the first tile: {duration(pair.before)}")
    rows = [
        (f"{one.samples} x {one.samples}", duration(one.seconds), f"{si(one.bytes)}B")
        for one in found.kernels
    ]
    table(("kernel", "time", "matrix"), rows)


def dry_run(found: KernelPlan) -> None:
    """The tile plan of a kernel, and what it will take."""
    triangle = ", one triangle" if found.symmetric else ""
    say(
        f"{found.rows} x {found.columns} {found.dtype}{triangle}: {found.tiles} tiles of at most "
        f"{found.side} x {found.side}"
    )
    say(f"memory at most {si(found.bytes)}B; gates {si(found.bytes_of_gates)}B")
    biases(found.bias)
    say(
        f"time about {duration(found.seconds)}: {duration(found.before)} before the first tile, then "
        f"measured {si(found.seconds_a_sample)}s a sample and {si(found.seconds_a_pair)}s a pair"
    )
    say("nothing was computed or written")


def written(found: KernelReport) -> None:
    """A kernel that was written."""
    again = f", {found.earlier} of {found.tiles} tiles from an earlier run" if found.earlier else ""
    say(f"{found.out}: {found.rows} x {found.columns} {found.dtype}{again}")
    biases(found.bias)


def verified(found: StoreReport) -> None:
    """What is in a store, and whether it is sound."""
    say(f"{found.path}: {found.content}")
    if found.dropped:
        say(
            f"dropped: {', '.join(found.damaged)}. The command that wrote the store computes that "
            f"again."
        )


def trial(found: "Trial", network: str, samples: int) -> None:
    """A network that was trained."""
    went = found.training
    say(
        f"{found.checkpoint}: {network}; test accuracy {percent(found.accuracy)} ({samples} "
        f"samples), epoch {went.best_epoch} of {went.epochs} ({_SELECTED[went.select]})"
    )


_SELECTED = {
    "last": "the last one",
    "accuracy": "the largest accuracy on validation",
    "loss": "the smallest loss on validation",
}


def training(report: "TrainReport") -> None:
    """The mean over seeds, where there are several, and how the training went."""
    if report.standard_error is not None:
        right, error = 100 * report.accuracy, 100 * report.standard_error
        say(
            f"test accuracy {right:.1f} ± {error:.1f} % (mean of {len(report.trials)} seeds, "
            f"standard error)"
        )
    went = [trial.training for trial in report.trials]
    last = max(one.epochs for one in went)
    shown = {round(1 + i * (last - 1) / (_EPOCHS_SHOWN - 1)) for i in range(_EPOCHS_SHOWN)}
    table(
        ("epoch", "training loss", "validation loss", "validation accuracy"),
        [
            (
                str(epoch),
                _mean([one.curve_train for one in went], epoch, number),
                _mean([one.curve_validation_loss for one in went], epoch, number),
                _mean([one.curve_validation for one in went], epoch, percent),
            )
            for epoch in sorted(shown | {one.best_epoch for one in went})
        ],
        title="mean of the seeds" if len(went) > 1 else None,
    )


def _mean(
    curves: Sequence[Sequence[float | None]], epoch: int, write: Callable[[float], str]
) -> str:
    """Mean of the curves that have this epoch and a number there."""
    numbers = [curve[epoch - 1] for curve in curves if len(curve) >= epoch]
    there = [value for value in numbers if value is not None]
    return write(sum(there) / len(there)) if there else "-"


def fitted(training: float, test: Accuracy, sizes: tuple[int, int]) -> None:
    """A kernel machine on its training and test samples."""
    chosen = ", ".join(f"{name} {value:g}" for name, value in test.parameters.items())
    say(
        f"{test.model} with {chosen}: test accuracy {_with_interval(test.accuracy, sizes[1])}, "
        f"training {percent(training)}"
    )
    say(f"({sizes[1]} test and {sizes[0]} training samples, {duration(test.seconds)})")


def samples(lines: Iterable[str]) -> None:
    """What was done to the samples, and how the network itself does on them."""
    for line in lines:
        say(line)


def machines(found: MachineTable, notes: Sequence[str], tested: int) -> None:
    """A machine's baselines, on so many test samples, and how far it is from each of them."""
    against = {one.against: one for one in found.differences}
    for row in found.accuracies[1:]:
        one = against[row.model]
        apart = "equal" if abs(one.difference) <= 2 * (one.error or 0) else "different"
        say(
            f"{MODELS[row.model]}: {_with_interval(row.accuracy, tested)}; the machine is "
            f"{100 * one.difference:+.1f} ± {100 * (one.error or 0):.1f} from it ({apart})"
        )
    for note in notes:
        say(note)


def wilson(share: float, n: int) -> tuple[float, float]:
    r"""Wilson's interval of 95 % for a share that was seen among n.

    .. math:: \left(p + \frac{z^2}{2n} \pm z \sqrt{\frac{p(1-p)}{n} + \frac{z^2}{4n^2}}\right) \Big/
        \left(1 + \frac{z^2}{n}\right), \qquad z = 1.96

    Args:
        share: of those that were seen, 0 to 1.
        n: how many were seen.

    Returns:
        Lower and upper end, from 0 to 1; of a share of 1 the lower end is less than 1.

    References:
        Wilson, *Probable inference, the law of succession, and statistical inference*, Journal of
        the American Statistical Association 1927.
    """
    z2 = 1.96**2 / n
    middle = share + z2 / 2
    half = math.sqrt(z2 * (share * (1 - share) + z2 / 4))
    return max(0.0, (middle - half) / (1 + z2)), min(1.0, (middle + half) / (1 + z2))


def _with_interval(share: float, n: int) -> str:
    low, high = wilson(share, n)
    return f"{percent(share)} (95 %: {100 * low:.1f} to {100 * high:.1f})"


def verdict(found: CheckResult) -> str:
    """The outcome in a word."""
    return "PASS" if found.passed else "FAIL"


def percent(share: float) -> str:
    """A share of 1 in per cent."""
    return f"{100 * share:.1f} %"


def number(value: float | None) -> str:
    """Three digits."""
    return "not finite" if value is None else f"{value:.3g}"


def si(value: float) -> str:
    """A number with a prefix, such as ``3.2 M``."""
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3), ("", 1.0), ("m", 1e-3)):
        if value >= size:
            return f"{value / size:.3g} {prefix}"
    return f"{value * 1e6:.3g} u"  # as programs write the Greek letter that not all terminals have
