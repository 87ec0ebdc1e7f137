"""Samples that a page shows: what a kernel finds alike, and what a machine gets wrong."""

import base64
from collections.abc import Sequence

import numpy as np

from npk.results import Mistake, Neighbors, Picture
from npk.studies.draws import Draws
from npk.studies.kernels import State
from npk.studies.scores import Score

_ASKED, _NEAR, _WRONG = 4, 6, 8
_SIDE = 48  # of a picture, in pixels, at most


class Album:
    """The pictures of a page, each once."""

    def __init__(self, draws: Draws) -> None:
        self.draws = draws
        self.pictures: dict[int, Picture] = {}
        both = [part.X.reshape(-1) for part in (draws.fresh, draws.test)]
        self.low = min(float(values.min()) for values in both)
        self.high = max(float(values.max()) for values in both)

    @property
    def possible(self) -> bool:
        """Whether the samples are pictures, gray or in three colors."""
        shape = self.draws.fresh.X.shape[1:]
        return len(shape) == 3 and shape[0] in (1, 3) and min(shape[1:]) > 1

    def add(self, test: bool, row: int) -> int:
        """A sample.

        Args:
            test: of the test samples, else of the fresh ones.
            row: its number among them.

        Returns:
            The number of its picture.
        """
        part = self.draws.test if test else self.draws.fresh
        number = row + test * len(self.draws.fresh)
        if number not in self.pictures:
            values = np.moveaxis(part.X[row], 0, -1)
            step = -(-max(values.shape[:2]) // _SIDE)
            values = values[::step, ::step]
            values = values[..., 0] if values.shape[-1] == 1 else values
            scaled = (values - self.low) / max(self.high - self.low, np.finfo(float).tiny)
            pixels = base64.b64encode(np.round(255 * scaled).astype(np.uint8).tobytes()).decode()
            label = -1 if part.y is None else int(part.y[row])
            self.pictures[number] = Picture(number, tuple(values.shape), pixels, label)
        return number

    def neighbors(
        self, network: str, gates: str, state: State, order: np.ndarray
    ) -> list[Neighbors]:
        """What a kernel finds most like some test samples, one of each of the first classes.

        Args:
            network: its name.
            gates: "trained" or "untrained".
            state: of one draw.
            order: numbers of the draw's samples.

        Returns:
            A row a test sample.
        """
        found = []
        for row in self.asked():
            near = np.argsort(-state.cross[row], kind="stable")[:_NEAR]
            found.append(
                Neighbors(
                    network,
                    gates,  # type: ignore[arg-type]
                    self.add(True, row),
                    tuple(self.add(False, int(order[i])) for i in near),
                    tuple(round(float(state.cross[row, i]), 3) for i in near),
                )
            )
        return found

    def asked(self) -> list[int]:
        """Numbers of the test samples whose neighbors are shown."""
        y = self.draws.test.y
        if y is None:
            return list(range(min(_ASKED, len(self.draws.test))))
        classes = np.unique(y)
        chosen = classes[np.linspace(0, len(classes) - 1, min(_ASKED, len(classes))).astype(int)]
        return [int(np.flatnonzero(y == c)[0]) for c in chosen]

    def mistakes(self, score: Score, own: np.ndarray | None) -> list[Mistake]:
        """Test samples that a machine gets wrong.

        Args:
            score: of the machine.
            own: classes that the network itself gives the test samples.

        Returns:
            The first ones.
        """
        wrong: Sequence[int] = np.flatnonzero(~score.right[0])[:_WRONG].tolist()
        return [
            Mistake(
                score.network,
                self.add(True, row),
                int(score.said[row]),
                -1 if own is None else int(own[row]),
            )
            for row in wrong
        ]
