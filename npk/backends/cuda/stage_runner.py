"""What runs on a tile of convolutions with a global pool: the planes of a pair stay on the chip through all layers."""

from typing import Any

import numpy as np

from npk.backends.cuda.launcher import Launcher
from npk.backends.cuda.registry import KERNELS, Specialization, stage_kernel
from npk.backends.cuda.stage import Stage
from npk.backends.layout import Layout

PARTS = 1 << 26  # bytes of the device for the parts of sums that wait to be added up, unless a row of the tile takes more
CHUNK = 4  # words that a fragment holds of each position


def specialized(stage: Stage, layout: Layout, capability: int) -> Specialization | None:
    """How the kernel is made for a stage, or ``None`` where it cannot run: another device or dtype, a grid that does not fit."""
    chunks = max(-(-(place.stop - place.start) // stage.positions // CHUNK) for _, place in layout.places[stage.has_input :])
    return stage_kernel(stage.shape, stage.circular, chunks, [window.numbers for window in stage.windows], layout.dtype.name, capability)


class StageRunner:
    """A stage on one grid.

    Args:
        stage: the stage.
        layout: of its masks, in the order of its product.
        launcher: of the device.
        made: how the kernel is made for it.
    """

    def __init__(self, stage: Stage, layout: Layout, launcher: Launcher, made: Specialization) -> None:
        self.stage, self.layout, self.launcher, self.made = stage, layout, launcher, made
        self.windows = launcher.to_device(np.array([made.windows.index(window.numbers) for window in stage.windows], np.int32))

    @property
    def workspace(self) -> int:
        """Bytes of the device that work takes beside masks and result."""
        return PARTS

    def arranged(self, values: np.ndarray) -> np.ndarray:
        """Masks as the kernel reads them: ``(samples, layers, positions, words)`` with whole chunks of words, and the input's numbers
        ``(samples, positions, channels)``.
        """
        n, positions = len(values), self.stage.positions
        if values.dtype != np.uint32:
            return values if self.stage.has_input else np.ones((n, positions), values.dtype)
        places = [place for _, place in self.layout.places[self.stage.has_input :]]
        words = np.zeros((n, len(places), positions, self.made.chunks * CHUNK), np.uint32)
        for layer, place in enumerate(places):
            width = (place.stop - place.start) // positions
            words[:, layer, :, :width] = values[:, place].reshape(n, positions, width)
        return words

    def run(self, rows: tuple[Any, Any], cols: tuple[Any, Any], exponents: np.ndarray, left: int, out: Any) -> None:
        """Fill ``out``.

        Args:
            rows: bits and numbers of the row samples, arranged, on the device.
            cols: of the column samples.
            exponents: power of two of each step.
            left: number of the first column minus that of the first row; what lies left of the diagonal is skipped (give the number of
                rows to compute all).
            out: ``(rows, cols)`` on the device.
        """
        (n, m), launcher, height = out.shape, self.launcher, self.stage.shape[0]
        if not n * m:
            return
        scales = launcher.to_device(self.stage.product.scales(exponents).astype(np.float32))
        band = min(n, max(1, PARTS // (8 * m * height)))
        parts = launcher.empty((band * m * height,), np.dtype(np.float64))
        numbers, layers = np.int32(self.layout.numbers // self.stage.positions or 1), np.int32(len(self.stage.windows))
        arrays = (rows[0], cols[0], rows[1], cols[1], self.windows, scales, parts)
        for first in range(0, n, band):
            pairs = min(band, n - first) * m
            place = (np.int32(first), np.int32(n), np.int32(m))
            launcher.launch(self.made.spec, pairs * height, (*arrays, *place, numbers, layers, np.int64(left)))
            summing = KERNELS["sums", "any", "float32"]
            launcher.launch(summing, -(-pairs // summing.threads), (parts, out, *place, np.int32(height), np.int64(left)))
