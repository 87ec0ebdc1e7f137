"""Files from other hands: ONNX and TorchScript; another output and another layout of a network."""

import copy
import os
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import npk
from npk import cli
from npk.cli import reading
from npk.errors import CheckpointError, MissingPackageError, OptionError, UnsupportedGraphError

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning", "ignore:.*NumPy.*:UserWarning"
)


class Small(nn.Module):
    """Convolution, batch norm, pool, gated and plain branches, concatenation, dropout; two outputs
    if asked.
    """

    def __init__(self, classes=3):
        super().__init__()
        self.conv, self.norm, self.pool = (
            nn.Conv2d(2, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.MaxPool2d(2),
        )
        self.branch = nn.Sequential(nn.Conv2d(4, 4, 1, groups=2), nn.ReLU(inplace=True))
        self.fc = nn.Linear(64, classes)

    def forward(self, x):
        x = self.pool(F.relu(self.norm(self.conv(x))))
        x = x + self.branch(x)
        x = torch.cat([x[:, 2:], x[:, :2]], 1)
        x = F.dropout(x, 0.5, self.training)
        return self.fc(x.view(x.size(0), -1))


class Heads(nn.Module):
    def __init__(self, wrap=tuple):
        super().__init__()
        self.body, self.first, self.second, self.unused = (
            nn.Linear(4, 5),
            nn.Linear(5, 2),
            nn.Linear(5, 3),
            nn.Linear(1, 1),
        )
        self.relu, self.wrap = nn.ReLU(), wrap

    def forward(self, x):
        h = self.relu(self.relu(self.body(x)))
        return self.wrap([self.first(h), self.second(h)])


def batch(rng, *shape):
    return torch.from_numpy(rng.random(shape, dtype=np.float32))


def exports(net, shape):
    """The network goes through torch.export as npk.trace does it; gives the program's outputs for a
    batch of three.
    """
    program = torch.export.export(
        net, (torch.zeros(2, *shape),), dynamic_shapes=({0: torch.export.Dim("n", min=1)},)
    )
    return program.module()


# TorchScript


@pytest.fixture
def small():
    net = Small()
    net.norm.running_mean.uniform_()
    net.norm.running_var.uniform_(0.5, 2)
    return net.eval()


@pytest.mark.parametrize(
    "make", [lambda net: torch.jit.trace(net, torch.zeros(2, 2, 8, 8)), torch.jit.script]
)
@pytest.mark.parametrize("suffix", [".pt", ".ts"])
def test_torchscript_is_followed(tmp_path, rng, small, make, suffix):
    torch.jit.save(make(small), tmp_path / f"x{suffix}")
    net, x = npk.load(tmp_path / f"x{suffix}"), batch(rng, 3, 2, 8, 8)
    assert {name: t.shape for name, t in net.named_parameters()} == {
        name: t.shape for name, t in small.named_parameters()
    }
    torch.testing.assert_close(net(x), small(x), rtol=0, atol=0)
    torch.testing.assert_close(exports(net, (2, 8, 8))(x), small(x), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        copy.deepcopy(net).double()(x.double()), small(x).double(), rtol=1e-4, atol=1e-5
    )


def test_convolutions_of_traced_torchscript_are_understood(tmp_path):
    made = nn.Sequential(
        nn.Conv2d(1, 2, 3),
        nn.ReLU(),
        nn.ConvTranspose2d(2, 2, 2, stride=2, output_padding=1, groups=2),
        nn.Flatten(),
    ).eval()
    torch.jit.save(torch.jit.trace(made, torch.zeros(2, 1, 4, 4)), tmp_path / "x.pt")
    net, x = npk.load(tmp_path / "x.pt"), torch.rand(3, 1, 4, 4)
    torch.testing.assert_close(net(x), made(x), rtol=0, atol=0)
    graph = str(npk.trace(net, (1, 4, 4)))
    assert "convolution 0.weight" in graph
    assert "transposed convolution 2.weight 2x2, stride 2x2, 2 groups" in graph


def test_torchscript_gives_its_weights_to_arch(tmp_path, rng, small):
    torch.jit.save(torch.jit.script(small.half()), tmp_path / "x.pt")
    net, x = npk.load(tmp_path / "x.pt", arch=Small), batch(rng, 3, 2, 8, 8)
    assert type(net) is Small
    torch.testing.assert_close(net(x), small.float()(x), rtol=0, atol=0)


def test_torchscript_ties_and_constants(tmp_path, rng):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)
            self.two.weight = self.one.weight

        def forward(self, x):
            return self.two(F.relu(self.one(x))) + torch.tensor([1.0, 2.0, 3.0])

    source, x = Tied().eval(), batch(rng, 3, 3)
    torch.jit.save(torch.jit.trace(source, torch.zeros(2, 3)), tmp_path / "x.pt")
    net = npk.load(tmp_path / "x.pt")
    assert net.one.weight is net.two.weight
    torch.testing.assert_close(net(x), source(x), rtol=0, atol=0)


def test_torchscript_loop_is_named(tmp_path):
    class Loop(nn.Module):
        def forward(self, x):
            for _ in range(x.size(1)):
                x = torch.relu(x)
            return x

    torch.jit.save(torch.jit.script(Loop()), tmp_path / "x.pt")
    with pytest.raises(
        UnsupportedGraphError,
        match=r"does not follow prim::Loop of TorchScript "
        r"\(__torch__/test_formats\S*\.py:\d+\)",
    ):
        npk.load(tmp_path / "x.pt")(torch.ones(1, 2))


def test_torchscript_that_raises(tmp_path):
    class Raising(nn.Module):
        def forward(self, x):
            if x.dim() != 4:
                raise ValueError("four axes")
            return x

    torch.jit.save(torch.jit.script(Raising()), tmp_path / "x.pt")
    net = npk.load(tmp_path / "x.pt")
    assert net(torch.ones(1, 1, 1, 1)).shape == (1, 1, 1, 1)
    with pytest.raises(ValueError, match="the network raises .*four axes"):
        net(torch.ones(1, 2))


def test_torchscript_whose_loading_runs_code_is_refused(tmp_path):
    class Restored(nn.Module):
        @torch.jit.export
        def __getstate__(self):
            return 1, self.training

        @torch.jit.export
        def __setstate__(self, state: tuple[int, bool]):
            self.training = state[1]

        def forward(self, x):
            return x

    torch.jit.save(torch.jit.script(Restored()), tmp_path / "x.pt")
    with pytest.raises(
        CheckpointError, match="code that runs while it is loaded .*, which npk refuses"
    ):
        npk.load(tmp_path / "x.pt")


def test_torchscript_archive_with_broken_code(tmp_path, small):
    import zipfile

    torch.jit.save(torch.jit.script(small), tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt") as old, zipfile.ZipFile(tmp_path / "y.pt", "w") as new:
        for name in old.namelist():
            new.writestr(
                name, b"def" if "/code/" in name and name.endswith(".py") else old.read(name)
            )
    with pytest.raises(
        CheckpointError,
        match=r"is damaged or holds .*code/\S+\.py cannot be "
        r"parsed\. Copy or save it again",
    ):
        npk.load(tmp_path / "y.pt")


# ONNX, node by node against the reference of the package onnx


def model(nodes, shape, weights=(), *, opset=17, outputs=("y",), batch="n", **more):
    """An ONNX model of nodes written as (op, inputs, outputs, attributes)."""
    made = [helper.make_node(op, i.split(), o.split(), **a) for op, i, o, a in nodes]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *shape])
    results = [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs]
    tensors = [
        numpy_helper.from_array(np.asarray(value), name) for name, value in dict(weights).items()
    ]
    graph = helper.make_graph(made, "g", [x], results, tensors)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8, **more
    )


def loaded(folder, made):
    path = folder / "x.onnx"
    onnx.save(made, path)
    return npk.load(path)


def f32(rng, *shape):
    return (rng.random(shape) - 0.5).astype(np.float32)


def i64(*values):
    return np.array(values, dtype=np.int64)


def one(op, **attributes):
    return [(op, "x", "y", attributes)]


IMAGE = (4, 6, 5)
NODES = {
    "conv": (
        IMAGE,
        lambda r: (
            [("Conv", "x w b", "y", {"pads": [1, 0, 2, 1], "strides": [2, 1], "group": 2})],
            {"w": f32(r, 6, 2, 3, 2), "b": f32(r, 6)},
        ),
    ),
    "conv same upper": (
        IMAGE,
        lambda r: (
            [("Conv", "x w", "y", {"auto_pad": "SAME_UPPER", "strides": [2, 2]})],
            {"w": f32(r, 3, 4, 3, 2)},
        ),
    ),
    "conv same lower": (
        IMAGE,
        lambda r: (
            [("Conv", "x w", "y", {"auto_pad": "SAME_LOWER", "kernel_shape": [2, 2]})],
            {"w": f32(r, 3, 4, 2, 2)},
        ),
    ),
    "conv 1-d": (
        (3, 7),
        lambda r: ([("Conv", "x w", "y", {"dilations": [2]})], {"w": f32(r, 2, 3, 3)}),
    ),
    "transposed conv": (
        IMAGE,
        lambda r: (
            [("ConvTranspose", "x w b", "y", {"strides": [2, 2], "output_padding": [1, 0]})],
            {"w": f32(r, 4, 3, 3, 3), "b": f32(r, 3)},
        ),
    ),
    "max pool": (
        IMAGE,
        lambda r: (one("MaxPool", kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 0]), {}),
    ),
    "max pool uneven": (
        IMAGE,
        lambda r: (one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"), {}),
    ),
    "max pool more below": (
        IMAGE,
        lambda r: (one("MaxPool", kernel_shape=[2, 2], strides=[1, 1], auto_pad="SAME_LOWER"), {}),
    ),
    "average pool": (
        IMAGE,
        lambda r: (one("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]), {}),
    ),
    "average pool, pads counted": (
        IMAGE,
        lambda r: (
            one("AveragePool", kernel_shape=[2, 2], pads=[1, 0, 0, 1], count_include_pad=1),
            {},
        ),
    ),
    "average pool over all": (
        IMAGE,
        lambda r: (one("AveragePool", kernel_shape=[7, 6], pads=[0, 0, 1, 1]), {}),
    ),
    "global average pool": (IMAGE, lambda r: (one("GlobalAveragePool"), {})),
    "global max pool": (IMAGE, lambda r: (one("GlobalMaxPool"), {})),
    "gemm": (
        (5,),
        lambda r: (
            [("Gemm", "x w b", "y", {"alpha": 0.5, "beta": 2.0})],
            {"w": f32(r, 5, 3), "b": f32(r, 1, 3)},
        ),
    ),
    "gemm turned": (
        (5,),
        lambda r: ([("Gemm", "x w b", "y", {"transB": 1})], {"w": f32(r, 3, 5), "b": f32(r, 3)}),
    ),
    "gemm of one bias": (
        (5,),
        lambda r: ([("Gemm", "x w b", "y", {})], {"w": f32(r, 5, 3), "b": f32(r, 1)}),
    ),
    "gemm, bias computed": ((3,), lambda r: ([("Gemm", "x w x", "y", {})], {"w": f32(r, 3, 3)})),
    "matmul": (
        (4, 5),
        lambda r: (
            [("MatMul", "x w", "h", {}), ("Add", "h b", "y", {})],
            {"w": f32(r, 5, 3), "b": f32(r, 3)},
        ),
    ),
    "matmul from the left": ((4, 5), lambda r: ([("MatMul", "w x", "y", {})], {"w": f32(r, 3, 4)})),
    "batch norm": (
        IMAGE,
        lambda r: (
            [("BatchNormalization", "x s b m v", "y", {"epsilon": 0.01})],
            {"s": f32(r, 4), "b": f32(r, 4), "m": f32(r, 4), "v": f32(r, 4) + 1},
        ),
    ),
    "relu6": (
        IMAGE,
        lambda r: ([("Clip", "x lo hi", "y", {})], {"lo": np.float32(0), "hi": np.float32(0.6)}),
    ),
    "clip below": (IMAGE, lambda r: ([("Clip", "x lo", "y", {})], {"lo": np.float32(0)})),
    "clip above": (
        IMAGE,
        lambda r: (
            [("Clip", "x  hi".replace("  ", " lo "), "y", {})],
            {"lo": np.float32(-3e38), "hi": np.float32(0.2)},
        ),
    ),
    "leaky relu": (IMAGE, lambda r: (one("LeakyRelu", alpha=0.3), {})),
    "prelu": (
        IMAGE,
        lambda r: (
            [("Sub", "x c", "h", {}), ("PRelu", "h s", "y", {})],
            {"s": f32(r, 4, 1, 1), "c": np.float32(0.5)},
        ),
    ),
    "hard sigmoid": (IMAGE, lambda r: (one("HardSigmoid", alpha=0.2), {})),
    "hard sigmoid of torch": (IMAGE, lambda r: (one("HardSigmoid", alpha=1 / 6), {})),
    "hard swish": (IMAGE, lambda r: (one("HardSwish"), {})),
    "softmax": (IMAGE, lambda r: (one("Softmax", axis=1), {})),
    "lrn": (IMAGE, lambda r: (one("LRN", size=3), {})),
    "instance norm": (
        IMAGE,
        lambda r: ([("InstanceNormalization", "x s b", "y", {})], {"s": f32(r, 4), "b": f32(r, 4)}),
    ),
    "arithmetic": (
        IMAGE,
        lambda r: (
            [
                ("Mul", "x s", "a", {}),
                ("Add", "a b", "c", {}),
                ("Div", "c two", "d", {}),
                ("Sub", "one d", "e", {}),
                ("Pow", "e two", "y", {}),
            ],
            {
                "s": f32(r, 4, 1, 1),
                "b": f32(r, 1, 4, 1, 1),
                "two": np.float32(2),
                "one": np.array([1], np.float32),
            },
        ),
    ),
    "functions": (
        IMAGE,
        lambda r: (
            [
                ("Abs", "x", "a", {}),
                ("Sqrt", "a", "b", {}),
                ("Neg", "b", "c", {}),
                ("Exp", "c", "d", {}),
                ("Tanh", "d", "e", {}),
                ("Sigmoid", "e", "f", {}),
                ("Elu", "f", "g", {}),
                ("Erf", "g", "h", {}),
                ("Softplus", "h", "i", {}),
                ("Log", "i", "j", {}),
                ("Max", "j x", "k", {}),
                ("Min", "k one", "l", {}),
                ("Sum", "l x x", "m", {}),
                ("Reciprocal", "i", "n", {}),
                ("Mul", "m n", "o", {}),
                ("Sign", "x", "p", {}),
                ("Selu", "p", "q", {}),
                ("Add", "o q", "y", {}),
            ],
            {"one": np.float32(1)},
        ),
    ),
    "comparisons": (
        IMAGE,
        lambda r: (
            [
                ("Greater", "x half", "g", {}),
                ("Less", "x half", "l", {}),
                ("Not", "l", "n", {}),
                ("Cast", "g", "c", {"to": 1}),
                ("Mul", "x c", "m", {}),
                ("GreaterOrEqual", "x half", "ge", {}),
                ("LessOrEqual", "x half", "le", {}),
                ("Where", "n m zero", "w", {}),
                ("Where", "ge w x", "v", {}),
                ("Where", "le v w", "y", {}),
            ],
            {"half": np.float32(0.5), "zero": np.float32(0)},
        ),
    ),
    "concat and split": (
        IMAGE,
        lambda r: (
            [("Split", "x parts", "a b", {"axis": 1}), ("Concat", "b a", "y", {"axis": 1})],
            {"parts": i64(1, 3)},
        ),
    ),
    "slice, pad, transpose": (
        IMAGE,
        lambda r: (
            [
                ("Slice", "x s e a t", "h", {}),
                ("Pad", "h p", "i", {}),
                ("Transpose", "i", "j", {"perm": [0, 2, 1, 3]}),
                ("Pad", "j q", "y", {"mode": "reflect"}),
            ],
            {
                "s": i64(1, -4),
                "e": i64(2**62, 5),
                "a": i64(1, 2),
                "t": i64(1, 2),
                "p": i64(0, 1, 0, 0, 0, 0, 2, 1),
                "q": i64(0, 0, 1, 1, 0, 0, 0, 1),
            },
        ),
    ),
    "gather": (
        IMAGE,
        lambda r: (
            [("Gather", "x i", "h", {"axis": 1}), ("Gather", "h k", "y", {"axis": 3})],
            {"i": i64(2, 0, -1), "k": np.int64(1)},
        ),
    ),
    "resize": (
        IMAGE,
        lambda r: (
            [
                (
                    "Resize",
                    "x e s",
                    "y",
                    {
                        "mode": "nearest",
                        "coordinate_transformation_mode": "asymmetric",
                        "nearest_mode": "floor",
                    },
                )
            ],
            {"e": np.zeros(0, np.float32), "s": np.array([1, 1, 2, 3], np.float32)},
        ),
    ),
    "depth to space": (IMAGE, lambda r: (one("DepthToSpace", blocksize=2, mode="CRD"), {})),
    "depth to space, older": (IMAGE, lambda r: (one("DepthToSpace", blocksize=2), {})),
    "means": (
        IMAGE,
        lambda r: (
            [
                ("ReduceMean", "x", "a", {"axes": [2, 3]}),
                ("ReduceSum", "x ax", "b", {"keepdims": 0}),
                ("ReduceMax", "x", "m", {"axes": [1]}),
                ("ReduceMin", "m", "mi", {"axes": [2, 3]}),
                ("Unsqueeze", "b ax", "c", {}),
                ("Mul", "a c", "d", {}),
                ("Add", "d mi", "e", {}),
                ("Squeeze", "e ax", "y", {}),
            ],
            {"ax": i64(2, 3)},
        ),
    ),
    "exported view": (
        IMAGE,
        lambda r: (
            [
                ("Shape", "x", "s", {}),
                ("Gather", "s zero", "n", {}),
                ("Unsqueeze", "n ax", "m", {}),
                ("Concat", "m rest", "t", {"axis": 0}),
                ("Reshape", "x t", "y", {}),
            ],
            {"zero": np.int64(0), "ax": i64(0), "rest": i64(-1)},
        ),
    ),
    "computed sizes": (
        IMAGE,
        lambda r: (
            [
                ("Shape", "x", "s", {}),
                ("Slice", "s one three", "c", {}),
                ("ReduceProd", "c", "p", {"keepdims": 1}),
                ("Slice", "s zero one", "n", {}),
                ("Cast", "n", "k", {"to": 7}),
                ("Concat", "k p minus", "t", {"axis": 0}),
                ("Reshape", "x t", "y", {}),
            ],
            {"one": i64(1), "three": i64(3), "zero": i64(0), "minus": i64(-1)},
        ),
    ),
    "expand and identity": (
        (4, 1, 5),
        lambda r: (
            [("Expand", "x s", "h", {}), ("Identity", "h", "i", {}), ("Dropout", "i", "y", {})],
            {"s": i64(1, 4, 6, 5)},
        ),
    ),
    "flatten": (IMAGE, lambda r: (one("Flatten"), {})),
    "weights by constant nodes": (
        (4,),
        lambda r: (
            [
                ("Constant", "", "w", {"value": numpy_helper.from_array(f32(r, 3, 4))}),
                ("Transpose", "w", "t", {}),
                ("Identity", "t", "u", {}),
                ("MatMul", "x u", "y", {}),
            ],
            {},
        ),
    ),
}


@pytest.mark.parametrize("name", NODES)
def test_onnx_node_agrees_with_the_reference(tmp_path, rng, name):
    shape, write = NODES[name]
    nodes, weights = write(rng)
    made = model(nodes, shape, weights)
    net, x = loaded(tmp_path, made), f32(rng, 2, *shape)
    (expected,) = ReferenceEvaluator(made).run(None, {"x": x})
    with torch.no_grad():
        torch.testing.assert_close(
            net(torch.from_numpy(x)), torch.from_numpy(np.array(expected)), rtol=1e-4, atol=1e-5
        )
    exports(net, shape)


def test_onnx_weights_are_parameters_with_names(tmp_path, rng):
    nodes = [
        ("Conv", "x w b", "h", {"name": "stem/conv"}),
        ("Relu", "h", "r", {}),
        ("Flatten", "r", "f", {}),
        ("Gemm", "f v", "y", {"transB": 1}),
    ]
    weights = {"w": f32(rng, 2, 1, 3, 3), "b": f32(rng, 2), "v": f32(rng, 3, 8)}
    net = loaded(tmp_path, model(nodes, (1, 4, 4), weights))
    assert {name: tuple(p.shape) for name, p in net.named_parameters()} == {
        "stem_conv.weight": (2, 1, 3, 3),
        "stem_conv.bias": (2,),
        "Gemm_3.weight": (3, 8),
    }
    assert net.input_shape == (1, 4, 4)
    graph = npk.trace(net, net.input_shape)
    assert len(graph.gates) == 1


def test_onnx_shared_weights_stay_one_parameter(tmp_path, rng):
    nodes = [
        ("MatMul", "x w", "h", {}),
        ("Identity", "w", "v", {}),
        ("Relu", "h", "r", {}),
        ("MatMul", "r w", "y", {}),
    ]
    net = loaded(tmp_path, model(nodes, (4,), {"w": f32(rng, 4, 4)}))
    assert len(list(net.parameters())) == 1


def test_onnx_weight_in_two_forms_is_refused(tmp_path, rng):
    nodes = [("Gemm", "x w", "h", {"transB": 1}), ("Relu", "h", "r", {}), ("Gemm", "r w", "y", {})]
    with pytest.raises(UnsupportedGraphError, match="the weight w is used in two forms"):
        loaded(tmp_path, model(nodes, (4,), {"w": f32(rng, 4, 4)}))
    nodes = [
        ("MatMul", "x w", "h", {}),
        ("Transpose", "w", "v", {}),
        ("Relu", "h", "r", {}),
        ("MatMul", "r v", "y", {}),
    ]
    with pytest.raises(UnsupportedGraphError, match="the weight w is used in two forms"):
        loaded(tmp_path, model(nodes, (4,), {"w": f32(rng, 4, 4)}))


def test_onnx_half_precision_becomes_float32(tmp_path, rng):
    weight = f32(rng, 4, 3).astype(np.float16)
    net = loaded(
        tmp_path,
        model([("Cast", "x", "h", {"to": 10}), ("MatMul", "h w", "y", {})], (4,), {"w": weight}),
    )
    x = f32(rng, 2, 4)
    torch.testing.assert_close(
        net(torch.from_numpy(x)),
        torch.from_numpy(x @ weight.astype(np.float32)),
        rtol=1e-5,
        atol=1e-6,
    )


def test_onnx_file_for_one_batch_size_takes_any(tmp_path, rng):
    nodes = [("Reshape", "x s", "h", {}), ("Relu", "h", "r", {}), ("Reshape", "r t", "y", {})]
    net = loaded(tmp_path, model(nodes, (2, 6), {"s": i64(1, 4, 3), "t": i64(1, -1)}, batch=1))
    assert net(torch.zeros(5, 2, 6)).shape == (5, 12)


@pytest.mark.parametrize(
    ("nodes", "weights", "message"),
    [
        ([("Softmax", "x", "y", {"axis": 0})], {}, "mixes the samples of a batch"),
        ([("ReduceMean", "x", "y", {"axes": [0]})], {}, "mixes the samples of a batch"),
        ([("Reshape", "x s", "y", {})], {"s": i64(3, 4)}, "does not run on samples"),
    ],
)
def test_onnx_that_mixes_samples_is_refused(tmp_path, nodes, weights, message):
    with pytest.raises(CheckpointError, match=message):
        loaded(tmp_path, model(nodes, (2, 6), weights, batch=1))


@pytest.mark.parametrize(
    ("nodes", "weights", "message"),
    [
        (
            [("ConvTranspose", "x w", "y", {"auto_pad": "SAME_UPPER"})],
            {"w": np.ones((4, 3, 3, 3), np.float32)},
            "a ConvTranspose with auto_pad",
        ),
        (
            one("AveragePool", kernel_shape=[2, 2], pads=[1, 1, 0, 0]),
            {},
            "an AveragePool with uneven pads that are not counted",
        ),
        (
            one("AveragePool", kernel_shape=[2, 2], dilations=[2, 2]),
            {},
            "an AveragePool with dilations",
        ),
        (
            [("BatchNormalization", "x s s s s", "y", {"training_mode": 1})],
            {"s": np.ones(4, np.float32)},
            "a BatchNormalization in training mode",
        ),
        (
            [("Transpose", "x", "h", {"perm": [1, 0, 2, 3]}), ("Reshape", "h s", "y", {})],
            {"s": i64(1, 120)},
            "a Reshape that joins the batch",
        ),
        (
            [("Slice", "x s e a t", "y", {})],
            {"s": i64(-1), "e": i64(-9), "a": i64(1), "t": i64(-1)},
            "a Slice with a negative step",
        ),
        (
            [("Resize", "x e s", "y", {"mode": "linear"})],
            {"e": np.zeros(0, np.float32), "s": np.array([1, 1, 2, 2], np.float32)},
            "a Resize in mode linear",
        ),
    ],
)
def test_onnx_nodes_that_are_not_followed(tmp_path, nodes, weights, message):
    with pytest.raises(
        UnsupportedGraphError,
        match=f"the ONNX node that makes 'y' is {message}.*, which npk does not follow",
    ):
        loaded(tmp_path, model(nodes, IMAGE, weights, batch=1))


def test_onnx_unknown_operators_are_listed_all_at_once(tmp_path):
    made = model(
        [
            ("TopK", "x k", "v i", {}),
            ("Det", "v", "d", {}),
            ("Shape", "d", "s", {}),
            ("Size", "s", "y", {}),
        ],
        (3, 3),
        {"k": i64(2)},
    )
    made.graph.node[1].domain = "com.example"
    with pytest.raises(
        CheckpointError,
        match=r"operators that npk does not read: Size of shapes, TopK with "
        r"several outputs, com\.example\.Det\. ",
    ):
        loaded(tmp_path, made)
    with pytest.raises(CheckpointError, match="MaxPool with several outputs"):
        loaded(
            tmp_path,
            model(
                [("MaxPool", "x", "v i", {"kernel_shape": [1, 1]}), ("Add", "v i", "y", {})], IMAGE
            ),
        )


def test_onnx_functions_of_the_file_are_followed(tmp_path, rng):
    function = helper.make_function(
        "own",
        "Twice",
        ["a"],
        ["c"],
        [helper.make_node("Add", ["a", "a"], ["c"])],
        [helper.make_opsetid("", 17)],
    )
    made = model([("Twice", "x", "y", {"domain": "own"})], (3,), functions=[function])
    made.opset_import.append(helper.make_opsetid("own", 1))
    x = f32(rng, 2, 3)
    torch.testing.assert_close(loaded(tmp_path, made)(torch.from_numpy(x)), torch.from_numpy(2 * x))


def test_onnx_external_data(tmp_path, rng):
    weight = f32(rng, 4, 300)
    made = model([("MatMul", "x w", "y", {})], (4,), {"w": weight})
    onnx.save(
        made, tmp_path / "x.onnx", save_as_external_data=True, location="x.data", size_threshold=0
    )
    x = f32(rng, 2, 4)
    torch.testing.assert_close(
        npk.load(tmp_path / "x.onnx")(torch.from_numpy(x)),
        torch.from_numpy(x @ weight),
        rtol=1e-4,
        atol=1e-5,
    )
    (tmp_path / "x.data").unlink()
    with pytest.raises(CheckpointError, match="its external data are missing"):
        npk.load(tmp_path / "x.onnx")


@pytest.mark.parametrize("share", [0.001, 0.3, 0.6, 0.9, 0.99])
def test_onnx_truncated(tmp_path, rng, share):
    onnx.save(
        model([("MatMul", "x w", "h", {}), ("Relu", "h", "y", {})], (40,), {"w": f32(rng, 40, 40)}),
        tmp_path / "x.onnx",
    )
    content = (tmp_path / "x.onnx").read_bytes()
    (tmp_path / "x.onnx").write_bytes(content[: int(share * len(content))])
    with pytest.raises(
        CheckpointError,
        match=r"is truncated|is damaged|uses ONNX operator set|has "
        r"0 inputs",
    ):
        npk.load(tmp_path / "x.onnx")


def test_onnx_files_that_cannot_be_read(tmp_path, rng, monkeypatch):
    with pytest.raises(CheckpointError, match="is damaged: no node makes 'h', which Relu takes"):
        loaded(tmp_path, model([("Relu", "h", "y", {}), ("Relu", "x", "h", {})], (3,)))
    with pytest.raises(CheckpointError, match="uses ONNX operator set 6; npk reads 7 to"):
        loaded(tmp_path, model(one("Relu"), (3,), opset=6))
    made = model(one("Relu"), (3,))
    made.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 2]))
    with pytest.raises(CheckpointError, match=r"has 2 inputs \(x, z\); npk reads networks of one"):
        loaded(tmp_path, made)
    made = model([("MatMul", "x w", "y", {})], (4,), {"w": f32(rng, 4, 3)})
    made.graph.initializer[0].raw_data = b"123"
    with pytest.raises(CheckpointError, match="the weight w cannot be read"):
        loaded(tmp_path, made)
    with pytest.raises(CheckpointError, match="the constant u cannot be computed"):
        loaded(
            tmp_path,
            model(
                [("Gather", "w k", "u", {}), ("Add", "x u", "y", {})],
                (4,),
                {"w": f32(rng, 4), "k": i64(9)},
            ),
        )
    with pytest.raises(OptionError, match="holds its own graph and has no use for arch"):
        npk.load(tmp_path / "x.onnx", arch=Small)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingPackageError, match=r"pip install '\.\[onnx\]'"):
        npk.load(tmp_path / "x.onnx")


def test_onnx_of_several_outputs(tmp_path, rng):
    net = loaded(
        tmp_path, model([("Relu", "x", "y", {}), ("Neg", "x", "z", {})], (3,), outputs=("y", "z"))
    )
    x = batch(rng, 2, 3)
    torch.testing.assert_close(net(x)[1], -x)
    torch.testing.assert_close(npk.load(tmp_path / "x.onnx", output=0)(x), x)


LIGHT = ("squeezenet", "shufflenet", "inception_v1")


@pytest.mark.slow
@pytest.mark.parametrize("name", LIGHT)
def test_onnx_models_of_the_package_itself(name):
    """Real graphs of other hands (Caffe2, operator set 9), as the package onnx tests itself with;
    their weights are constants.
    """
    folder = os.path.join(os.path.dirname(onnx.__file__), "backend", "test", "data", "light")
    net = npk.load(os.path.join(folder, f"light_{name}.onnx"))
    expected = onnx.load_tensor(os.path.join(folder, f"light_{name}_output_0.pb"))
    x = torch.ones(2, *net.input_shape)
    with torch.no_grad():
        found = net(x)
    assert found.shape[1:] == numpy_helper.to_array(expected).shape[1:]
    exports(net, net.input_shape)


# another output


@pytest.mark.parametrize(
    ("wrap", "output", "name"),
    [
        (tuple, 1, "second"),
        (list, "0", "first"),
        (tuple, -1, "second"),
        (lambda two: dict(zip(("a", "b"), two, strict=True)), "b", "second"),
        (tuple, "first", "first"),
        (tuple, "body", "body"),
    ],
)
def test_output_is_chosen(rng, wrap, output, name):
    source, x = Heads(wrap).eval(), batch(rng, 3, 4)
    net = npk.choose_output(source, output)
    expected = source.body(x) if name == "body" else getattr(source, name)(F.relu(source.body(x)))
    torch.testing.assert_close(net(x), expected, rtol=0, atol=0)
    torch.testing.assert_close(exports(net, (4,))(x), expected, rtol=1e-5, atol=1e-6)
    assert [n for n, _ in net.named_parameters()] == [n for n, _ in source.named_parameters()]
    torch.testing.assert_close(
        copy.deepcopy(net).double()(x.double()), expected.double(), rtol=1e-4, atol=1e-5
    )
    assert not source.body._forward_hooks


def test_final_softmax_is_cut_off(rng):
    source = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 2), nn.Softmax(1)).eval()
    X = rng.random((3, 4), dtype=np.float32)
    found, expected = (
        npk.kernel(net, X, backend="reference")
        for net in (npk.choose_output(source, "2"), source[:3])
    )
    np.testing.assert_array_equal(found, expected)


def test_mode_is_that_of_the_network():
    source = nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.5)).eval()
    net = npk.choose_output(source, "0")
    assert not net.training
    net.train()
    assert source.training
    assert source[1].training
    net.eval()
    assert not source[1].training


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("unused", "calls the module 'unused' never"),
        ("relu", "calls the module 'relu' 2 times"),
        ("secnod", r"has no output 'secnod': it returns a tuple with 0, 1, .* Did you mean second"),
        (7, "has no output 7: it returns a tuple with 0, 1"),
    ],
)
def test_outputs_that_are_not_there(output, message):
    net = npk.choose_output(Heads().eval(), output)
    with pytest.raises(UnsupportedGraphError, match=message):
        net(torch.zeros(1, 4))
    with pytest.raises(UnsupportedGraphError, match=message):
        npk.trace(net, (4,))


def test_outputs_that_are_none():
    source = nn.Sequential(nn.Linear(2, 2))
    for output in (None, True, 1.5, ""):
        with pytest.raises(
            OptionError, match="Give the number or key of an output, or the name of a module"
        ):
            npk.choose_output(source, output)
    with pytest.raises(OptionError, match="net is a int"):
        npk.choose_output(3, 0)
    with pytest.raises(
        UnsupportedGraphError, match="has no output 'x': it returns a single tensor"
    ):
        npk.choose_output(source, "x")(torch.ones(1, 2))

    class Nested(nn.Module):
        def forward(self, x):
            return (x, [x]), x

    with pytest.raises(UnsupportedGraphError, match="output 0 of Nested is a tuple, not a tensor"):
        npk.choose_output(Nested(), 0)(torch.ones(1, 2))


# layout


class Last(nn.Module):
    """Takes (n, H, W, C)."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(2, 3, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.fc(F.relu(self.conv(x.permute(0, 3, 1, 2))).mean((2, 3)))


def test_channels_last_networks_take_channels_first(tmp_path, rng):
    source, x = Last().eval(), batch(rng, 3, 2, 6, 5)
    npk.save(source, tmp_path / "x.pt")
    net = npk.load(tmp_path / "x.pt", Last, layout="nhwc")
    torch.testing.assert_close(net(x), source(x.permute(0, 2, 3, 1)), rtol=0, atol=0)
    exports(net, (2, 6, 5))
    assert not net.training
    assert list(net.state_dict()) == list(source.state_dict())
    with pytest.raises(OptionError, match="layout='hwc' is not known"):
        npk.load(tmp_path / "x.pt", Last, layout="hwc")


def test_layout_and_output_together(tmp_path, rng):
    nodes = [
        ("Transpose", "x", "t", {"perm": [0, 3, 1, 2]}),
        ("Conv", "t w", "c", {"name": "conv"}),
        ("Relu", "c", "y", {}),
    ]
    made = model(nodes, (6, 5, 2), {"w": f32(rng, 3, 2, 3, 3)})
    onnx.save(made, tmp_path / "x.onnx")
    net = npk.load(tmp_path / "x.onnx", layout="nhwc", output="conv")
    assert net.input_shape == (2, 6, 5)
    assert net(torch.zeros(4, 2, 6, 5)).shape == (4, 3, 4, 3)


# the command line


def test_command_line_reads_options_of_arch_output_and_layout(tmp_path, rng, monkeypatch, capsys):
    name = f"own_formats_{os.getpid()}"
    (tmp_path / f"{name}.py").write_text(
        "from torch import nn\n"
        "def make(width, act):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), getattr(nn, act)(), "
        "nn.Linear(width, 3), nn.Softmax(1))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    source = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 3), nn.Softmax(1)
    )
    npk.save(source, "x.pt")
    np.save("X.npy", rng.random((4, 1, 8, 8), dtype=np.float32))
    how = [
        "--arch",
        f"{name}:make",
        "--arch-option",
        "width=40",
        "--arch-option",
        "act=ReLU",
        "--output",
        "3",
    ]
    code = cli.run(
        ["kernel", "x.pt", "--data", "X.npy", "--out", "K.npy", "--backend", "reference", *how]
    )
    assert code == 0, capsys.readouterr().err
    np.testing.assert_array_equal(
        np.load("K.npy"), npk.kernel(source[:4].eval(), np.load("X.npy"), backend="reference")
    )
    sys.modules.pop(name)


def test_literals_of_the_command_line():
    found = reading.literals(
        ["width=64", "act=relu", "sizes=(3, 4)", "flag=True", "name='a=b'", "none=None"]
    )
    assert found == {
        "width": 64,
        "act": "relu",
        "sizes": (3, 4),
        "flag": True,
        "name": "a=b",
        "none": None,
    }
    with pytest.raises(OptionError, match="--arch-option '3=4' is not understood"):
        reading.literals(["3=4"])
