"""Networks: gates, architectures, kinds, regimes."""

import json

import numpy as np
import pytest
import torch
from torch.export import Dim
from torch.nn import functional

from npk.errors import OptionError
from npk.networks import build, describe, gate, permute_gates, prepare
from npk.networks.layers import gate_points
from npk.networks.regimes import default_regime

KINDS = ("dnn", "dgn", "dlgn", "dlgn-sf")
IMAGE = {"input_shape": (2, 8, 8), "classes": 3}
FLAT = {"input_shape": (5,), "classes": 3}
ARCHITECTURES = {
    "fc": ("fc", {**FLAT, "hidden": (4, 4)}),
    "fc on images": ("fc", {**IMAGE, "hidden": (6, 4), "batch_norm": True}),
    "conv": ("conv", {**IMAGE, "channels": (4, 4, 4, 4, 4)}),
    "conv flat": (
        "conv",
        {
            **IMAGE,
            "channels": (4, 4, 6),
            "strides": (2, 1, 1),
            "pool_after": (2,),
            "readout": "flatten",
            "hidden": (7,),
        },
    ),
    "conv zero": (
        "conv",
        {
            **IMAGE,
            "channels": (4, 4, 6),
            "strides": (1, 2, 1),
            "padding": "zero",
            "batch_norm": True,
            "hidden": (7,),
        },
    ),
    "residual fc": ("residual", {**FLAT, "widths": (4, 6), "flavor": "fc", "bias": False}),
    "residual fc gated": ("residual", {**FLAT, "widths": (4, 6), "flavor": "fc", "skip": "gated"}),
    "residual": ("residual", {**IMAGE, "widths": (4, 6), "strides": (1, 2)}),
    "residual gated": (
        "residual",
        {
            **IMAGE,
            "widths": (4, 6),
            "strides": (1, 2),
            "skip": "gated",
            "batch_norm": True,
            "padding": "zero",
        },
    ),
    "resnet110": ("resnet110", {**IMAGE, "blocks": 1, "width": 4}),
    "vgg16": ("vgg16", {"input_shape": (3, 32, 32), "classes": 3, "width": 1 / 16}),
}


@pytest.fixture(autouse=True)
def _one_thread():
    """The networks are so small that two threads only wait for each other, above all on a busy
    machine.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def torch_rng(request):
    return torch.Generator().manual_seed(len(request.node.name))


def samples(net, n, generator):
    return torch.randn(n, *net.architecture["input_shape"], generator=generator)


def tiny(name, kind, seed=0, **changes):
    arch, options = ARCHITECTURES[name]
    return build(arch, kind, seed=seed, **{**options, **changes})


# ------------------------------------------------------------------------------------------------ gates


def test_hard_gate_is_on_above_zero_and_off_at_a_tie():
    q = torch.tensor([-1.0, -0.0, 0.0, 1e-30, 2.0])
    assert gate(q, True, 4.0, 0.1).tolist() == [0, 0, 0, 1, 1]
    assert gate(q.double(), True, 4.0, 0.1).dtype == torch.float64


def test_soft_gate_is_a_scaled_sigmoid(torch_rng):
    q = torch.randn(7, generator=torch_rng)
    torch.testing.assert_close(gate(q, False, 3.0, 0.1), 1.1 / (1 + torch.exp(-3.0 * q)))


def test_soft_gate_has_its_true_gradient_and_hard_gate_none(torch_rng):
    q = torch.randn(2, 3, dtype=torch.float64, generator=torch_rng, requires_grad=True)
    assert torch.autograd.gradcheck(lambda q: gate(q, False, 4.0, 0.1), (q,))
    (gradient,) = torch.autograd.grad(gate(q, True, 4.0, 0.1).sum(), q)
    assert gradient.count_nonzero() == 0


def test_gate_under_vmap_and_torchs_own_checks(torch_rng):
    q = torch.randn(4, 3, generator=torch_rng)
    torch.testing.assert_close(
        torch.vmap(lambda v: gate(v, False, 4.0, 0.0), in_dims=1, out_dims=1)(q),
        gate(q, False, 4.0, 0.0),
    )
    torch.library.opcheck(gate, (q.requires_grad_(), False, 4.0, 0.1))


@pytest.mark.parametrize("kind", ["dgn", "dlgn", "dlgn-sf"])
@pytest.mark.parametrize("gates", ["hard", "soft"])
def test_each_gate_point_survives_export_as_one_node(kind, gates, torch_rng):
    net = tiny("conv flat", kind, gates=gates)
    x = samples(net, 2, torch_rng)
    program = torch.export.export(
        net, (x,), dynamic_shapes=({0: Dim("n", min=1)},)
    ).run_decompositions({})
    targets = [str(node.target) for node in program.graph.nodes]
    assert targets.count("npk.gate.default") == targets.count("aten.mul.Tensor") == 4
    more = samples(net, 5, torch_rng)
    torch.testing.assert_close(program.module()(more), net(more))


# ------------------------------------------------------------------------------------------------ architectures and kinds


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_description_gives_the_same_structure_again(name, kind, torch_rng):
    net = tiny(name, kind)
    x = samples(net, 3, torch_rng)
    again = build(**{**json.loads(json.dumps(net.architecture)), "seed": 1})
    assert not torch.equal(again(x), net(x))
    again.load_state_dict(net.state_dict())
    assert torch.equal(again(x), net(x))
    assert net(x).shape == (3, 3)
    assert not net.training
    assert build(**net.architecture).architecture == net.architecture


@pytest.mark.parametrize(
    "name", ["fc", "conv", "conv flat", "residual fc", "residual fc gated", "residual"]
)
def test_dgn_with_the_weights_of_a_dnn_in_both_halves_is_that_dnn(name, torch_rng):
    plain = tiny(name, "dnn", seed=3)
    net = tiny(name, "dgn", gates="hard")
    prepare(net, "flnpf", features=plain)
    net.value.load_state_dict(plain.value.state_dict())
    x = samples(net, 6, torch_rng)
    torch.testing.assert_close(net(x), plain(x))


def test_fc_dlgn_by_hand(torch_rng):
    net = tiny("fc", "dlgn", beta=3.0, epsilon=0.1)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, generator=torch_rng)
    x = samples(net, 4, torch_rng)
    gating, value = (
        [(m.weight, m.bias) for m in half.modules() if isinstance(m, torch.nn.Linear)]
        for half in (net.gating, net.value)
    )
    q, h = x, torch.ones_like(x)
    for (w, b), (v, a) in zip(gating, value, strict=False):
        q = q @ w.T + b
        h = (h @ v.T + a) * 1.1 * torch.sigmoid(3.0 * q)
    torch.testing.assert_close(net(x), h @ value[-1][0].T + value[-1][1])
    assert len(gating) == 2  # nothing after the last gate point


def test_conv_dnn_by_hand(torch_rng):
    net = build("conv", **IMAGE, channels=(4, 5), strides=(1, 2), seed=0)
    x = samples(net, 3, torch_rng)
    w = [p for p in net.parameters()]
    h = functional.conv2d(functional.pad(x, (1, 1, 1, 1), mode="circular"), w[0], w[1]).relu()
    h = functional.conv2d(
        functional.pad(h, (1, 1, 1, 1), mode="circular"), w[2], w[3], stride=2
    ).relu()
    torch.testing.assert_close(net(x), h.mean((2, 3)) @ w[4].T + w[5])


@pytest.mark.parametrize("skip", ["ungated", "gated"])
def test_residual_dnn_by_hand(skip, torch_rng):
    net = build("residual", **FLAT, widths=(5, 5), flavor="fc", skip=skip, bias=False, seed=0)
    x = samples(net, 4, torch_rng)
    w = [p.T for p in net.parameters()]
    h = (x @ w[0]).relu()
    for first, second in (w[1:3], w[3:5]):
        inner = (h @ first).relu() @ second
        h = h + inner.relu() if skip == "ungated" else (h + inner).relu()
    h = (h @ w[5]).relu() if skip == "ungated" else h
    torch.testing.assert_close(net(x), h @ w[-1])


@pytest.mark.parametrize("kind", ["dlgn", "dlgn-sf"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_gating_network_is_affine(name, kind, torch_rng):
    net = tiny(name, kind)
    x, y = samples(net, 3, torch_rng), samples(net, 3, torch_rng)
    for middle, left, right in zip(
        net.gating((x + y) / 2), net.gating(x), net.gating(y), strict=True
    ):
        torch.testing.assert_close(middle, (left + right) / 2, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["fc", "conv", "conv flat", "conv zero", "residual", "residual gated", "resnet110"]
)
def test_shallow_gates_see_what_the_deep_ones_see(name, torch_rng):
    shape = {} if name == "fc" else {"input_shape": (1, 6, 4)}
    deep, shallow = (tiny(name, kind, batch_norm=False, **shape) for kind in ("dlgn", "dlgn-sf"))
    x = samples(deep, 1, torch_rng)
    for a, b in zip(
        *(
            torch.autograd.functional.jacobian(lambda x, net=net: tuple(net.gating(x)), x)
            for net in (deep, shallow)
        ),
        strict=True,
    ):
        assert torch.equal(a != 0, b != 0)


def test_value_input_ones_keeps_the_samples_out_of_the_value_network(torch_rng):
    for net, differs in (
        (tiny("fc", "dlgn"), False),
        (tiny("fc", "dlgn", value_input="x"), True),
        (tiny("fc", "dgn"), True),
    ):
        torch.nn.init.zeros_(net.gating.stack.layers[0].weight)  # the same gates for all samples
        first, second = net(samples(net, 2, torch_rng))
        assert torch.allclose(first, second) is not differs


def test_circular_convolution_with_global_pool_is_shift_invariant(torch_rng):
    for kind in KINDS:
        net = tiny("conv", kind)
        x = samples(net, 2, torch_rng)
        torch.testing.assert_close(net(x.roll((3, -2), (2, 3))), net(x))


def test_seed_decides_the_weights_and_leaves_the_global_state_alone():
    before = torch.random.get_rng_state()
    one, two, other = (
        tiny("fc", "dnn", seed=1),
        tiny("fc", "dnn", seed=1),
        tiny("fc", "dnn", seed=2),
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    first = [next(net.parameters()) for net in (one, two, other)]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])
    assert not torch.equal(*[next(tiny("fc", "dnn", seed=None).parameters()) for _ in range(2)])


def test_full_sizes():
    assert len(list(gate_points(_layers_of(tiny("vgg16", "dgn"))))) == 13
    resnet = build("resnet110", input_shape=(3, 32, 32), classes=10, seed=0)
    convolutions = [m for m in resnet.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len([m for m in convolutions if m.kernel_size == (3, 3)]) == 109
    assert len(convolutions) == 111
    assert any(isinstance(m, torch.nn.MaxPool2d) for m in tiny("vgg16", "dnn").modules())
    assert not any(isinstance(m, torch.nn.MaxPool2d) for m in tiny("vgg16", "dlgn").modules())


def _layers_of(net):
    return net.layers


def test_batch_norm_on_an_all_ones_input_leaves_out_the_first_one():
    norms = [
        [m for m in half.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        for net in (tiny("conv zero", "dlgn"),)
        for half in net.children()
    ]
    assert [len(found) for found in norms[:2]] == [3, 2]


def test_numpys_numbers_become_plain_ones():
    net = build(
        "fc",
        input_shape=np.zeros((2, 5)).shape[1:],
        classes=np.int64(3),
        hidden=(np.int32(4),),
        seed=np.int64(0),
    )
    assert json.loads(json.dumps(net.architecture)) == net.architecture


def test_describe_is_one_line():
    line = describe(tiny("conv flat", "dlgn", bias=False))
    assert line.startswith("conv dlgn, channels 4-4-6, kernel 3, strides 2-1-1,")
    assert "value input ones" in line
    assert "no bias" in line
    assert "\n" not in line
    assert "64x5" in describe(build("conv", **IMAGE, channels=(64,) * 5, seed=0))
    with pytest.raises(OptionError, match="carries no description"):
        describe(torch.nn.Linear(2, 2))


# ------------------------------------------------------------------------------------------------ permuted gates


def test_permuted_gates(torch_rng):
    net = build("fc", "dgn", **FLAT, hidden=(4, 4, 4), seed=0)
    x = samples(net, 3, torch_rng)
    gates = [net.gate(q) for q in net.gating(x)]
    before, value = net(x), [m for m in net.value.modules() if isinstance(m, torch.nn.Linear)]
    assert permute_gates(net, (2, 0, 1)) is net
    h = x
    for layer, i in zip(value, (2, 0, 1), strict=False):
        h = layer(h) * gates[i]
    torch.testing.assert_close(net(x), value[-1](h))
    assert not torch.allclose(net(x), before)
    again = build(**net.architecture)
    assert torch.equal(again(x), net(x))


def test_permuted_gates_refusals():
    with pytest.raises(OptionError, match="only a gated network has gates to permute"):
        permute_gates(tiny("fc", "dnn"), (0, 1))
    with pytest.raises(OptionError, match="must be a permutation of 0 to 1"):
        permute_gates(tiny("fc", "dgn"), (0, 0))
    with pytest.raises(OptionError, match="gate point 0 has shape"):
        tiny("fc on images", "dgn", gate_order=(1, 0))


# ------------------------------------------------------------------------------------------------ regimes


def test_regimes_freeze_and_copy():
    learns = {
        regime: {"gating": gating, "value": True}
        for regime, gating in (("dlnpf", True), ("frnpf-ii", False), ("frnpf-di", False))
    }
    for regime, halves in learns.items():
        net = tiny("conv zero", "dgn", gates="soft" if regime == "dlnpf" else "hard")
        before = {name: value.clone() for name, value in net.gating.stack.state_dict().items()}
        assert prepare(net, regime) is net
        assert {
            name: all(p.requires_grad for p in getattr(net, name).parameters()) for name in halves
        } == halves
        same_as = net.value.state_dict() if regime == "frnpf-di" else before
        assert all(
            torch.equal(value, same_as[name])
            for name, value in net.gating.stack.state_dict().items()
        )
        net.train()
        assert net.gating.training is halves["gating"]
        assert net.value.training
    assert all(p.requires_grad for p in prepare(tiny("fc", "dnn"), "relu").parameters())


def test_learnt_features_of_a_network_of_the_same_kind():
    features, net = tiny("fc", "dlgn-sf", seed=5), tiny("fc", "dlgn-sf", gates="hard")
    prepare(net, "flnpf", features=features)
    assert all(
        torch.equal(a, b)
        for a, b in zip(net.gating.parameters(), features.gating.parameters(), strict=True)
    )


def test_default_regime():
    nets = (
        tiny("fc", "dnn"),
        tiny("fc", "dgn"),
        tiny("fc", "dgn", gates="hard"),
        torch.nn.Linear(2, 2),
    )
    assert [default_regime(net) for net in nets] == ["relu", "dlnpf", "frnpf-ii", "relu"]


@pytest.mark.parametrize(
    ("kind", "gates", "regime", "features", "message"),
    [
        ("dnn", "soft", "npf", None, "regime is 'npf', it must be one of"),
        ("dnn", "soft", "dlnpf", None, "trains a gated network"),
        ("dgn", "soft", "relu", None, "trains a plain network"),
        ("dgn", "soft", "frnpf-ii", None, "needs hard gates"),
        ("dgn", "hard", "dlnpf", None, "needs soft gates"),
        ("dgn", "hard", "flnpf", None, "Give both or neither"),
        ("dgn", "soft", "dlnpf", "dnn", "Give both or neither"),
        ("dlgn", "hard", "flnpf", "dnn", "cannot lend its gates"),
        ("dlgn-sf", "hard", "frnpf-di", None, "has other layers than its value network"),
    ],
)
def test_regime_refusals(kind, gates, regime, features, message):
    with pytest.raises(OptionError, match=message):
        prepare(tiny("fc", kind, gates=gates), regime, features=features and tiny("fc", features))


def test_features_of_other_widths_are_refused():
    with pytest.raises(OptionError, match="differ in layers or widths"):
        prepare(tiny("fc", "dgn", gates="hard"), "flnpf", features=tiny("fc", "dnn", hidden=(4, 5)))


# ------------------------------------------------------------------------------------------------ wrong options


@pytest.mark.parametrize(
    ("name", "kind", "changes", "message"),
    [
        ("fc", "dnn", {"arch": "mlp"}, "arch is 'mlp', it must be one of fc, conv"),
        ("fc", "relu", {}, "kind is 'relu'"),
        ("fc", "dgn", {"gates": "firm"}, "gates is 'firm'"),
        ("fc", "dgn", {"value_input": "zeros"}, "value_input is 'zeros'"),
        ("fc", "dnn", {"value_input": "ones"}, "need external gates"),
        ("fc", "dnn", {"gate_order": (0, 1)}, "need external gates"),
        ("fc", "dgn", {"beta": 0.0}, "beta is 0.0 and epsilon"),
        ("fc", "dgn", {"epsilon": -0.1}, "beta is 4.0 and epsilon -0.1"),
        ("fc", "dnn", {"channels": (4,)}, "fc has no option 'channels'"),
        ("fc", "dnn", {"hidden": 64}, "hidden is 64, it must hold at least one"),
        ("fc", "dnn", {"hidden": ()}, "hidden is .., it must hold at least one"),
        ("fc", "dnn", {"classes": 0}, "classes is .0., it must hold"),
        ("fc", "dnn", {"input_shape": (2, 3)}, r"it must be \(channels, height, width\)"),
        ("conv", "dnn", {"input_shape": (5,)}, "a convolution needs images"),
        ("conv", "dnn", {"kernel": 4}, "kernel is 4, it must be odd"),
        ("conv", "dnn", {"channels": (4, 0)}, "channels is .4, 0., it must hold"),
        ("conv", "dnn", {"strides": (1, 2)}, "strides is .1, 2., it must hold 5"),
        ("conv", "dnn", {"padding": "mirror"}, "padding is 'mirror'"),
        ("conv", "dnn", {"readout": "max"}, "readout is 'max'"),
        ("conv", "dgn", {"pool": "max"}, "must pool by averages"),
        ("conv", "dnn", {"pool_after": (6,)}, "pool_after names .6., the convolutions are 1 to 5"),
        ("residual fc", "dnn", {"strides": 2}, "a fully connected residual network has none"),
        ("residual", "dnn", {"skip": "none"}, "skip is 'none'"),
        ("residual", "dnn", {"flavor": "sweet"}, "flavor is 'sweet'"),
        ("conv", "dnn", {"pool_after": 2}, "pool_after is 2, it must hold"),
        ("conv", "dnn", {"pool_size": 0}, "pool_size is .0., it must hold"),
        ("vgg16", "dnn", {"width": 0}, "width is 0, it multiplies"),
        (
            "vgg16",
            "dnn",
            {"input_shape": (3, 16, 16)},
            "a pooling of 2 x 2 meets an image of 1 x 1",
        ),
    ],
)
def test_wrong_options_are_refused(name, kind, changes, message):
    arch, options = ARCHITECTURES[name]
    with pytest.raises(OptionError, match=message):
        build(**{"arch": arch, "kind": kind, **options, **changes})
