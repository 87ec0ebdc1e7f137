"""From (network, X) to features: what the transformers share."""

from collections.abc import Sequence
from typing import Any, Self

from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted
from torch import nn

from npk.checkpoint.weights import fingerprint
from npk.choices import as_patterns
from npk.errors import OptionError
from npk.gram.kernel import NeuralPathKernel
from npk.machines.inputs import Network, Shape, built, check_picture, flattened, resolved_shape
from npk.machines.validation import validated


class NetworkTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """What is made of the network and of samples; features are the subclass's business."""

    net: Network
    input_shape: Shape | None
    fixed: str | Sequence[str]
    net_: nn.Module
    kernel_: NeuralPathKernel
    _n_features_out: int

    def _options(self) -> dict[str, Any]:
        """Options of the kernel."""
        raise NotImplementedError

    def _begun(self, X: ArrayLike) -> NDArray:
        """Check X, keep a copy of the network and its kernel; give the samples."""
        options = self._options()
        as_patterns(self.fixed)
        NeuralPathKernel(None, **{**options, "fixed": ()})  # refuses options that are wrong
        raw, shape = flattened(X)
        rows = validated(self, raw)
        self.input_shape_ = resolved_shape(self.input_shape, self.net, shape, rows.shape[1])
        self.net_ = built(self.net, self.input_shape_)
        self._as_of_fit = fingerprint(self.net_)
        self.kernel_ = NeuralPathKernel(self.net_, **options)
        return rows.reshape(len(rows), *self.input_shape_)

    def _samples(self, X: ArrayLike) -> NDArray:
        """Samples of the shape that fit has seen."""
        check_is_fitted(self)
        raw, shape = flattened(X)
        rows = validated(self, raw, reset=False)
        check_picture(shape, self.input_shape_)
        if fingerprint(self.net_) != self._as_of_fit:
            raise OptionError(
                "net_ has changed since fit, whose gates are of the network as it was. "
                "Call fit again."
            )
        if not hasattr(self, "kernel_"):  # it was pickled
            self.kernel_ = NeuralPathKernel(self.net_, **self._options())
        return rows.reshape(len(rows), *self.input_shape_)

    def __sklearn_tags__(self) -> Tags:
        """Features have a dtype of their own, whatever that of the samples is."""
        tags = super().__sklearn_tags__()
        assert tags.transformer_tags is not None
        tags.transformer_tags.preserves_dtype = []
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """All but the kernel object, which holds the network once more; it is made again."""
        return {name: value for name, value in super().__getstate__().items() if name != "kernel_"}

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Learn from samples; ``y`` is not looked at."""
        raise NotImplementedError
