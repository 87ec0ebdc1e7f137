"""How far a motion of the input shows at each level of a network: the samples, the gates of each
layer, the kernel, the output.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from npk.checks.groups import Element, Mapped
from npk.gates.recording import place_of
from npk.gates.table import GateTable
from npk.gram.kernel import NeuralPathKernel
from npk.progress import Progress
from npk.results import Curve, Point
from npk.structure.prediction import Prediction
from npk.structure.shifts import flipped
from npk.typed import finite

_ROWS = 512  # moved samples that go through the network at once
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Levels:
    """What was measured, ``(elements, samples)`` each; of gates ``(elements, layers, samples)``,
    NaN where a layer does not move by whole positions.

    ``predicted``: whether structure says that the kernel stays, ``None`` where it does not tell.
    ``why``: what breaks it, where gates from outside do. ``labels``: whether the largest output is
    the same; ``flips``: gates that are not the moved gates.
    """

    predicted: list[bool | None]
    why: list[str]
    input: np.ndarray
    gates: np.ndarray
    kernel: np.ndarray
    logits: np.ndarray
    labels: np.ndarray
    flips: np.ndarray
    outputs: int = 1  # of the network

    @classmethod
    def joined(cls, parts: "Sequence[Levels]") -> "Levels":
        """Those of all elements, from those of some."""
        arrays = ("input", "gates", "kernel", "logits", "labels", "flips")
        return cls(
            predicted=[one for part in parts for one in part.predicted],
            why=[one for part in parts for one in part.why],
            outputs=parts[0].outputs,
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in arrays},
        )


class Measurement:
    """Measures one network on samples.

    Args:
        kernel: of the network, in float64.
        prediction: of its structure.
        X: the samples, ``(n, channels, *grid)``.
    """

    def __init__(self, kernel: NeuralPathKernel, prediction: Prediction, X: np.ndarray) -> None:
        self.kernel, self.prediction, self.X = kernel, prediction, X
        self.table = kernel.record(X)
        self.base, self.root = kernel(self.table, self.table), np.sqrt(kernel.diagonal(self.table))
        self.output = self._output(X)

    def of(self, elements: Sequence[Element], progress: Progress) -> Levels:
        """What all elements do, some of them at a time."""
        some, parts = max(1, _ROWS // len(self.X)), []
        with progress.task("invariance", len(elements)) as advance:
            for batch in np.array_split(np.arange(len(elements)), -(-len(elements) // some)):
                parts.append(self._some([elements[i] for i in batch]))
                advance(len(batch))
        return Levels.joined(parts)

    def _some(self, elements: Sequence[Element]) -> Levels:
        n = len(self.X)
        moved = np.concatenate([element.moved(self.X) for element in elements])
        table = self.kernel.record(moved)
        each = [table.take(slice(i * n, (i + 1) * n)) for i in range(len(elements))]
        told = [self._gates(element, own) for element, own in zip(elements, each, strict=True)]
        output = self._output(moved).reshape(len(elements), n, -1)
        matrix = self.kernel(table, self.table).reshape(len(elements), n, n)
        return Levels(
            [kept for kept, *_ in told],
            [why for _, why, *_ in told],
            _relative(moved.reshape(len(elements), n, -1), self.X.reshape(n, -1)),
            np.array([shares for *_, shares, _ in told]).reshape(len(elements), -1, n),
            _over(np.abs(matrix - self.base), np.outer(self.root, self.root)).max(2),
            _relative(output, self.output),
            output.argmax(2) == self.output.argmax(1),
            np.array([flips for *_, flips in told]),
            output.shape[2],
        )

    def _gates(
        self, element: Element, moved: GateTable
    ) -> tuple[bool | None, str, np.ndarray, np.ndarray]:
        """What structure says, what breaks it, share of each layer that is not moved along, and how
        many gates these are.
        """
        if isinstance(element, Mapped):
            one = np.zeros(1, np.int64)
            grids = {name: self.table.entries[name].shape[1:] for name in self.table.names}
            places = {n: one if np.prod(grid) == 1 else None for n, grid in grids.items()}
            kept, why = None, ""
        else:
            places = self.prediction.places(element)
            kept, why = self.prediction.holds(element, self.table, moved, places)
        shares = np.full((self.table.layers, len(self.X)), np.nan)
        flips = np.zeros(len(self.X), np.int64)
        for number, name in enumerate(self.table.names):
            if (taps := places[name]) is not None:
                differ = flipped(self.table[name], moved[name], taps).reshape(len(self.X), -1)
                shares[number], flips = differ.mean(1), flips + differ.sum(1)
        return kept, why, shares, flips

    def _output(self, X: np.ndarray) -> np.ndarray:
        """What the network itself gives, ``(n, outputs)`` in float64."""
        import torch

        from npk.reading.exporting import output_of

        assert self.kernel.net is not None
        device, dtype = place_of(self.kernel.trace(X.shape[1:]))
        parts = (
            output_of(self.kernel.net, torch.tensor(part, dtype=dtype, device=device))
            for part in np.array_split(X, -(-len(X) // _ROWS))
        )
        return torch.cat([p.detach().double().cpu().reshape(len(p), -1) for p in parts]).numpy()


def _relative(moved: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """``(elements, samples)``: length of the difference, relative to that of what it is."""
    return _over(np.linalg.norm(moved - rest, axis=2), np.linalg.norm(rest, axis=1))


def _over(difference: np.ndarray, unit: np.ndarray) -> np.ndarray:
    unit = np.broadcast_to(unit, difference.shape)
    whole = np.where(difference > 0, np.inf, 0.0)
    return np.divide(difference, unit, out=whole, where=unit > 0)


def curves(levels: Levels, elements: Sequence[Element], layers: Sequence[str]) -> tuple[Curve, ...]:
    """Each level against the distance moved: mean over the samples, with its interval.

    Args:
        levels: what was measured.
        elements: the motions.
        layers: names of the gate layers.

    Returns:
        A curve a level, with a point a whole number of positions; none where nothing has a distance.
    """
    rings = np.round([element.distance for element in elements]).astype(int)
    if not rings.any():
        return ()
    named = {"input": levels.input}
    named |= {f"gates {name}": levels.gates[:, i] for i, name in enumerate(layers)}
    named |= {"kernel": levels.kernel, "output": levels.logits}
    named |= {"same label": levels.labels.astype(float)}
    return tuple(Curve(name, _points(values, rings)) for name, values in named.items())


def _points(values: np.ndarray, rings: np.ndarray) -> tuple[Point, ...]:
    points = []
    for ring in np.unique(rings):
        here = values[rings == ring]
        here = here[np.isfinite(here).all(1)]
        if len(here):
            points.append(Point(int(ring), len(here), *interval(here.mean(0))))
    return tuple(points)


def interval(samples: np.ndarray) -> tuple[float, float, float]:
    """Mean of independent numbers, and the ends of its 95 % interval by Student's t.

    Args:
        samples: at least one number.

    Returns:
        Mean, lower and upper end; all the mean for a single number.
    """
    mean = float(np.mean(samples))
    if len(samples) < 2:
        return mean, mean, mean
    error = float(np.std(samples, ddof=1)) / len(samples) ** 0.5
    reach = float(stats.t.ppf((1 + _CONFIDENCE) / 2, len(samples) - 1)) * error
    return mean, mean - reach, mean + reach


def mean_of(values: np.ndarray) -> float | None:
    """Mean over the samples; ``None`` where it is no number."""
    return finite(float(np.mean(values)))
