"""Measures of a study: of each draw, so that their spread over draws is their standard error."""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from npk import measures
from npk.errors import NpkError
from npk.results import KernelSummary, Measure
from npk.studies.kernels import State
from npk.typed import finite

Found = dict[tuple[str, str], float]  # by name and layer
_NASWOT = 128  # samples, as in the paper: the determinant grows with them
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

    def tried(key: tuple[str, str], measure: Callable[[], float]) -> Found:
        try:
            return {key: measure()}
        except NpkError as error:
            notes.setdefault(key, str(error))
            return {}

    yield from tried(("effective rank", ""), lambda: measures.effective_rank(state.K)).items()
    if y is not None:
        yield from tried(("alignment", ""), lambda: measures.alignment(state.K, y)).items()
        try:
            overlap = measures.class_overlap(state.table, y)
        except NpkError as error:
            notes.setdefault(("class overlap", ""), str(error))
        else:
            for layer, ratio in zip(overlap.names, overlap.ratio, strict=True):
                if math.isfinite(ratio):
                    yield ("class overlap", layer), float(ratio)
    statistics = measures.gate_statistics(state.table)
    for layer in statistics.layers:
        yield ("activity", layer.name), layer.activity
        yield ("dead", layer.name), layer.dead / layer.units
        yield ("always on", layer.name), layer.always_on / layer.units
    few = state.table.take(slice(_NASWOT))
    yield from tried(("NASWOT", ""), lambda: measures.naswot(few)).items()


def summary(
    network: str, gates: str, scale: str, state: State, y: np.ndarray | None
) -> KernelSummary:
    """What a page draws of a kernel.

    Args:
        network: its name.
        gates: "trained" or "untrained".
        scale: of the kernel.
        state: of one draw.
        y: classes of its samples.

    Returns:
        A picture of it, sorted by class, and its spectrum.
    """
    rows = sorted_rows(y, len(state.K), _HEAT)
    values = measures.spectrum(state.K)
    heat = np.round(state.K[np.ix_(rows, rows)].astype(float), _DIGITS).tolist()
    return KernelSummary(
        network=network,
        gates=gates,  # type: ignore[arg-type]
        scale=scale,
        samples=len(state.K),
        heat=heat,
        heat_labels=[-1] * len(rows) if y is None else y[rows].tolist(),
        spectrum=[float(f"{value:.5g}") for value in values[values > 0]],
        dead_inputs=int((np.diagonal(state.K) == 0).sum()),
    )


def sorted_rows(y: np.ndarray | None, n: int, most: int) -> np.ndarray:
    """Rows sorted by class, about equally many of each; the first ones without classes."""
    if y is None:
        return np.arange(min(n, most))
    classes = np.unique(y)
    count = max(1, most // len(classes))
    return np.concatenate([np.flatnonzero(y == c)[:count] for c in classes])
