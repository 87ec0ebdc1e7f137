"""What programs, TorchScript and ONNX files may not say, one thing at a time: each guard refuses it
by its own words.
"""

import copy
import io
import pickle
import zipfile

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from test_guards import refused

from npk.checkpoint.archives import Archive
from npk.checkpoint.onnx import limits
from npk.checkpoint.onnx.gates import _prelu
from npk.checkpoint.onnx.operators import RULES
from npk.checkpoint.onnx.reader import _model
from npk.checkpoint.program import graph
from npk.checkpoint.program.records import _checked_text
from npk.checkpoint.script import code as script_code
from npk.checkpoint.script import follow
from npk.checkpoint.script.code import Code, RunsWhileLoaded, StrangeCode
from npk.checkpoint.script.follow import Follower
from npk.checkpoint.script.pickle import Name, Pickled, ScriptObject, Strange, _build, _tensor
from npk.checkpoint.script.program import _DEEPEST, _check_objects
from npk.errors import CheckpointError, UnsupportedGraphError

# exported programs


def numbers(*values):
    return [{"as_int": value} for value in values]


def entry():
    meta = {
        "dtype": 7,
        "sizes": numbers(2, 2),
        "strides": numbers(2, 1),
        "storage_offset": {"as_int": 0},
    }
    return {"path_name": "weight_0", "is_param": True, "use_pickle": False, "tensor_meta": meta}


TABLES = {
    "another table": (lambda t: t.update(more=1), "no table of weights"),
    "no entries": (lambda t: t.update(config=[]), "no table of weights"),
    "more of a weight": (lambda t: t["config"]["w"].update(more=1), "what torch does not say"),
    "a list": (lambda t: t["config"].update(w=[]), "what torch does not say"),
    "a pickle": (lambda t: t["config"]["w"].update(use_pickle=True), "w is pickled"),
    "a number for yes": (lambda t: t["config"]["w"].update(is_param=1), "w is pickled"),
    "a path": (lambda t: t["config"]["w"].update(path_name="../w"), "no record of plain numbers"),
    "no record": (lambda t: t["config"]["w"].update(path_name="weight_1"), "no record of plain"),
    "another kind": (lambda t: t["config"]["w"]["tensor_meta"].update(dtype=99), "of a kind"),
    "a stride more": (
        lambda t: t["config"]["w"]["tensor_meta"].update(strides=numbers(2, 1, 1)),
        "w has no shape",
    ),
    "below nothing": (
        lambda t: t["config"]["w"]["tensor_meta"].update(sizes=numbers(-2, 2)),
        "w has no shape",
    ),
    "larger": (
        lambda t: t["config"]["w"]["tensor_meta"].update(sizes=numbers(3, 2)),
        "its record has 16 bytes",
    ),
    "a name with a line": (lambda t: t["config"].update({"w\n": entry()}), "is no name"),
}


@pytest.mark.parametrize(("change", "text"), TABLES.values(), ids=TABLES)
def test_tables_of_weights(change, text):
    table = {"config": {"w": entry()}}
    assert graph.checked_weights(copy.deepcopy(table), {"weight_0": 16}) == table
    change(table)
    refused(lambda: graph.checked_weights(table, {"weight_0": 16}), graph.Refused, text)


SPEC = '[1, {"type": "builtins.tuple", "context": null, "children_spec": []}]'
GRAPHS = {
    "a list": ([], "it is no graph"),
    "an object": ({"as_custom_obj": {"name": "x"}}, "it holds an object"),
    "a huge number": ({"x": 1 << 64}, "it holds the number"),
    "endless digits": ({"x": 10**400}, "endless digits"),
    "a word": ({"x": "a;b"}, "is no name"),
    "a key": ({"a;b": 1}, "is no name"),
    "a keyword for a name": ({"forward_arg_names": ["lambda"]}, "is no name"),
    "an operator": ({"target": "os.system"}, "is no operator that npk knows"),
    "a file": ({"target": "torch.ops.aten.from_file.default"}, "reads or writes files"),
    "a call": ({"expr_str": "exit()"}, "is no size"),
    "no nesting": ({"in_spec": "{}"}, "how inputs and outputs are nested"),
    "another version": ({"in_spec": SPEC.replace("1", "2", 1)}, "how inputs and outputs are"),
    "another container": ({"in_spec": SPEC.replace("tuple", "set")}, "in what npk does not know"),
    "keys of a kind": ({"out_spec": SPEC.replace("null", "[1.5]")}, "in what npk does not know"),
}


@pytest.mark.parametrize(("program", "text"), GRAPHS.values(), ids=GRAPHS)
def test_graphs_of_programs(program, text):
    good = {"in_spec": SPEC, "target": "torch.ops.aten.relu.default", "expr_str": "s0 + 1"}
    assert graph.checked_graph(good) == good
    refused(lambda: graph.checked_graph(program), graph.Refused, text)


def test_nesting_ends():
    deep = {"type": None, "context": None, "children_spec": []}
    for _ in range(25):
        deep = {"type": None, "context": None, "children_spec": [deep]}
    refused(lambda: graph._check_nesting(deep, False, 20), graph.Refused, "nests inputs or outputs")


def test_texts_of_programs():
    refused(lambda: graph.parsed(b'{"a": 1, "a": 2}'), graph.Refused, "two entries of one name")
    assert _checked_text(b"little") == b"little"
    for text in (b"big", b"a b", b"x" * 41):
        refused(lambda text=text: _checked_text(text), graph.Refused, "not what torch writes")


# TorchScript


def archive(**members):
    """An archive that TorchScript would write, in the folder ``n``."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as file:
        file.writestr("n/first", b"")
        for name, content in members.items():
            file.writestr(f"n/{name}", content)
    return Archive(io.BytesIO(held.getvalue()))


FORWARD = "class N(Module):\n  def forward(self, x):\n    return x\n"
CODES = {
    "a line": ("exec('x')", StrangeCode, "neither a function nor a class"),
    "no code": ("def", StrangeCode, "cannot be parsed"),
    "depth": ("x = " + "-" * 70 + "1", StrangeCode, "nested too deeply"),
    "any number of values": ("def f(*x):\n  pass", StrangeCode, "takes what npk does not know"),
    "names alone": ("def f(*, x):\n  pass", StrangeCode, "takes what npk does not know"),
    "a loop of lists": ("def f(x):\n  return [y for y in x]", StrangeCode, "has a ListComp"),
    "another base": ("class A(Exception):\n  pass", StrangeCode, "is a class of what npk"),
    "another class of classes": (
        "class A(metaclass=B):\n  pass",
        StrangeCode,
        "is a class of what",
    ),
    "a default": ("def f(x=g()):\n  pass", RunsWhileLoaded, "code/a.py"),
    "a decorator": ("@g\ndef f(x):\n  pass", RunsWhileLoaded, "code/a.py"),
    "a line of a class": ("class A(Module):\n  g()", RunsWhileLoaded, "code/a.py"),
}


@pytest.mark.parametrize(("text", "error", "words"), CODES.values(), ids=CODES)
def test_code_of_scripts(text, error, words):
    assert set(Code(archive(**{"code/a.py": FORWARD}), "n/").classes) == {"a.N"}
    refused(lambda: Code(archive(**{"code/a.py": text}), "n/"), error, words)


def test_more_code_than_is_read(monkeypatch):
    monkeypatch.setattr(script_code, "MOST_CODE", 10)
    held = archive(**{"code/a.py": FORWARD})
    refused(lambda: Code(held, "n/"), StrangeCode, "more than 10 bytes of code")


def followed(body, *values):
    text = "def f(x, y):\n" + "".join(f"  {line}\n" for line in body.split("\n"))
    code = Code(archive(**{"code/a.py": text}), "n/")
    return Follower(code, lambda i: None, lambda path: None).call(
        code.functions["a.f"], list(values), {}
    )


def test_statements_of_scripts(monkeypatch):
    assert followed("return x", 1, 2) == 1
    never = UnsupportedGraphError
    refused(lambda: followed("return x", 1), never, "does not follow a call of f")
    refused(lambda: followed("return x", 1, 2, 3), never, "does not follow a call of f")
    refused(lambda: followed("while x:\n    pass", 1, 2), never, "does not follow")
    refused(lambda: followed("return z", 1, 2), never, "the name z")
    monkeypatch.setattr(follow, "MOST_STATEMENTS", 1)
    refused(lambda: followed("pass\npass\nreturn x", 1, 2), never, "more than 1 statements")


def read(content, **records):
    held = archive(**{"data.pkl": content, **{f"data/{k}": v for k, v in records.items()}})
    return Pickled(held, "n/").read("data")


def tensor(dtype="FloatStorage", count=2, key="0"):
    """The steps of a tensor of two cells, as torch writes them."""
    flat = f"((X\7\0\0\0storagectorch\n{dtype}\nX\1\0\0\0{key}X\3\0\0\0cpuK".encode()
    head = b"ctorch._utils\n_rebuild_tensor_v2\n"
    return head + flat + bytes([count]) + b"tQK\0K\2\x85K\1\x85\x89)tR"


PICKLES = {
    "no kind of numbers": (tensor("NoStorage"), "it has tensors of torch.NoStorage"),
    "another count": (tensor(count=3), "not those of 3 cells"),
    "two kinds of one": (b"(" + tensor() + tensor("IntStorage") + b"t", "is of two kinds"),
    "a tuple of nothing": (b"\x85", "it is damaged"),
    "an unknown step": (b"\x8f", "npk knows no EMPTY_SET in it"),
    "an object of Python": (b"cos\nsystem\n)\x81", "it makes an object of os.system"),
    "an object of arguments": (b"c__torch__\nA\nK\1\x85\x81", "an object of __torch__.A"),
    "attributes of a list": (b"]}b", "no plain attributes"),
    "a function": (b"cos\nsystem\n)R", "it asks for os.system"),
    "a list in a dictionary": (b"}K\1a", "it is damaged"),
}


@pytest.mark.parametrize(("steps", "text"), PICKLES.values(), ids=PICKLES)
def test_pickles_of_scripts(steps, text):
    records = {"0": np.array([1, 2], np.float32).tobytes()}
    assert read(b"\x80\2" + tensor() + b".", **records).tolist() == [1, 2]
    refused(lambda: read(b"\x80\2" + steps + b".", **records), Strange, text)


def test_tensors_of_scripts_stay_within_their_cells():
    flat = torch.arange(4.0)
    assert _tensor(flat, 1, (1, 2), (2, 1)).tolist() == [[1, 2]]
    for numbers in ((0, (2,), (1, 1)), (-1, (2,), (1,)), (0, (True,), (1,))):
        refused(lambda n=numbers: _tensor(flat, *n), Strange, "has no shape")
    for numbers in ((3, (2,), (1,)), (0, (1 << 40,), (0,))):
        refused(lambda n=numbers: _tensor(flat, *n), Strange, "larger than its 4 cells")


def test_objects_of_scripts():
    refused(lambda: _build(ScriptObject("A"), {1: 2}), Strange, "no plain attributes")
    refused(lambda: _build(Name("A"), {}), Strange, "no plain attributes")
    code = Code(archive(**{"code/a.py": FORWARD + "class M(Module):\n  pass\n"}), "n/")
    _check_objects(ScriptObject("a.N"), code)
    for top in (None, ScriptObject("a.M"), ScriptObject("b.N")):
        refused(lambda top=top: _check_objects(top, code), Strange, "no network with a method")
    inner = ScriptObject("a.N", {"b": ScriptObject("a.B")})
    refused(lambda: _check_objects(inner, code), Strange, "it has no code of the class a.B")
    deep = ScriptObject("a.N")
    for _ in range(_DEEPEST + 1):
        deep = ScriptObject("a.N", {"n": deep})
    refused(lambda: _check_objects(deep, code), Strange, "within each other without end")


def test_numbers_of_scripts_in_another_order(tmp_path):
    from npk.checkpoint.script.program import read_script

    with zipfile.ZipFile(tmp_path / "x.ts", "w") as file:
        file.writestr("n/data.pkl", pickle.dumps(None, protocol=2))
        file.writestr("n/byteorder", b"big")
    refused(lambda: read_script(tmp_path / "x.ts"), CheckpointError, "another order of bytes")


# ONNX


def external(**entries):
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    graph = helper.make_graph([], "g", [], [], [tensor, tensor])
    return helper.make_model(graph)


EXTERNAL = {
    "absolute": ({"location": "/etc/passwd"}, "outside of its folder"),
    "upwards": ({"location": "../w"}, "outside of its folder"),
    "nowhere": ({}, "outside of its folder"),
    "a link": ({"location": "link"}, "outside of its folder"),
    "no file": ({"location": "none"}, "there is no file"),
    "before the start": ({"location": "w", "offset": -1}, "not those of its shape"),
    "behind the end": ({"location": "w", "offset": 4, "length": 8}, "not those of its shape"),
    "too few": ({"location": "w", "length": 1}, "not those of its shape"),
}


@pytest.mark.parametrize(("entries", "text"), EXTERNAL.values(), ids=EXTERNAL)
def test_external_data(tmp_path, entries, text):
    (tmp_path / "w").write_bytes(bytes(8))
    (tmp_path / "link").symlink_to("w")
    limits.check_external(external(location="w"), tmp_path)
    refused(lambda: limits.check_external(external(**entries), tmp_path), limits.Excess, text)


def test_external_data_that_are_taken_again(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "FREE", 7)
    (tmp_path / "w").write_bytes(bytes(8))
    model = external(location="w")
    refused(lambda: limits.check_external(model, tmp_path), limits.Excess, "again and again")


def test_functions_and_nodes(monkeypatch):
    node = helper.make_node("F", ["a"], ["b"], domain="own")
    ids = [helper.make_opsetid("", 17)]

    def model(*body):
        body = [helper.make_node(op, ["a"], ["b"], domain=of) for op, of in body]
        function = helper.make_function("own", "F", ["a"], ["b"], body, ids)
        graph = helper.make_graph([node, node], "g", [], [])
        return helper.make_model(graph, functions=[function])

    limits.check_nodes(model(("Relu", "")))
    itself = model(("F", "own"))
    refused(lambda: limits.check_nodes(itself), limits.Excess, "calls itself")
    monkeypatch.setattr(limits, "MOST_NODES", 3)
    limits.check_nodes(model(("Relu", "")))
    twice = model(("Relu", ""), ("Relu", ""))
    refused(lambda: limits.check_nodes(twice), limits.Excess, "it has more than 3 nodes")
    many = model(*[("Relu", "")] * 4)
    refused(lambda: limits.check_nodes(many), limits.Excess, "its functions make more than")


def test_constants_that_are_computed(monkeypatch):
    budget, one = limits.Budget(100), np.ones((1, 1, 2), np.float32)

    def spend(op, attributes=None, domain="", given=one):
        node = helper.make_node(op, [], ["y"], domain=domain)
        return lambda: budget.spend(node, [given, given], attributes or {})

    spend("Add")()
    refused(lambda: limits.cells([2, -1]), limits.Excess, "it has a shape [2, -1]")
    refused(spend("Add", domain="own"), limits.Excess, "compute constants by own Add")
    refused(spend("RandomNormal"), limits.Excess, "compute constants by ONNX RandomNormal")
    refused(spend("Cast", {"to": TensorProto.STRING}), limits.Excess, "computes no texts")
    refused(spend("Conv", {"pads": [0, 65]}), limits.Excess, "windows without end")
    huge = np.broadcast_to(np.float32(0), (1 << 20, 1 << 10))
    refused(spend("Add", given=huge), limits.Excess, "and those before it make")


def test_models_without_a_graph(tmp_path):
    graph = helper.make_graph([], "g", [], [])
    onnx.save(helper.make_model(graph), tmp_path / "x.onnx")
    refused(lambda: _model(tmp_path / "x.onnx"), CheckpointError, "it holds no graph")


def test_nodes_of_onnx_that_are_not_followed():
    x = torch.ones(2, 3, 4)
    slopes = torch.ones(3, 4)
    refused(lambda: _prelu({}, x, slopes), NotImplementedError, "slopes along several axes")
    refused(
        lambda: _prelu({}, x, torch.ones(2, 1, 1)), NotImplementedError, "slopes along several axes"
    )
    reshape = {"shape": [2, 12], "batch": 2}
    assert RULES["Reshape"](reshape, torch.ones(5, 3, 4)).shape == (5, 12)
    joined = {"shape": [2, 6], "batch": 2}
    refused(
        lambda: RULES["Reshape"](joined, torch.ones(4, 3, 4)),
        NotImplementedError,
        "joins the batch",
    )
