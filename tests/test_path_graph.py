"""Networks that are refused, each with its reason, and forms of one network that must be read
alike.
"""

import math
import tracemalloc

import numpy as np
import pytest
import torch
from tiny_networks import NETWORKS, make
from torch import nn
from torch.nn import functional as F

import npk
from npk.definition.paths import path_kernel
from npk.definition.value_network import evaluate, own_weights
from npk.errors import OptionError, ShapeError, UnsupportedGraphError
from npk.graph.operators import Add, AveragePool, BatchNorm, Convolution, Gate, Input, MaxPool
from npk.graph.path_graph import from_dict, to_dict
from npk.recursion import masks
from npk.recursion.masks import form_real, form_support
from npk.recursion.planning import plan

Linear = nn.Linear


class Net(nn.Module):
    """A network from a function of itself and x."""

    def __init__(self, function, **modules):
        super().__init__()
        self.function = function
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x):
        return self.function(self, x)


def net(function, **modules):
    return Net(function, **modules).eval()


def layers(*modules):
    return nn.Sequential(*modules).eval()


def in_train_mode(network, module):
    network.eval().get_submodule(module).train()
    return network


@torch.library.custom_op("user::relu", mutates_args=())
def foreign_relu(x: torch.Tensor) -> torch.Tensor:
    return torch.tanh(x)


@foreign_relu.register_fake
def _(x):
    return torch.empty_like(x)


def parameter(*shape):
    return nn.Parameter(torch.ones(shape))


GAP = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
VECTOR, IMAGE, LINE = (4,), (1, 4, 4), (1, 4)

REFUSED = {
    "padded hard gates": (
        net(
            lambda s, x: s.h(s.a(x) * F.pad((s.b(x) > 0).float(), (1, 1))),
            a=Linear(4, 4),
            b=Linear(4, 2),
            h=Linear(4, 2),
        ),
        VECTOR,
        "or pads them",
    ),
    # operators without paths
    "layer norm": (
        layers(Linear(4, 4), nn.LayerNorm(4), Linear(4, 2)),
        VECTOR,
        "node layer_norm in module .1. .*: statistics of the sample divide its values",
    ),
    "softmax": (
        layers(Linear(4, 4), nn.Softmax(1), Linear(4, 2)),
        VECTOR,
        "node softmax in module '1' .*softmax couples its inputs",
    ),
    "attention": (
        net(
            lambda s, x: s.h(s.m(x, x, x)[0].flatten(1)),
            m=nn.MultiheadAttention(4, 1, batch_first=True),
            h=Linear(8, 2),
        ),
        (2, 4),
        "module 'm' .*as attention does|softmax couples|no paths through",
    ),
    "foreign operator called relu": (
        net(lambda s, x: s.h(foreign_relu(s.a(x))), a=Linear(4, 4), h=Linear(4, 2)),
        VECTOR,
        "no paths through user::relu",
    ),
    # the same weights twice
    "weight twice on a path": (
        net(lambda s, x: s.h(s.a(F.relu(s.a(x)))), a=Linear(4, 4), h=Linear(4, 2)),
        VECTOR,
        "parameter a.weight is used twice along a path",
    ),
    "x + relu(x)": (
        net(lambda s, x: s.h(s.a(x) + F.relu(s.a(x))), a=Linear(4, 4), h=Linear(4, 2)),
        VECTOR,
        "reaches through the same weights",
    ),
    "relu(input) + input": (
        net(lambda s, x: s.h(F.relu(x) + x), h=Linear(4, 2)),
        VECTOR,
        "reaches through the same weights",
    ),
    "input + relu(input)": (
        net(lambda s, x: s.h(x + F.relu(x)), h=Linear(4, 2)),
        VECTOR,
        "reaches through the same weights",
    ),
    "h + h": (
        net(lambda s, x: s.h((q := s.a(x)) + q), a=Linear(4, 4), h=Linear(4, 2)),
        VECTOR,
        "reaches through the same weights",
    ),
    "siamese": (
        net(
            lambda s, x: s.h(s.b(F.relu(s.a(x))) + s.b(s.a(x))),
            a=Linear(4, 4),
            b=Linear(4, 4),
            h=Linear(4, 2),
        ),
        VECTOR,
        "reaches through the same weights",
    ),
    "one kernel, two dilations": (
        net(
            lambda s, x: s.h(
                (F.conv2d(x, s.w, padding=1) + F.conv2d(x, s.w, padding=2, dilation=2)).mean((2, 3))
            ),
            w=parameter(2, 1, 3, 3),
            h=Linear(2, 2),
        ),
        IMAGE,
        "reaches through the same weights",
    ),
    "weights in both orders": (
        net(
            lambda s, x: s.h(F.relu(s.b(s.a(x))) + F.relu(s.a(s.b(x)))),
            a=Linear(4, 4),
            b=Linear(4, 4),
            h=Linear(4, 2),
        ),
        VECTOR,
        "met in one order on some paths and in the other order",
    ),
    "weight from the samples": (
        net(lambda s, x: F.linear(x, x.mean() * s.a.weight), a=Linear(4, 2)),
        VECTOR,
        "its weight is computed from the samples",
    ),
    "transposed weight": (
        net(lambda s, x: F.linear(F.relu(F.linear(x, s.a.weight)), s.a.weight.t()), a=Linear(4, 2)),
        VECTOR,
        "a.weight is used twice along a path",
    ),
    # modes and shapes
    "batch norm in train mode": (
        nn.Sequential(Linear(4, 4), nn.BatchNorm1d(4), Linear(4, 2)),
        VECTOR,
        r"batch norm in train mode.*net.eval\(\)",
    ),
    "one batch norm in train mode": (
        in_train_mode(nn.Sequential(Linear(4, 4), nn.BatchNorm1d(4), Linear(4, 2)), "1"),
        VECTOR,
        "has batch norm in train mode, whose statistics depend on the batch",
    ),
    "batch norm in train mode that counts its batches": (  # by a number that it takes of a tensor
        in_train_mode(nn.Sequential(Linear(4, 4), nn.BatchNorm1d(4, momentum=None)), "1"),
        VECTOR,
        "has batch norm in train mode, whose statistics depend on the batch",
    ),
    "batch norm without statistics": (
        layers(Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False), Linear(4, 2)),
        VECTOR,
        "depends on the batch",
    ),
    "dropout in train mode": (
        nn.Sequential(Linear(4, 4), nn.Dropout(0.5), Linear(4, 2)),
        VECTOR,
        "dropout in train mode",
    ),
    "pad with ones": (
        net(
            lambda s, x: s.h(F.pad(s.c(x), (1, 1), value=1.0).mean((2, 3))),
            c=nn.Conv2d(1, 2, 1),
            h=Linear(2, 2),
        ),
        IMAGE,
        "it pads with 1.0",
    ),
    "batch taken apart": (
        net(lambda s, x: s.h(s.a(x.view(-1, 2)).view(-1, 8)), a=Linear(2, 4), h=Linear(8, 2)),
        VECTOR,
        "mixes the samples of a batch",
    ),
    "pool that takes the batch for channels": (
        net(lambda s, x: s.h(F.avg_pool1d(s.a(x), 2)), a=Linear(4, 4), h=Linear(2, 2)),
        VECTOR,
        "works on 1 axes of samples of shape",
    ),
    # sums and products
    "add that broadcasts over samples": (
        net(
            lambda s, x: s.h((s.c(x) + s.a(x.flatten(1))).mean(1)),
            c=nn.Conv1d(1, 1, 1),
            a=Linear(4, 4),
            h=Linear(4, 2),
        ),
        LINE,
        "mixes the samples of a batch",
    ),
    "product of two values": (
        net(lambda s, x: s.h(s.a(x) * s.b(x)), a=Linear(4, 4), b=Linear(4, 4), h=Linear(4, 2)),
        VECTOR,
        "neither .or both. comes out of a gate",
    ),
    "product of two gates": (
        net(
            lambda s, x: s.h(torch.sigmoid(s.a(x)) * torch.sigmoid(s.b(x))),
            a=Linear(4, 4),
            b=Linear(4, 4),
            h=Linear(4, 2),
        ),
        VECTOR,
        "a sigmoid is a gate here and no value",
    ),
    "threshold that is not 0": (
        net(lambda s, x: s.h((q := s.a(x)) * (q > 1)), a=Linear(4, 4), h=Linear(4, 2)),
        VECTOR,
        "compares with 1",
    ),
    "rounded gates": (
        net(
            lambda s, x: s.h(s.a(x) * torch.sigmoid(s.b(x)).int()),
            a=Linear(4, 4),
            b=Linear(4, 4),
            h=Linear(4, 2),
        ),
        VECTOR,
        "rounds soft gates",
    ),
    "rounded values": (
        net(lambda s, x: s.h(s.a(x).int().float()), a=Linear(4, 4), h=Linear(4, 2)),
        VECTOR,
        "turns values into torch.int32",
    ),
    "start from a constant": (
        net(
            lambda s, x: s.h(torch.full_like(x, 2.0) * (s.a(x) > 0)), a=Linear(4, 4), h=Linear(4, 2)
        ),
        VECTOR,
        "starts from the constant 2",
    ),
    # gates and pools that are not wholly understood
    "gates of one sample for all": (
        net(
            lambda s, x: s.h(s.a(x) * torch.sigmoid(s.b(x))[0]),
            a=Linear(4, 4),
            b=Linear(4, 4),
            h=Linear(4, 2),
        ),
        VECTOR,
        "its gates do not depend on the sample",
    ),
    "a parameter beside values": (
        net(
            lambda s, x: s.h(torch.cat([s.a(x), s.w.expand(x.shape[0], 4)], 1)),
            a=Linear(4, 4),
            w=parameter(4),
            h=Linear(8, 2),
        ),
        VECTOR,
        "it puts a tensor of the network among values",
    ),
    "slopes that are computed": (
        net(
            lambda s, x: s.h(F.prelu(s.a(x), s.b(x).mean().reshape(1))),
            a=Linear(4, 4),
            b=Linear(4, 4),
            h=Linear(4, 2),
        ),
        VECTOR,
        "its slopes are computed",
    ),
    "GELU by its tanh formula": (
        layers(Linear(4, 4), nn.GELU(approximate="tanh"), Linear(4, 2)),
        VECTOR,
        "a GELU by its tanh formula",
    ),
    "where the maximum is": (
        net(
            lambda s, x: s.h(s.a(x).max(1, keepdim=True)[1].float()), a=Linear(4, 4), h=Linear(1, 2)
        ),
        VECTOR,
        "it takes the indices or statistics of an operator",
    ),
    "channels padded with minus infinity": (
        net(
            lambda s, x: s.h(
                F.max_pool1d(F.pad(s.c(x), (0, 0, 1, 1), value=-math.inf), 2).flatten(1)
            ),
            c=nn.Conv1d(1, 2, 1),
            h=Linear(8, 2),
        ),
        LINE,
        "it pads other axes than its positions with minus infinity",
    ),
    "larger of two values": (
        net(
            lambda s, x: s.h(torch.max(s.a(x), s.b(x))),
            a=Linear(4, 4),
            b=Linear(4, 4),
            h=Linear(4, 2),
        ),
        VECTOR,
        "the larger of two branches, or of all samples",
    ),
    # the whole
    "control flow": (
        net(lambda s, x: s.h(s.a(x)) if x.sum() > 5 else s.h(x), a=Linear(4, 4), h=Linear(4, 2)),
        VECTOR,
        "Net makes a number of the values of its samples, or decides by them",
    ),
    "control flow on the batch": (
        net(lambda s, x: s.h(s.a(x)) if x.shape[0] > 5 else s.h(x), a=Linear(4, 4), h=Linear(4, 2)),
        VECTOR,
        "does something else for some batch sizes",
    ),
    "two outputs": (
        net(lambda s, x: (s.h(x), s.a(x)), a=Linear(4, 4), h=Linear(4, 2)),
        VECTOR,
        "returns 2 values",
    ),
}


# read exactly: moved, sliced, scaled, grouped
ACCEPTED = {
    "first half of hard gates": (
        net(
            lambda s, x: s.h(s.a(x) * (s.b(x) > 0)[:, :4]),
            a=Linear(4, 4),
            b=Linear(4, 8),
            h=Linear(4, 2),
        ),
        VECTOR,
    ),
    "first half of soft gates": (
        net(
            lambda s, x: s.h(s.a(x) * torch.sigmoid(s.b(x))[:, :4]),
            a=Linear(4, 4),
            b=Linear(4, 8),
            h=Linear(4, 2),
        ),
        VECTOR,
    ),
    "padded soft gates": (
        net(
            lambda s, x: s.h(s.a(x) * F.pad(torch.sigmoid(s.b(x)), (1, 1))),
            a=Linear(4, 4),
            b=Linear(4, 2),
            h=Linear(4, 2),
        ),
        VECTOR,
    ),
    "mean after flatten": (
        net(
            lambda s, x: s.h(s.c(x).flatten(1).mean(-1, keepdim=True)),
            c=nn.Conv1d(1, 2, 1),
            h=Linear(1, 2),
        ),
        LINE,
    ),
    "mean over channels": (
        net(lambda s, x: s.h(s.c(x).mean(1).flatten(1)), c=nn.Conv2d(1, 2, 1), h=Linear(16, 2)),
        IMAGE,
    ),
    "gelu": (layers(Linear(4, 4), nn.GELU(), Linear(4, 2)), VECTOR),
    "relu6": (layers(Linear(4, 4), nn.ReLU6(), Linear(4, 2)), VECTOR),
    "permuted axes": (
        net(
            lambda s, x: s.h(s.c(x).transpose(2, 3).flatten(1)),
            c=nn.Conv2d(1, 2, 1),
            h=Linear(32, 2),
        ),
        IMAGE,
    ),
    "added parameter": (
        net(lambda s, x: s.h(s.a(x) + s.p), a=Linear(4, 4), p=parameter(4), h=Linear(4, 2)),
        VECTOR,
    ),
    "batch norm after flatten": (
        layers(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.BatchNorm1d(32), Linear(32, 2)),
        IMAGE,
    ),
    "groups": (layers(nn.Conv2d(2, 2, 1, groups=2), *GAP, Linear(2, 2)), (2, 3, 3)),
    "ceil mode": (
        layers(nn.Conv2d(1, 2, 1), nn.MaxPool2d(2, ceil_mode=True), nn.Flatten(), Linear(8, 2)),
        (1, 3, 3),
    ),
    "uneven adaptive pool": (
        layers(nn.Conv2d(1, 2, 1), nn.AdaptiveAvgPool2d(2), nn.Flatten(), Linear(8, 2)),
        (1, 3, 3),
    ),
    "another divisor": (
        layers(nn.Conv2d(1, 2, 1), nn.AvgPool2d(2, divisor_override=3), nn.Flatten(), Linear(8, 2)),
        IMAGE,
    ),
    "crop": (
        net(
            lambda s, x: s.h(F.pad(s.c(x), (-1, 0)).mean((2, 3))),
            c=nn.Conv2d(1, 2, 1),
            h=Linear(2, 2),
        ),
        IMAGE,
    ),
    "reshape in the middle": (
        net(lambda s, x: s.h(s.a(x).view(-1, 2, 2).mean(2)), a=Linear(4, 4), h=Linear(2, 2)),
        VECTOR,
    ),
    "linear on the last axis": (layers(Linear(4, 4), nn.Flatten(), Linear(8, 2)), (2, 4)),
    "pad after flatten": (
        net(
            lambda s, x: s.h(F.pad(s.c(x).flatten(1), (1, 1))),
            c=nn.Conv1d(1, 2, 1),
            h=Linear(10, 2),
        ),
        LINE,
    ),
    "add of a constant": (
        net(lambda s, x: s.h(s.a(x) + 1.0), a=Linear(4, 4), h=Linear(4, 2)),
        VECTOR,
    ),
    "add of a multiple": (
        net(
            lambda s, x: s.h(torch.add(s.a(x), s.b(x), alpha=2)),
            a=Linear(4, 4),
            b=Linear(4, 4),
            h=Linear(4, 2),
        ),
        VECTOR,
    ),
    "multiple": (net(lambda s, x: s.h(2 * s.a(x)), a=Linear(4, 4), h=Linear(4, 2)), VECTOR),
    "gate that broadcasts a value": (
        net(
            lambda s, x: s.h(s.a(x) * torch.sigmoid(s.b(x))),
            a=Linear(4, 1),
            b=Linear(4, 4),
            h=Linear(4, 2),
        ),
        VECTOR,
    ),
    "part of a value": (
        net(lambda s, x: s.h(F.relu(torch.split(s.a(x), 2, 1)[0])), a=Linear(4, 4), h=Linear(2, 2)),
        VECTOR,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    network, shape, why = REFUSED[name]
    with pytest.raises(UnsupportedGraphError, match=why):
        npk.trace(network, shape)


@pytest.mark.filterwarnings("ignore::npk.errors.KernelWarning")
@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted_and_exact(name, rng):
    network, shape = ACCEPTED[name]
    X = rng.standard_normal((3, *shape))
    table = npk.record_gates(network.double(), X)
    output = network(torch.as_tensor(X)).detach().numpy()
    np.testing.assert_allclose(
        evaluate(table, own_weights(network)), output, rtol=1e-12, atol=1e-13
    )
    for bias in ("ignore", "paths"):
        expected = np.array(path_kernel(table, table, bias=bias))
        np.testing.assert_allclose(
            npk.kernel(table, bias=bias, dtype="float64"),
            expected,
            rtol=1e-11,
            atol=1e-12 * expected.max(),
        )


def test_hard_form_of_moved_soft_gates(rng):
    network, shape = ACCEPTED["first half of soft gates"]
    X = rng.standard_normal((5, *shape))
    table = npk.record_gates(network.double(), X, gates="hard")
    assert (table[0] == (network.b(torch.as_tensor(X))[:, :4] > 0).numpy()).all()
    padded, _ = ACCEPTED["padded soft gates"]
    with pytest.raises(OptionError, match="soft gates without a pre-activation"):
        npk.record_gates(padded.double(), X, gates="hard")


def test_batch_norm_statistics_are_not_touched():
    network = in_train_mode(nn.Sequential(Linear(4, 4), nn.BatchNorm1d(4), Linear(4, 2)), "1")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(UnsupportedGraphError, match="batch norm in train mode"):
        npk.trace(network, VECTOR)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.filterwarnings("ignore::npk.errors.KernelWarning")
@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (layers(Linear(4, 3), nn.ReLU()), VECTOR),
        (layers(nn.Conv1d(1, 2, 3, padding=1), nn.ReLU()), LINE),
    ],
)
def test_gated_outputs_and_outputs_with_positions_give_the_mean_over_their_units(
    network, shape, rng
):
    table = npk.record_gates(network.double(), rng.standard_normal((3, *shape)))
    np.testing.assert_allclose(
        npk.kernel(table, dtype="float64"), path_kernel(table, table), rtol=1e-11
    )


def test_shared_biases_start_no_paths():
    shared = net(
        lambda s, x: s.h(s.b(F.relu(s.a(x))) + s.b(F.relu(s.c(x)))),
        a=Linear(4, 4),
        b=Linear(4, 4),
        c=Linear(4, 4),
        h=Linear(4, 2),
    )
    graph = npk.trace(shared, VECTOR)
    plan(graph, bias="ignore")
    with pytest.raises(UnsupportedGraphError, match="share the bias b.bias, whose paths are not"):
        plan(graph, bias="paths")


@pytest.mark.parametrize("shape", [(5,), (1, 5, 5)])
def test_wrong_sample_shape(shape):
    with pytest.raises(
        ShapeError,
        match=r"Sequential does not accept samples of shape .*Give X "
        r"the shape",
    ):
        npk.trace(layers(Linear(4, 2), nn.BatchNorm1d(2)), shape)


def kinds(graph):
    return [type(node.operator) for node in graph.nodes]


def weights(graph):
    return [node.operator.weight for node in graph.nodes if isinstance(node.operator, Convolution)]


FORMS_OF_RELU = {
    "functional": lambda s, x: s.h(F.relu(s.b(F.relu(s.a(x))))),
    "in place": lambda s, x: s.h(F.relu_(s.b(F.relu_(s.a(x))))),
    "method": lambda s, x: s.h(s.b(s.a(x).relu()).relu_()),
    "one module twice": lambda s, x: s.h(s.r(s.b(s.r(s.a(x))))),
    "comparison": lambda s, x: s.h((p := s.b((q := s.a(x)) * (q > 0))) * (p > 0)),
    "with dropout, identity and detours": lambda s, x: s.h(
        F.dropout(s.r(s.b(s.r(s.a(x).clone()))), 0.5, False).contiguous()
    ),
    "leaky with slope 0": lambda s, x: s.h(F.leaky_relu(s.b(F.leaky_relu(s.a(x), 0.0)), 0.0)),
}


@pytest.mark.parametrize("form", FORMS_OF_RELU)
def test_every_form_of_relu_is_a_gate(form):
    network = net(
        FORMS_OF_RELU[form], a=Linear(4, 3), b=Linear(3, 5), h=Linear(5, 2), r=nn.ReLU(inplace=True)
    )
    graph = npk.trace(network, VECTOR)
    assert kinds(graph) == [Input, Convolution, Gate, Convolution, Gate, Convolution]
    assert weights(graph) == ["a.weight", "b.weight", "h.weight"]
    assert len({node.gate for node in graph.gates}) == 2
    assert [node.shape for node in graph.gates] == [(3,), (5,)]


def test_names_of_gates_come_from_modules():
    graph = npk.trace(
        layers(Linear(4, 3), nn.ReLU(), Linear(3, 2), nn.ReLU(), Linear(2, 2)), VECTOR
    )
    assert [node.gate for node in graph.gates] == ["1", "3"]


def test_flattened_input_becomes_an_image():
    network = net(
        lambda s, x: s.h(torch.flatten(F.relu(s.c(x.view(-1, 1, 4, 4))), 1)),
        c=nn.Conv2d(1, 2, 3),
        h=Linear(8, 2),
    )
    graph = npk.trace(network, (16,))
    assert graph.nodes[0].shape == (1, 4, 4)
    assert graph.input_shape == (16,)
    assert graph.output.operator.window.kernel == (2, 2)


def test_tied_weights_of_parallel_branches_are_read():
    network = net(
        lambda s, x: s.h(s.b(F.relu(s.a(x))) + s.b(F.relu(s.c(x)))),
        a=Linear(4, 4),
        b=Linear(4, 4),
        c=Linear(4, 4),
        h=Linear(4, 2),
    )
    graph = npk.trace(network, VECTOR)
    assert weights(graph).count("b.weight") == 2
    assert kinds(graph).count(Add) == 1


def test_tied_modules_go_by_one_name():
    network = net(
        lambda s, x: s.h(s.b(F.relu(s.a(x)))), a=Linear(4, 4), b=Linear(4, 4), h=Linear(4, 2)
    )
    network.b.weight = network.a.weight
    with pytest.raises(UnsupportedGraphError, match=r"parameter a.weight is used twice"):
        npk.trace(network, VECTOR)


def test_squeeze_and_excite_gates_are_external():
    gated = net(
        lambda s, x: s.h(
            ((q := s.c(x)) * torch.sigmoid(s.g(q.mean((2, 3), keepdim=True)))).mean((2, 3))
        ),
        c=nn.Conv2d(1, 3, 3),
        g=nn.Conv2d(3, 3, 1),
        h=Linear(3, 2),
    )
    graph = npk.trace(gated, IMAGE)
    assert weights(graph) == ["c.weight", "h.weight"]  # the gating branch is not on a path
    assert [node.shape for node in graph.gates] == [(3, 2, 2)]


def test_batch_norm_on_flattened_single_positions_is_read():
    graph = npk.trace(
        layers(nn.Conv2d(1, 3, 2), *GAP, nn.BatchNorm1d(3), nn.ReLU(), Linear(3, 2)), IMAGE
    )
    assert kinds(graph) == [Input, Convolution, AveragePool, BatchNorm, Gate, Convolution]


def test_path_count():
    graph = npk.trace(
        layers(
            nn.Conv2d(2, 3, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            Linear(12, 5),
            nn.ReLU(),
            Linear(5, 2),
        ),
        (2, 4, 4),
    )
    assert kinds(graph)[3] is MaxPool
    assert graph.path_count() == (2 * 9) * 4 * 12 * 5
    skip = npk.trace(
        net(lambda s, x: s.h(x + F.relu(s.a(x))), a=Linear(4, 4), h=Linear(4, 2)), VECTOR
    )
    assert skip.path_count() == (1 + 4) * 4


def test_table_of_the_graph_names_sources():
    text = str(
        npk.trace(net(lambda s, x: s.h(s.a(x).relu()), a=Linear(4, 4), h=Linear(4, 2)), VECTOR)
    )
    assert "linear a.weight" in text
    assert "gate relu" in text
    assert "test_path_graph.py:" in text


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "vgg16"][::4])
def test_dict_round_trip(name):
    network, shape = make(name, np.random.default_rng(0))
    graph = npk.trace(network, shape)
    again = from_dict(to_dict(graph))
    assert again == graph
    assert all(math.prod(node.shape) > 0 for node in again.nodes)


def test_zeros_beside_the_samples_start_no_path():
    """With ones in the place of the samples, too: what a pad shows stays 0."""

    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 2, bias=False).double()

        def forward(self, x):
            return torch.relu(self.layer(nn.functional.pad(x, (2, 1))))

    net, X = Padded().eval(), np.abs(np.random.default_rng(0).standard_normal((3, 3))) + 1
    table = npk.record_gates(net, X)
    options = {"value_input": "ones", "scale": "count"}
    on = np.stack([gates.reshape(len(X), -1) for gates in table][0:1])[0].astype(float)
    expected = 3 * on @ on.T / on.shape[1]  # three paths to a unit; the mean over the units
    for backend in ("reference", "cpu"):
        kernel = npk.kernel(table, backend=backend, dtype="float64", **options, bias="ignore")
        np.testing.assert_allclose(kernel, expected, rtol=1e-12)
    np.testing.assert_allclose(np.array(path_kernel(table, table, **options)), expected)


@pytest.mark.filterwarnings("ignore::npk.errors.KernelWarning")
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_gates_of_both_signs_cancel_to_nothing(backend):
    """Ones times the signs of an absolute value, averaged before the first weight."""

    class Absolute(nn.Module):
        def forward(self, x):
            return x.abs()

    pool = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2, bias=False))
    net = nn.Sequential(Absolute(), *pool).eval()
    X = np.array([[1, 2, -1, -2], [1, 1, 1, -1]], np.float32).reshape(2, 1, 2, 2)
    kernel = npk.kernel(net, X, value_input="ones", backend=backend, bias="ignore")
    assert kernel[0].tolist() == [0, 0]
    assert kernel[1, 1] == pytest.approx(1 / 4)


def test_what_a_pool_adds_up_before_the_first_weight_is_held_in_pieces(rng, monkeypatch):
    """The products of a few samples at a time, and the same bits."""
    layers = nn.ReLU(), nn.AvgPool2d(32), nn.Flatten(), nn.Linear(1, 1)
    X = rng.standard_normal((100, 1, 32, 32)).astype(np.float32)
    table = npk.record_gates(nn.Sequential(*layers).eval(), X, progress=False)
    (mask,) = (mask for mask in plan(table.graph, bias="ignore").masks if mask.weights is not None)
    expected, support = form_real(mask, table), form_support(mask, table)
    monkeypatch.setattr(masks, "_PRODUCT_BYTES", 3 * 8 * mask.products)
    assert [piece.stop for piece in masks.pieces(mask, 8)] == [3, 6, 8]
    tracemalloc.start()
    np.testing.assert_array_equal(form_real(mask, table), expected)
    np.testing.assert_array_equal(form_support(mask, table), support)
    largest = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert largest < 8 * mask.products * len(table) / 4


def test_a_layer_that_reads_one_of_several_positions():
    """It is no product of whole masks."""

    class First(nn.Module):
        def forward(self, x):
            return torch.relu(x)[:, :, 0]

    X = np.random.default_rng(0).standard_normal((5, 2, 3))
    X[:, 0, 0] = np.abs(X[:, 0, 0])  # every sample has an active path
    kernel = npk.kernel(
        nn.Sequential(First(), nn.Linear(2, 1).double()).eval(), X, scale="count", bias="ignore"
    )
    on = np.maximum(X[:, :, 0], 0)
    np.testing.assert_allclose(kernel, on @ on.T, rtol=1e-5)
