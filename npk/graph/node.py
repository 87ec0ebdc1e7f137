"""PathNode: one operator of a path graph, in its place."""

import math
from dataclasses import dataclass
from typing import Any

from npk.errors import OptionError
from npk.graph.facts import Operator, refuse_operator
from npk.graph.operators import (
    Add,
    AveragePool,
    BatchNorm,
    Convolution,
    Gate,
    Input,
    MaxPool,
    Rearrange,
    Scale,
    Shift,
    operator_from,
)
from npk.graph.positions import Grid


@dataclass(frozen=True)
class PathNode:
    """One operator: its inputs by name, the shape it gives, and its place in the user's code."""

    name: str
    operator: Operator
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    source: str = ""

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.shape[0]

    @property
    def grid(self) -> Grid:
        """Sides of the grid of positions; empty where there is none."""
        return self.shape[1:]

    @property
    def positions(self) -> int:
        """Number of positions, 1 where there is no grid."""
        return math.prod(self.grid)

    @property
    def entries(self) -> tuple[str, ...]:
        """All entries of the gate table that the node reads: its gate, and where it saturates."""
        return self.operator.entries

    @property
    def gate(self) -> str:
        """Entry of the gate table that the node reads; empty where it reads none."""
        return next(iter(self.entries), "")

    def describe(self, *, named: bool = False) -> str:
        """Its operator in a few words; ``named``: with the parameter or gate that it reads."""
        return self.operator.describe(self.positions, named=named)

    def to_dict(self) -> dict[str, Any]:
        """The node as JSON values; :meth:`from_dict` gives it back."""
        return {
            "name": self.name,
            "operator": self.operator.to_dict(),
            "inputs": self.inputs,
            "shape": self.shape,
            "source": self.source,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "PathNode":
        """Rebuild a node that :meth:`to_dict` described.

        Raises:
            UnsupportedGraphError: its operator is none that this npk has.
        """
        operator = operator_from(values["operator"])
        inputs, shape = tuple(values["inputs"]), tuple(values["shape"])
        return cls(values["name"], operator, inputs, shape, values["source"])


def module_of(node: PathNode) -> str:
    """Path of the module behind a node, by its parameters or gates; else the node's name.

    Raises:
        UnsupportedGraphError: an operator that is not known here.
    """
    match node.operator:
        case Convolution(weight=name) | BatchNorm(weight=str(name)) | BatchNorm(mean=name):
            return name.rsplit(".", 1)[0]
        case Scale(weight=str(name)) | Shift(bias=str(name)):
            return name.rsplit(".", 1)[0]
        case Gate(gate=name) | MaxPool(gate=name):
            return name
        case Input() | Scale() | Shift() | AveragePool() | Rearrange() | Add():
            return node.name
        case other:
            refuse_operator("module", other)


def units_of(node: PathNode) -> tuple[int, ...] | None:
    """The values of a sample that an input node shows: ``Input.units``.

    Raises:
        UnsupportedGraphError: the node is no input.
    """
    match node.operator:
        case Input(units=units):
            return units
        case other:
            refuse_operator("values of a sample", other)


def refuse_other_ones(node: PathNode, shape: tuple[int, ...]) -> None:
    """Samples can stand in the place of ones only where these are as many.

    Args:
        node: an input.
        shape: of a sample.

    Raises:
        OptionError: the node shows ones of another shape.
        UnsupportedGraphError: the node is no input.
    """
    match node.operator:
        case Input(ones=False):
            other = False
        case Input(units=None):
            other = node.shape != shape
        case Input(units=tuple(units)):
            other = max(units) >= math.prod(shape)
        case unknown:
            refuse_operator("values of a sample", unknown)
    if other:
        raise OptionError(
            f'value_input="x" puts samples of shape {shape} in the place of the ones that paths '
            f"start from, node {node.name} of shape {node.shape}. "
            'Use value_input="ones" or "auto".'
        )
