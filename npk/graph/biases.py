"""What is taken of a network's biases: paths that start at them, or nothing."""

from npk.choices import chosen
from npk.graph.path_graph import PathGraph


def settled_bias(bias: str, graph: PathGraph) -> str:
    r"""What the option takes of a network: the one place where "auto" becomes one of the two.

    Args:
        bias: "auto" (paths where there are biases, shifts or constants of the network, since
            :math:`f = \langle \phi, v \rangle` holds only with them; else nothing is there to be
            added), "ignore" or "paths".
        graph: of the network.

    Returns:
        "ignore" or "paths".

    Raises:
        OptionError: another value.
    """
    if chosen("bias", bias) != "auto":
        return bias
    return "paths" if any(node.operator.begins for node in graph.nodes) else "ignore"
