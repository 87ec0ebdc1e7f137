"""A network that was learnt from: the copy that is kept, and the samples it takes from then on."""

from collections.abc import Mapping
from typing import Any

from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import nn

from npk.checkpoint.weights import fingerprint
from npk.choices import as_patterns
from npk.errors import OptionError
from npk.gram.kernel import NeuralPathKernel
from npk.machines.inputs import Network, Shape, built, check_picture, flattened
from npk.machines.validation import validated


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse options of a kernel that are wrong, before there is a network.

    Raises:
        OptionError: an option has no such value.
    """
    as_patterns(options["fixed"])
    NeuralPathKernel(None, **{**options, "fixed": ()})


def check_unchanged(net: nn.Module, as_of_fit: str, name: str) -> None:
    """Refuse a network that is not what was learnt from: its gates and coefficients were kept.

    Raises:
        OptionError: it is another one.
    """
    if fingerprint(net) != as_of_fit:
        raise OptionError(
            f"{name} has changed since fit, whose gates and coefficients are of the network as it "
            "was. Call fit again."
        )


class OfNetwork(BaseEstimator):
    """What is kept of a network in ``fit``, and asked again with other samples."""

    input_shape_: Shape
    net_: nn.Module
    kernel_: NeuralPathKernel

    def _keep_network(self, net: Network, options: dict[str, Any]) -> None:
        """Keep a copy of the network, of ``input_shape_``, and its kernel."""
        self.net_ = built(net, self.input_shape_)
        self._kernel_options, self._as_of_fit = options, fingerprint(self.net_)
        self.kernel_ = NeuralPathKernel(self.net_, **options)

    def _samples(self, X: ArrayLike) -> NDArray:
        """Samples of the shape that fit has seen, for a network that is the one it has seen."""
        check_is_fitted(self)
        raw, shape = flattened(X)
        rows = validated(self, raw, reset=False)
        check_picture(shape, self.input_shape_)
        check_unchanged(self.net_, self._as_of_fit, "net_")
        if not hasattr(self, "kernel_"):  # it was pickled
            self.kernel_ = NeuralPathKernel(self.net_, **self._kernel_options)
        return rows.reshape(len(rows), *self.input_shape_)

    def __getstate__(self) -> dict[str, Any]:
        """All but the kernel object, which holds the network once more; it is made again."""
        return {name: value for name, value in super().__getstate__().items() if name != "kernel_"}
