"""A network becomes a PathGraph: traced by ``torch.export``, read operator by operator, refused where not wholly understood.

The exported graph is functional (in-place and re-used ReLUs are plain calls) and still high-level (a circular pad stays one node).
Paths are found from the output backwards: linear operators carry them, ``relu(q)`` is a gate on q, ``mul(h, g)`` with g out of a
gate operator is an external gate.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from torch import fx

from npk.dual.operators import ONES, RULES, is_gate, module_of, name_of, shape_of, source_of
from npk.dual.path_graph import Operator, PathGraph, PathNode
from npk.dual.positions import Window
from npk.errors import ShapeError, UnsupportedGraphError


@dataclass(frozen=True)
class Recording:
    """How one entry of the gate table is read off a run of the traced program.

    ``rule``: "positive" (the node's value is a pre-activation; on where > 0), "value" (the value is a real gate), "selection" (arg-max
    of ``window``).
    ``hard``: "positive" read at this node gives the hard form of a soft gate.
    """

    gate: str
    node: str
    rule: str
    shape: tuple[int, ...]
    window: Window | None = None
    hard: str | None = None


@dataclass(frozen=True)
class Trace:
    """A traced network: its path graph, the program that runs it, and what to record of a run."""

    graph: PathGraph
    program: fx.GraphModule
    recordings: tuple[Recording, ...]


def trace(net: torch.nn.Module, input_shape: tuple[int, ...]) -> PathGraph:
    """Read the path graph of a network.

    Args:
        net: a network in eval mode.
        input_shape: shape of one sample, without the batch axis.

    Returns:
        The graph; ``print`` shows it as a table.

    Raises:
        UnsupportedGraphError: a node that npk does not wholly understand, by name, source line, and what would make it acceptable.
        ShapeError: the network does not accept samples of that shape.
    """
    return trace_network(net, input_shape).graph


def trace_network(net: torch.nn.Module, input_shape: tuple[int, ...]) -> Trace:
    """As :func:`trace`, with the program and the recordings that a gate table needs."""
    program = _export(net, tuple(input_shape))
    return Reader(program, tuple(input_shape)).read()


def _export(net: torch.nn.Module, input_shape: tuple[int, ...]) -> fx.GraphModule:
    tensor = next(iter([*net.parameters(), *net.buffers()]), torch.zeros(()))
    dtype = tensor.dtype if tensor.dtype.is_floating_point else torch.float32
    example = torch.zeros((2, *input_shape), dtype=dtype, device=tensor.device)  # a batch of 1 would be taken for a constant
    _try_forward(net, example, input_shape)
    try:
        with _quiet():
            exported = torch.export.export(net, (example,), dynamic_shapes=({0: torch.export.Dim("n", min=1)},))
            return exported.run_decompositions({}).module(check_guards=False)
    except Exception as error:  # torch.export raises many kinds; the cause is kept
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UnsupportedGraphError(
            f"torch.export cannot trace {type(net).__name__}: {reason} Its control flow must not depend on the data or on the batch size."
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's warnings, log and dumps of graphs: what matters of them is in our own error."""
    before = logging.root.manager.disable
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(before)


def _try_forward(net: torch.nn.Module, example: torch.Tensor, input_shape: tuple[int, ...]) -> None:
    """Tell a wrong input shape from a network that cannot be traced. Dropout and batch norm are not disturbed: gradients and state stay."""
    if any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) and m.training for m in net.modules()):
        raise UnsupportedGraphError(
            f"{type(net).__name__} has batch norm in train mode, whose statistics depend on the batch. Call net.eval() first."
        )
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            net(example)
    except (RuntimeError, ValueError, IndexError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ShapeError(
            f"{type(net).__name__} does not accept samples of shape {input_shape}: {reason}. Give X the shape the network was made for."
        ) from error


@dataclass
class Reader:
    """Walks the value part of the exported graph from the output backwards, then reads it forwards."""

    program: fx.GraphModule
    input_shape: tuple[int, ...]
    nodes: dict[str, PathNode] = field(default_factory=dict)
    recordings: list[Recording] = field(default_factory=list)

    def read(self) -> Trace:
        """The trace of the whole program."""
        output = next(node for node in self.program.graph.nodes if node.op == "output")
        results = output.args[0]
        if len(results) != 1:
            raise UnsupportedGraphError(
                f"the network returns {len(results)} values; npk reads one. Wrap it so that it returns a single tensor."
            )
        last = self.value(results[0])
        order = _reachable(self.nodes, last)
        return Trace(PathGraph(tuple(order), self.input_shape), self.program, tuple(self.recordings))

    def value(self, start: fx.Node) -> PathNode:
        """The path node that carries what ``start`` computes; iterative, for deep networks."""
        carried: dict[fx.Node, PathNode] = {}
        stack = [start]
        while stack:
            node = stack[-1]
            missing = [a for a in self._carriers(node) if a not in carried]
            if node not in carried and not missing:
                carried[node] = self._read(node, [carried[a] for a in self._carriers(node)])
            stack = stack + missing if missing else stack[:-1]
        return carried[start]

    def _carriers(self, node: fx.Node) -> list[fx.Node]:
        """The arguments of a node that carry paths."""
        if node.op == "placeholder":
            return []
        name = name_of(node)
        if name in ("add", "add_"):
            return [a for a in node.args[:2] if isinstance(a, fx.Node)]
        if name == "mul":
            return [a for a in node.args if isinstance(a, fx.Node) and not is_gate(a)][:1]
        if name in ONES:
            return []
        first = node.args[0] if node.args else None
        return [first] if isinstance(first, fx.Node) else []

    def _read(self, node: fx.Node, inputs: list[PathNode]) -> PathNode:
        rule = RULES.get("input" if node.op == "placeholder" else name_of(node))
        if rule is None:
            self.refuse(
                node,
                f"npk knows no paths through {name_of(node)}",
                "Replace it by one of the operators that the guide to checkpoints lists",
            )
        return rule(self, node, inputs)

    def add(self, node: fx.Node, operator: Operator, inputs: list[PathNode], shape: tuple[int, ...] | None = None) -> PathNode:
        """Add a node to the path graph; its shape is that of the value unless given."""
        made = PathNode(node.name, operator, tuple(i.name for i in inputs), shape or shape_of(node), source_of(node))
        self.nodes[made.name] = made
        return made

    def record(self, node: fx.Node, seen: fx.Node, rule: str, shape: tuple[int, ...], **more: Any) -> str:
        """Have an entry of the gate table recorded at ``seen``, and give its name: that of the module, where it is not taken."""
        name = module_of(node) or node.name
        taken = {r.gate for r in self.recordings}
        name = name if name not in taken else f"{name}:{node.name}"
        self.recordings.append(Recording(name, seen.name, rule, shape, **more))
        return name

    def argument(self, node: fx.Node) -> fx.Node:
        """The first argument of a node, which must be a value that the network computes."""
        first = node.args[0] if node.args else None
        if not isinstance(first, fx.Node):
            self.refuse(node, "its first argument is a constant", "Give it a value that the network computes")
        return first

    def refuse(self, node: fx.Node, what: str, remedy: str) -> NoReturn:
        """Raise the error that names the node, its module and its source line."""
        module = f" in module {module_of(node)!r}" if module_of(node) else ""
        raise UnsupportedGraphError(f"node {node.name}{module} ({source_of(node)}): {what}. {remedy}.")

    def parameter(self, node: fx.Node, argument: object) -> str:
        """Name of a parameter or buffer; a tensor with two names goes by the first, so that sharing is seen."""
        if not isinstance(argument, fx.Node) or argument.op != "get_attr":
            self.refuse(node, "its weight is computed, not a parameter of the network", "Fold the computation into the parameter first")
        tensor = self.tensor(str(argument.target))
        same = (n for n in self.program.graph.nodes if n.op == "get_attr" and self.tensor(str(n.target)) is tensor)
        return str(next(same).target)

    def tensor(self, target: str) -> torch.Tensor:
        """The parameter or buffer behind a get_attr node."""
        found: Any = self.program
        for part in target.split("."):
            found = getattr(found, part)
        return found


def _reachable(nodes: dict[str, PathNode], last: PathNode) -> list[PathNode]:
    """The nodes that lead to the output, in order."""
    used, stack = set(), [last.name]
    while stack:
        name = stack.pop()
        if name not in used:
            used.add(name)
            stack += nodes[name].inputs
    return [node for node in nodes.values() if node.name in used]
