"""Files that ask for more than they hold: a refusal before memory or time is spent."""

import json
import time

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx import save as save_onnx
from safetensors.torch import save_file

import npk
from npk.checkpoint.weights import _digest
from npk.errors import CheckpointError

# ONNX


def info(name, shape=(), kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def constant(name, value):
    return numpy_helper.from_array(np.asarray(value), name)


def model(nodes, weights, functions=(), shape=("n", 4)):
    """An ONNX model that multiplies its input by w and adds the constant k, which the nodes make."""
    last = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Add", ["a", "k"], ["y"]),
    ]
    tensors = [
        constant(name, value)
        for name, value in {"w": np.ones((4, 3), np.float32), **weights}.items()
    ]
    graph = helper.make_graph([*nodes, *last], "g", [info("x", shape)], [info("y", None)], tensors)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=list(functions))


def node(op, inputs, outputs="k", **attributes):
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def loop():
    body = [node("Identity", "c", "co"), node("Add", "v v", "vo")]
    inputs = [info("i", (), TensorProto.INT64), info("c", (), TensorProto.BOOL), info("v")]
    return helper.make_graph(body, "b", inputs, [info("co", (), TensorProto.BOOL), info("vo")])


def branch():
    return helper.make_graph(
        [node("Constant", "", "r", value=constant("", np.float32(1)))], "b", [], [info("r")]
    )


def scan():
    body = [node("Add", "v e", "vo"), node("Identity", "e", "eo")]
    return helper.make_graph(body, "b", [info("v"), info("e")], [info("vo"), info("eo")])


def i64(*values):
    return np.array(values, np.int64)


LARGE = 10**10
ONE = np.float32(1)
CONSTANTS = {
    "Loop": (
        [node("Loop", "t y1 o", body=loop())],
        {"t": np.int64(10**15), "y1": np.True_, "o": ONE},
    ),
    "Scan": (
        [node("Scan", "o e", "k z", body=scan(), num_scan_inputs=1)],
        {"o": ONE, "e": np.ones(10, np.float32)},
    ),
    "If": ([node("If", "c", then_branch=branch(), else_branch=branch())], {"c": np.True_}),
    "ConstantOfShape": ([node("ConstantOfShape", "s")], {"s": i64(LARGE)}),
    "Expand": ([node("Expand", "o s")], {"o": ONE, "s": i64(LARGE, 3)}),
    "Range": ([node("Range", "a b c")], {"a": np.float32(0), "b": np.float32(LARGE), "c": ONE}),
    "Tile": ([node("Tile", "o s")], {"o": np.ones(3, np.float32), "s": i64(LARGE)}),
    "Pad": ([node("Pad", "o s")], {"o": np.ones(3, np.float32), "s": i64(0, LARGE)}),
    "Resize": (
        [node("Resize", "o e f", mode="nearest")],
        {
            "o": np.ones((1, 1, 3, 3), np.float32),
            "e": np.zeros(0, np.float32),
            "f": np.array([1, 1, 1e5, 1e5], np.float32),
        },
    ),
    "OneHot": (
        [node("OneHot", "i d v")],
        {"i": i64(0, 1), "d": np.int64(LARGE), "v": np.array([0, 1], np.float32)},
    ),
    "MatMul": (
        [node("MatMul", "u v")],
        {"u": np.ones((20000, 1), np.float32), "v": np.ones((1, 20000), np.float32)},
    ),
    "Add": (
        [node("Add", "u v")],
        {"u": np.ones((20000, 1), np.float32), "v": np.ones((1, 20000), np.float32)},
    ),
    "Conv": (
        [node("Conv", "o f", pads=[10**5] * 4)],
        {"o": np.ones((1, 1, 3, 3), np.float32), "f": np.ones((1, 1, 3, 3), np.float32)},
    ),
    "Cast to texts": ([node("Cast", "o", to=8)], {"o": np.ones(3, np.float32)}),
    "RandomNormal": ([node("RandomNormal", "", shape=[3])], {}),
}


@pytest.mark.parametrize("what", CONSTANTS)
def test_constants_of_an_onnx_file_have_an_end(tmp_path, what):
    save_onnx(model(*CONSTANTS[what]), tmp_path / "x.onnx")
    with pytest.raises(CheckpointError, match=r"the constant k cannot be computed \(Excess: "):
        npk.load(tmp_path / "x.onnx")


def test_a_chain_of_growing_constants_is_refused(tmp_path):
    nodes = [node("Concat", f"k{i} k{i}", f"k{i + 1}", axis=0) for i in range(60)]
    nodes = [*nodes, node("ReduceSum", "k60", "k")]
    save_onnx(model(nodes, {"k0": np.ones(3, np.float32)}), tmp_path / "x.onnx")
    with pytest.raises(CheckpointError, match=r"far more than the file has"):
        npk.load(tmp_path / "x.onnx")


def function(name, calls):
    body = [
        helper.make_node(called, ["a"], [f"b{i}"], domain="own") for i, called in enumerate(calls)
    ]
    body = [*body, helper.make_node("Sum", [f"b{i}" for i in range(len(calls))], ["b"])]
    return helper.make_function(
        "own",
        name,
        ["a"],
        ["b"],
        body,
        [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)],
    )


FUNCTIONS = {
    "that call themselves": ([function("F0", ["F0"])], "its function F0 calls itself"),
    "that call each other": (
        [function("F0", ["F1"]), function("F1", ["F0"])],
        "its function F0 calls itself",
    ),
    "that grow": (
        [*(function(f"F{i}", [f"F{i + 1}"] * 2) for i in range(40)), function("F40", [])],
        "its functions make more than 200,000 nodes",
    ),
}


@pytest.mark.parametrize("what", FUNCTIONS)
def test_functions_of_an_onnx_file_have_an_end(tmp_path, what):
    functions, why = FUNCTIONS[what]
    made = model([helper.make_node("F0", ["o"], ["k"], domain="own")], {"o": ONE}, functions)
    save_onnx(made, tmp_path / "x.onnx")
    with pytest.raises(CheckpointError, match=why):
        npk.load(tmp_path / "x.onnx")


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        (("n", 10**6, 10**6), "must have same reduction dim"),
        ((1, 10**5, 10**5), "must have same reduction dim"),
        ((1, 2**40, 4), "its values for three samples have more than 268,435,456 cells"),
    ],
)
def test_a_sample_of_an_onnx_file_has_an_end(tmp_path, shape, why):
    save_onnx(model([], {"k": ONE}, shape=shape), tmp_path / "x.onnx")
    with pytest.raises(CheckpointError, match=f"does not run on samples of shape .*{why}"):
        npk.load(tmp_path / "x.onnx")


def test_values_of_an_onnx_network_have_an_end(tmp_path):
    made = model([], {"k": ONE, "s": i64(10**5, 10**5, 1, 3)}, shape=(1, 4))
    made.graph.node[1].input[0] = "big"
    made.graph.node.insert(1, node("Expand", "a s", "big"))
    save_onnx(made, tmp_path / "x.onnx")
    with pytest.raises(CheckpointError, match=r"more than 268,435,456 cells"):
        npk.load(tmp_path / "x.onnx")


def with_external(folder, **entries):
    """A model whose constant k lies in the file that the entries name."""
    made = model([], {"k": np.ones(3, np.float32)})
    tensor = made.graph.initializer[-1]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    (folder / "x.onnx").write_bytes(made.SerializeToString())
    return folder / "x.onnx"


def test_external_data_lie_beside_the_file(tmp_path):
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    for place in (tmp_path / "w", folder / "w", folder / "sub" / "w"):
        place.write_bytes(np.ones(3, np.float32).tobytes())
    (folder / "link").symlink_to(tmp_path / "w")
    (folder / "way").symlink_to(tmp_path)
    for place in ("w", "sub/w"):
        assert (
            npk.load(with_external(folder, location=place))(torch.ones(2, 4)).tolist()
            == [[5.0] * 3] * 2
        )
    for place in ("../w", str(tmp_path / "w"), "sub/../../w", "link", "way/w", ""):
        with pytest.raises(CheckpointError, match="the external data of k lie outside of its"):
            npk.load(with_external(folder, location=place))
    for place in ("missing", "sub"):
        with pytest.raises(CheckpointError, match=f"there is no file '{place}' with its external"):
            npk.load(with_external(folder, location=place))
    for more in ({"offset": 8}, {"length": 4}, {"length": 400}, {"offset": -4, "length": 12}):
        with pytest.raises(CheckpointError, match="the external data of k are not those of its"):
            npk.load(with_external(folder, location="w", **more))


# architectures


def described(path, change):
    """A file of npk whose architecture was changed, and its checksum with it."""
    net = npk.networks.build("residual", input_shape=[1, 4, 4], classes=2, widths=[2], seed=0)
    architecture = {**net.architecture, **change}
    text = json.dumps(
        {"format": 1, "version": "0", "architecture": architecture, "details": {}}, sort_keys=True
    )
    state = net.state_dict()
    save_file(state, path, metadata={"npk": text, "sha256": _digest(state, text)})


ARCHITECTURES = {
    "wide": {"widths": [10**9]},
    "of many classes": {"classes": 10**12},
    "deep": {"block_layers": 10**9},
    "of many blocks": {"arch": "resnet110", "blocks": 10**9},
    "with large kernels": {"kernel": 10**9 + 1},
    "no number": {"widths": [1e9]},
    "long": {"widths": [1] * 100_000},
}


@pytest.mark.parametrize("what", ARCHITECTURES)
def test_an_architecture_larger_than_its_file_is_refused_before_it_is_built(tmp_path, what):
    described(tmp_path / "x.safetensors", {})
    assert npk.load(tmp_path / "x.safetensors")
    described(tmp_path / "x.safetensors", ARCHITECTURES[what])
    start = time.process_time()
    with pytest.raises(
        CheckpointError,
        match=r"does not fit the architecture|cannot make the "
        r"architecture",
    ):
        npk.load(tmp_path / "x.safetensors")
    assert time.process_time() - start < 20


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"format": Infinity, "version": 0, "architecture": 0, "details": 0}',
        '{"format": 1}',
        "1",
        '{"format": []}',
    ],
)
def test_a_description_that_is_none(tmp_path, text):
    save_file(
        {"a": torch.ones(2)}, tmp_path / "x.safetensors", metadata={"npk": text, "sha256": ""}
    )
    for read in (npk.load, npk.checkpoint.read_details):
        with pytest.raises(CheckpointError, match="its description is damaged"):
            read(tmp_path / "x.safetensors")


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    for value in (float("nan"), float("inf")):
        torch.save(
            {"weight": torch.tensor([[1.0, value]]), "bias": torch.zeros(1)}, tmp_path / "x.pt"
        )
        with pytest.raises(CheckpointError, match="the weight weight holds NaN or infinity"):
            npk.load(tmp_path / "x.pt", arch=lambda: torch.nn.Linear(2, 1))
        norm = torch.nn.BatchNorm1d(2)
        norm.running_var[0] = value
        torch.save(norm.state_dict(), tmp_path / "x.pt")
        with pytest.raises(CheckpointError, match="the weight running_var holds NaN or infinity"):
            npk.load(tmp_path / "x.pt", arch=lambda: torch.nn.BatchNorm1d(2))


def test_weights_of_an_onnx_file_that_are_no_numbers_are_refused(tmp_path):
    made = model([], {"k": ONE}, shape=(1, 4))
    made.graph.node[0].input[1] = "v"
    made.graph.initializer.append(constant("v", np.full((4, 3), np.nan, np.float32)))
    save_onnx(made, tmp_path / "x.onnx")
    with pytest.raises(CheckpointError, match="holds NaN or infinity"):
        npk.load(tmp_path / "x.onnx")
