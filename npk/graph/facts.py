"""What an operator says of itself, and the refusal of one that nobody thought of."""

import dataclasses
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NoReturn, Self

import numpy as np

from npk.errors import UnsupportedGraphError
from npk.graph.positions import Grid


@dataclass(frozen=True)
class Operator(ABC):
    """What a path may pass. Each operator is a frozen dataclass that owns its facts.

    What a fact depends on comes in as numbers: an operator knows no node and no graph. All facts
    are abstract, so that an operator which leaves one open cannot be made. What needs samples,
    weights or a plan is no fact; it is asked by ``match``, which :func:`refuse_operator` ends.
    """

    @property
    @abstractmethod
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters that a path multiplies here."""

    @property
    @abstractmethod
    def matrices(self) -> tuple[str, ...]:
        """Those of the parameters that mix units: each element must be a number of its own."""

    @property
    @abstractmethod
    def biases(self) -> tuple[str, ...]:
        """Names of the tensors that are added here."""

    @abstractmethod
    def bias_name(self, node: str) -> str | None:
        """What the paths that start here are known by; ``None`` where no paths start.

        Args:
            node: name of the node.
        """

    @property
    @abstractmethod
    def begins(self) -> bool:
        """Whether paths start here beside those from the input: at a bias, a shift, or a constant."""

    @property
    @abstractmethod
    def entries(self) -> tuple[str, ...]:
        """All entries of the gate table that are read here, the gate itself first."""

    @abstractmethod
    def taps(self, before: tuple[Grid, ...], grid: Grid) -> tuple[np.ndarray, ...]:
        """Which positions of its inputs each position sees.

        Args:
            before: the grid of each input.
            grid: its own.

        Returns:
            For each input integers ``(offsets, positions)``, -1 where nothing is seen.
        """

    @abstractmethod
    def fan_in(self, channels: int) -> int:
        """Number of weights that enter one unit, 1 where a unit has one weight or none.

        Args:
            channels: of the input.
        """

    @abstractmethod
    def path_counts(self, inputs: list[list[int]], channels: int) -> list[int]:
        """Number of paths to a unit of each channel; where windows differ in size, of the largest.

        Args:
            inputs: for each input the number of paths to a unit of each of its channels.
            channels: of the result.
        """

    @abstractmethod
    def words(self, positions: int) -> tuple[str, str]:
        """What it is and how, as in ``("convolution", " 3x3, padding 1")``.

        Args:
            positions: of the result.
        """

    def describe(self, positions: int, *, named: bool = False) -> str:
        """The operator in a few words.

        Args:
            positions: of the result.
            named: with the name of the parameter or gate that it reads.

        Returns:
            What it is, the name, and how.
        """
        what, how = self.words(positions)
        names = (*self.parameters, *self.biases, *self.entries)[:1] if named else ()
        return " ".join([what, *names]) + how

    def to_dict(self) -> dict[str, Any]:
        """Type and fields as JSON values."""
        return {"type": type(self).__name__, **dataclasses.asdict(self)}

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Self:
        """The operator of the fields that :meth:`to_dict` wrote, be they lists or tuples."""
        return cls(**with_tuples(fields))


@dataclass(frozen=True)
class Unweighted(Operator):
    """An operator without parameters: nothing is learned where a path passes it."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """None."""
        return ()

    @property
    def matrices(self) -> tuple[str, ...]:
        """None."""
        return ()

    @property
    def biases(self) -> tuple[str, ...]:
        """None."""
        return ()

    def bias_name(self, node: str) -> str | None:
        """No paths start at a bias."""
        return None

    @property
    def begins(self) -> bool:
        """No paths start."""
        return False

    def fan_in(self, channels: int) -> int:
        """No weight."""
        return 1


@dataclass(frozen=True)
class Ungated(Operator):
    """An operator that reads nothing of the gate table."""

    @property
    def entries(self) -> tuple[str, ...]:
        """None."""
        return ()


@dataclass(frozen=True)
class Unitwise(Operator):
    """An operator that goes unit by unit, over one input or over several of one shape."""

    @property
    def matrices(self) -> tuple[str, ...]:
        """None: a unit has one weight at most."""
        return ()

    def taps(self, before: tuple[Grid, ...], grid: Grid) -> tuple[np.ndarray, ...]:
        """Each position sees itself."""
        return tuple(np.arange(math.prod(grid))[None] for _ in before)

    def fan_in(self, channels: int) -> int:
        """One weight a unit, if any."""
        return 1

    def path_counts(self, inputs: list[list[int]], channels: int) -> list[int]:
        """Those of all inputs together."""
        return [sum(counts) for counts in zip(*inputs, strict=True)]


def with_tuples(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields that were JSON values, with their lists made tuples."""
    return {name: _as_tuples(value) for name, value in fields.items()}


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list | tuple) else value


def refuse_operator(what: str, operator: Operator | str) -> NoReturn:
    """Refuse an operator that some part of npk has no rule for.

    Args:
        what: that is missing.
        operator: the operator, or the name of its type.

    Raises:
        UnsupportedGraphError: always.
    """
    name = operator if isinstance(operator, str) else type(operator).__name__
    remedy = "Use an npk that knows it, or give it one beside those of the other operators."
    raise UnsupportedGraphError(f"npk has no {what} for the operator {name}. {remedy}")
