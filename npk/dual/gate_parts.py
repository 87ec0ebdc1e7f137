"""What the folder of a gate store is made of: its arrays, and how its manifest describes a table."""

import math
from typing import Any

import numpy as np

from npk.dual.gate_table import GateLayer, GateTable
from npk.dual.path_graph import from_dict
from npk.dual.positions import Window
from npk.stores.files import DTYPES, MOST_BYTES, MOST_PARTS, are_counts, are_names

NOT_WRITTEN = -1
_MOST_UNITS = 1 << 28  # of a node, and offsets of its window at all positions


def check_manifest(manifest: dict[str, Any]) -> None:
    """See that a manifest describes a table as npk writes it, of a size that can be read.

    Args:
        manifest: JSON values, whole.

    Raises:
        ValueError: it does not.
    """
    piece, parts, identities = (manifest[key] for key in ("piece", "parts", "identities"))
    if not are_counts([piece], 1, 1 << 31) or not are_counts(parts, 0, 1 << 48) or not parts:
        raise ValueError("its manifest has no parts, or pieces of no samples")
    if not are_names(identities, 1) or len(identities[0]) != len(parts):
        raise ValueError("its manifest does not name its parts")
    if sum(-(-n // piece) for n in parts) > MOST_PARTS:
        raise ValueError(f"its manifest names more than {MOST_PARTS} pieces")
    forms = [manifest["inputs"], *manifest["layers"]]
    if not all(each["dtype"] in DTYPES and are_counts(each["width"], 0, 1 << 31) for each in forms):
        raise ValueError("its manifest names arrays that npk does not write")
    together = min(piece, max(parts)) * sum(math.prod(each["width"]) * np.dtype(each["dtype"]).itemsize for each in forms)
    if together > MOST_BYTES:
        raise ValueError(f"its manifest has pieces of {together} bytes, and {MOST_BYTES} are read at most")


def empty_table(manifest: dict[str, Any]) -> GateTable:
    """The table of 0 samples that a manifest describes.

    Args:
        manifest: JSON values, whole.

    Returns:
        The table.

    Raises:
        ValueError: its graph has nodes far larger than those of networks, of which a few words could ask for any memory.
    """
    graph = from_dict(manifest["graph"])
    for node in graph.nodes:
        window = getattr(node.operator, "window", None)
        offsets = window.size if isinstance(window, Window) else 1
        if not are_counts(list(node.shape), 1, _MOST_UNITS) or max(node.channels, offsets) * node.positions > _MOST_UNITS:
            raise ValueError(f"its graph has a node {node.name!r} of shape {node.shape}, more than npk reads")
    inputs, *data = (np.empty((0, *form["width"]), form["dtype"]) for form in (manifest["inputs"], *manifest["layers"]))
    layers = zip(manifest["layers"], data, strict=True)
    return GateTable(graph, inputs, {v["name"]: GateLayer(v["kind"], tuple(v["shape"]), empty) for v, empty in layers})


def form(array: np.ndarray) -> dict[str, Any]:
    """What a manifest says of an array: shape of a sample, and type."""
    return {"width": list(array.shape[1:]), "dtype": array.dtype.name}


def bytes_of(table: GateTable) -> int:
    """Bytes of one sample and its gates."""
    return max(1, sum(array.dtype.itemsize * math.prod(array.shape[1:]) for array in table.arrays))


def alike(table: GateTable, other: GateTable) -> bool:
    """Whether two tables differ in nothing but their samples."""
    kinds = [[(name, e.kind, e.shape) for name, e in t.entries.items()] for t in (table, other)]
    return kinds[0] == kinds[1] and [form(a) for a in table.arrays] == [form(a) for a in other.arrays] and table.graph == other.graph


def names(table: GateTable) -> list[str]:
    """Names of a part's arrays."""
    return ["inputs", *(f"gates/{i}" for i in range(len(table.entries)))]


def make_part(group: Any, number: int, example: GateTable, n: int, piece: int) -> None:
    """Empty arrays for n samples, in the place of those that a killed run may have left."""
    plain: dict[str, Any] = {"compressors": None, "filters": None, "overwrite": True}
    for name, array in zip(names(example), example.arrays, strict=True):
        shape = (n, *array.shape[1:])
        chunks = (max(1, min(piece, n)), *(max(1, side) for side in shape[1:]))
        group.create_array(f"{number}/{name}", shape=shape, chunks=chunks, dtype=array.dtype, **plain)
    sides = {"shape": (-(-n // piece),), "chunks": (1,)}  # a chunk is replaced as a whole
    group.create_array(f"{number}/checksums", **sides, dtype="int64", fill_value=NOT_WRITTEN, **plain)


def as_slice(numbers: np.ndarray) -> slice | np.ndarray:
    """Numbers that follow one another as a slice, which is faster."""
    follow = len(numbers) > 0 and bool((np.diff(numbers) == 1).all())
    return slice(int(numbers[0]), int(numbers[-1]) + 1) if follow else numbers
