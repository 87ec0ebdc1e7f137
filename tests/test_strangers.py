"""Files from strangers: nothing in them runs, and nothing in them makes npk work or take memory
without bound.
"""

import io
import json
import os
import pickle
import warnings
import zipfile

import pytest
import torch
from torch import nn

import npk
from npk.errors import CheckpointError, UnsupportedGraphError


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The parts of a good .pt2 file, in order."""
    path = tmp_path_factory.mktemp("program") / "x.pt2"
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    npk.save(net.eval(), path, example=torch.ones(1, 4))
    with zipfile.ZipFile(path) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def written(path, parts):
    with pytest.MonkeyPatch.context() as patch, zipfile.ZipFile(path, "w") as archive:
        # zipfile warns of two members of one name
        patch.setattr("warnings.warn", lambda *_, **__: None)
        for name, content in parts:
            archive.writestr(name, content)
    return path


def changed(parts, end, change):
    """The parts with ``change`` done to the parsed JSON of the one whose name ends so."""
    found = []
    for name, content in parts:
        if name.endswith(end):
            parsed = json.loads(content)
            change(parsed)
            found.append((name, json.dumps(parsed).encode()))
        else:
            found.append((name, content))
    return found


def saved(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


# .pt2

SAMPLE = "data/sample_inputs/model.pt"
UNKNOWN, NO_TENSORS = "npk knows no such part", "it is no archive of tensors"
OUTSIDE = "leads out of the archive"
CODE_IN_A_RECORD = {
    "the sample inputs in capitals": (
        lambda parts, evil: [
            (name.replace("model.pt", "model.PT"), saved(evil))
            if name.endswith(SAMPLE)
            else (name, content)
            for name, content in parts
        ],
        UNKNOWN,
    ),
    "two records of one name": (
        lambda parts, evil: [("archive/" + SAMPLE, saved(evil)), *parts],
        "it has two members archive/data/sample_inputs/model.pt",
    ),
    "two records of nearly one name": (
        lambda parts, evil: [*parts, ("archive/data/sample_inputs/MODEL.pt", saved(evil))],
        "it has two members archive/data/sample_inputs/MODEL.pt",
    ),
    "the sample inputs themselves": (
        lambda parts, evil: [
            (name, saved(evil) if name.endswith(SAMPLE) else content) for name, content in parts
        ],
        NO_TENSORS,
    ),
    "an opaque object": (
        lambda parts, evil: [*parts, ("archive/data/constants/OPAQUE_OBJ_0", pickle.dumps(evil))],
        UNKNOWN,
    ),
    "weights of torch 2.7": (
        lambda parts, evil: [*parts, ("archive/data/weights/model.pt", saved(evil))],
        NO_TENSORS,
    ),
    "another model": (
        lambda parts, evil: [*parts, ("archive/data/sample_inputs/other.pt", saved(evil))],
        UNKNOWN,
    ),
    "a compiled library": (
        lambda parts, evil: [*parts, ("archive/data/AOTInductor/model/x.so", b"\x7fELF")],
        UNKNOWN,
    ),
    "a record outside of the folder": (
        lambda parts, evil: [*parts, ("archive/../x", b"x")],
        OUTSIDE,
    ),
    "a record in another folder": (
        lambda parts, evil: [*parts, ("other/data/weights/model.pt", saved(evil))],
        "it is not in the folder of the others",
    ),
    "an absolute name": (lambda parts, evil: [*parts, ("/archive/x", b"x")], OUTSIDE),
}


@pytest.mark.parametrize("how", CODE_IN_A_RECORD)
def test_code_in_a_record_of_a_program_does_not_run(tmp_path, program, how):
    change, why = CODE_IN_A_RECORD[how]
    path = written(tmp_path / "x.pt2", change(program, Evil(tmp_path / "made")))
    with pytest.raises(CheckpointError, match=why):
        npk.load(path)
    assert not (tmp_path / "made").exists()


def first_node(graph):
    return graph["graph_module"]["graph"]["nodes"][0]


def renamed_input(graph, name):
    """The graph with the name of its sample replaced wherever it stands."""
    text = json.dumps(graph)
    sample = graph["graph_module"]["signature"]["input_specs"][-1]["user_input"]["arg"][
        "as_tensor"
    ]["name"]
    graph.clear()
    graph.update(json.loads(text.replace(json.dumps(sample), json.dumps(name))))


def expression(graph, text):
    values = graph["graph_module"]["graph"]["tensor_values"]
    sizes = next(value["sizes"] for value in values.values() if "as_expr" in value["sizes"][0])
    sizes[0]["as_expr"]["expr_str"] = text


def specified(graph, which, change):
    signature = graph["graph_module"]["module_call_graph"][0]["signature"]
    spec = json.loads(signature[which])
    change(spec[1])
    signature[which] = json.dumps(spec)


CALL = "__import__('os').mkdir('made')"
NO_SIZE, NO_NAME, NO_OPERATOR = "is no size", "is no name", "is no operator that npk knows"
CODE_IN_A_GRAPH = {  # and why it is refused; None: it is left out
    "a guard": (lambda graph: graph.update(guards_code=[f"{CALL} is None"]), None),
    "a size": (lambda graph: expression(graph, CALL), NO_SIZE),
    "a size of a size": (
        lambda graph: expression(graph, f"Symbol('s0', positive={CALL})"),
        NO_SIZE,
    ),
    "a size without end": (
        lambda graph: expression(graph, "Pow(Integer(9), Pow(Integer(9), Integer(9)))"),
        NO_SIZE,
    ),
    "the name of the sample": (lambda graph: renamed_input(graph, f"x={CALL}"), NO_NAME),
    "the name of an argument": (
        lambda graph: first_node(graph)["inputs"][0].update(name=f"input=({CALL}), input", kind=2),
        NO_NAME,
    ),
    "an operator": (
        lambda graph: first_node(graph).update(target="torch.serialization.os.system"),
        NO_OPERATOR,
    ),
    "an operator that writes files": (
        lambda graph: first_node(graph).update(target="torch.ops.aten.from_file.default"),
        "reads or writes files",
    ),
    "an operator of another library": (
        lambda graph: first_node(graph).update(target="torch.ops.prims.device_put.default"),
        NO_OPERATOR,
    ),
    "a kind of output": (
        lambda graph: specified(
            graph,
            "out_spec",
            lambda spec: spec.update(
                context=json.dumps([{"__enum__": True, "fqn": "made:x"}]), type="builtins.dict"
            ),
        ),
        "it nests inputs or outputs in what npk does not know",
    ),
    "the name of an input": (
        lambda graph: specified(
            graph,
            "in_spec",
            lambda spec: spec["children_spec"][1].update(context=json.dumps([f"x={CALL}"])),
        ),
        NO_NAME,
    ),
    "where it was written": (
        lambda graph: first_node(graph)["metadata"].update(
            stack_trace=f"x\r{CALL}", source_fn_stack=CALL
        ),
        None,
    ),
    "an object": (
        lambda graph: graph["graph_module"]["graph"].update(
            custom_obj_values={"x": {"name": "x", "class_fqn": "a.b"}}
        ),
        "it holds an object",
    ),
}


@pytest.mark.parametrize("how", CODE_IN_A_GRAPH)
def test_code_in_the_graph_of_a_program_does_not_run(tmp_path, monkeypatch, program, how):
    monkeypatch.chdir(tmp_path)
    change, why = CODE_IN_A_GRAPH[how]
    path = written(tmp_path / "x.pt2", changed(program, "models/model.json", change))
    if why is None:
        assert npk.load(path)(torch.ones(2, 4)).shape == (2, 2)
    else:
        with pytest.raises(CheckpointError, match=rf"model\.json\), which npk never runs: .*{why}"):
            npk.load(path)
    assert not (tmp_path / "made").exists()


def first_weight(table):
    return next(iter(table["config"].values()))


LARGE = 10**10
FALSE_WEIGHTS = {
    "larger than its record": lambda entry: entry["tensor_meta"].update(
        sizes=[{"as_int": LARGE}], strides=[{"as_int": 1}]
    ),
    "beyond its record": lambda entry: entry["tensor_meta"].update(
        storage_offset={"as_int": LARGE}
    ),
    "before its record": lambda entry: entry["tensor_meta"].update(storage_offset={"as_int": -1}),
    "one cell again and again": lambda entry: entry["tensor_meta"].update(
        sizes=[{"as_int": LARGE}], strides=[{"as_int": 0}]
    ),
    "in no record": lambda entry: entry.update(path_name="../sample_inputs/model.pt"),
    "of no kind": lambda entry: entry["tensor_meta"].update(dtype=99),
    "pickled": lambda entry: entry.update(use_pickle=True),
    "pickled, nearly": lambda entry: entry.update(use_pickle=1),
}


@pytest.mark.parametrize("how", FALSE_WEIGHTS)
def test_weights_of_a_program_lie_in_their_records(tmp_path, program, how):
    parts = changed(
        program, "model_weights_config.json", lambda table: FALSE_WEIGHTS[how](first_weight(table))
    )
    with pytest.raises(CheckpointError, match=r"weights_config\.json\), which npk never runs"):
        npk.load(written(tmp_path / "x.pt2", parts))


def test_an_empty_record_makes_no_large_weight(tmp_path, program):
    parts = changed(
        program,
        "weights_config.json",
        lambda table: FALSE_WEIGHTS["larger than its record"](first_weight(table)),
    )
    parts = [(name, b"" if name.endswith("weight_0") else content) for name, content in parts]
    with pytest.raises(CheckpointError, match="and its record has 0 bytes"):
        npk.load(written(tmp_path / "x.pt2", parts))


# archives


def test_an_archive_with_two_readings_is_refused(tmp_path, program):
    good = written(tmp_path / "good.pt2", program).read_bytes()
    for name, content in {
        "prepended": b"x" * 10 + good,
        "two tables": good + good,
        "comment": good[:-2] + b"\x05\x00hello",
        "other name in the header": good.replace(
            b"archive/archive_version", b"archive/Archive_version", 1
        ),
    }.items():
        (tmp_path / "x.pt2").write_bytes(content)
        with pytest.raises(CheckpointError, match="is no archive that torch writes|is truncated"):
            npk.load(tmp_path / "x.pt2")
        assert name


@pytest.mark.parametrize("suffix", [".pt", ".pt2", ".ts"])
def test_archives_that_unpack_without_end_are_refused(tmp_path, suffix):
    with zipfile.ZipFile(
        tmp_path / f"x{suffix}", "w", zipfile.ZIP_DEFLATED, compresslevel=1
    ) as archive:
        with archive.open("x/data.pkl", "w") as member:
            for _ in range(100):
                member.write(bytes(1 << 20))
        archive.writestr("x/constants.pkl" if suffix == ".ts" else "x/version", b"3")
    with pytest.raises(CheckpointError, match=r"unpacked it would have 104,857,60\d bytes"):
        npk.load(tmp_path / f"x{suffix}", **({"arch": nn.Identity} if suffix == ".pt" else {}))


# TorchScript


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return torch.relu(self.fc(x))


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """The parts of a good TorchScript archive."""
    path = tmp_path_factory.mktemp("script") / "x.ts"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.save(torch.jit.script(Plain().eval()), path)
    with zipfile.ZipFile(path) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def with_code(parts, change):
    """The parts with the network's own code changed."""
    return [
        (name, change(content) if b"torch.relu" in content and name.endswith(".py") else content)
        for name, content in parts
    ]


def restoring(spelling):
    return lambda code: (
        code + (f"\n  {spelling}(self, s: int) -> NoneType:\n    return None\n").encode()
    )


def replaced(old, new):
    return lambda code: code.replace(old.encode(), new.encode())


CODE_IN_A_SCRIPT = {
    "__setstate__": restoring("def __setstate__"),
    "__setstate__, two spaces": restoring("def  __setstate__"),
    "__setstate__, a tab": restoring("def\t__setstate__"),
    "__setstate__, a new line": restoring("def \\\n__setstate__"),
    "__getstate__": restoring("def __getstate__"),
    "a default": replaced(
        "x: Tensor)", "x: Tensor,\n    y: Tensor=torch.from_file('made', True, 8))"
    ),
    "a constant of a class": replaced(
        "training : bool", "y : Tensor = torch.from_file('made', True, 8)\n  training : bool"
    ),
    "a line of a class": replaced(
        "training : bool", "torch.from_file('made', True, 8)\n  training : bool"
    ),
    "a decorator": replaced("  def forward", "  @torch.from_file('made', True, 8)\n  def forward"),
}


@pytest.mark.parametrize("letters", [".py", ".PY"])
@pytest.mark.parametrize("how", CODE_IN_A_SCRIPT)
def test_code_of_a_script_does_not_run_while_it_is_loaded(
    tmp_path, monkeypatch, script, how, letters
):
    monkeypatch.chdir(tmp_path)
    parts = with_code(script, CODE_IN_A_SCRIPT[how])
    assert parts != script
    parts = [
        (name[:-3] + letters if name.endswith(".py") else name, content) for name, content in parts
    ]
    with pytest.raises(
        CheckpointError,
        match=r"code that runs while it is loaded|has no code of "
        r"the class",
    ):
        npk.load(written(tmp_path / "x.ts", parts))
    assert not (tmp_path / "made").exists()


USES = {
    "files": ("torch.from_file('made', True, 8)", "aten::from_file"),
    "loops": ("torch.relu([y for y in x])", "has a ListComp"),
    "lambdas": ("(lambda: x)()", "has a Lambda"),
    "itself": ("(self).forward(x, )", "calls that are nested so deeply"),
    "long texts": ("torch.mul('x', 1000000000000)", "aten::mul"),
    "names of Python": ("eval('x')", "a call of what is no function|the name eval"),
    "attributes of Python": ("x.__class__", "the attribute __class__"),
    "methods of tensors": ("(x).numpy()", "the method numpy"),
    "operators of its own": ("torch._unsafe_view(x, [2, 2])", "aten::_unsafe_view"),
    "operators that nobody has": ("ops.evil.run(x)", "the name ops.evil.run"),
}


@pytest.mark.parametrize("what", USES)
def test_a_script_that_uses_what_npk_does_not_follow(tmp_path, monkeypatch, script, what):
    monkeypatch.chdir(tmp_path)
    use, named = USES[what]
    path = written(
        tmp_path / "x.ts",
        with_code(
            script,
            lambda code: code.replace(
                b"    return torch.relu", f"    y = {use}\n    return torch.relu".encode()
            ),
        ),
    )
    with pytest.raises((UnsupportedGraphError, CheckpointError), match=named):
        npk.load(path)(torch.ones(2, 4))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("start", ["'x'", "[0]", "2"])
def test_code_of_a_script_that_grows_without_end_is_refused(tmp_path, script, start):
    lines = "".join(f"    y{i + 1} = torch.add(y{i}, y{i})\n" for i in range(80))
    more = f"    y0 = {start}\n{lines}    return torch.relu".encode()
    path = written(
        tmp_path / "x.ts",
        with_code(script, lambda code: code.replace(b"    return torch.relu", more)),
    )
    with pytest.raises(UnsupportedGraphError, match="aten::add"):
        npk.load(path)(torch.ones(2, 4))


def test_pickles_of_a_script_name_nothing_else(tmp_path, script):
    evil = pickle.dumps(Evil(tmp_path / "made"), protocol=2)
    for member in ("data.pkl", "constants.pkl"):
        parts = [
            (name, evil if name.endswith(f"/{member}") else content) for name, content in script
        ]
        with pytest.raises(CheckpointError, match="which|what npk does not know: .*posix.mkdir"):
            npk.load(written(tmp_path / "x.ts", parts))
        assert not (tmp_path / "made").exists()


def test_tensors_of_a_script_lie_in_their_records(tmp_path, script):
    for old, new in (
        (b"K\x08tQ", b"J\xff\xff\xff\x7ftQ"),
        (b"K\x04K\x02", b"J\xff\xff\xff\x7fK\x02"),
        (b"K\x02K\x04\x86", b"K\x02J\xff\xff\xff\x7f\x86"),
    ):
        parts = [
            (name, content.replace(old, new) if name.endswith("data.pkl") else content)
            for name, content in script
        ]
        if parts != script:
            with pytest.raises(CheckpointError, match=r"larger than its|not those of"):
                npk.load(written(tmp_path / "x.ts", parts))


def test_members_that_are_not_needed_are_not_read(tmp_path, script):
    parts = [
        *script,
        ("x/code/__torch__.py.debug_pkl2", b"anything"),
        ("x/bytecode.pkl", pickle.dumps(Evil(tmp_path / "made"))),
    ]
    assert npk.load(written(tmp_path / "x.ts", parts))(torch.ones(2, 4)).shape == (2, 2)
    assert not (tmp_path / "made").exists()
