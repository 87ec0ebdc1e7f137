"""Weights that lie in one memory are one weight, whatever objects hang on it (npk.reading.memory)."""

import pytest
import torch
from torch import nn

import npk
from npk.errors import UnsupportedGraphError
from npk.reading.memory import is_one, overlapping, repeats_itself
from npk.recursion.planning import plan


class Branches(nn.Module):
    """Two layers on halves of the input, added, and a third behind them."""

    def __init__(self, behind=False):
        super().__init__()
        self.a, self.b, self.h = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)
        self.behind = behind

    def forward(self, x):
        left = self.a(x[:, :2]).relu()
        return self.h(self.b(left).relu() if self.behind else left + self.b(x[:, 2:]).relu())


def tied(how, behind=False):
    """The network with two weights in one memory."""
    net = Branches(behind).double().eval()
    a, b = net.a, net.b
    if how == "data":
        b.weight.data = a.weight.data
    elif how == "parameter":
        b.weight = nn.Parameter(a.weight.detach())
    elif how == "numpy":
        b.weight = nn.Parameter(torch.from_numpy(a.weight.detach().numpy()))
    elif how == "transposed":
        b.weight = nn.Parameter(a.weight.detach().T)
    elif how == "buffer":
        del b.weight
        b.register_buffer("weight", a.weight.detach())
    elif how == "a part":
        flat = torch.randn(6, dtype=torch.float64)
        a.weight, b.weight = nn.Parameter(flat[:4].view(2, 2)), nn.Parameter(flat[2:].view(2, 2))
    elif how == "a column":
        wide = torch.randn(2, 3, dtype=torch.float64)
        a.weight, b.weight = nn.Parameter(wide[:, :2]), nn.Parameter(wide[:, 1:])
    elif how == "a bias":
        b.bias = nn.Parameter(a.weight.detach()[0])
    return net


@pytest.mark.parametrize("behind", [False, True], ids=["beside", "behind"])
@pytest.mark.parametrize(
    "how", ["data", "parameter", "numpy", "transposed", "buffer", "a part", "a column", "a bias"]
)
def test_weights_in_one_memory_are_refused_as_one_parameter_is(how, behind):
    with pytest.raises(
        UnsupportedGraphError,
        match=r"same weights|used twice|one memory in "
        r"common",
    ):
        npk.trace(tied(how, behind), (4,))


def test_weights_that_share_a_storage_without_a_number_in_common_are_independent():
    net, wide, flat = (
        Branches().double().eval(),
        torch.randn(2, 4, dtype=torch.float64),
        torch.randn(8, dtype=torch.float64),
    )
    for one, two in (
        (wide[:, :2], wide[:, 2:]),
        (wide[:, ::2], wide[:, 1::2]),
        (flat[:4].view(2, 2), flat[4:].view(2, 2)),
    ):
        net.a.weight, net.b.weight = nn.Parameter(one), nn.Parameter(two)
        weights = [name for node in npk.trace(net, (4,)).nodes for name in node.operator.parameters]
        assert sorted(weights) == ["a.weight", "b.weight", "h.weight"]


def test_a_layer_whose_weight_was_expanded_is_refused():
    net = Branches().double().eval()
    net.h.weight = nn.Parameter(torch.randn(1, 2, dtype=torch.float64).expand(2, 2))
    with pytest.raises(UnsupportedGraphError, match=r"one number in memory.*clone"):
        npk.trace(net, (4,))


def test_a_bias_in_one_memory_is_the_shared_bias():
    net = Branches().double().eval()
    net.b.bias.data = net.a.bias.data
    graph = npk.trace(net, (4,))
    assert plan(graph, bias="ignore").steps
    with pytest.raises(UnsupportedGraphError, match="share the bias"):
        plan(graph, bias="paths")


def test_tensors_without_an_address_share_nothing():
    meta, empty = torch.empty(3, device="meta"), torch.empty(0)
    assert not is_one(meta, torch.empty(3, device="meta"))
    assert not is_one(empty, torch.empty(0))
    assert is_one(meta, meta)
    assert not list(
        overlapping(
            {"a": meta, "b": torch.empty(3, device="meta"), "c": empty, "d": torch.empty(0)}
        )
    )
    assert not repeats_itself(meta)
    assert not repeats_itself(torch.ones(3, 4).T)
    assert repeats_itself(torch.ones(6).as_strided((2, 3), (1, 1)))


def test_a_saved_program_keeps_the_memory_that_its_weights_share(tmp_path):
    net = tied("data")
    example = torch.zeros((2, 4), dtype=torch.float64)
    torch.export.save(
        torch.export.export(net, (example,), dynamic_shapes=({0: torch.export.Dim("n", min=1)},)),
        tmp_path / "tied.pt2",
    )
    loaded = npk.load(tmp_path / "tied.pt2")
    with pytest.raises(UnsupportedGraphError, match="same weights"):
        npk.trace(loaded, (4,))
