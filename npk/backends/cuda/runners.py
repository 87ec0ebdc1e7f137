"""What runs on a tile: the fused product of a chain of dense layers."""

from typing import Any

import numpy as np

from npk.backends.cuda.launcher import Launcher, Masks
from npk.backends.cuda.registry import dense_kernel
from npk.backends.layout import Layout
from npk.backends.product import Product

TILE = 64  # samples on each side of a block


class DenseRunner:
    """A product of overlaps with biases on the way, all of it in one kernel.

    Args:
        product: the product.
        layout: of its masks, in the product's order.
        launcher: of the device.
    """

    def __init__(self, product: Product, layout: Layout, launcher: Launcher) -> None:
        self.product, self.layout, self.launcher = product, layout, launcher
        self.spec = dense_kernel(
            launcher.capability, layout.words, layout.dtype.name, product.is_biased
        )
        factors = [(form, place.start, place.stop - place.start) for form, place in layout.places]
        self.factors = launcher.to_device(np.array(factors, np.int32))

    @property
    def workspace(self) -> int:
        """Bytes of the device that work takes beside masks and result: none."""
        return 0

    def arranged(self, values: Any) -> Any:
        """Masks ``(samples, width)`` of the device, as the kernel reads them: as they are."""
        return values

    def run(self, rows: Masks, cols: Masks, exponents: np.ndarray, left: int, out: Any) -> None:
        """Fill ``out``.

        Args:
            rows: bits and numbers of the row samples, on the device.
            cols: of the column samples.
            exponents: power of two of each step.
            left: number of the first column minus that of the first row; what lies wholly left of
                the diagonal is skipped (give the number of rows to compute all).
            out: ``(rows, cols)`` on the device.
        """
        (n, m), layout = out.shape, self.layout
        blocks = -(-n // TILE) * -(-m // TILE)
        if not blocks:
            return
        product = self.product
        biases = product.constants(exponents) if product.is_biased else np.empty(0)
        numbers = (
            self.launcher.to_device(values.astype(layout.dtype))
            for values in (product.scales(exponents), biases)
        )
        arrays = (rows[0], cols[0], rows[1], cols[1], self.factors, *numbers, out)
        sizes = (
            np.int32(n),
            np.int32(m),
            np.int32(layout.words),
            np.int32(layout.numbers),
            np.int32(len(layout.places)),
        )
        self.launcher.launch(self.spec, blocks, (*arrays, *sizes, np.int64(left)))
