"""TorchScript files: the state dict in them, or their graph as a network that ``torch.export`` can trace.

``torch.export`` does not trace a ScriptModule. Its graph, with all calls inlined, is a list of ATen operators, and is followed here
operator by operator. Nothing in the file runs while it is loaded.
"""

import operator
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from npk.checkpoint.files import check_archive, first_line, quiet_torch
from npk.errors import CheckpointError, UnsupportedGraphError

# On numbers, lists and None; the same names on tensors are operators of torch.
PLAIN: dict[str, Callable[..., Any]] = {
    "aten::__getitem__": operator.getitem,
    "aten::__not__": operator.not_,
    "aten::add": operator.add,
    "aten::append": lambda items, item: items.append(item) or items,
    "aten::div": operator.truediv,
    "aten::eq": operator.eq,
    "aten::floordiv": operator.floordiv,
    "aten::ge": operator.ge,
    "aten::gt": operator.gt,
    "aten::le": operator.le,
    "aten::len": len,
    "aten::lt": operator.lt,
    "aten::mul": operator.mul,
    "aten::ne": operator.ne,
    "aten::neg": operator.neg,
    "aten::remainder": operator.mod,
    "aten::sub": operator.sub,
}


def _raise(message: Any, *_: Any) -> None:
    raise ValueError(f"the network raises {message!r}")


# On anything.
ALWAYS: dict[str, Callable[..., Any]] = {
    # traced: the last four arguments are switches of cuDNN
    "aten::_convolution": lambda *arguments: torch.ops.aten.convolution.default(*arguments[:9]),
    "aten::Bool": lambda value: value,  # numbers stay what they are: a size of a traced network must stay a size
    "aten::Float": lambda value: value,
    "aten::Int": lambda value: value,
    "aten::ScalarImplicit": lambda value: value,
    "aten::__is__": operator.is_,
    "aten::__isnot__": operator.is_not,
    "aten::dim": lambda x: x.dim(),
    "aten::format": lambda text, *values: text.format(*values),
    "aten::list": list,
    "aten::warn": lambda *_: None,
    "aten::size": lambda x, dim=None: list(x.shape) if dim is None else x.shape[dim],
    "prim::ListConstruct": lambda *items: list(items),
    "prim::NumToTensor": lambda value: value,
    "prim::RaiseException": _raise,
    "prim::TupleConstruct": lambda *items: items,
    "prim::Uninitialized": lambda: None,
    "prim::dtype": lambda x: x.dtype,
    "prim::device": lambda x: x.device,
    "prim::unchecked_cast": lambda value: value,
}
UNPACKS = ("prim::ListUnpack", "prim::TupleUnpack")


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The state dict of a TorchScript archive."""
    return dict(_loaded(path).state_dict())


def read_script(path: Path) -> nn.Module:
    """The network of a TorchScript archive, in evaluation mode."""
    return ScriptNetwork(_loaded(path).eval())


def _loaded(path: Path) -> Any:
    check_archive(path)
    with zipfile.ZipFile(path) as archive:
        code = [name for name in archive.namelist() if name.endswith(".py") and b"def __setstate__" in archive.read(name)]
    if code:
        raise CheckpointError(
            f"{path} holds code that runs while it is loaded ({code[0]}), which npk refuses. "
            "Where it was made, write torch.save(script.state_dict(), 'weights.pt'), and load that with arch."
        )
    try:
        with quiet_torch():
            script = torch.jit.load(path, map_location="cpu")
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read by torch {torch.__version__} ({first_line(error)}). Copy or save it again."
        ) from error
    return script.double() if any(p.dtype == torch.float64 for p in script.parameters()) else script.float()


@dataclass(frozen=True)
class Step:
    """One node of a TorchScript graph: what it computes, from which values, under which names; the two branches of an ``if``."""

    kind: str
    function: torch._ops.OpOverload | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    branches: "tuple[Block, ...]"
    source: str


@dataclass(frozen=True)
class Block:
    """Steps in order, and the names of their results."""

    steps: tuple[Step, ...]
    results: tuple[str, ...]


class ScriptNetwork(nn.Module):
    """The inlined graph of a ScriptModule, followed step by step; parameters and buffers have the names they have there."""

    def __init__(self, script: Any) -> None:
        super().__init__()
        self._share_tensors(script)
        graph = script.inlined_graph
        self._own, self._input = (value.debugName() for value in graph.inputs())
        self._paths: dict[str, str] = {}  # of parameters and buffers, by the name of a value
        self._constants: dict[str, Any] = {}
        self._objects: dict[str, tuple[Any, str]] = {self._own: (script, "")}
        self._block = self._translated(graph)
        del self._objects  # the script itself: it can be neither copied nor traced
        self.eval()

    def _share_tensors(self, script: Any) -> None:
        seen: dict[tuple[int, torch.Size], nn.Parameter] = {}
        for path, module in script.named_modules():
            target = _descend(self, path)
            for name, parameter in module.named_parameters(recurse=False):
                tensor = parameter.detach()
                target.register_parameter(name, seen.setdefault((tensor.data_ptr(), tensor.shape), nn.Parameter(tensor)))
            for name, buffer in module.named_buffers(recurse=False):
                target.register_buffer(name, buffer)

    def _translated(self, block: Any) -> Block:
        steps = []
        for node in block.nodes():
            if node.kind() == "prim::Constant":
                self._keep_constant(node)
            elif node.kind() == "prim::GetAttr":
                self._keep_attribute(node)
            else:
                inputs, outputs = (tuple(v.debugName() for v in values) for values in (node.inputs(), node.outputs()))
                branches = tuple(self._translated(inner) for inner in node.blocks())
                steps.append(Step(node.kind(), _operator(node), inputs, outputs, branches, _source(node)))
        return Block(tuple(steps), tuple(value.debugName() for value in block.outputs()))

    def _keep_constant(self, node: Any) -> None:
        name = node.output().debugName()
        value = None if node.output().type().kind() == "FunctionType" else node.output().toIValue()
        if isinstance(value, torch.Tensor):
            self._paths[name] = f"constant_{len(self._buffers)}"
            self.register_buffer(self._paths[name], value)
        else:
            self._constants[name] = value

    def _keep_attribute(self, node: Any) -> None:
        holder, path = self._objects[node.input().debugName()]
        name, path = node.output().debugName(), f"{path}.{node.s('name')}".removeprefix(".")
        value = getattr(holder, node.s("name"))
        if isinstance(value, torch.jit.ScriptModule):
            self._objects[name] = value, path
        elif isinstance(value, torch.Tensor):
            self._paths[name] = path
        else:
            self._constants[name] = value

    def forward(self, x: torch.Tensor) -> Any:
        """The output for a batch."""
        tensors = {name: _found(self, path) for name, path in self._paths.items()}
        results = self._run(self._block, {**self._constants, **tensors, self._input: x})
        return results[0] if len(results) == 1 else tuple(results)

    def _run(self, block: Block, values: dict[str, Any]) -> list[Any]:
        for step in block.steps:
            inputs = [values[name] for name in step.inputs]
            if step.kind == "prim::If":
                results = self._run(step.branches[0 if inputs[0] else 1], values)
            else:
                results = inputs[0] if step.kind in UNPACKS else [_result(step, inputs)]
            values.update(zip(step.outputs, results, strict=False))  # some have no output
        return [values[name] for name in block.results]


def _descend(root: nn.Module, path: str) -> nn.Module:
    """The module at a path, made where there is none."""
    for name in path.split(".") if path else ():
        if name not in root._modules:
            root.add_module(name, nn.Module())
        root = root.get_submodule(name)
    return root


def _found(root: nn.Module, path: str) -> torch.Tensor:
    head, _, name = path.rpartition(".")
    return getattr(root.get_submodule(head), name)


def _operator(node: Any) -> torch._ops.OpOverload | None:
    """The ATen operator of a node, with its overload; none for one that reads or writes files."""
    found = re.match(r"aten::(\w+)(?:\.(\w+))?\(", node.schema())
    packet = getattr(torch.ops.aten, found[1], None) if found and "filename" not in node.schema() else None
    operator = getattr(packet, found[2] or "default", None) if found else None
    return operator if isinstance(operator, torch._ops.OpOverload) else None


def _source(node: Any) -> str:
    """File and line where the network was written."""
    place = re.search(r"([^\s\"/]+\.py)\D{1,9}(\d+)", node.sourceRange())
    return f"{place[1]}:{place[2]}" if place else "source unknown"


def _result(step: Step, inputs: list[Any]) -> Any:
    if step.kind in ALWAYS:
        return ALWAYS[step.kind](*inputs)
    if step.kind in PLAIN and not isinstance(inputs[0], torch.Tensor):
        return PLAIN[step.kind](*inputs)
    if step.function is None:
        raise UnsupportedGraphError(
            f"npk does not follow {step.kind} of TorchScript ({step.source}). "
            "Load the weights with arch='module:callable', or export to .pt2."
        )
    named = [argument.name for argument in step.function._schema.arguments if argument.kwarg_only]
    plain = len(inputs) - len(named)
    return step.function(*inputs[:plain], **dict(zip(named, inputs[plain:], strict=True)))
