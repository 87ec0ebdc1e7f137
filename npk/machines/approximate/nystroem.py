r"""Nystroem features: the kernel as far as some samples, the landmarks, show it.

.. math:: z(x) = K_{S,S}^{-1/2}\, K_{S}(x), \qquad \langle z(x), z(x') \rangle = K_S(x)^\top K_{S,S}^{-1} K_S(x')

References:
    C. Williams and M. Seeger, *Using the Nystroem method to speed up kernel machines*, NIPS 2001; for
    the choice of landmarks see :mod:`npk.machines.approximate.pivots`.
"""

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npk.choices import BackendName, BiasName, DtypeLike, GatesName, ScaleName, ValueInputName
from npk.machines.approximate.landmarks import KernelEntries, Landmarks
from npk.machines.approximate.pivots import Selection, check_selection, checked_rank
from npk.machines.approximate.transformer import NetworkTransformer
from npk.machines.inputs import Network, Shape
from npk.progress import Progress
from npk.recursion.instruments import Instrument


class NPKNystroem(NetworkTransformer):
    r"""Features whose inner products are the neural path kernel seen from some landmarks.

    Of n samples only n x m entries of the kernel are computed (and those among samples that were
    proposed as landmarks), so that time and memory grow with n, not with its square. Any linear
    model behind it is a kernel machine: ``make_pipeline(NPKNystroem(net, 1000), RidgeClassifier())``.

    Args:
        net: a torch module, or a callable ``net(input_shape)`` that makes one in ``fit``. A copy is
            kept.
        n_components: landmarks, m; fewer are taken where the kernel has no more to show.
        selection: how landmarks are chosen: ``"rpcholesky"`` (at random, in proportion to what the
            landmarks before have left of a sample), ``"random"`` (all samples alike) or
            ``"greedy"`` (the sample that most is left of; one kernel call a landmark).
        random_state: seed of the choice.
        input_shape: shape of one sample, as in :class:`npk.NPKRidge`, like all that follow.
        scale: ``"cosine"``, ``"fan_in"`` or ``"count"``.
        dtype: ``"float32"`` or ``"float64"``: arithmetic of the kernel. Features are float64.
        gates: ``"auto"``, ``"hard"`` or ``"soft"``.
        value_input: ``"auto"``, ``"x"`` or ``"ones"``.
        bias: ``"auto"`` (paths where the network has biases), ``"paths"`` or ``"ignore"``.
        backend: what computes the kernel.
        fixed: names of tensors that are coefficients and no weights.
        of: what is asked of the paths.
        memory: bytes or ``"8GB"``: what the kernel may use; the factor takes n x m float64 more.
        progress: show the kernel's progress, or a Progress to tell it to.

    Attributes:
        component_indices_: the landmarks' numbers among the samples of fit, in the order in which
            they were taken.
        components_: the landmarks, ``(m, *input_shape_)``.
        gates_: gates of the landmarks, a gate table.
        normalization_: :math:`K_{S,S}^{-1/2}`, (m, m).
        residual_trace_: the trace of what the landmarks leave of the kernel of the samples of fit,
            on its scale. It bounds every norm of the error.
        trace_: the trace of the kernel itself.
        input_shape_: shape of one sample.
        net_: the network, a copy; ``transform`` refuses one that has changed since.
        kernel_: the kernel object of ``net_``; not pickled.
        n_features_in_: the product of ``input_shape_``.
    """

    _options = tuple("scale dtype gates value_input bias backend fixed of memory progress".split())

    def __init__(
        self,
        net: Network,
        n_components: int = 100,
        *,
        selection: Selection = "rpcholesky",
        random_state: int | np.random.Generator = 0,
        input_shape: Shape | None = None,
        scale: ScaleName = "cosine",
        dtype: DtypeLike = "float32",
        gates: GatesName = "auto",
        value_input: ValueInputName = "auto",
        bias: BiasName = "auto",
        backend: BackendName = "auto",
        fixed: str | Sequence[str] = (),
        of: str | Instrument = "paths",
        memory: int | str | None = None,
        progress: bool | Progress = False,
    ) -> None:
        self.net = net
        self.n_components = n_components
        self.selection: Selection = selection
        self.random_state = random_state
        self.input_shape = input_shape
        self.scale = scale
        self.dtype = dtype
        self.gates = gates
        self.value_input = value_input
        self.bias = bias
        self.backend = backend
        self.fixed = fixed
        self.of: str | Instrument = of
        self.memory = memory
        self.progress = progress

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Choose landmarks.

        Args:
            X: samples, ``(n, *input_shape)`` or ``(n, features)``.
            y: not looked at.

        Returns:
            The transformer itself.

        Raises:
            ShapeError: X does not fit the input shape.
            OptionError: an option has no such value; told before any kernel is computed.
            DataError: X is refused, or the kernel is zero on all samples.
        """
        self._learn(X)
        return self

    def fit_transform(self, X: ArrayLike, y: object = None, **_: object) -> NDArray:
        """Choose landmarks and give the features of the same samples, without computing any entry
        of the kernel once more; arguments and errors as in :meth:`fit`.

        Args:
            X: samples.
            y: not looked at.

        Returns:
            (n, m), float64: those of :meth:`transform` up to rounding.
        """
        return self._learn(X).features

    def transform(self, X: ArrayLike) -> NDArray:
        """Features of samples.

        Args:
            X: samples, ``(n, *input_shape)`` or ``(n, features)``.

        Returns:
            (n, m), float64.

        Raises:
            NotFittedError: ``fit`` was not called.
            ShapeError: X does not fit the input shape.
            DataError: X is refused, as in ``fit``.
            OptionError: ``net_`` was changed after ``fit``.
        """
        samples = self._samples(X)
        return self.kernel_(samples, self.gates_).astype(np.float64) @ self.normalization_

    def _learn(self, X: ArrayLike) -> Landmarks:
        """The landmarks, and what the samples look like from them."""
        checked_rank(self.n_components, "n_components")
        check_selection(self.selection)
        samples = self._begun(X)
        self.kernel_.keep_promise(samples[:1], samples)
        table = self.kernel_.record(samples)
        entries = KernelEntries(self.kernel_, table)
        found = Landmarks.of(
            entries, self.n_components, selection=self.selection, rng=self.random_state
        )
        self.component_indices_, self.components_ = found.chosen, samples[found.chosen]
        self.gates_ = table.take(found.chosen)
        self.residual_trace_, self.trace_ = found.factor.error, found.factor.total
        self._n_features_out = len(found.chosen)
        self.normalization_ = found.normalization
        return found
