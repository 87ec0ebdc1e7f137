"""Random gates in the place of a network's own: half-spaces of the inputs."""

import dataclasses

import numpy as np

from npk.gates.table import GateLayer, GateTable, pack

_NUMBERS = 1 << 22  # of directions that are drawn together, at most


def random_gates(table: GateTable, mean: np.ndarray, seed: int) -> GateTable:
    r"""The same paths under gates that have learnt nothing.

    .. math:: G_u(x) = 1[\langle a_u,\, x - \bar x \rangle > 0], \qquad a_u \sim N(0, I)

    Every gate has a direction of its own; the selection of a pool is that of the largest among as
    many directions as its window has places.

    Args:
        table: gates of n samples.
        mean: sample in the middle, which the hyperplanes pass through.
        seed: of the directions: tables with one mean and seed belong together.

    Returns:
        A table with the same samples and paths, all of whose gates are hard.
    """
    rng = np.random.default_rng(seed)
    flat = (table.inputs - mean).reshape(len(table), -1).astype(np.float32)
    entries = {name: _entry(entry, flat, rng, table) for name, entry in table.entries.items()}
    return dataclasses.replace(table, entries=entries)


def units(table: GateTable) -> int:
    """Numbers that are multiplied for the gates of one sample."""
    return sum(int(np.prod(entry.shape)) for entry in table.entries.values()) * table.inputs[0].size


def _entry(
    entry: GateLayer, flat: np.ndarray, rng: np.random.Generator, table: GateTable
) -> GateLayer:
    if entry.kind == "selection":
        places = int(entry.data.max(initial=0)) + 1
        scores = np.stack([_scores(entry, flat, rng) for _ in range(places)])
        return dataclasses.replace(entry, data=scores.argmax(0).astype(entry.data.dtype))
    on = _scores(entry, flat, rng) > 0
    if entry.kind == "saturation":
        return dataclasses.replace(entry, data=pack(on & False))
    return GateLayer("hard", entry.shape, pack(on))


def _scores(entry: GateLayer, flat: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """On which side of its hyperplane each sample lies, ``(n, positions, channels)``."""
    count, width = int(np.prod(entry.shape)), flat.shape[1]
    most = max(1, _NUMBERS // width)
    cuts = [min(most, count - i * most) for i in range(-(-count // most))]
    parts = [flat @ rng.standard_normal((width, cut), np.float32) for cut in cuts]
    return np.concatenate(parts, 1).reshape(len(flat), -1, entry.shape[0])
