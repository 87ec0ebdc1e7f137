"""Values stacked before the samples' axis and reduced over it, as ensembles do: behind it."""

import torch
from torch import fx

_REDUCTIONS = (torch.ops.aten.mean.dim, torch.ops.aten.sum.dim_IntList, torch.ops.aten.amax.default)


def stack_behind_samples(graph: fx.Graph) -> None:
    """Rewrite ``torch.stack([a, b]).mean(0)`` as ``torch.stack([a, b], 1).mean(1)``, whose samples
    are on the first axis all along.

    Args:
        graph: of an exported program, changed in place.
    """
    for node in graph.nodes:
        if (
            node.target is torch.ops.aten.stack.default
            and node.meta["val"].dim() > 1
            and _is_first(node, list(node.args[1:2]) or [0])
        ):
            if all(_reduces_stack(user) for user in node.users):
                node.args = (node.args[0], 1)
                node.meta["val"] = node.meta["val"].movedim(0, 1)
                for user in list(node.users):
                    user.args = (node, [1], *user.args[2:])


def _reduces_stack(user: fx.Node) -> bool:
    dims, keeps = user.args[1:2], (*user.args[2:3], user.kwargs.get("keepdim", False))[0]
    return (
        user.target in _REDUCTIONS
        and bool(dims)
        and not keeps
        and _is_first(user.all_input_nodes[0], dims[0])
    )


def _is_first(of: fx.Node, dims: object) -> bool:
    """Whether dimensions of a value are its first alone."""
    given = dims if isinstance(dims, list | tuple) else [dims]
    return [dim % of.meta["val"].dim() for dim in given if isinstance(dim, int)] == [0] and len(
        given
    ) == 1
