"""Operators own their facts; an operator that nobody thought of is refused by every interpreter."""

import ast
import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import npk
from npk.checks.ensemble import product_form
from npk.definition.paths import neural_path_feature, neural_path_value, parameter_variances
from npk.definition.value_network import evaluate, gate_values, random_weights
from npk.errors import UnsupportedGraphError
from npk.gates.table import GateLayer, GateTable, input_values, pack
from npk.graph import operators as path_operators
from npk.graph.facts import Operator
from npk.graph.independence import _has_independent_channels
from npk.graph.input_shifts import without_shifts
from npk.graph.node import PathNode, module_of, refuse_other_ones, units_of
from npk.graph.operators import (
    OPERATORS,
    Add,
    AveragePool,
    BatchNorm,
    Convolution,
    Gate,
    Input,
    MaxPool,
    Part,
    Rearrange,
    Scale,
    Shift,
)
from npk.graph.path_graph import PathGraph, fan_in, from_dict, to_dict, window_taps
from npk.graph.positions import AdaptiveWindow, Window
from npk.recursion.planning import plan
from npk.structure.shifts import _reason, outside_gates, shift_group

ROOT = Path(npk.__file__).parent
SAMPLES = 3


@dataclass(frozen=True)
class Silent(Operator):
    """Says nothing of itself."""


@dataclass(frozen=True)
class Mirror(Operator):
    """An invented operator: turns the positions around, and gates."""

    gate: str

    parameters = ()
    matrices = ()
    begins = False
    biases = ()

    @property
    def entries(self):
        return (self.gate,)

    def bias_name(self, node):
        return None

    def taps(self, before, grid):
        return (np.arange(len(np.zeros(grid).reshape(-1)))[None, ::-1],)

    def fan_in(self, channels):
        return 1

    def path_counts(self, inputs, channels):
        return inputs[0]

    def words(self, positions):
        return "mirror", f" of {positions} positions"


def graph_of_a_mirror():
    """Convolution, mirror, read-out on 4 positions."""
    point, whole = Window((1,), (1,), ((0, 0),), (1,)), Window.whole((4,))
    nodes = (
        PathNode("x", Input(), (), (1, 4)),
        PathNode("first", Convolution("first.weight", None, point), ("x",), (2, 4)),
        PathNode("mirror", Mirror("mirror"), ("first",), (2, 4)),
        PathNode("head", Convolution("head.weight", None, whole), ("mirror",), (1, 1)),
    )
    return PathGraph(nodes, (1, 4))


@pytest.fixture
def graph(monkeypatch):
    """The graph, as if the guard of independent paths knew the mirror."""
    monkeypatch.setattr("npk.graph.path_graph.refuse_dependent_paths", lambda nodes: None)
    return graph_of_a_mirror()


@pytest.fixture
def table(graph, rng):
    gates = GateLayer("hard", (2, 4), pack(rng.random((SAMPLES, 4, 2)) > 0.5))
    return GateTable(graph, rng.standard_normal((SAMPLES, 1, 4)), {"mirror": gates})


def test_an_operator_that_says_nothing_cannot_be_made():
    with pytest.raises(TypeError, match="abstract class Silent"):
        Silent()


@pytest.mark.parametrize("fact", sorted(Operator.__abstractmethods__))
def test_an_operator_that_leaves_one_fact_open_cannot_be_made(fact):
    forgetful = type("Forgetful", (Mirror,), {fact: getattr(Operator, fact)})
    with pytest.raises(TypeError, match=rf"abstract class Forgetful .*{fact}"):
        forgetful("mirror")


OF_THE_GRAPH = {
    "step of the recursion": plan,
    "random weights": lambda graph: random_weights(graph, np.random.default_rng(0)),
    "variance of parameters": parameter_variances,
    "parameters of monomials": lambda g: neural_path_value(g, (("head.weight", 0, 0, 0),), {}),
    "copy in whole numbers": shift_group,
    "place where its gates are made": lambda graph: outside_gates(SimpleNamespace(graph=graph)),
    "module": lambda graph: module_of(graph["mirror"]),
    "rule for the independence of channels": lambda graph: _has_independent_channels(
        graph._by_name, "mirror"
    ),
    "values of a sample": lambda graph: units_of(graph["mirror"]),
    "JSON form": lambda graph: from_dict(json.loads(json.dumps(to_dict(graph)))),
}
OF_THE_TABLE = {
    "value": lambda table: evaluate(table, {"first.weight": np_weights(2, 1, 1)}),
    "enumeration of paths": lambda table: neural_path_feature(table, 0),
    "gate values": lambda table: gate_values(table, table.graph["mirror"]),
    "values of a sample": lambda table: input_values(table, table.graph["mirror"]),
    "product form": product_form,
    "step of the recursion": npk.kernel,
}


def np_weights(*shape):
    import torch

    return torch.ones(shape, dtype=torch.float64)


def refused(what):
    return pytest.raises(
        UnsupportedGraphError,
        match=rf"^npk has no {what} for the operator Mirror\. Use an npk that knows it, or give it",
    )


@pytest.mark.parametrize("what", OF_THE_GRAPH)
def test_an_invented_operator_is_refused_in_a_graph(what, graph):
    with refused(what):
        OF_THE_GRAPH[what](graph)


@pytest.mark.parametrize("what", OF_THE_TABLE)
def test_an_invented_operator_is_refused_in_a_table(what, table):
    with refused(what):
        OF_THE_TABLE[what](table)


def test_an_invented_operator_is_refused_where_ones_are_counted(graph):
    with refused("values of a sample"):
        refuse_other_ones(graph["mirror"], (1, 4))


def test_an_invented_operator_is_refused_behind_samples(graph):
    start = graph.nodes[0]
    mirror = dataclasses.replace(graph["mirror"], inputs=(start.name,))
    with refused("shift of the input"):
        without_shifts((start, mirror), lambda name: np.ones(1), graph.input_shape)


def test_an_invented_operator_breaks_no_shift_for_a_known_reason(graph, monkeypatch):
    monkeypatch.setattr("npk.structure.shifts.module_of", lambda node: node.name)
    with refused("reason why a shift breaks"):
        _reason(graph, graph["mirror"], (1,))


def test_a_graph_with_an_invented_operator_is_refused_when_it_is_made():
    with refused("rule for the independence of paths"):
        graph_of_a_mirror()


def test_what_rests_on_facts_alone_takes_an_invented_operator(graph):
    assert graph.path_count() == 2 * 4
    assert graph.gates == (graph["mirror"],)
    assert fan_in(graph, graph["mirror"]) == 1
    assert window_taps(graph, graph["mirror"]).tolist() == [[3, 2, 1, 0]]
    assert "mirror mirror of 4 positions" in str(graph)


POINT = Window((1, 1), (1, 1), ((0, 0),) * 2, (1, 1))
TWO = Window((2, 2), (2, 2), ((0, 0),) * 2, (1, 1))
THREE = Window((3, 3), (1, 1), ((1, 1),) * 2, (2, 2))
BACK = dataclasses.replace(TWO, transposed=True, extra=(0, 0))
# operator -> its words on several positions; * stands for the name of what it reads
WORDS = {
    Input(): "input",
    Input(ones=True): "ones",
    Convolution("w", "b", POINT): "linear* w",
    Convolution("w", None, THREE, 2): "convolution* w 3x3, padding 1, dilation 2, 2 groups",
    Convolution("w", None, TWO): "convolution* w 2x2, stride 2x2",
    Convolution("w", None, BACK): "transposed convolution* w 2x2, stride 2x2",
    BatchNorm("w", "b", "m", "v", 0.1): "batch norm* w",
    BatchNorm(None, None, "m", "v", 0.1): "batch norm* v",
    Scale(2.0): "scale by 2",
    Scale(weight="w"): "scale* w",
    Scale(0.5, "w", True): "scale* w, inverse, times 0.5",
    Shift(): "shift by 1",
    Shift("b", -1.0): "shift* b, times -1",
    Gate("g"): "gate* g",
    Gate("g", 0.5): "gate* g, slope 0.5",
    Gate("g", (0.5, 1.0)): "gate* g, a slope a channel",
    AveragePool(TWO): "average pool 2x2, stride 2x2",
    AveragePool(AdaptiveWindow((2,), (3,))): "average pool to 2, windows of at most 3",
    AveragePool(TWO, weights=((0.25, 0.5, -1.0, 0.0),)): "fixed filter 2x2, stride 2x2",
    MaxPool("g", TWO): "max pool* g 2x2, stride 2x2",
    Rearrange((Part(0, (0,), (0,)), Part(1, (1,), (0,)))): "concatenation, 2 parts",
    Rearrange((Part(0, (0,), (0,), (1, 0)),)): "positions moved",
    Rearrange((Part(0, (0, 1), (1, 0)),)): "channels moved",
    Rearrange((Part(0, (0, 1), (1, 0), (1, 0)),)): "rearrangement, 1 part",
    Add(): "add",
}


@pytest.mark.parametrize("operator", WORDS, ids=lambda operator: type(operator).__name__)
def test_one_describer(operator):
    assert operator.describe(6) == re.sub(r"\* .", "", WORDS[operator])
    assert operator.describe(6, named=True) == WORDS[operator].replace("*", "")


@pytest.mark.parametrize(
    ("operator", "words"),
    [
        (Convolution("w", None, TWO), "linear w on 2x2 positions"),
        (AveragePool(TWO), "global average pool"),
        (MaxPool("g", TWO), "global max pool g"),
    ],
)
def test_words_on_one_position(operator, words):
    assert operator.describe(1, named=True) == words


@pytest.mark.parametrize("operator", WORDS, ids=lambda operator: type(operator).__name__)
def test_an_operator_comes_back_from_json(operator):
    written = json.loads(json.dumps(operator.to_dict()))
    assert path_operators.operator_from(written) == operator
    assert written["type"] == type(operator).__name__


def test_all_operators_have_a_json_form():
    classes = [value for value in vars(path_operators).values() if isinstance(value, type)]
    found = [cls for cls in classes if issubclass(cls, Operator) and not cls.__abstractmethods__]
    assert {cls.__name__: cls for cls in found} == OPERATORS
    assert {type(operator) for operator in WORDS} == set(OPERATORS.values())


def test_taps_of_a_rearrangement_are_those_of_its_parts():
    back = Part(0, (0,), (0,), (1, 0, -1))
    moved = Rearrange((back, Part(1, (1,), (0,)), Part(1, (2,), (0,), (2, 2, 2))))
    first, second, none = moved.taps(((2,), (3,), (5,)), (3,))
    assert first.tolist() == [[1, 0, -1]]
    assert second.tolist() == [[0, 1, 2], [2, 2, 2]]
    assert none.shape == (0, 3)


def test_taps_of_what_goes_unit_by_unit_are_the_positions_themselves():
    assert [taps.tolist() for taps in Add().taps(((2, 2), (2, 2)), (2, 2))] == [[[0, 1, 2, 3]]] * 2
    assert Input().taps((), (2, 2)) == ()


# Where isinstance may ask for one kind of operator, and why "no" is right for any other one.
QUESTIONS = {
    ("checks/ensemble.py", "check_ensemble"): "a graph with sums that are not known is never made",
    ("checks/ensemble.py", "_second_opinion"): "only where a gate follows a sum is there a case",
    ("graph/input_shifts.py", "without_shifts"): "no other operator shows samples",
    ("machines/approximate/draws.py", "behind"): "any other output takes the exact features",
    ("graph/parts.py", "layers_of"): "no other operator is a layer",
    ("graph/parts.py", "blocks_of"): "no other operator is a block",
    ("graph/parts.py", "without_gates"): "what is no gate is refused",
    ("graph/parts.py", "longer_branch"): "it counts layers",
    ("graph/parts.py", "last_layers_of"): "no other operator is a layer",
    ("reading/builder.py", "_fixed_chain"): "a chain ends at any other operator",
    ("recursion/planning.py", "_only_moves_positions"): "any other operator has a step of its own",
    ("studies/checking.py", "_ensemble"): "a graph with sums that are not known is never made",
    ("studies/measuring.py", "_depths"): "a graph with sums that are not known is never made",
    ("structure/probe.py", "went"): "what else reads the gate table moves with the input",
    ("structure/shifts.py", "why_broken"): "any other operator has a reason of its own",
    ("structure/shifts.py", "_window_reason"): "only the words of a reason depend on it",
    ("structure/shifts.py", "_strides_across"): "only the words of a reason depend on it",
    ("structure/shifts.py", "_shows_zeros"): "no other operator leaves places empty",
}


def operators_of(tree):
    """Names of operators that a file imports."""
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    ours = [node.names for node in froms if node.module == "npk.graph.operators"]
    return {alias.name for names in ours for alias in names} & set(OPERATORS)


def names_in(tree):
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def asks_an_operator(match, operators):
    """Whether a match looks at an operator."""
    subject = match.subject
    name = subject.attr if isinstance(subject, ast.Attribute) else getattr(subject, "id", "")
    classes = [node.cls for node in ast.walk(match) if isinstance(node, ast.MatchClass)]
    return name == "operator" or any(names_in(cls) & operators for cls in classes)


def refuses(case):
    """Whether a case takes anything and refuses it."""
    takes_all = isinstance(case.pattern, ast.MatchAs) and case.pattern.pattern is None
    calls = [node.func for node in ast.walk(case.body[-1]) if isinstance(node, ast.Call)]
    return takes_all and not case.guard and any("refuse_operator" in names_in(f) for f in calls)


def match_offences(source, file):
    """Matches on operators that do not end in a refusal."""
    tree = ast.parse(source)
    matches = [node for node in ast.walk(tree) if isinstance(node, ast.Match)]
    asking = [match for match in matches if asks_an_operator(match, operators_of(tree))]
    silent = [match for match in asking if not refuses(match.cases[-1])]
    return [f"{file}:{match.lineno} takes an unknown operator silently" for match in silent]


def questions(source, file):
    """(file, function) wherever isinstance looks at an operator."""
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "isinstance":
            if names_in(call.args[1]) & operators_of(tree):
                around = [f for f in functions if f.lineno <= call.lineno <= f.end_lineno]
                yield file, max(around, key=lambda f: f.lineno).name


FILES = [(path.read_text(), str(path.relative_to(ROOT))) for path in sorted(ROOT.rglob("*.py"))]


def test_every_match_on_an_operator_ends_in_a_refusal():
    offences = [offence for source, file in FILES for offence in match_offences(source, file)]
    assert not offences, "\n".join(offences)


def test_every_question_for_the_kind_of_an_operator_is_known():
    asked = {question for source, file in FILES for question in questions(source, file)}
    assert asked == set(QUESTIONS)


IMPORT = "from npk.graph.operators import Add, Gate\n"


@pytest.mark.parametrize(
    "source",
    [
        "match node.operator:\n    case Gate():\n        x = 1",
        "match operator:\n    case _:\n        x = 1",
        IMPORT + "match it:\n    case Add() | Gate():\n        x = 1",
        "match node.operator:\n    case other if other.gate:\n        refuse_operator('x', other)",
        "match node.operator:\n    case Gate() as other:\n        refuse_operator('x', other)",
    ],
)
def test_the_rule_sees_a_silent_match(source):
    (offence,) = match_offences(source, "graph/some.py")
    assert "takes an unknown operator silently" in offence


@pytest.mark.parametrize(
    "source",
    [
        "match node.operator:\n    case other:\n        refuse_operator('x', other)",
        "match step:\n    case Convolution():\n        x = 1",
        "match recording.rule:\n    case 'positive':\n        x = 1",
    ],
)
def test_the_rule_allows(source):
    assert match_offences(source, "graph/some.py") == []


def test_the_rule_sees_questions():
    source = IMPORT + "def f(a):\n    return isinstance(a, Add | Gate), isinstance(a, int)"
    assert list(questions(source, "graph/some.py")) == [("graph/some.py", "f")]
