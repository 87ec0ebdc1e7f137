"""What a stranger's ONNX file may ask for while it is read: files, nodes, computed constants."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from npk.checkpoint.onnx.operators import RULES
from npk.checkpoint.onnx.sizes import SIZES

MOST_NODES, MOST_COMPUTED = 200_000, 4_000
FREE = 1 << 24  # cells of constants that any file may have computed; more go with its size
_CELLS_A_BYTE = 2
# Operators whose constants are computed, beside those of a network: their results have the size of
# what goes in, or one that is told here.
_ALLOWED = {
    *(*RULES, *SIZES),
    *"And ArgMax ArgMin CastLike Ceil Celu Constant ConstantOfShape Cos CumSum".split(),
    *"DequantizeLinear Equal EyeLike GatherElements GatherND IsInf IsNaN Mean Mod".split(),
    *"NonZero OneHot Or QuantizeLinear Range ReduceL1 ReduceL2 ReduceLogSum".split(),
    *"ReduceLogSumExp ReduceSumSquare Round ScatterElements ScatterND Sin Size".split(),
    *"SpaceToDepth Tan Tile TopK Trilu Xor".split(),
}
_WINDOWS = {
    *"AveragePool Conv ConvTranspose LRN MaxPool".split(),
    *"GlobalAveragePool GlobalMaxPool InstanceNormalization".split(),
}
# the reference loops in Python
_SLOW = {*_WINDOWS, *"Erf GatherND Gelu Resize ScatterElements ScatterND TopK Upsample".split()}
_TEXT = 8  # ONNX's number of that kind


class Excess(ValueError):
    """More than a file may ask for."""


def external_tensors(model: Any) -> Iterator[Any]:
    """All tensors of a model whose values lie in files of their own."""
    return (tensor for tensor in _tensors(model) if tensor.data_location == tensor.EXTERNAL)


def check_external(model: Any, folder: Path) -> None:
    """Each external tensor lies in a plain file in the folder of the model, once, and has the bytes
    of its shape.

    Raises:
        Excess: a place outside of the folder, a link, or other bytes.
    """
    from onnx.helper import tensor_dtype_to_np_dtype

    wanted, files = 0, set()
    for tensor in external_tensors(model):
        entry = {pair.key: pair.value for pair in tensor.external_data}
        place = Path(entry.get("location", ""))
        file = folder / place
        if (
            place.is_absolute()
            or ".." in place.parts
            or not place.parts
            or any(p.is_symlink() for p in (file, *file.parents[: len(place.parts) - 1]))
        ):
            raise Excess(
                f"the external data of {tensor.name} lie outside of its folder: "
                f"{str(place)[:100]!r}"
            )
        if not file.is_file():
            raise Excess(f"there is no file {str(place)[:100]!r} with its external data")
        size, start = file.stat().st_size, int(entry.get("offset", 0))
        length = int(entry.get("length", size - start))
        if (
            start < 0
            or length < 0
            or start + length > size
            or cells(tensor.dims) * tensor_dtype_to_np_dtype(tensor.data_type).itemsize > 2 * length
        ):
            raise Excess(f"the external data of {tensor.name} are not those of its shape")
        wanted += length
        files.add(file.resolve())
    if wanted > sum(file.stat().st_size for file in files) + FREE:
        raise Excess("its external data are taken again and again")


def check_nodes(model: Any) -> None:
    """The functions of a model call each other without end in no case, and make no endless number
    of nodes.

    Raises:
        Excess: they do.
    """
    bodies = {(f.domain, f.name): list(_nodes(f.node)) for f in model.functions}
    sizes: dict[tuple[str, str], int] = {}

    def size(key: tuple[str, str], callers: tuple[tuple[str, str], ...]) -> int:
        if key in callers or len(callers) > 50:
            raise Excess(f"its function {key[1]} calls itself, or functions are nested without end")
        if key not in sizes:
            sizes[key] = sum(
                size(_key(node), (*callers, key)) if _key(node) in bodies else 1
                for node in bodies[key]
            )
            if sizes[key] > MOST_NODES:
                raise Excess(f"its functions make more than {MOST_NODES:,} nodes")
        return sizes[key]

    whole = sum(
        size(_key(node), ()) if _key(node) in bodies else 1 for node in _nodes(model.graph.node)
    )
    for key in bodies:
        size(key, ())
    if whole > MOST_NODES:
        raise Excess(f"it has more than {MOST_NODES:,} nodes")


def _key(node: Any) -> tuple[str, str]:
    return node.domain, node.op_type


def _nodes(nodes: Any) -> Iterator[Any]:
    """Nodes, and those of graphs within them."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _nodes(graph.node)


def _tensors(model: Any) -> Iterator[Any]:
    graphs = [model.graph]
    yield from model.graph.initializer
    for nodes in (model.graph.node, *(f.node for f in model.functions)):
        for node in _nodes(nodes):
            for attribute in node.attribute:
                yield from (attribute.t, *attribute.tensors)
                graphs.extend((attribute.g, *attribute.graphs))
    for graph in graphs:
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        yield from graph.initializer if graph is not model.graph else ()


def cells(sides: Any) -> int:
    """The product of the sides.

    Raises:
        Excess: a negative side.
    """
    if any(side < 0 for side in sides):
        raise Excess(f"it has a shape {list(sides)[:8]}")
    return math.prod(int(side) for side in sides)


class Budget:
    """How many cells of constants may still be computed."""

    def __init__(self, size: int) -> None:
        """Start.

        Args:
            size: bytes of the file, with its external data.
        """
        self._left, self._nodes = FREE + _CELLS_A_BYTE * size, MOST_COMPUTED

    def spend(self, node: Any, given: list[Any], attributes: dict[str, Any]) -> None:
        """Take the cells of a node's result, and a share of the work, from what is left; before
        they are computed.

        Args:
            node: the node.
            given: its inputs; None where one is left out.
            attributes: its attributes.

        Raises:
            Excess: too little is left, or an operator whose work is not known.
        """
        if node.op_type not in _ALLOWED or node.domain not in ("", "ai.onnx"):
            raise Excess(
                f"npk does not compute constants by {node.domain or 'ONNX'} {node.op_type}"
            )
        if attributes.get("to") == _TEXT:
            raise Excess("npk computes no texts")
        needed = _needed(
            node.op_type, [np.asarray(value) for value in given if value is not None], attributes
        )
        self._left -= needed * (64 if node.op_type in _SLOW else 1)
        self._nodes -= 1
        if self._left < 0 or self._nodes < 0:
            raise Excess(
                f"its {node.op_type} and those before it make {FREE:,} values and more, "
                f"far more than the file has"
            )


def _needed(op: str, given: list[np.ndarray], a: dict[str, Any]) -> int:
    """Cells of the result, or more."""
    whole = sum(value.size for value in given) + 1
    shape = given[0].shape if given else ()
    if op in ("Constant", "ConstantOfShape"):
        return cells(given[0].reshape(-1).tolist()) if given else whole
    if op == "Expand":
        return whole + cells(
            np.broadcast_shapes(shape, tuple(np.abs(given[1]).reshape(-1).tolist()))
        )
    if op == "Range":
        start, end, step = (float(value.reshape(())) for value in given)
        return int(min(2.0**62, max(0.0, (end - start) / step))) if step else 0
    if op == "Tile":
        return whole + cells(shape) * cells(given[1].reshape(-1).tolist())
    if op == "Pad":
        pads = a.get("pads") if len(given) < 2 else given[1].reshape(-1).tolist()
        return whole + math.prod(side + sum(abs(int(pad)) for pad in pads or ()) for side in shape)
    if op in ("Resize", "Upsample"):
        return whole + _resized(given, a)
    if op == "OneHot":
        return whole + given[0].size * abs(int(given[1].reshape(-1)[0]))
    if op in ("MatMul", "Gemm") and len(given) > 1:
        return whole + _multiplied(
            given[0], given[1], shape[0 if a.get("transA") else -1] if shape else 1
        )
    if op in ("Gather", "GatherND", "GatherElements"):
        return whole + given[1].size * max(1, given[0].size // max(1, min(shape or (1,))))
    if op in _WINDOWS:
        if any(
            abs(number) > 64 for value in a.values() if isinstance(value, list) for number in value
        ):
            raise Excess(f"its {op} has windows without end")
        return whole + math.prod(value.size + 64 for value in given[:2])
    sides = [value.shape for value in given]
    rank = max((len(side) for side in sides), default=0)
    padded = [(1,) * (rank - len(side)) + side for side in sides]
    return whole + math.prod(max(column) for column in zip(*padded, strict=True))


def _resized(given: list[np.ndarray], a: dict[str, Any]) -> int:
    if "scales" in a:
        numbers = [a["scales"]]
    else:
        numbers = [value.reshape(-1).tolist() for value in given[1:] if value.ndim == 1]
    largest = math.prod(max(1.0, abs(float(number))) for values in numbers for number in values)
    return int(min(2.0**62, largest * max(1, given[0].size)))


def _multiplied(x: np.ndarray, y: np.ndarray, inner: int) -> int:
    """Cells of a product, and its work at sixteen multiplications a cell."""
    batch = [math.prod(value.shape[:-2]) for value in (x, y)]
    rows, columns = (
        value.size // max(1, inner * count) for value, count in zip((x, y), batch, strict=True)
    )
    result = max(batch) * rows * columns
    return result + result * inner // 16
