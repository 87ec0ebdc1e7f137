"""A network becomes a program of ``torch.export``: copies of its modules are run once and traced,
in a thread of its own.

The caller's network, its buffers and hooks, and what its ``forward`` keeps stay as they are.
"""

import functools
import traceback
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from npk.errors import NpkError, UnsupportedGraphError
from npk.networks.copies import copied
from npk.networks.given import as_network, as_shape, only_tensor
from npk.reading import apart, causes
from npk.reading.exported import is_users, place, source_of
from npk.reading.hooks import Hooks, not_called_here
from npk.reading.stacked import stack_behind_samples


def program_of(net: nn.Module, input_shape: tuple[int, ...]) -> fx.GraphModule:
    """The network as a functional graph for any number of samples.

    Args:
        net: a network in eval mode.
        input_shape: shape of one sample.

    Returns:
        The program, with the very parameters and buffers of the network, by their names. It gives
        one tensor, and changes no buffer.

    Raises:
        OptionError: no torch module, or no shape.
        ShapeError: the network does not accept samples of that shape.
        UnsupportedGraphError: ``torch.export`` cannot trace it.
    """
    net, input_shape = as_network(net), as_shape(input_shape)
    if why := causes.of_inputs(net):
        raise UnsupportedGraphError(why)
    if any(
        isinstance(m, torch.nn.modules.batchnorm._BatchNorm) and m.training for m in net.modules()
    ):
        raise UnsupportedGraphError(
            f"{type(net).__name__} has batch norm in train mode, whose statistics depend on the "
            f"batch. Call net.eval() first."
        )
    return apart.apart(_program, net, input_shape)


def _program(net: nn.Module, input_shape: tuple[int, ...]) -> fx.GraphModule:
    tensor = next(iter([*net.parameters(), *net.buffers()]), torch.zeros((), dtype=torch.float32))
    dtype = tensor.dtype if tensor.dtype.is_floating_point else torch.float32
    # a batch of 1 would be taken for a constant
    example = torch.zeros((2, *input_shape), dtype=dtype, device=tensor.device)
    with apart.alone_with_torch():
        trial, traced = _with_own_tensors(net), _without_inference(copied(net))
        hooks, same = Hooks(trial), Hooks(traced)
        in_place = _works_in_place(net, trial, example)
        anew = functools.partial(_with_own_tensors, net)
        hooks.leave_out_lookers(
            trial,
            anew,
            torch.rand(example.shape, generator=torch.Generator().manual_seed(0)).to(example),
        )
        same.as_in(hooks)
        program = _exported(net, _Run(traced, in_place), example)
        if any(hook.changes for hook in hooks.all):
            trial(example)  # what these hooks keep are values again
    return program


def output_of(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What a network itself gives, with gradients off.

    Args:
        net: the network; its buffers and what its ``forward`` keeps stay as they are.
        x: samples; the network may write into them.

    Returns:
        Its one tensor.
    """
    return apart.apart(lambda: only_tensor(_with_own_tensors(as_network(net))(x)))


def _with_own_tensors(net: nn.Module) -> nn.Module:
    """A copy that may change its buffers and other tensors that are no parameters as it runs."""
    own: dict[int, torch.Tensor] = {}
    copy = copied(net)
    for part in copy.modules():
        for held in (part._buffers, part.__dict__):
            tensors = [
                (name, value) for name, value in held.items() if isinstance(value, torch.Tensor)
            ]
            held.update(
                {name: own.setdefault(id(value), value.detach().clone()) for name, value in tensors}
            )
    return copy


def _without_inference(copy: nn.Module) -> nn.Module:
    """Parameters made in inference mode cannot be traced: other tensors of the same values."""
    own: dict[int, torch.Tensor] = {}
    for part in copy.modules():
        for name, value in [
            (name, value)
            for name, value in part._parameters.items()
            if value is not None and value.is_inference()
        ]:
            tensor: Any = nn.Parameter(value.clone(), requires_grad=False)
            part._parameters[name] = own.setdefault(id(value), tensor)  # type: ignore[assignment]
        for name, value in [
            (name, value)
            for name, value in part._buffers.items()
            if value is not None and value.is_inference()
        ]:
            part._buffers[name] = own.setdefault(id(value), value.clone())
    return copy


def _works_in_place(net: nn.Module, trial: nn.Module, example: torch.Tensor) -> bool:
    """Whether the network writes into its input; one that does not run on it is refused."""
    try:
        before = example._version
        only_tensor(trial(example))
        return example._version != before
    except NpkError:
        raise
    except Exception as error:
        raise causes.of_forward(net, example, error) from error


def _exported(net: nn.Module, run: "_Run", example: torch.Tensor) -> fx.GraphModule:
    try:
        with not_called_here():
            exported = torch.export.export(
                run.net, (example,), dynamic_shapes=({0: torch.export.Dim("n", min=1)},)
            )
            if not all(map(_is_functional, exported.graph.nodes)):
                exported = exported.run_decompositions({})
            program = exported.module(check_guards=False)
    except Exception as error:  # torch.export raises many kinds
        cause = run.error or error
        if isinstance(cause, NpkError):
            raise cause from None
        raise UnsupportedGraphError(causes.of_tracing(net, cause, run.places)) from cause
    if taken := _values_taken(program.graph):
        raise UnsupportedGraphError(causes.of_values(type(net).__name__, f" ({source_of(taken)})"))
    for node in [
        n
        for n in program.graph.nodes
        if n.target is torch.ops.aten.copy_.default and n.args[0].op == "get_attr"
    ]:
        # what a buffer becomes after the run is not the output's business
        program.graph.erase_node(node)
    stack_behind_samples(program.graph)
    program.recompile()
    return program


def _is_functional(node: fx.Node) -> bool:
    """Whether a node neither writes into a tensor nor holds a graph: making such programs
    functional takes longer than all else.
    """
    schema = getattr(node.target, "_schema", None)
    return not isinstance(node.target, torch._ops.HigherOrderOperator) and not (
        schema and schema.is_mutable
    )


def _values_taken(graph: fx.Graph) -> fx.Node | None:
    """A node that makes a Python number of values, if the output depends on one."""
    seen, stack = set(), [node for node in graph.nodes if node.op == "output"]
    while stack:
        node = stack.pop()
        if node.target in (torch.ops.aten.item.default, torch.ops.aten._local_scalar_dense.default):
            return node
        stack += [used for used in node.all_input_nodes if used not in seen]
        seen.update(node.all_input_nodes)
    return None


class _Run:
    """Stands for a traced network's ``forward``: gives its tensor, keeps what explains failures."""

    def __init__(self, net: nn.Module, in_place: bool) -> None:
        self.net, self.forward, self.in_place = net, net.forward, in_place
        self.error: Exception | None = None
        self.places: list[str] = []  # where something was found out about the number of samples
        net.forward = self.call

    def call(self, x: torch.Tensor) -> torch.Tensor:
        """The tensor."""
        shapes: Any = getattr(getattr(x.shape[0], "node", None), "shape_env", None)
        # asked by torch for each condition on the number of samples
        if location := getattr(shapes, "_get_sloc", None):
            shapes._get_sloc = functools.partial(self._locate, location)
        try:
            # torch.export takes no input that is written into
            return only_tensor(self.forward(x.clone() if self.in_place else x))
        except Exception as error:
            self.error = error
            # of some errors torch.export writes a page to the console, not of this one
            raise _InterruptedError from error

    def _locate(self, location: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        frames = [frame for frame in traceback.extract_stack() if is_users(frame.filename)]
        self.places.append(place(frames[-1].filename, frames[-1].lineno))
        return location(*arguments, **named)


class _InterruptedError(Exception):
    """The network's own forward has failed."""
