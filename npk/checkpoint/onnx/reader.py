"""ONNX files as networks of torch: one module a node, weights as parameters.

What does not depend on the input is computed while loading, by the reference implementation of the
package ``onnx``. The rest is the table of ``operators``, and of ``sizes`` for shapes.
Files that were made for one batch size take every batch size; a network that mixes its samples is
refused.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from npk.checkpoint.files import first_line, quiet_torch
from npk.checkpoint.onnx.limits import Budget, Excess, cells, check_external, check_nodes
from npk.checkpoint.onnx.operators import RULES
from npk.checkpoint.onnx.outputs import (
    chosen,
    full_name,
    last_before,
    module_names,
    needed,
    spelled_out,
)
from npk.checkpoint.onnx.sizes import SIZES
from npk.errors import CheckpointError, MissingPackageError, UnsupportedGraphError

MOST_CELLS = 1 << 28  # that a network makes of three samples while it is checked
OLDEST = 7  # of the operator sets: before, broadcasting was an attribute
WEIGHTS = {
    "BatchNormalization": ("", "weight", "bias", "running_mean", "running_var"),
    "Conv": ("", "weight", "bias"),
    "ConvTranspose": ("", "weight", "bias"),
    "Gemm": ("", "weight", "bias"),
    "InstanceNormalization": ("", "weight", "bias"),
    "MatMul": ("", "weight"),
    "PRelu": ("", "weight"),
}
# Operators whose constants are values beside computed values; elsewhere constants are sizes, limits
# and the like.
VALUES = ("Add", "Concat", "Div", "MatMul", "Mul", "Pow", "Sub", "Sum")


def read_onnx(path: Path, output: int | str | None = None) -> nn.Module:
    """The network of an ONNX file, in evaluation mode; of the nodes before ``output`` alone."""
    model = _model(path)
    graph = model.graph
    constants = {tensor.name: _array(path, tensor) for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    if len(inputs) != 1:
        raise CheckpointError(
            f"{path} has {len(inputs)} inputs ({', '.join(i.name for i in inputs)}); npk reads "
            f"networks of one. Export a network of one input."
        )
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    shape = [dim.dim_value or None for dim in inputs[0].type.tensor_type.shape.dim]
    size = path.stat().st_size + sum(value.nbytes for value in constants.values())
    builder = _Builder(path, opset, (shape or [None])[0], constants, Budget(size))
    net = builder.network(graph, inputs[0].name, output)
    if len(shape) > 1 and None not in shape[1:]:
        net.input_shape = tuple(int(side) for side in shape[1:] if side)
        _check_samples_apart(path, net)
    return net.eval()


def _model(path: Path) -> Any:
    try:
        import onnx
        from onnx import inliner
    except ImportError as error:
        raise MissingPackageError(
            f"{path}: ONNX files need the package onnx, which is missing. Install it: pip install "
            f"'.[onnx]'."
        ) from error
    try:
        model = onnx.load(path, load_external_data=False)
        check_nodes(model)
        check_external(model, path.absolute().parent)
        onnx.load_external_data_for_model(model, str(path.absolute().parent))
        if not model.graph.node or not model.graph.output:
            raise ValueError("it holds no graph")
        model = inliner.inline_local_functions(model) if model.functions else model
    # protobuf, missing files of external data, the checker: each has kinds of its own
    except Exception as error:
        raise CheckpointError(
            f"{path} is truncated, no ONNX file, or its external data are missing "
            f"({first_line(error)}). Copy or export it again."
        ) from error
    versions = [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")]
    newest = onnx.defs.onnx_opset_version()
    if not versions or not OLDEST <= versions[0] <= newest:
        raise CheckpointError(
            f"{path} uses ONNX operator set {versions[0] if versions else 'of nobody'}; npk reads "
            f"{OLDEST} to {newest} here. Convert it with onnx.version_converter, or update onnx."
        )
    return model


def _array(path: Path, tensor: Any) -> np.ndarray:
    from onnx import numpy_helper

    try:
        cells(tensor.dims)
        return _not_half(numpy_helper.to_array(tensor))
    except Exception as error:
        raise CheckpointError(
            f"{path}: the weight {tensor.name} cannot be read "
            f"({first_line(error)}). Export it again."
        ) from error


def _not_half(array: np.ndarray) -> np.ndarray:
    """Half precision (bfloat16 has a kind of its own in NumPy) becomes float32."""
    if array.dtype == np.float16 or array.dtype.name == "bfloat16":
        return array.astype(np.float32)
    return array


class OnnxNode(nn.Module):
    """One node: its rule, attributes, constants, and names of the values it takes and gives."""

    def __init__(
        self, op: str, rule: Any, attributes: dict[str, Any], inputs: list[str], outputs: list[str]
    ) -> None:
        super().__init__()
        self.op, self.rule, self.attributes = op, rule, attributes
        self.inputs, self.outputs = inputs, outputs
        self.constants: dict[int, Any] = {i: None for i, name in enumerate(inputs) if not name}
        self.weights: dict[int, str] = {}

    def forward(self, *computed: Any) -> Any:
        """The value, from the inputs that are computed."""
        rest = iter(computed)
        inputs = [self._input(i, rest) for i in range(len(self.inputs))]
        try:
            return self.rule(self.attributes, *inputs)
        except NotImplementedError as error:
            raise UnsupportedGraphError(
                f"the ONNX node that makes {self.outputs[0]!r} is {error}, which npk does not "
                f"follow. Export the network without it."
            ) from error

    def _input(self, i: int, rest: Iterator[Any]) -> Any:
        if i in self.weights:
            return getattr(self, self.weights[i])
        return self.constants[i] if i in self.constants else next(rest)

    @property
    def computed(self) -> list[str]:
        """The names of the inputs that are computed."""
        return [
            name
            for i, name in enumerate(self.inputs)
            if i not in self.constants and i not in self.weights
        ]


class OnnxNetwork(nn.Module):
    """The nodes of an ONNX graph, in order."""

    def __init__(self, source: str, results: list[str], nodes: dict[str, OnnxNode]) -> None:
        super().__init__()
        self.source, self.results = source, results
        self.input_shape: tuple[int, ...] | None = None
        for name, node in nodes.items():
            self.add_module(name, node)

    def forward(self, x: torch.Tensor) -> Any:
        """The output for a batch; a tuple if the graph has several."""
        values: dict[str, Any] = {self.source: x}
        for node in self.children():
            assert isinstance(node, OnnxNode)
            result = node(*(values[name] for name in node.computed))
            values.update(
                zip(node.outputs, result if isinstance(result, tuple) else (result,), strict=False)
            )
        results = tuple(values[name] for name in self.results)
        return results[0] if len(results) == 1 else results


class _Builder:
    """Reads the nodes of a graph, in order."""

    def __init__(
        self,
        path: Path,
        opset: int,
        batch: int | None,
        constants: dict[str, np.ndarray],
        budget: Budget,
    ) -> None:
        self.path, self.opset, self.batch, self.budget = path, opset, batch, budget
        self.constants = constants
        self.origins = {
            name: {name}
            for name, value in constants.items()
            if value.dtype.kind == "f" and value.ndim > 1
        }
        self.sizes: set[str] = set()  # values that are shapes, or come of shapes alone
        self.unknown: set[str] = set()
        self.unread: set[int] = set()  # the nodes of these
        self.parameters: dict[tuple[str, str], torch.Tensor] = {}
        self.forms: dict[str, tuple[str, str]] = {}

    def network(self, graph: Any, source: str, output: int | str | None) -> OnnxNetwork:
        """The network of the nodes that lead to an output."""
        results = [value.name for value in graph.output]
        nodes = needed(spelled_out(graph.node, self.constants), results)
        modules = module_names(nodes, self.constants, _is_taken)
        if output is not None:
            results = [chosen(self.path, output, results, modules)]
        names = {id(node): name for name, node in modules.items()}
        made: dict[str, OnnxNode] = {}
        values = {source}
        for node in needed(nodes, results):
            computed = [name for name in node.input if name and name not in self.constants]
            lost = [name for name in computed if name not in values]
            if lost:
                raise CheckpointError(
                    f"{self.path} is damaged: no node makes {lost[0]!r}, which {node.op_type} "
                    f"takes. Copy or export it again."
                )
            if not computed:
                self._fold(node)
            else:
                values.update(node.output)
                made[names[id(node)]] = self._node(
                    node, all(name in self.sizes for name in computed)
                )
        if self.unknown:
            self._refuse_unknown(
                {
                    names[id(node)]: node
                    for node in nodes
                    if id(node) in names and names[id(node)] in made
                }
            )
        return OnnxNetwork(source, results, made)

    def _refuse_unknown(self, modules: dict[str, Any]) -> None:
        """Name the operators, all at once, and the values before them."""
        before = last_before(
            modules, {name for name, node in modules.items() if id(node) in self.unread}
        )
        if before:
            choice = (
                f", or choose the values before them: --output {before[0]}, output={before[0]!r}"
            )
        else:
            choice = ""
        raise CheckpointError(
            f"{self.path} uses ONNX operators that npk does not read: "
            f"{', '.join(sorted(self.unknown))}. Export the network without them{choice}."
        )

    def _fold(self, node: Any) -> None:
        """Compute a node that does not depend on the input."""
        given = [self.constants.get(name) for name in node.input]
        try:
            values = self._evaluated(node, given)
        except Exception as error:
            raise CheckpointError(
                f"{self.path}: the constant {node.output[0]} cannot be computed "
                f"({first_line(error)}). Export the file again, simplified."
            ) from error
        origins = set().union(*(self.origins.get(name, set()) for name in node.input))
        for name, value in zip(node.output, values, strict=False):
            self.constants[name] = _not_half(np.asarray(value))
            if origins:
                self.origins[name] = origins

    def _evaluated(self, node: Any, given: list[Any]) -> list[Any]:
        """By the reference, else by our own rules: not all older forms are known to it."""
        from onnx import numpy_helper
        from onnx.reference import ReferenceEvaluator

        attributes = self._attributes(node)
        if node.op_type == "Identity":
            return given[:1]
        if node.op_type == "Constant" and "value" in attributes:
            cells(attributes["value"].dims)
            return [numpy_helper.to_array(attributes["value"])]
        self.budget.spend(node, given, attributes)
        try:
            evaluator = ReferenceEvaluator(node, opsets={node.domain: self.opset})
            return list(
                evaluator.run(
                    None,
                    {name: value for name, value in zip(node.input, given, strict=True) if name},
                )
            )
        except Exception:
            if node.op_type not in RULES or not given:
                raise
        first, *rest = given
        result = RULES[node.op_type](attributes, torch.tensor(first), *rest)
        return list(result) if isinstance(result, tuple) else [result]

    def _attributes(self, node: Any) -> dict[str, Any]:
        return {"opset": self.opset, "batch": self.batch, "outputs": len(node.output)} | dict(
            map(_attribute, node.attribute)
        )

    def _node(self, node: Any, sizes: bool) -> OnnxNode:
        table = SIZES if sizes else RULES
        used_twice = (
            len(node.output) > 1
            and node.op_type not in ("Split", "Dropout", "BatchNormalization")
            and any(node.output[1:])
        )
        if full_name(node) not in table or used_twice:
            self.unread.add(id(node))
            self.unknown.add(
                f"{full_name(node)}{' with several outputs' if used_twice else ''}{' of shapes' if sizes else ''}"
            )
        if sizes or node.op_type == "Shape":
            self.sizes.update(node.output)
        onnx_node = OnnxNode(
            node.op_type,
            table.get(node.op_type),
            self._attributes(node),
            list(node.input),
            list(node.output),
        )
        if not sizes:
            onnx_node.attributes["linear"] = self._is_linear(onnx_node)
        for i, name in enumerate(onnx_node.inputs):
            if name in self.constants:
                self._constant(onnx_node, i, name, sizes)
        return onnx_node

    def _is_linear(self, node: OnnxNode) -> bool:
        """Whether a product is a linear layer: its factor, and what is added, are constants."""
        weight, bias = (self.constants.get(name) for name in [*node.inputs[1:3], "", ""][:2])
        if weight is None or weight.ndim != 2 or node.op not in ("MatMul", "Gemm"):
            return False
        added = node.op == "Gemm" and len(node.inputs) > 2 and node.inputs[2]
        return not node.attributes.get("transA", 0) and (not added or bias is not None)

    def _constant(self, node: OnnxNode, i: int, name: str, sizes: bool) -> None:
        """A constant input: a parameter if it is a weight, else an array."""
        value = self.constants[name]
        layer = WEIGHTS.get(node.op, ())
        if (
            sizes
            or value.dtype.kind != "f"
            or not ((i < len(layer) and layer[i]) or (node.op in VALUES and value.size > 1))
        ):
            node.constants[i] = value
            return
        form, value = self._form(node, i, value)
        self._check_one_form(name, form)
        known = self.parameters.setdefault((name, form), torch.tensor(value))
        node.weights[i] = (
            layer[i]
            if i < len(layer) and layer[i]
            else f"constant_{i}"
            if node.weights
            else "constant"
        )
        if node.weights[i].startswith("running"):
            node.register_buffer(node.weights[i], known)
        else:
            parameter = known if isinstance(known, nn.Parameter) else nn.Parameter(known)
            self.parameters[name, form] = parameter
            node.register_parameter(node.weights[i], parameter)

    def _form(self, node: OnnxNode, i: int, value: np.ndarray) -> tuple[str, np.ndarray]:
        """How a weight is put for torch, in a word, and the weight so."""
        a = node.attributes
        if node.op == "PRelu":
            a["slope"] = value.shape
            return "flat", value.reshape(-1)[: 1 if bool(np.all(value == value.flat[0])) else None]
        if not a.get("linear"):
            return "plain", value
        if i == 1:
            alpha, turned = a.get("alpha", 1.0), not a.get("transB", 0)
            return f"{'turned' if turned else 'plain'} {alpha}", np.ascontiguousarray(
                (value.T if turned else value) * value.dtype.type(alpha)
            )
        beta = a.get("beta", 1.0)
        width = self.constants[node.inputs[1]].shape[0 if a.get("transB", 0) else 1]
        return f"bias {beta}", np.broadcast_to(value.reshape(-1), (width,)) * value.dtype.type(beta)

    def _check_one_form(self, name: str, form: str) -> None:
        """Two layers with one weight in two forms would seem to have weights of their own."""
        for origin in self.origins.get(name, ()):
            if self.forms.setdefault(origin, (name, form)) != (name, form):
                raise UnsupportedGraphError(
                    f"{self.path}: the weight {origin} is used in two forms, as it is and "
                    f"transposed or scaled. Give each layer a weight of its own."
                )


def _is_taken(name: str) -> bool:
    """Whether a module cannot have a name, because the network has something else under it."""
    return hasattr(OnnxNetwork, name) or name in ("source", "results", "input_shape", "training")


def _attribute(attribute: Any) -> tuple[str, Any]:
    from onnx import helper

    value = helper.get_attribute_value(attribute)
    return attribute.name, value.decode() if isinstance(value, bytes) else list(
        value
    ) if isinstance(value, list | tuple) else value


def _check_samples_apart(path: Path, net: OnnxNetwork) -> None:
    """Each sample has the output that it has alone: a file may have fixed the batch anywhere."""
    generator = torch.Generator().manual_seed(0)
    kind = next((p.dtype for p in net.parameters() if p.is_floating_point()), torch.float32)
    try:
        _check_sizes(net, kind)
        x = torch.rand((3, *(net.input_shape or ())), generator=generator, dtype=kind)
        with torch.no_grad():
            together, apart = net.eval()(x), [net(sample[None]) for sample in x]
        agree = _agree(together, apart)
    except UnsupportedGraphError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"{path} does not run on samples of shape {net.input_shape} ({first_line(error)}). "
            f"Export it again."
        ) from error
    if not agree:
        raise CheckpointError(
            f"{path} mixes the samples of a batch: it was made for one batch "
            f"size. Export it with a dynamic batch axis."
        )


def _agree(together: Any, apart: list[Any]) -> bool:
    """Whether each output of a batch is made of those of its samples."""
    for i, whole in enumerate(together if isinstance(together, tuple) else (together,)):
        parts = torch.cat([part[i] if isinstance(part, tuple) else part for part in apart])
        if parts.numel():
            limit = 1e-3 * float(parts.double().abs().nan_to_num(posinf=0.0).max())
        else:
            limit = 0.0
        if whole.shape != parts.shape or not torch.allclose(
            whole.double(), parts.double(), rtol=1e-3, atol=limit, equal_nan=True
        ):
            return False
    return True


def _check_sizes(net: OnnxNetwork, kind: torch.dtype) -> None:
    """Follow the network without values: what it makes of three samples must have an end."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    cells_made = 0

    def count(node: nn.Module, _: Any, result: Any) -> None:
        nonlocal cells_made
        cells_made += sum(
            value.numel()
            for value in (result if isinstance(result, tuple) else (result,))
            if isinstance(value, torch.Tensor)
        )
        if cells_made > MOST_CELLS:
            raise Excess(f"its values for three samples have more than {MOST_CELLS:,} cells")

    hooks = [node.register_forward_hook(count) for node in net.children()]
    try:
        with quiet_torch(), torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
            net.eval()(torch.empty((3, *(net.input_shape or ())), dtype=kind))
    finally:
        for hook in hooks:
            hook.remove()
