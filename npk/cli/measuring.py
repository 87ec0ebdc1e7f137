"""Gates recorded for a command, and what they do."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from npk.cli.reading import Asked, How, about_samples, check_folder, check_place, gate_table
from npk.data import Dataset
from npk.errors import NpkError, OptionError
from npk.files import put_back, written_whole

if TYPE_CHECKING:
    from torch import nn

    from npk.gates.store import GateStore
    from npk.measures import GateReport

_NASWOT_SAMPLES = 128  # as in the paper; the determinant grows with them, and so does the time


def check_gates(out: Path | None, statistics: bool, json: Path | None) -> None:
    """Refuse what would do nothing, and places that cannot be written, before any work.

    Args:
        out: the folder of gates.
        statistics: whether they are asked for.
        json: the file for them.

    Raises:
        OptionError: neither folder nor statistics, a file without statistics, or a folder under the
            name of a file.
        StoreError: a place that cannot be written.
    """
    if out is None and not statistics:
        raise OptionError(
            "--out is missing: it names the folder to write. Add for instance --out digits.gates, "
            "or --statistics."
        )
    if json is not None and not statistics:
        raise OptionError(f"--json {json} is for the statistics. Add --statistics.")
    # resnet-0.5 is a name
    if out is not None and out.suffix not in ("", ".gates") and not out.suffix[1:2].isdigit():
        raise OptionError(f"{out}: npk writes gates as a folder, such as {out.stem}.gates.")
    check_folder(out, "gate table")
    check_place(json)


@contextlib.contextmanager
def gates_of(
    path: Path,
    how: How,
    data: str | None,
    gates: str,
    out: Path | None,
    given: Asked,
    tell: Callable[[list[str]], None],
) -> Iterator["GateStore"]:
    """Gates on disk: recorded into a folder, into one that is gone afterwards, or there already.

    Args:
        path: a checkpoint, or a folder of gates.
        how: the checkpoint is read.
        data: DATA notation; nothing with a folder of gates.
        gates: "auto", "hard" or "soft".
        out: where they stay; ``None``: nowhere.
        given: what the network was given, where options say so.
        tell: is told of the samples.

    Yields:
        The gates.

    Raises:
        OptionError: no data, or data and a folder of gates.
    """
    from npk.checkpoint.folders import holds_weights

    put_back(path)
    if path.is_dir() and not holds_weights(path):
        said = how.said or given != Asked()
        if data is not None or out is not None or said or gates != "auto":
            what = f"{path} is a gate table and holds its samples and gates already"
            leave = "Leave out --data, --out, --gates, --arch, --fixed and --mean"
            raise OptionError(f"{what}. {leave}.")
        yield gate_table(path)
        return
    if data is None:
        raise OptionError(
            "--data is missing: it names the samples to record. Add for instance --data digits."
        )
    loading, net = given.loading(path), how.network(path)
    samples = loading.load(data)
    tell(about_samples(loading, net, samples))
    with tempfile.TemporaryDirectory() as folder:
        yield _recorded(net, how.fixed, samples, gates, out or Path(folder) / "gates")


def _recorded(
    net: "nn.Module", fixed: Sequence[str], given: Dataset, gates: str, out: Path
) -> "GateStore":
    from npk.gates.recording import example_table, record_into
    from npk.gates.store import GateStore
    from npk.progress import as_progress
    from npk.reading.inputs import trace_for
    from npk.samples import as_samples

    X = as_samples(given.X)
    trace = trace_for(net, X, fixed)
    with written_whole(out) as temporary:
        form, about = example_table(trace, X, gates).form, given.about()
        store = GateStore.create(temporary, form, len(X), about=about)
        record_into(store, trace, X, gates, as_progress(True), keep=False)
    return GateStore.open(out)


def gate_report(store: "GateStore", of: Path, data: str | None) -> "GateReport":
    """Statistics of all gates, and NASWOT of the first samples."""
    from npk.measures import GateReport, gate_statistics, naswot

    few = min(len(store), _NASWOT_SAMPLES)
    score, why = None, ""
    try:
        score = naswot(store.take(slice(few)))
    except (
        NpkError
    ) as error:  # soft gates, or samples with the same gates: worth saying, no failure
        why = str(error)
    return GateReport(str(of), data or "", gate_statistics(store), score, few, why)
