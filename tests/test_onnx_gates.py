"""ReLU and its kin in every spelling that exporters have for them in ONNX; outputs in the middle of
a graph.
"""

import numpy as np
import pytest
import torch
from torch import nn

import npk
from npk import cli
from npk.errors import CheckpointError, UnsupportedGraphError

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

ML = "ai.onnx.ml"


def model(nodes, shape, weights=(), *, outputs=("y",), opset=17):
    """An ONNX model of nodes written as (op, inputs, outputs, attributes); a dot stands before an
    operator of ai.onnx.ml.
    """
    made = []
    for op, inputs, results, attributes in nodes:
        domain = ML if op.startswith(".") else ""
        made.append(
            helper.make_node(
                op.removeprefix("."), inputs.split(), results.split(), domain=domain, **attributes
            )
        )
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *shape])
    results = [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs]
    tensors = [
        numpy_helper.from_array(np.asarray(value), name) for name, value in dict(weights).items()
    ]
    graph = helper.make_graph(made, "g", [x], results, tensors)
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid(ML, 3)],
        ir_version=8,
    )


def saved(folder, made):
    onnx.save(made, folder / "x.onnx")
    return folder / "x.onnx"


def f32(*values):
    return np.array(values, np.float32)


ZERO, SCALAR = f32(0.0), np.float32(0)
# From q to h, and the module of torch that it is.
SPELLINGS = {
    "Relu": ([("Relu", "q", "h", {})], {}, nn.ReLU()),
    "Max(q, 0)": ([("Max", "q z", "h", {})], {"z": SCALAR}, nn.ReLU()),
    "Max(0, q)": ([("Max", "z q", "h", {})], {"z": ZERO}, nn.ReLU()),
    "Max(q, zeros)": ([("Max", "q z", "h", {})], {"z": np.zeros((1, 6), np.float32)}, nn.ReLU()),
    "Max(q, 0, 0)": ([("Max", "q z z", "h", {})], {"z": SCALAR}, nn.ReLU()),
    "Max of a computed 0": (
        [("Sub", "o o", "z", {}), ("Max", "q z", "h", {})],
        {"o": f32(1.0)},
        nn.ReLU(),
    ),
    "Clip(q, 0)": ([("Clip", "q z", "h", {})], {"z": SCALAR}, nn.ReLU()),
    "Clip(q, 0, largest)": (
        [("Clip", "q z m", "h", {})],
        {"z": SCALAR, "m": np.finfo(np.float32).max},
        nn.ReLU(),
    ),
    "Clip(q, 0, 6)": ([("Clip", "q z s", "h", {})], {"z": SCALAR, "s": np.float32(6)}, nn.ReLU6()),
    "Min(Max(q, 0), 6)": (
        [("Max", "q z", "m", {}), ("Min", "s m", "h", {})],
        {"z": SCALAR, "s": np.float32(6)},
        nn.ReLU6(),
    ),
    "q * (q > 0)": (
        [("Greater", "q z", "g", {}), ("Cast", "g", "c", {"to": 1}), ("Mul", "q c", "h", {})],
        {"z": SCALAR},
        nn.ReLU(),
    ),
    "(q > zeros) * q": (
        [("Greater", "q z", "g", {}), ("Cast", "g", "c", {"to": 1}), ("Mul", "c q", "h", {})],
        {"z": np.zeros(6, np.float32)},
        nn.ReLU(),
    ),
    "q * where(q > 0, 1, 0)": (
        [("Greater", "q z", "g", {}), ("Where", "g o z", "c", {}), ("Mul", "q c", "h", {})],
        {"z": SCALAR, "o": np.float32(1)},
        nn.ReLU(),
    ),
    "where(q > 0, q, 0)": (
        [("Greater", "q z", "g", {}), ("Where", "g q z", "h", {})],
        {"z": SCALAR},
        nn.ReLU(),
    ),
    "where(q < 0, 0, q)": (
        [("Less", "q z", "g", {}), ("Where", "g z q", "h", {})],
        {"z": SCALAR},
        nn.ReLU(),
    ),
    "where(0 < q, q, zeros)": (
        [("Less", "z q", "g", {}), ("Where", "g q z", "h", {})],
        {"z": np.zeros((1, 6), np.float32)},
        nn.ReLU(),
    ),
    "Max(q, q / 4)": (
        [("Mul", "q s", "m", {}), ("Max", "q m", "h", {})],
        {"s": np.float32(0.25)},
        nn.LeakyReLU(0.25),
    ),
    "LeakyRelu": ([("LeakyRelu", "q", "h", {"alpha": 0.25})], {}, nn.LeakyReLU(0.25)),
    "LeakyRelu(0)": ([("LeakyRelu", "q", "h", {"alpha": 0.0})], {}, nn.ReLU()),
    "PRelu of one slope": ([("PRelu", "q s", "h", {})], {"s": f32(0.25)}, nn.LeakyReLU(0.25)),
    "PRelu of equal slopes": (
        [("PRelu", "q s", "h", {})],
        {"s": np.full((1, 6), 0.25, np.float32)},
        nn.LeakyReLU(0.25),
    ),
    "Mish": ([("Mish", "q", "h", {})], {}, nn.Mish()),
    "ThresholdedRelu(0)": ([("ThresholdedRelu", "q", "h", {"alpha": 0.0})], {}, nn.ReLU()),
}


def layers():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Linear(4, 6), nn.Linear(6, 3)


def between_layers(nodes, weights):
    first, last = layers()
    given = {"w": first.weight, "b": first.bias, "v": last.weight, "c0": last.bias}
    every = [("Gemm", "x w b", "q", {"transB": 1}), *nodes, ("Gemm", "h v c0", "y", {"transB": 1})]
    return model(
        every,
        (4,),
        {name: value.detach().numpy() for name, value in given.items()} | weights,
        opset=18,
    )


@pytest.mark.parametrize("name", SPELLINGS)
def test_spellings_have_the_kernel_of_the_module(tmp_path, rng, name):
    nodes, weights, module = SPELLINGS[name]
    made = between_layers(nodes, weights)
    net, X = npk.load(saved(tmp_path, made)), (4 * rng.standard_normal((5, 4))).astype(np.float32)
    (expected,) = ReferenceEvaluator(made).run(None, {"x": X})
    torch.testing.assert_close(
        net(torch.from_numpy(X)).detach().numpy(), expected, rtol=1e-5, atol=1e-5
    )
    first, last = layers()
    plain = nn.Sequential(first, module, last).eval()
    for bias in ("ignore", "paths"):
        kernels = [npk.kernel(one, X, backend="reference", bias=bias) for one in (net, plain)]
        np.testing.assert_allclose(*kernels, rtol=1e-12)


@pytest.mark.parametrize("alpha", [0.5, -0.25])
def test_thresholded_relu_is_a_gate_at_its_threshold(tmp_path, rng, alpha):
    made = between_layers([("ThresholdedRelu", "q", "h", {"alpha": alpha})], {})
    net, X = npk.load(saved(tmp_path, made)), (4 * rng.standard_normal((5, 4))).astype(np.float32)
    q = torch.tensor(
        [
            alpha,
            np.nextafter(np.float32(alpha), np.float32(1)),
            np.nextafter(np.float32(alpha), np.float32(-1)),
        ]
    )
    rule = net.get_submodule("ThresholdedRelu_1")
    torch.testing.assert_close(rule(q), torch.where(q > alpha, q, torch.zeros(())), rtol=0, atol=0)
    # the same gates as of a network whose bias is alpha less
    on = layers()[0](torch.from_numpy(X)).detach().numpy() > alpha
    expected = (X @ X.T) * (on.astype(float) @ on.T)
    np.testing.assert_allclose(
        npk.kernel(net, X, backend="reference", scale="count", bias="ignore"), expected, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("shape", "slope"),
    [
        ((3, 5, 5), (3, 1, 1)),
        ((3, 5, 5), (1, 3, 1, 1)),
        ((5, 5), (5,)),
        ((3, 4, 5), (5,)),
        ((5, 5), (5, 1)),
        ((3, 4, 5), (4, 1)),
        ((6,), (6,)),
    ],
)
def test_slopes_of_prelu_lie_where_onnx_has_them(tmp_path, rng, shape, slope):
    """Its shapes are lined up with the last axes, which need not be those of channels."""
    made = model([("PRelu", "x s", "y", {})], shape, {"s": rng.random(slope, dtype=np.float32)})
    x = rng.standard_normal((2, *shape)).astype(np.float32)
    (expected,) = ReferenceEvaluator(made).run(None, {"x": x})
    torch.testing.assert_close(
        npk.load(saved(tmp_path, made))(torch.from_numpy(x)),
        torch.from_numpy(expected),
        rtol=0,
        atol=0,
    )


def test_slopes_of_prelu_a_channel_without_axes_and_at_every_position(tmp_path, rng):
    slopes, x = (
        rng.random(3, dtype=np.float32),
        rng.standard_normal((2, 3, 4, 5)).astype(np.float32),
    )
    net = npk.load(saved(tmp_path, model([("PRelu", "x s", "y", {})], (3, 4, 5), {"s": slopes})))
    expected = torch.nn.functional.prelu(torch.from_numpy(x), torch.from_numpy(slopes))
    torch.testing.assert_close(net(torch.from_numpy(x)), expected, rtol=0, atol=0)
    with pytest.raises(UnsupportedGraphError, match="a PRelu with slopes along several axes"):
        npk.load(
            saved(
                tmp_path,
                model(
                    [("PRelu", "x s", "y", {})], (3, 4), {"s": rng.random((3, 4), dtype=np.float32)}
                ),
            )
        )


@pytest.mark.parametrize(
    ("nodes", "weights"),
    [
        ([("Max", "x c", "y", {})], {"c": f32(0, 1, 2)}),
        ([("Min", "c x d", "y", {})], {"c": f32(0, 1, 2), "d": np.float32(0.5)}),
        ([("Max", "c d x", "y", {})], {"c": f32(0, 1, 2), "d": np.float32(0.5)}),
        (
            [("Greater", "x c", "g", {}), ("Where", "g d x", "y", {})],
            {"c": SCALAR, "d": f32(1, 2, 3)},
        ),
        (
            [("Greater", "x c", "g", {}), ("Where", "g c d", "y", {})],
            {"c": SCALAR, "d": np.float32(1)},
        ),
        (
            [("Greater", "x c", "g", {}), ("Where", "g d e", "y", {})],
            {"c": SCALAR, "d": np.float32(2), "e": np.float32(3)},
        ),
        ([("Where", "m x c", "y", {})], {"c": SCALAR, "m": np.array([True, False, True])}),
        ([("Cast", "x", "b", {"to": 9}), ("Cast", "b", "y", {"to": 1})], {}),
        ([("Greater", "x c", "g", {}), ("CastLike", "g x", "y", {})], {"c": SCALAR}),
        (
            [
                ("Greater", "x c", "g", {}),
                ("Less", "x d", "l", {}),
                ("And", "g l", "a", {}),
                ("Or", "a g", "o", {}),
                ("Cast", "o", "y", {"to": 1}),
            ],
            {"c": SCALAR, "d": np.float32(1)},
        ),
        (
            [
                ("Celu", "x", "a", {"alpha": 2.0}),
                ("Mish", "a", "b", {}),
                ("Softsign", "b", "y", {}),
            ],
            {},
        ),
    ],
)
def test_constants_beside_computed_values(tmp_path, rng, nodes, weights):
    made = model(nodes, (3,), weights, opset=18)
    x = np.concatenate([rng.standard_normal((2, 3)), [[0, 0.5, 1], [0, 0, 0]]]).astype(np.float32)
    (expected,) = ReferenceEvaluator(made).run(None, {"x": x})
    torch.testing.assert_close(
        npk.load(saved(tmp_path, made))(torch.from_numpy(x)),
        torch.from_numpy(np.array(expected)),
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize("shape", [(4, 3), (1, 1, 1)])
def test_a_constant_that_stretches_the_batch_is_refused(tmp_path, shape):
    with pytest.raises(
        CheckpointError, match="mixes the samples of a batch|does not run on samples"
    ):
        npk.load(
            saved(
                tmp_path, model([("Max", "x c", "y", {})], (3,), {"c": np.zeros(shape, np.float32)})
            )
        )


# classifiers of scikit-learn: labels and probabilities stand behind the network


@pytest.fixture
def classifier(tmp_path, rng):
    weights = {
        "w": f32(*rng.random(20)).reshape(4, 5) - 0.5,
        "b": f32(*rng.random(5)),
        "v": f32(*rng.random(15)).reshape(5, 3),
    }
    weights |= {"classes": np.arange(3), "shape": np.array([-1])}
    nodes = [
        (
            ".Scaler",
            "x",
            "scaled",
            {"offset": [0.5, 1.0, 0.0, -1.0], "scale": [2.0, 1.0, 0.5, 1.0]},
        ),
        ("MatMul", "scaled w", "mul", {"name": "MatMul"}),
        ("Add", "mul b", "add", {"name": "Add"}),
        ("Relu", "add", "hidden", {"name": "Relu"}),
        ("MatMul", "hidden v", "scores", {"name": "MatMul1"}),
        ("Softmax", "scores", "out", {"name": "Softmax"}),
        ("ArgMax", "out", "index", {"axis": 1, "name": "ArgMax"}),
        (".ArrayFeatureExtractor", "classes index", "found", {}),
        ("Reshape", "found shape", "label", {}),
        (".ZipMap", "out", "probabilities", {"classlabels_int64s": [0, 1, 2]}),
    ]
    return saved(tmp_path, model(nodes, (4,), weights, outputs=("label", "probabilities"))), weights


@pytest.mark.parametrize("output", ["MatMul1", "scores"])
def test_only_what_leads_to_the_output_must_be_known(classifier, rng, output):
    path, weights = classifier
    net, X = npk.load(path, output=output), rng.standard_normal((5, 4)).astype(np.float32)
    scaled = (X - f32(0.5, 1, 0, -1)) * f32(2, 1, 0.5, 1)
    expected = np.maximum(scaled @ weights["w"] + weights["b"], 0) @ weights["v"]
    np.testing.assert_allclose(
        net(torch.from_numpy(X)).detach().numpy(), expected, rtol=1e-4, atol=1e-5
    )
    assert npk.kernel(net, X, backend="reference").shape == (5, 5)


def test_what_stands_behind_the_network_is_named_with_the_way_out(classifier):
    with pytest.raises(
        CheckpointError,
        match=r"does not read: ArgMax, "
        r"ai\.onnx\.ml\.ArrayFeatureExtractor, .*ZipMap.*: "
        r"--output MatMul1",
    ):
        npk.load(classifier[0])
    with pytest.raises(
        UnsupportedGraphError,
        match=r"has no output 'MatMull'.* label, "
        r"probabilities.* Did you mean MatMul",
    ):
        npk.load(classifier[0], output="MatMull")
    for output in (2, -3, "7"):
        with pytest.raises(UnsupportedGraphError, match=f"has no output '?{output}'?"):
            npk.load(classifier[0], output=output)
    with pytest.raises(CheckpointError, match="ArgMax"):
        npk.load(classifier[0], output=0)
    with pytest.raises(CheckpointError, match="ZipMap"):
        npk.load(classifier[0], output="probabilities")


def test_normalizer_is_refused_by_name(tmp_path):
    made = model([(".Normalizer", "x", "h", {"norm": "L2"}), ("Relu", "h", "y", {})], (3,))
    with pytest.raises(
        CheckpointError,
        match=r"does not read: ai\.onnx\.ml\.Normalizer\. Export "
        r"the network without them\.",
    ):
        npk.load(saved(tmp_path, made))


@pytest.mark.parametrize("attributes", [{}, {"offset": [1.0]}, {"scale": [2.0, 3.0, 4.0]}])
def test_scalers_with_less(tmp_path, rng, attributes):
    net = npk.load(
        saved(tmp_path, model([(".Scaler", "x", "h", attributes), ("Neg", "h", "y", {})], (3,)))
    )
    x = rng.standard_normal((2, 3)).astype(np.float32)
    expected = -(x - np.array(attributes.get("offset", 0))) * np.array(attributes.get("scale", 1))
    np.testing.assert_allclose(net(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-6)


def test_a_part_with_several_values_is_no_output(tmp_path):
    nodes = [("Split", "x p", "a b", {"axis": 1, "name": "parts"}), ("Add", "a b", "y", {})]
    path = saved(tmp_path, model(nodes, (4,), {"p": np.array([2, 2])}))
    with pytest.raises(
        UnsupportedGraphError, match="'parts' gives 2 values. Choose one of them: a, b"
    ):
        npk.load(path, output="parts")
    torch.testing.assert_close(
        npk.load(path, output="b")(torch.arange(4.0)[None]), torch.tensor([[2.0, 3.0]])
    )


def test_names_of_modules_do_not_depend_on_the_output(tmp_path):
    nodes = [
        ("Neg", "x", "side", {}),
        ("Abs", "x", "h", {}),
        ("Relu", "h", "r", {}),
        ("Add", "r side", "y", {}),
    ]
    path = saved(tmp_path, model(nodes, (4,)))
    names = [name for name, _ in npk.load(path).named_children()]
    assert names == ["Neg_0", "Abs_1", "Relu_2", "Add_3"]
    assert [name for name, _ in npk.load(path, output="Relu_2").named_children()] == [
        "Abs_1",
        "Relu_2",
    ]


def test_command_line_takes_an_output_before_unknown_operators(
    classifier, tmp_path, rng, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    np.save("X.npy", rng.standard_normal((4, 4)).astype(np.float32))
    code = cli.run(
        [
            "kernel",
            "x.onnx",
            "--output",
            "MatMul1",
            "--data",
            "X.npy",
            "--out",
            "K.npy",
            "--backend",
            "reference",
        ]
    )
    assert code == 0, capsys.readouterr().err
    assert cli.run(["inspect", "x.onnx", "--input-shape", "4"]) == 2
    assert "--output MatMul1" in capsys.readouterr().err
