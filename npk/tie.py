"""The tie rule, written nowhere else: a gate is on where its pre-activation is greater than 0."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch


def is_on(preactivation: "np.ndarray | torch.Tensor") -> Any:
    """The tie rule: a gate is on where q > 0; q = 0 is off."""
    return preactivation > 0
