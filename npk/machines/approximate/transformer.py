"""From (network, X) to features: what the transformers share."""

from typing import ClassVar, Self

from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags

from npk.machines.inputs import Network, Shape, flattened, resolved_shape
from npk.machines.of_network import OfNetwork, check_options
from npk.machines.validation import validated


class NetworkTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, OfNetwork):
    """What is made of the network and of samples; features are the subclass's business."""

    net: Network
    input_shape: Shape | None
    _options: ClassVar[tuple[str, ...]]  # names of those of the kernel
    _n_features_out: int

    def _begun(self, X: ArrayLike) -> NDArray:
        """Check X, keep a copy of the network and its kernel; give the samples."""
        options = {name: getattr(self, name) for name in self._options}
        check_options(options)
        raw, shape = flattened(X)
        rows = validated(self, raw)
        self.input_shape_ = resolved_shape(self.input_shape, self.net, shape, rows.shape[1])
        self._keep_network(self.net, options)
        return rows.reshape(len(rows), *self.input_shape_)

    def __sklearn_tags__(self) -> Tags:
        """Features have a dtype of their own, whatever that of the samples is."""
        tags = super().__sklearn_tags__()
        assert tags.transformer_tags is not None
        tags.transformer_tags.preserves_dtype = []
        return tags

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Learn from samples; ``y`` is not looked at."""
        raise NotImplementedError
