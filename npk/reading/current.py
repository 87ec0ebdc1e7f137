"""The trace of a network as it is now: made anew for a changed network or another shape."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from npk.reading.tracing import Trace


class CurrentTrace:
    """Traces a network when that is needed.

    Args:
        net: a network in eval mode.
        fixed: as in :func:`npk.trace`.
    """

    def __init__(self, net: "torch.nn.Module", fixed: tuple[str, ...] = ()) -> None:
        self.net, self.fixed = net, fixed
        # and the state of the network that it rests on
        self._kept: tuple[Trace, list] | None = None

    def of(self, input_shape: tuple[int, ...]) -> "Trace":
        """The trace for samples of a shape.

        Raises:
            UnsupportedGraphError: the network's paths are not wholly understood.
            ShapeError: it does not take such samples.
        """
        from npk.reading.apart import apart
        from npk.reading.state import state_of
        from npk.reading.tracing import trace_network

        if self._kept is not None:
            trace, state = self._kept
            if trace.graph.input_shape == input_shape and apart(
                lambda: trace.holds() and state == state_of(self.net)
            ):
                return trace
        trace = trace_network(self.net, input_shape, self.fixed)
        # behind the trace: a network may keep what its forward made
        self._kept = trace, apart(state_of, self.net)
        return trace
