r"""Depth spectrum: how much of K(x, x) comes from sub-networks of each number of layers.

.. math:: K(x, x) = \sum_L K_L(x, x)

in one pass: the recursion with a copy for each degree (:mod:`npk.recursion.instruments`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from npk.choices import BackendName, BiasName, GatesName, ScaleName, ValueInputName, bias_choice
from npk.gram.engine import Engine
from npk.gram.kernel import NeuralPathKernel
from npk.gram.options import KernelOptions, Promise
from npk.progress import Progress, as_progress
from npk.recursion.degrees import depths
from npk.recursion.instruments import Depths
from npk.results import DepthShares
from npk.shown import Shown

if TYPE_CHECKING:
    import torch


Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class DepthSpectrum(Shown):
    """What :func:`depth_spectrum` found; ``print`` shows it as a table.

    ``depths (D,)``: the numbers of layers that paths pass, ascending. ``shares (n, D)``:
    K_L(x, x) / K(x, x) of each sample; 0 for a sample without any active path. ``kernel (n,)``:
    K(x, x), on the scale ``scale``.
    """

    network: str
    scale: str
    bias: str
    depths: NDArray[np.int64]
    shares: Floats
    kernel: Floats

    @property
    def live(self) -> NDArray[np.bool_]:
        """Whether a sample has an active path, ``(n,)``."""
        return self.kernel > 0

    @property
    def mean(self) -> Floats:
        """Mean share of each depth over the samples that have an active path, ``(D,)``."""
        return self.shares[self.live].mean(0) if self.live.any() else np.zeros(len(self.depths))

    @property
    def path_length(self) -> Floats:
        """Mean number of layers of a path of each sample, ``(n,)``: tangent kernel over kernel;
        NaN for a sample without any active path.
        """
        return np.where(self.live, self.shares @ self.depths, np.nan)

    def between(self, least: int, most: int) -> Floats:
        """Share of the depths from ``least`` to ``most`` of each sample, ``(n,)``."""
        return self.shares[:, (self.depths >= least) & (self.depths <= most)].sum(1)

    def to_json(self) -> str:
        """The spectrum as JSON text; :meth:`from_json` gives it back."""
        return self.result().to_json()

    def save(self, path: str | Path) -> None:
        """Write the JSON file whole or not at all."""
        self.result().save(path)

    def result(self) -> DepthShares:
        """The spectrum as plain values, as a file has it."""
        shares = tuple(map(tuple, self.shares.tolist()))
        numbers = tuple(self.depths.tolist()), shares, tuple(self.kernel.tolist())
        return DepthShares(self.network, self.scale, self.bias, *numbers)

    @classmethod
    def from_json(cls, text: str) -> "DepthSpectrum":
        """The spectrum that :meth:`to_json` wrote.

        Raises:
            StoreError: the text is none that it wrote.
        """
        return cls._of(DepthShares.from_json(text))

    @classmethod
    def load(cls, path: str | Path) -> "DepthSpectrum":
        """Read a file that :meth:`save` wrote.

        Raises:
            StoreError: no such file, or not a depth spectrum.
        """
        return cls._of(DepthShares.load(path))

    @classmethod
    def _of(cls, found: DepthShares) -> "DepthSpectrum":
        shares = np.array(found.shares, np.float64).reshape(len(found.kernel), len(found.depths))
        kernel = np.array(found.kernel, np.float64)
        return cls(found.network, found.scale, found.bias, np.array(found.depths), shares, kernel)

    def __str__(self) -> str:
        spread = self.shares[self.live].std(0) if self.live.any() else 0 * self.mean
        rows = zip(self.depths.tolist(), self.mean, spread, strict=True)
        dead = int((~self.live).sum())
        left_out = f", {dead} without any active path left out" if dead else ""
        length = self.path_length[self.live]
        mean = f"mean number of layers of a path {length.mean():.4g}" if len(length) else "no path"
        return "\n".join(
            [
                f"{self.network}: shares of K(x, x) by layers, {len(self.kernel)} samples{left_out}; "
                f"{bias_choice(self.bias)}",
                "layers  mean share  s.d. over samples",
                *(f"{depth:6}  {share:10.3e}  {error:17.1e}" for depth, share, error in rows),
                mean,
            ]
        )


def depth_spectrum(
    net: "torch.nn.Module | None",
    X: Any,
    *,
    scale: ScaleName = "fan_in",
    gates: GatesName = "auto",
    value_input: ValueInputName = "auto",
    bias: BiasName = "auto",
    backend: BackendName = "auto",
    memory: int | str | None = None,
    progress: bool | Progress = False,
    name: str = "network",
) -> DepthSpectrum:
    r"""The share of K(x, x) that comes from paths of each number of layers, in one pass.

    .. math:: K_L(x, x) / K(x, x), \qquad K = \sum_L K_L

    A layer is linear or convolutional. Every share keeps its own relative accuracy, in float64: none
    is a difference of others.

    Args:
        net: a network in eval mode; ``None`` where X is a gate table.
        X: samples ``(n, *input_shape)``, or their gate table.
        scale: "fan_in" or "count": how the paths of different length are weighed. "cosine" is that
            of "fan_in".
        gates: "hard", "soft" or "auto".
        value_input: "x", "ones" or "auto".
        bias: "auto" (paths where the network has biases), "paths" (a path from the bias of a layer
            has passed that layer) or "ignore".
        backend: "reference", "cpu", "cuda" or "auto".
        memory: bytes for gates and working memory.
        progress: ``True`` for a bar, or a :class:`npk.progress.Progress`.
        name: what figures and text call the network.

    Returns:
        Depths and shares; the mean number of layers of a path is their product.

    Raises:
        DataError: no samples, or samples that are not finite.
        OptionError: an option with another value.
        UnsupportedGraphError: the network's paths are not wholly understood.
    """
    options = KernelOptions(scale, "float64", gates, value_input, bias, backend)
    engine = Engine(options, Promise(memory), as_progress(progress), Depths())
    kernel = NeuralPathKernel.of(net, engine)
    table = kernel.record(X)
    known = np.array(depths(engine.paths(table.graph)), np.int64)
    shares = kernel.diagonal(table).reshape(len(known), len(table)).T
    total = shares.sum(1)
    shares = np.divide(shares, total[:, None], out=np.zeros_like(shares), where=total[:, None] > 0)
    return DepthSpectrum(
        name, options.scale, options.settled(table.graph).bias, known, shares, total
    )
