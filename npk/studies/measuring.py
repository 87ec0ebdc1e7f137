"""Measures of a study: of each draw, so that their spread over draws is their standard error."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from npk import measures
from npk.checks.spectrum import depth_spectrum
from npk.errors import NpkError
from npk.gates.table import GateTable
from npk.graph.operators import Add
from npk.results import KernelSummary, Measure
from npk.studies.kernels import State
from npk.studies.pictures import Album
from npk.typed import finite

Found = dict[tuple[str, str], float]  # by name and layer
_NASWOT = 128  # samples, as in the paper: the determinant grows with them
_DEPTHS = 16  # samples of a depth spectrum, in each draw
_HEAT = 120  # rows of a picture of a kernel, about
_DIGITS = 3


def measured(
    network: str, gates: str, states: Sequence[State], labels: Sequence[np.ndarray | None]
) -> list[Measure]:
    """All measures of a network's gates and kernel.

    Args:
        network: its name.
        gates: "trained" or "untrained".
        states: of each draw.
        labels: classes of each draw's samples.

    Returns:
        Each measure as the mean over draws with its standard error; of untrained networks every
        draw has other initial weights too.
    """
    found: list[Found] = []
    notes: dict[tuple[str, str], str] = {}
    for state, y in zip(states, labels, strict=True):
        found.append(dict(_of(state, y, notes)))
    keys = {key: None for each in found for key in each} | {key: None for key in notes}
    n = len(states[0].K)
    made = []
    for name, layer in keys:
        values = [each[name, layer] for each in found if (name, layer) in each]
        mean, error = mean_and_error(values)
        size = min(n, _NASWOT) if name == "NASWOT" else n
        note = notes.get((name, layer), "")
        made.append(Measure(network, gates, name, layer, mean, error, size, note, ""))  # type: ignore[arg-type]
    return made


def mean_and_error(values: Sequence[float]) -> tuple[float | None, float | None]:
    """The mean of values of several draws, and its standard error."""
    if not values:
        return None, None
    mean = finite(float(np.mean(values)))
    if len(values) < 2 or mean is None:
        return mean, None
    return mean, finite(float(np.std(values, ddof=1) / math.sqrt(len(values))))


def _of(
    state: State, y: np.ndarray | None, notes: dict[tuple[str, str], str]
) -> Iterator[tuple[tuple[str, str], float]]:
    """The measures of one draw; what there is none of is noted."""

    def tried(name: str, measure: Callable[[], Mapping[str, float]]) -> Found:
        try:
            return {(name, layer): value for layer, value in measure().items()}
        except NpkError as error:
            notes.setdefault((name, ""), str(error))
            return {}

    yield from tried("effective rank", lambda: {"": measures.effective_rank(state.K)}).items()
    if y is not None:
        yield from tried("alignment", lambda: {"": measures.alignment(state.K, y)}).items()
        yield from tried("class overlap", lambda: _overlaps(state.table, y)).items()
    yield from tried("depth share", lambda: _depths(state.table)).items()
    statistics = measures.gate_statistics(state.table)
    for layer in statistics.layers:
        yield ("activity", layer.name), layer.activity
        yield ("dead", layer.name), layer.dead / layer.units
        yield ("always on", layer.name), layer.always_on / layer.units
    few = state.table.take(slice(_NASWOT))
    yield from tried("NASWOT", lambda: {"": measures.naswot(few)}).items()


def _overlaps(table: GateTable, y: np.ndarray) -> Mapping[str, float]:
    found = measures.class_overlap(table, y)
    both = zip(found.names, found.ratio, strict=True)
    return {layer: float(ratio) for layer, ratio in both if math.isfinite(ratio)}


def _depths(table: GateTable) -> Mapping[str, float]:
    """The share of K(x, x) of each number of layers, of paths that begin at the input; nothing where
    there is one number alone.
    """
    if not any(isinstance(node.operator, Add) for node in table.graph.nodes):
        return {}
    found = depth_spectrum(None, table.take(slice(_DEPTHS)))
    shares = zip(found.depths.tolist(), found.mean.tolist(), strict=True)
    return {str(depth): share for depth, share in shares}


def summary(
    network: str,
    gates: str,
    scale: str,
    states: Sequence[State],
    y: np.ndarray | None,
    album: Album,
    order: np.ndarray,
) -> KernelSummary:
    """What a page draws of a kernel.

    Args:
        network: its name.
        gates: "trained" or "untrained".
        scale: of the kernel.
        states: of each draw.
        y: classes of the samples of the first draw.
        album: where its samples are put, if they are pictures.
        order: their numbers.

    Returns:
        A picture of the first draw's kernel, sorted by class, and the mean spectrum of all draws.
    """
    state = states[0]
    rows = sorted_rows(y, len(state.K), _HEAT)
    values, errors = _spectrum(states)
    heat = np.round(state.K[np.ix_(rows, rows)].astype(float), _DIGITS).tolist()
    return KernelSummary(
        network=network,
        gates=gates,  # type: ignore[arg-type]
        scale=scale,
        samples=len(state.K),
        heat=heat,
        heat_labels=[-1] * len(rows) if y is None else y[rows].tolist(),
        heat_pictures=[album.add(False, int(i)) for i in order[rows]] if album.possible else [],
        spectrum=_short(values[values > 0]),
        spectrum_error=_short(errors[values > 0]) if len(states) > 1 else [],
        dead_inputs=int((np.diagonal(state.K) == 0).sum()),
    )


def _spectrum(states: Sequence[State]) -> tuple[np.ndarray, np.ndarray]:
    """Each eigenvalue's mean over the draws, and the standard error of it."""
    values = np.array([measures.spectrum(state.K) for state in states])
    spread = values.std(0, ddof=1) if len(states) > 1 else np.zeros(values.shape[1])
    return values.mean(0), spread / math.sqrt(len(states))


def _short(values: np.ndarray) -> list[float]:
    return [float(f"{value:.5g}") for value in values]


def sorted_rows(y: np.ndarray | None, n: int, most: int) -> np.ndarray:
    """Rows sorted by class, about equally many of each; the first ones without classes."""
    if y is None:
        return np.arange(min(n, most))
    classes = np.unique(y)
    count = max(1, most // len(classes))
    return np.concatenate([np.flatnonzero(y == c)[:count] for c in classes])
