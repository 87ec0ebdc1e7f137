"""What a gate table is, its samples aside: what a manifest says of it, and which ones npk reads."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from npk.errors import ShapeError
from npk.graph.path_graph import PathGraph, from_dict, to_dict
from npk.graph.positions import Window
from npk.stores.blocks import Form
from npk.stores.files import DTYPES, MOST_BYTES, MOST_PARTS, are_counts, are_names

AGAIN = "Were the gates recorded with another checkpoint?"
_MOST_UNITS = 1 << 28  # of a node, and offsets of its window at all positions


@dataclass(frozen=True)
class EntryForm:
    """What an entry is: its kind, the shape ``(channels, *positions)`` of a sample, its data."""

    name: str
    kind: str
    shape: tuple[int, ...]
    data: Form


@dataclass(frozen=True)
class TableForm:
    """What a gate table is: tables of one form differ in nothing but their samples.

    Raises:
        ShapeError: an entry does not have the shape that the graph says.
    """

    graph: PathGraph
    inputs: Form
    entries: tuple[EntryForm, ...]

    def __post_init__(self) -> None:
        by_name = {entry.name: entry for entry in self.entries}
        for name, node in ((name, gate) for gate in self.graph.gates for name in gate.entries):
            if name not in by_name:
                raise ShapeError(f"GateTable has no layer {name!r}, the graph needs it. {AGAIN}")
            shape, width = by_name[name].shape, by_name[name].data.width
            if (shape[0], *width[:1]) != (node.channels, node.positions):
                raise ShapeError(other_shape(name, shape, node.shape))

    @property
    def arrays(self) -> list[Form]:
        """The samples, then the data of each entry."""
        return [self.inputs, *(entry.data for entry in self.entries)]

    @property
    def bytes_a_sample(self) -> int:
        """Bytes of one sample and its gates."""
        return max(1, sum(form.nbytes for form in self.arrays))

    def empty(self, n: int) -> list[np.ndarray]:
        """Arrays for n samples."""
        return [np.empty((n, *form.width), form.dtype) for form in self.arrays]

    def manifest(self) -> dict[str, Any]:
        """What a manifest says of it."""
        what = [{"name": e.name, "kind": e.kind, "shape": list(e.shape)} for e in self.entries]
        layers = [{**said, **_said(e.data)} for said, e in zip(what, self.entries, strict=True)]
        return {"graph": to_dict(self.graph), "inputs": _said(self.inputs), "layers": layers}


def form_of(manifest: dict[str, Any]) -> TableForm:
    """The form of the table that a manifest describes.

    Args:
        manifest: JSON values, whole.

    Returns:
        The form.

    Raises:
        ValueError: npk writes no such table, or none of a size that can be read: of a graph a few
            words could ask for any memory.
    """
    _check(manifest)
    graph = from_dict(manifest["graph"])
    for node in graph.nodes:
        window = getattr(node.operator, "window", None)
        offsets = window.size if isinstance(window, Window) else 1
        fits = are_counts(list(node.shape), 1, _MOST_UNITS)
        if not fits or max(node.channels, offsets) * node.positions > _MOST_UNITS:
            what = f"a node {node.name!r} of shape {node.shape}"
            raise ValueError(f"its graph has {what}, more than npk reads")
    layers = [(v["name"], v["kind"], tuple(v["shape"]), _form(v)) for v in manifest["layers"]]
    return TableForm(graph, _form(manifest["inputs"]), tuple(EntryForm(*v) for v in layers))


def other_shape(name: str, there: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    """Says that an entry is not of the graph's shape, or not of as many samples as the others."""
    return f"GateTable has shape {there} at layer {name!r}, the graph says {wanted}. {AGAIN}"


def _check(manifest: dict[str, Any]) -> None:
    """See that parts, pieces and arrays are as npk writes them, and of a size that can be read."""
    piece, parts, identities = (manifest[key] for key in ("piece", "parts", "identities"))
    if not are_counts([piece], 1, 1 << 31) or not are_counts(parts, 0, 1 << 48) or not parts:
        raise ValueError("its manifest has no parts, or pieces of no samples")
    if not are_names(identities, 1) or len(identities[0]) != len(parts):
        raise ValueError("its manifest does not name its parts")
    if sum(-(-n // piece) for n in parts) > MOST_PARTS:
        raise ValueError(f"its manifest names more than {MOST_PARTS} pieces")
    said = [manifest["inputs"], *manifest["layers"]]
    if not all(each["dtype"] in DTYPES and are_counts(each["width"], 0, 1 << 31) for each in said):
        raise ValueError("its manifest names arrays that npk does not write")
    together = min(piece, max(parts)) * sum(_form(each).nbytes for each in said)
    if together > MOST_BYTES:
        most = f"{MOST_BYTES} are read at most"
        raise ValueError(f"its manifest has pieces of {together} bytes, and {most}")


def _form(said: dict[str, Any]) -> Form:
    return Form(tuple(said["width"]), said["dtype"])


def _said(form: Form) -> dict[str, Any]:
    return {"width": list(form.width), "dtype": form.dtype}
