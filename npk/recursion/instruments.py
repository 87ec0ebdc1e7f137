r"""Instruments: what is asked of the paths of a network, each a transform of the recursion.

Give every layer the variance s times its own: :math:`F(s) = \sum_p s^{\text{layers of } p} \phi_x[p] \phi_{x'}[p]`.

=========================  ====================================================================
``"paths"``                the neural path kernel, F(1)
``"tangent"``              dF/ds at 1: the expected tangent kernel of the value network
``"tangent=standard"``     the same in standard parametrization
``"depth=8"``              the coefficient of s^8: sub-networks of 8 layers
``"without=block:3"``      the kernel without what block 3 adds; ``layer:NAME``, ``gates:NAME``
``"weighted={...}"``       each layer with a factor of its own: ``{"stem": 0.5}``
=========================  ====================================================================

A layer is linear or convolutional. A path from its bias has passed the layer; shifts of batch
norms, and other constants, begin paths that have passed none.
"""

import json
import math
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from npk.errors import OptionError
from npk.graph.parts import layer_named, without_block, without_gates
from npk.graph.path_graph import PathGraph
from npk.recursion.automaton import Automaton, Row, contributes, reached_states, weighed
from npk.recursion.degrees import Degrees, by_depth, depths
from npk.recursion.steps import Field, Recursion

FORMS = (
    "paths",
    "tangent",
    "tangent=standard",
    "depth=8",
    "without=layer:NAME",
    "without=gates:NAME",
    "without=block:3",
    'weighted={"NAME": 0.5}',
)
_MOST_LAYERS = 1 << 20


class Instrument(ABC):
    """What is asked of the paths; frozen, and the same again of its ``text``."""

    @property
    def weighs(self) -> bool:
        """Whether paths are told apart by the layers that they pass."""
        return True

    @property
    @abstractmethod
    def text(self) -> str:
        """Its name, as options, stores and the command line have it."""

    def left(self, graph: PathGraph) -> PathGraph:
        """What of a network its paths lead through.

        Args:
            graph: of the network.

        Returns:
            The graph, or another one with the same gates.

        Raises:
            OptionError: the network has no such part.
        """
        return graph

    def applied(self, graph: PathGraph, recursion: Recursion) -> Recursion:
        """The recursion that answers.

        Args:
            graph: what is left of the network.
            recursion: the plan of its kernel.

        Returns:
            Another plan over the same masks.

        Raises:
            OptionError: the network has no such part, or no such paths.
        """
        return recursion


@dataclass(frozen=True)
class Paths(Instrument):
    """The neural path kernel itself."""

    @property
    def weighs(self) -> bool:
        """No: all paths are asked for alike."""
        return False

    @property
    def text(self) -> str:
        """Its name."""
        return "paths"


@dataclass(frozen=True)
class Tangent(Instrument):
    r"""The expected neural tangent kernel of the value network under these gates.

    .. math:: \Theta(x, x') = \sum_l c_l\, \partial F / \partial s_l

    exactly, at every width, with c_l = 1 (NTK) or one over the layer's variance (standard): with
    variances 1/fan-in the fan-in. Weights of batch norms and other multiples of single units are
    held.

    Args:
        parametrization: "ntk": every weight is its standard deviation times a parameter of variance
            1; "standard": the weights themselves are the parameters.

    Raises:
        OptionError: another parametrization.
    """

    parametrization: str = "ntk"

    def __post_init__(self) -> None:
        if self.parametrization not in ("ntk", "standard"):
            raise OptionError(
                f"parametrization={self.parametrization!r} is not known. Choose ntk or standard."
            )

    @property
    def text(self) -> str:
        """Its name."""
        return "tangent" if self.parametrization == "ntk" else "tangent=standard"

    def applied(self, graph: PathGraph, recursion: Recursion) -> Recursion:
        """The recursion of the slope."""
        costs = [self._cost(step) for step in recursion.steps]
        slopes = _Slopes(recursion, costs)
        return weighed(recursion, slopes, [slopes.output])

    def _cost(self, step: Any) -> float:
        """What a path gains at a step: the derivative of log variance."""
        if not isinstance(step, Field) or not step.layer:
            return 0.0
        # a fan-in is a whole number, and 1 / (1 / 49) is none
        return 1.0 if self.parametrization == "ntk" else float(round(1 / step.factor))


@dataclass(frozen=True)
class Depth(Instrument):
    r"""The kernel of all sub-networks with a number of layers: :math:`K = \sum_L K_L`.

    Args:
        layers: how many linear and convolutional layers a path passes.

    Raises:
        OptionError: no number of layers.
    """

    layers: int

    def __post_init__(self) -> None:
        number = self.layers
        whole = isinstance(number, Integral) and not isinstance(number, bool)
        if not whole or not 0 <= number < _MOST_LAYERS:
            raise OptionError(
                f"depth={reprlib.repr(number)} is no number of layers. Give a whole number, such as 8."
            )
        object.__setattr__(self, "layers", int(number))

    @property
    def text(self) -> str:
        """Its name."""
        return f"depth={self.layers}"

    def applied(self, graph: PathGraph, recursion: Recursion) -> Recursion:
        """The recursion of one degree."""
        known = depths(recursion)
        if self.layers not in known:
            have = ", ".join(map(str, known)) or "none"
            raise OptionError(
                f"depth={self.layers}, but no path of this network passes {self.layers} layers. "
                f"Choose one of {have}."
            )
        return weighed(recursion, Degrees(recursion), [((self.layers, 1.0),)])


@dataclass(frozen=True)
class Depths(Instrument):
    """The kernels of all depths in one pass: a part of the recursion for each of ``depths``."""

    @property
    def text(self) -> str:
        """Its name."""
        return "depths"

    def applied(self, graph: PathGraph, recursion: Recursion) -> Recursion:
        """The recursion of all degrees."""
        return by_depth(recursion)


@dataclass(frozen=True)
class Passing(Instrument):
    """The kernel, and for each of some sets of layers that of all paths through one of them, in one
    pass: ``1 + len(sets)`` parts.

    Args:
        sets: names of nodes; no path passes two of one set.
    """

    sets: tuple[frozenset[str], ...]

    @property
    def text(self) -> str:
        """Its name."""
        return "passing"

    def applied(self, graph: PathGraph, recursion: Recursion) -> Recursion:
        """The recursion with a copy for each set."""
        outputs: list[Row] = [((state, 1.0),) for state in range(1 + len(self.sets))]
        return weighed(recursion, _Passed(recursion, self.sets), outputs)


@dataclass(frozen=True)
class Without(Instrument):
    """The kernel with one part of the network left out; give one of the three.

    Args:
        layer: module (or node) of a layer: paths through it are left out.
        gates: name of a gate layer: ones in the place of its gates.
        block: number of an addition, from 1: its branch of more layers is left out.

    Raises:
        OptionError: none of them, several, or what is no name or number.
    """

    layer: str | None = None
    gates: str | None = None
    block: int | None = None

    def __post_init__(self) -> None:
        given = {name: value for name, value in vars(self).items() if value is not None}
        if len(given) != 1:
            came = ", ".join(given) or "nothing"
            raise OptionError(
                f"Without was given {came}. Give one of layer=, gates= and block=, such as "
                "Without(block=3)."
            )
        ((name, value),) = given.items()
        kind = int if name == "block" else str
        if isinstance(value, bool) or not isinstance(value, kind) or value == "":
            what = "number" if kind is int else "name"
            raise OptionError(
                f"{name}={reprlib.repr(value)} is no {what} of a part of the network. "
                "npk inspect lists them."
            )

    @property
    def weighs(self) -> bool:
        """Only where a layer is left out: without a block or its gates it is another network."""
        return self.layer is not None

    @property
    def text(self) -> str:
        """Its name."""
        ((name, value),) = ((n, v) for n, v in vars(self).items() if v is not None)
        return f"without={name}:{value}"

    def left(self, graph: PathGraph) -> PathGraph:
        """The graph without the block, or without the gates."""
        if self.block is not None:
            return without_block(graph, self.block)
        return graph if self.gates is None else without_gates(graph, self.gates)

    def applied(self, graph: PathGraph, recursion: Recursion) -> Recursion:
        """The recursion without the layer."""
        if self.layer is None:
            return recursion
        return Weighted({self.layer: 0.0}).applied(graph, recursion)


@dataclass(frozen=True)
class Weighted(Instrument):
    r"""The kernel in which each layer has a factor of its own: :math:`\sum_p \prod_{l \in p} s_l\, \phi_x[p] \phi_{x'}[p]`.

    Args:
        layers: factor by module (or node) of the layer; layers that are not named have 1.

    Raises:
        OptionError: no layer is named, or a factor that is no number from 0 on.
    """

    layers: tuple[tuple[str, float], ...]

    def __init__(self, layers: Mapping[str, float] | Iterable[tuple[str, float]]) -> None:
        given = layers.items() if isinstance(layers, Mapping) else layers
        try:
            pairs = {str(name): float(factor) for name, factor in given}
        except (TypeError, ValueError) as error:
            raise OptionError(
                f"layers={reprlib.repr(layers)} gives no factor a layer. Give for instance "
                "Weighted({'stem': 0.5})."
            ) from error
        wrong = [factor for factor in pairs.values() if not 0 <= factor < math.inf]
        if wrong or not pairs:
            raise OptionError(
                f"layers={reprlib.repr(dict(pairs))}: factors of layers are numbers from 0 on, and "
                "one at least is given. Give for instance Weighted({'stem': 0.5})."
            )
        object.__setattr__(self, "layers", tuple(sorted(pairs.items())))

    @property
    def text(self) -> str:
        """Its name."""
        return f"weighted={json.dumps(dict(self.layers))}"

    def applied(self, graph: PathGraph, recursion: Recursion) -> Recursion:
        """The recursion with the factors."""
        factors = {layer_named(graph, name).name: factor for name, factor in self.layers}
        weights = _Factors(recursion, factors)
        if not reached_states(recursion, weights)[-1]:
            names = ", ".join(name for name, factor in self.layers if factor == 0)
            raise OptionError(
                f"every path of this network passes {names}: nothing is left. Choose another part."
            )
        return weighed(recursion, weights, [((0, 1.0),)])


def instrument_of(value: object) -> Instrument:
    """The instrument that an option names.

    Args:
        value: an instrument, or its text.

    Returns:
        The instrument.

    Raises:
        OptionError: none has this name, or what follows it is not understood.
    """
    if isinstance(value, Instrument) and not isinstance(value, Depths | Passing):
        return value
    name, sign, rest = value.partition("=") if isinstance(value, str) else ("", "", "")
    reader = _READERS.get((name, bool(sign)))
    if reader is None:
        raise OptionError(f"of={value!r} is not known. Choose one of {', '.join(FORMS)}.")
    return reader(rest)


def _depth(text: str) -> Depth:
    if not (text.isascii() and text.isdigit()):
        raise OptionError(f"of='depth={text}' has no number of layers. Write for instance depth=8.")
    return Depth(int(text))


def _without(text: str) -> Without:
    kind, _, name = text.partition(":")
    if kind not in ("layer", "gates", "block") or not name:
        raise OptionError(
            f"of='without={text}' does not say what to leave out. Write without=layer:NAME, "
            "without=gates:NAME or without=block:3."
        )
    if kind == "layer":
        return Without(layer=name)
    if kind == "gates":
        return Without(gates=name)
    if not (name.isascii() and name.isdigit()):
        raise OptionError(
            f"of='without={text}' has no number of a block. Write for instance without=block:3."
        )
    return Without(block=int(name))


def _weighted(text: str) -> Weighted:
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise OptionError(
            f"of='weighted={text}' has no factors of layers. Write for instance "
            'weighted={"stem": 0.5}.'
        )
    return Weighted(values)


_READERS: dict[tuple[str, bool], Callable[[str], Instrument]] = {
    ("paths", False): lambda _: Paths(),
    ("tangent", False): lambda _: Tangent(),
    ("tangent", True): Tangent,
    ("depth", True): _depth,
    ("without", True): _without,
    ("weighted", True): _weighted,
}


class _Passed(Automaton):
    """State k: a layer of set k was passed; state 0: any path."""

    def __init__(self, recursion: Recursion, sets: tuple[frozenset[str], ...]) -> None:
        self.states = 1 + len(sets)
        self.begins = [
            {k for k, names in enumerate(sets, 1) if isinstance(step, Field) and step.name in names}
            for step in recursion.steps
        ]

    def behind_layer(self, field: int, state: int) -> Row:
        """Any path, where the layer is one of the set."""
        return ((0, 1.0),) if state in self.begins[field] else ((state, 1.0),)


class _Factors(Automaton):
    """One state; a layer multiplies."""

    states = 1

    def __init__(self, recursion: Recursion, factors: Mapping[str, float]) -> None:
        self.factors = [factors.get(step.name, 1.0) for step in recursion.steps]

    def behind_layer(self, field: int, state: int) -> Row:
        """The factor of the layer."""
        return ((0, self.factors[field]),) if self.factors[field] else ()


_VALUE, _SLOPE = range(2)


class _Slopes(Automaton):
    r"""The sum of the layers' costs on a path: the states value and slope.

    The slope at a step is that of what a path costs beyond the least cost of any path there, or of
    one that the step is added up with: so it is 0, and left out, as long as all paths cost the same,
    and a skip connection takes one sum more in a block instead of one a term. The last step adds
    what is missing. None of these weights is negative.
    """

    states = 2

    def __init__(self, recursion: Recursion, costs: list[float]) -> None:
        self.costs, self.recursion = costs, recursion
        self.counted = _counted(recursion, _least(recursion, costs))

    @property
    def output(self) -> Row:
        """Of the last step, with what all its paths cost."""
        missing = self.counted[-1]
        return ((_VALUE, missing), (_SLOPE, 1.0)) if missing else ((_SLOPE, 1.0),)

    def behind_layer(self, field: int, state: int) -> Row:
        """The layer's own cost times the value, and the slope so far."""
        before = self.counted[self.recursion.steps[field].sources[0]]
        return self._row(state, before + self.costs[field] - self.counted[field])

    def begun_at(self, field: int, state: int) -> float:
        """The layer's own cost, of what is not counted."""
        return 1.0 if state == _VALUE else self.costs[field] - self.counted[field]

    def in_sum(self, collapse: int, field: int | None, state: int) -> Row:
        """What the term's paths cost beyond the least of the sum."""
        before = 0.0 if field is None else self.counted[field]
        return self._row(state, before - self.counted[collapse])

    def _row(self, state: int, more: float) -> Row:
        if state == _VALUE or not more:
            return ((state, 1.0),)
        return ((_VALUE, more), (_SLOPE, 1.0))


def _least(recursion: Recursion, costs: list[float]) -> list[float]:
    """What the paths to each step cost at least; infinite where there are none."""
    least: list[float] = []
    for number, step in enumerate(recursion.steps):
        if isinstance(step, Field):
            before = [least[step.collapse], *([0.0] if step.bias else [])]
        else:
            fields = [term.field for term in step.terms if contributes(term)]
            before = [0.0 if field is None else least[field] for field in fields]
        least.append(min(before, default=math.inf) + costs[number])
    return least


def _counted(recursion: Recursion, least: list[float]) -> list[float]:
    """The cost that the slope at each step leaves out: the least one at a collapse, and at a field
    the least one of the sum that it is a part of.
    """
    read: dict[int, float] = {}
    for number, step in enumerate(recursion.steps):
        if not isinstance(step, Field):
            for source in step.sources:
                read[source] = max(read.get(source, 0.0), least[number])
    return [
        read.get(number, 0.0) if isinstance(step, Field) else least[number]
        for number, step in enumerate(recursion.steps)
    ]
