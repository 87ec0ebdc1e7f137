r"""Random path features: random value networks under the frozen gates of the samples.

.. math:: E[\,z(x)^\top z(x')\,] = K(x, x')

Features cost passes through networks, so time grows with n, and what is held beside the result does
not depend on n. They are unbiased for every architecture, and noisy: the error falls with the root of
the number of networks.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import gen_batches

from npk.choices import BiasName, GatesName, ScaleName, ValueInputName
from npk.errors import OptionError
from npk.gates.table import GateTable
from npk.machines.approximate.draws import Draws
from npk.machines.approximate.pivots import checked_rank
from npk.machines.approximate.transformer import NetworkTransformer
from npk.machines.inputs import Network, Shape
from npk.machines.problem import Floats
from npk.progress import Progress, as_progress

_BYTES = 1 << 26  # of values in the widest layer, for the samples that run together
_MOST = 2048  # of them: more fill no vector better


@dataclasses.dataclass(frozen=True, eq=False)
class KernelEstimate:
    """The kernel of some samples as random value networks see it, and how far that is from it."""

    values: Floats  # (n, m)
    error: Floats  # (n, m): jackknife standard error of each entry over the networks
    networks: int


class RandomPathFeatures(NetworkTransformer):
    r"""Features whose inner products have the neural path kernel as their mean.

    ``fit`` draws weights of random sign and looks at nothing of X but its shape. ``transform`` runs
    batches of samples through all networks under the samples' own gates; :meth:`batches` gives the
    features of one batch after the other, so that the features of all samples are never held.

    Args:
        net: a torch module, or a callable ``net(input_shape)`` that makes one in ``fit``. A copy is
            kept.
        n_components: features.
        per_network: features of a network at most. Where the last layer is linear a network gives a
            feature for each unit behind it, for hardly more than it takes to give one; fewer are
            mixed from them at random. ``None``: as many as there are, if that leaves 16 networks.
        random_state: seed of the weights.
        input_shape: shape of one sample, as in :class:`npk.NPKRidge`, like all that follow.
        scale: ``"cosine"`` (features are divided by the root of the exact K(x, x)), ``"fan_in"`` or
            ``"count"``.
        gates: ``"auto"``, ``"hard"`` or ``"soft"``.
        value_input: ``"auto"``, ``"x"`` or ``"ones"``.
        bias: ``"auto"`` (paths where the network has biases), ``"paths"`` or ``"ignore"``.
        fixed: names of tensors that are coefficients and no weights.
        progress: show progress, or a Progress to tell it to.

    Attributes:
        draws_: the random value networks.
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
        per_network: int | None = None,
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
        self.per_network = per_network
        self.random_state = random_state
        self.input_shape = input_shape
        self.scale = scale
        self.gates = gates
        self.value_input = value_input
        self.bias = bias
        self.fixed = fixed
        self.progress = progress

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Draw the networks.

        Args:
            X: samples, ``(n, *input_shape)`` or ``(n, features)``; their shape is all that counts.
            y: not looked at.

        Returns:
            The transformer itself.

        Raises:
            ShapeError: X does not fit the input shape.
            OptionError: an option has no such value.
            DataError: X is refused.
        """
        checked_rank(self.n_components, "n_components")
        if self.per_network is not None:
            checked_rank(self.per_network, "per_network")
        self._begun(X)
        graph = self.kernel_.trace(self.input_shape_).graph
        self.draws_ = Draws(
            graph,
            self.n_components,
            scale="count" if self.scale == "count" else "fan_in",
            bias=self.kernel_.options.settled(graph).bias == "paths",
            rng=np.random.default_rng(self.random_state),
            per_network=self.per_network,
        )
        self._n_features_out = self.n_components
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
        for rows, values in self._batches(samples):
            features[rows] = values
        return features

    def batches(self, X: ArrayLike) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Features of one batch of samples after the other.

        Args:
            X: as in :meth:`transform`, with the same errors.

        Returns:
            Pairs: which rows, and their features.
        """
        return self._batches(self._samples(X))

    def estimate(self, X: ArrayLike, Y: ArrayLike | None = None) -> KernelEstimate:
        r"""The kernel of few samples, with the error of every entry.

        .. math:: \hat K = \sum_r w_r z_r z_r^\top, \qquad
           \text{error}^2 = \frac{R}{R - 1} \sum_r w_r^2 (z_r z_r^\top - \hat K)^2

        over R networks with weights w (their parts of the features): the jackknife's.

        Args:
            X: n samples.
            Y: m samples; ``None``: X.

        Returns:
            The estimate. Networks are independent of everything that computes the kernel, so this
            tests it; products of deep and narrow networks have heavy tails, which no error shows.

        Raises:
            OptionError: a single network has no error. Give more components or fewer per_network.
        """
        rows = self.kernel_.record(self._samples(X))
        cols = rows if Y is None else self.kernel_.record(self._samples(Y))
        R = len(self.draws_)
        if R < 2:
            raise OptionError(
                f"{self.n_components} components come from one network, whose error cannot be told. "
                "Give a smaller per_network, or more components."
            )
        once, twice, squares = np.zeros((3, len(rows), len(cols)))
        others = itertools.repeat(None, R) if Y is None else self._columns(cols)
        for share, left, other in zip(self.draws_.shares, self._columns(rows), others, strict=True):
            right = left if other is None else other
            product = share * (left.astype(np.float64) @ right.T.astype(np.float64)) / left.shape[1]
            once += product
            twice += share * product
            squares += product * product
        spread = squares - 2 * once * twice + once**2 * np.square(self.draws_.shares).sum()
        error = np.sqrt(np.maximum(spread, 0.0) * R / (R - 1))
        sizes = np.outer(self._divisors(rows), self._divisors(cols))
        return KernelEstimate(once / sizes, error / sizes, R)

    def _batches(self, samples: NDArray) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        widest = max(math.prod(node.shape) for node in self.draws_.graph.nodes)
        size = min(_MOST, max(1, _BYTES // (4 * widest)))
        with as_progress(self.progress).task("path features", len(samples)) as advance:
            for rows in gen_batches(len(samples), size):
                yield rows, self._features(samples[rows])
                advance(rows.stop - rows.start)

    def _features(self, samples: NDArray) -> NDArray[np.float32]:
        """Of one batch: the columns of all networks, each network with its part of the mean."""
        table = self.kernel_.record(samples)
        features = np.concatenate(list(self._columns(table)), axis=1)
        features /= self._divisors(table)[:, None] * np.float32(math.sqrt(self.n_components))
        return features

    def _columns(self, table: GateTable) -> Iterator[NDArray[np.float32]]:
        """Network by network."""
        return self.draws_.columns(table, self.value_input)

    def _divisors(self, table: GateTable) -> NDArray[np.float32]:
        """The root of K(x, x) on the scale "cosine", else ones; ones for dead samples too."""
        if self.scale != "cosine":
            return np.ones(len(table), np.float32)
        exact = self.kernel_.diagonal(table)
        return np.sqrt(np.where(exact > 0, exact, 1.0)).astype(np.float32)
