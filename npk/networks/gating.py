"""Gates: the custom operator ``npk::gate`` that tracing keeps whole, and the module around it."""

import torch
from torch import Tensor, nn

from npk.tie import is_on


@torch.library.custom_op("npk::gate", mutates_args=())
def gate(q: Tensor, hard: bool, beta: float, epsilon: float) -> Tensor:
    r"""Gate of a pre-activation: how much of it passes.

    .. math:: \text{hard: } 1[q > 0], \qquad \text{soft: } (1 + \varepsilon)\, \sigma(\beta q)

    A tie q = 0 is off. A hard gate has zero gradient.

    Args:
        q: pre-activations, any shape.
        hard: hard gates, else soft ones.
        beta: steepness of a soft gate; a hard gate ignores it.
        epsilon: how far a soft gate may exceed 1; a hard gate ignores it.

    Returns:
        The gates: shape, dtype and device of ``q``.
    """
    return is_on(q).to(q.dtype) if hard else (1 + epsilon) * torch.sigmoid(beta * q)


@gate.register_fake
def _(q: Tensor, hard: bool, beta: float, epsilon: float) -> Tensor:
    return torch.empty_like(q)


@gate.register_vmap
def _(info, in_dims, q: Tensor, hard: bool, beta: float, epsilon: float):
    return gate(q, hard, beta, epsilon), in_dims[0]


def _save(ctx, inputs, output) -> None:
    q, ctx.hard, ctx.beta, ctx.epsilon = inputs
    ctx.save_for_backward(q)


def _backward(ctx, gradient: Tensor):
    (q,) = ctx.saved_tensors
    if ctx.hard:
        return torch.zeros_like(q), None, None, None
    s = torch.sigmoid(ctx.beta * q)
    return gradient * ((1 + ctx.epsilon) * ctx.beta * s * (1 - s)), None, None, None


gate.register_autograd(_backward, setup_context=_save)


class Gate(nn.Module):
    """``npk::gate`` with its options, as a module.

    Args:
        hard: hard gates, else soft ones.
        beta: steepness of a soft gate.
        epsilon: how far a soft gate may exceed 1.
    """

    def __init__(self, hard: bool, beta: float = 4.0, epsilon: float = 0.0):
        super().__init__()
        self.hard, self.beta, self.epsilon = bool(hard), float(beta), float(epsilon)

    def forward(self, q: Tensor) -> Tensor:
        """The gates of the pre-activations ``q``, of the same shape."""
        return gate(q, self.hard, self.beta, self.epsilon)

    def extra_repr(self) -> str:
        """What ``print`` shows between the parentheses."""
        return "hard" if self.hard else f"soft, beta={self.beta:g}, epsilon={self.epsilon:g}"
