r"""Product sketches: features of a kernel that is a product of overlaps, by one count sketch a layer.

.. math:: K(x, x') = \prod_l f_l\, \langle M_l(x), M_l(x') \rangle

A count sketch adds up the entries of a vector, with random signs, in D random places. The circular
convolution of the sketches of several vectors is the count sketch of their tensor product, and inner
products of tensor products are products of inner products. In Fourier space a convolution is a
product, so all layers together take one transform each and one back.

References:
    N. Pham and R. Pagh, *Fast and scalable polynomial kernels via explicit feature maps*, KDD 2013.
"""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft, sparse
from sklearn.utils import gen_batches

from npk.backends.product import Product, as_product
from npk.choices import BiasName, GatesName, ScaleName, ValueInputName
from npk.errors import UnsupportedGraphError
from npk.gates.table import GateTable
from npk.machines.approximate.pivots import checked_rank
from npk.machines.approximate.transformer import NetworkTransformer
from npk.machines.inputs import Network, Shape
from npk.machines.problem import Floats
from npk.progress import Progress, as_progress
from npk.recursion.masks import Mask, form_real

_BATCH = 1024  # samples


class ProductSketch(NetworkTransformer):
    r"""Features of the kernel of a network of dense layers, whose inner products have it as their
    mean.

    They take n (d + D log D) operations a layer, whatever is in the network: for a product of
    Grams of different layers. Their error grows with the number of layers, since every count sketch
    adds its own; :class:`npk.machines.approximate.path_features.RandomPathFeatures` are for all
    architectures, and nearer for deep ones.

    Args:
        net: a torch module of dense layers, or a callable ``net(input_shape)`` that makes one.
        n_components: features, D.
        random_state: seed of places and signs.
        input_shape: shape of one sample, as in :class:`npk.NPKRidge`, like all that follow.
        scale: ``"cosine"`` (features are divided by the root of the exact K(x, x)), ``"fan_in"`` or
            ``"count"``.
        gates: ``"auto"``, ``"hard"`` or ``"soft"``.
        value_input: ``"auto"``, ``"x"`` or ``"ones"``.
        bias: ``"auto"`` (paths where the network has biases), ``"paths"`` or ``"ignore"``: then constants are sketched beside the products.
        fixed: names of tensors that are coefficients and no weights.
        progress: show progress, or a Progress to tell it to.

    Attributes:
        product_: the masks, with the factor and the constant behind each.
        input_shape_: shape of one sample.
        net_: the network, a copy; ``transform`` refuses one that has changed since.
        kernel_: the kernel object of ``net_``; not pickled.
        n_features_in_: the product of ``input_shape_``.
    """

    _options = tuple("scale gates value_input bias fixed progress".split())

    def __init__(
        self,
        net: Network,
        n_components: int = 1000,
        *,
        random_state: int | np.random.Generator = 0,
        input_shape: Shape | None = None,
        scale: ScaleName = "cosine",
        gates: GatesName = "auto",
        value_input: ValueInputName = "auto",
        bias: BiasName = "auto",
        fixed: str | Sequence[str] = (),
        progress: bool | Progress = False,
    ) -> None:
        self.net = net
        self.n_components = n_components
        self.random_state = random_state
        self.input_shape = input_shape
        self.scale = scale
        self.gates = gates
        self.value_input = value_input
        self.bias = bias
        self.fixed = fixed
        self.progress = progress

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Draw places and signs.

        Args:
            X: samples, ``(n, *input_shape)`` or ``(n, features)``; their shape is all that counts.
            y: not looked at.

        Returns:
            The transformer itself.

        Raises:
            ShapeError: X does not fit the input shape.
            OptionError: an option has no such value.
            DataError: X is refused.
            UnsupportedGraphError: the kernel of the network is no product of overlaps.
        """
        width = checked_rank(self.n_components, "n_components")
        self._begun(X)
        recursion = self.kernel_.engine.paths(self.kernel_.trace(self.input_shape_).graph)
        product = as_product(recursion)
        if product is None:
            raise UnsupportedGraphError(
                "the kernel of this network is no product of overlaps: it has positions, or sums of "
                "branches. Take RandomPathFeatures, which are for all networks."
            )
        self.product_, self.masks_ = product, [recursion.masks[i] for i in product.masks]
        rng = np.random.default_rng(self.random_state)
        self._sketches = [_count_sketch(mask.width, width, rng) for mask in self.masks_]
        self._constants = _count_sketch(len(self.masks_), width, rng)
        self._n_features_out = width
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.float32]:
        """Features of samples.

        Args:
            X: samples, ``(n, *input_shape)`` or ``(n, features)``.

        Returns:
            (n, n_components), float32.

        Raises:
            NotFittedError: ``fit`` was not called.
            ShapeError: X does not fit the input shape.
            DataError: X is refused, as in ``fit``.
            OptionError: ``net_`` was changed after ``fit``.
        """
        samples = self._samples(X)
        features = np.empty((len(samples), self.n_components), np.float32)
        with as_progress(self.progress).task("product sketches", len(samples)) as advance:
            for rows in gen_batches(len(samples), _BATCH):
                features[rows] = self._sketched(self.kernel_.record(samples[rows]))
                advance(rows.stop - rows.start)
        return features

    def _sketched(self, table: GateTable) -> Floats:
        product: Product = self.product_
        waves: Any = 1.0
        for place, (mask, sketch) in enumerate(zip(self.masks_, self._sketches, strict=True)):
            waves = waves * fft.rfft(self._values(mask, table) @ sketch, axis=1)
            waves *= np.sqrt(product.factors[place])
            if product.biases[place]:
                constant = self._constants[[place]].toarray() * np.sqrt(product.biases[place])
                waves = waves + fft.rfft(constant, axis=1)
        features = fft.irfft(waves, self.n_components, axis=1)
        if self.scale != "cosine":
            return features
        exact = self.kernel_.diagonal(table)
        return features / np.sqrt(np.where(exact > 0, exact, 1.0))[:, None]

    @staticmethod
    def _values(mask: Mask, table: GateTable) -> Floats:
        return form_real(mask, table)[:, 0]


def _count_sketch(width: int, places: int, rng: np.random.Generator) -> sparse.csr_array:
    """Each of so many entries goes to one of so many places, with a sign: (width, places)."""
    signs = 2.0 * rng.integers(0, 2, size=width) - 1.0
    where = rng.integers(0, places, size=width)
    return sparse.csr_array((signs, where, np.arange(width + 1)), shape=(width, places))
