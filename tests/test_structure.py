"""Facts read off a path graph: shifts that leave the kernel alone, against the measured kernel;
counts, against counting by hand.
"""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import npk
from npk.gates.recording import record_trace
from npk.graph.node import module_of
from npk.progress import Silent
from npk.reading.tracing import trace_network
from npk.recursion.planning import plan
from npk.structure.effort import effort
from npk.structure.shifts import ShiftGroup, confirmed, gates_move, outside_gates, shift_group

GAP = (nn.AdaptiveAvgPool2d(1), nn.Flatten())


def conv(i, o, k=3, **options):
    return nn.Conv2d(
        i,
        o,
        k,
        **{
            "padding": "same" if options.get("stride", 1) == 1 else k // 2,
            "padding_mode": "circular",
            **options,
        },
    )


def net_of(*layers):
    return nn.Sequential(*layers).double().eval()


class Residual(nn.Module):
    """A strided block with a projection; ``padding_mode`` of its main branch."""

    def __init__(self, padding_mode="circular"):
        super().__init__()
        self.stem, self.main = conv(1, 3), conv(3, 4, stride=2, padding_mode=padding_mode)
        self.norm, self.skip, self.head = (
            nn.BatchNorm2d(4),
            nn.Conv2d(3, 4, 1, stride=2),
            nn.Linear(4, 2),
        )

    def forward(self, x):
        h = F.relu(self.stem(x))
        return self.head(F.relu(self.norm(self.main(h)) + self.skip(h)).mean((2, 3)))


class Concatenated(nn.Module):
    """Two branches side by side, shuffled, then a convolution over both."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.head = conv(1, 2), conv(1, 2), conv(4, 3), nn.Linear(3, 2)

    def forward(self, x):
        h = torch.cat([F.relu(self.a(x)), F.relu(self.b(x))], 1)
        h = h.view(-1, 2, 2, 4, 6).transpose(1, 2).reshape(-1, 4, 4, 6)
        return self.head(F.relu(self.c(h)).mean((2, 3)))


class Excited(nn.Module):
    """Channels gated by a sigmoid of their means."""

    def __init__(self):
        super().__init__()
        self.a, self.squeeze, self.c, self.head = (
            conv(1, 3),
            nn.Conv2d(3, 3, 1),
            conv(3, 3),
            nn.Linear(3, 2),
        )

    def forward(self, x):
        h = F.relu(self.a(x))
        h = torch.sigmoid(self.squeeze(h.mean((2, 3), keepdim=True))) * h
        return self.head(F.relu(self.c(h)).mean((2, 3)))


def head(width):
    return (nn.ReLU(), *GAP, nn.Linear(width, 2))


def built(kind, **options):
    return npk.networks.build(
        "conv",
        kind=kind,
        input_shape=(1, 4, 6),
        classes=2,
        seed=1,
        **{"channels": [3, 3], **options},
    ).double()


# name -> (network, steps, reasons); samples have shape (1, 4, 6)
CASES = {
    "circular": (lambda: net_of(conv(1, 3), nn.ReLU(), conv(3, 3), *head(3)), (1, 1), ()),
    "circular, several kernels": (
        lambda: net_of(conv(1, 2, (1, 3)), nn.ReLU(), conv(2, 2, 3, dilation=2), *head(2)),
        (1, 1),
        (),
    ),
    "zero padding": (
        lambda: net_of(conv(1, 3), nn.ReLU(), conv(3, 3, padding_mode="zeros"), *head(3)),
        None,
        ("zero padding at 2",),
    ),
    "zero padding of columns": (
        lambda: net_of(conv(1, 3, (1, 3), padding_mode="zeros"), nn.ReLU(), conv(3, 3), *head(3)),
        (1, 6),
        ("zero padding at 0",),
    ),
    "reflected": (
        lambda: net_of(conv(1, 3, padding_mode="reflect"), *head(3)),
        None,
        ("padding that does not wrap around at 0",),
    ),
    "no padding": (
        lambda: net_of(nn.Conv2d(1, 3, 3), *head(3)),
        None,
        ("a window that does not wrap around at 0",),
    ),
    "flatten": (
        lambda: net_of(conv(1, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 2)),
        None,
        ("flatten at 3",),
    ),
    "strides": (
        lambda: net_of(conv(1, 8, stride=(2, 1)), nn.ReLU(), conv(8, 8, stride=(2, 3)), *head(8)),
        (4, 3),
        ("stride 2 at 2", "stride 3 at 2"),
    ),
    "a stride that does not divide": (
        lambda: net_of(conv(1, 3, stride=(3, 3)), *head(3)),
        (4, 3),
        ("stride 3 at 0",),
    ),
    "max pool": (
        lambda: net_of(conv(1, 3), nn.ReLU(), nn.MaxPool2d(2), conv(3, 3), *head(3)),
        (2, 2),
        ("stride 2 at 2",),
    ),
    "overlapping max pool": (
        lambda: net_of(conv(1, 3), nn.MaxPool2d(3, 1, 1), *head(3)),
        None,
        ("zero padding at 1",),
    ),
    "pool below a global pool": (
        lambda: net_of(conv(1, 3), nn.ReLU(), nn.AvgPool2d(2), *GAP, nn.Linear(3, 2)),
        (1, 1),
        (),
    ),
    "pool below a gate": (
        lambda: net_of(conv(1, 3), nn.AvgPool2d((1, 2)), *head(3)),
        (1, 2),
        ("stride 2 at avg_pool2d",),
    ),
    "grouped": (lambda: net_of(conv(1, 4), nn.ReLU(), conv(4, 4, groups=2), *head(4)), (1, 1), ()),
    "upsampled": (
        lambda: net_of(
            conv(1, 3, stride=2), nn.ReLU(), nn.Upsample(scale_factor=2), conv(3, 3), *head(3)
        ),
        (2, 2),
        ("stride 2 at 0",),
    ),
    "transposed": (
        lambda: net_of(
            conv(1, 3), nn.ReLU(), nn.ConvTranspose2d(3, 3, 2, 2), nn.ReLU(), conv(3, 3), *head(3)
        ),
        (1, 1),
        (),
    ),
    "uneven pool": (
        lambda: net_of(conv(1, 3), nn.AdaptiveAvgPool2d((3, 4)), *head(3)),
        (4, 3),
        ("uneven adaptive pool at adaptive_avg_pool2d",),
    ),
    "saturating": (
        lambda: net_of(conv(1, 3), nn.ReLU6(), conv(3, 3), nn.Hardswish(), *GAP, nn.Linear(3, 2)),
        (1, 1),
        (),
    ),
    "concatenated": (Concatenated, (1, 1), ()),
    "squeeze and excitation": (Excited, (1, 1), ()),
    "gated output": (
        lambda: net_of(conv(1, 3), nn.ReLU(), conv(3, 2), nn.ReLU(), *GAP),
        (1, 1),
        (),
    ),
    "output with positions": (
        lambda: net_of(conv(1, 3), nn.ReLU(), conv(3, 2)),
        None,
        ("the output keeps its positions",),
    ),
    "residual": (Residual, (2, 2), ("stride 2 at skip",)),
    "residual, one branch padded": (
        lambda: Residual("zeros"),
        None,
        ("zero padding at main", "stride 2 at skip"),
    ),
    "dgn": (lambda: built("dgn"), (1, 1), ()),
    "dlgn of ones with strides": (
        lambda: built("dlgn", strides=[2, 1]),
        (2, 2),
        ("stride 2 at value.layers.0",),
    ),
    "dlgn of ones, zero padding": (
        lambda: built("dlgn", padding="zero"),
        None,
        ("zero padding at value.layers.0",),
    ),
}


def deviations(trace, X):
    """For each shift the largest change of the kernel, relative to the root of the diagonals."""
    shifts = list(np.ndindex(X.shape[2:]))
    moved = np.concatenate([X, *(np.roll(X, shift, (2, 3)) for shift in shifts)])
    table = record_trace(trace, moved, gates="auto", progress=Silent())
    K = npk.NeuralPathKernel(None, dtype="float64", progress=False, bias="ignore")(table)
    n = len(X)
    unit = np.sqrt(np.outer(K.diagonal(), K.diagonal()[:n]))
    return [
        (shift, (np.abs(K[k : k + n, :n] - K[:n, :n]) / unit[k : k + n]).max())
        for shift, k in zip(shifts, range(n, len(K), n), strict=True)
    ]


@pytest.mark.parametrize("name", CASES)
def test_the_group_is_that_of_the_measured_kernel(name, rng):
    """For every shift of the grid: in the group exactly if the kernel stays, in a network with
    generic weights.
    """
    maker, steps, reasons = CASES[name]
    net = maker().double().eval()
    X = rng.standard_normal((2, 1, 4, 6))
    trace = trace_network(net, X.shape[1:])
    group = confirmed(shift_group(trace.graph, outside_gates(trace)), trace, X)
    assert group.steps == steps
    assert group.reasons == reasons
    for shift, deviation in deviations(trace, X):
        inside = all(r % step == 0 for r, step in zip(shift, steps or (4, 6), strict=True))
        assert (deviation < 1e-10) == inside, f"shift {shift}: {deviation}"


def test_positions_of_one_axis(rng):
    net = net_of(
        nn.Conv1d(2, 3, 3, padding=1, padding_mode="circular"),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
    )
    graph = npk.trace(nn.Sequential(*net, nn.Linear(3, 2).double()), (2, 6))
    assert shift_group(graph).steps == (2,)


def test_samples_without_positions():
    group = shift_group(npk.trace(nn.Sequential(nn.Linear(5, 2)), (5,)))
    assert group.steps is None
    assert str(group) == "no circular shift: samples of shape (5,) have no positions"


def test_a_picture_flattened_at_once():
    group = shift_group(npk.trace(nn.Sequential(nn.Flatten(), nn.Linear(24, 2)), (1, 4, 6)))
    assert group.steps is None
    assert "flatten" in group.reasons[0]


class Masked(nn.Module):
    """Circular convolutions, gated by a part of the network that ``gating`` makes."""

    def __init__(self, gating):
        super().__init__()
        self.gating, self.value, self.head = gating, conv(1, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.head((self.value(x) * torch.sigmoid(self.gating(x))).mean((2, 3)))


def test_gates_from_outside_that_do_not_move(rng):
    """The graph of values cannot tell; a look at samples does."""
    X = rng.standard_normal((3, 1, 4, 6))
    moving, still = (
        trace_network(Masked(gating).double().eval(), X.shape[1:])
        for gating in (conv(1, 3), conv(1, 3, padding_mode="zeros"))
    )
    for trace in (moving, still):
        group = shift_group(trace.graph, outside_gates(trace))
        assert group.steps == (1, 1)
        assert len(group.outside) == 1
        assert "which the graph does not tell" in str(group)
    seen = confirmed(shift_group(moving.graph, outside_gates(moving)), moving, X)
    assert seen.looked_at == 3
    assert "as they do on 3 samples" in str(seen)
    assert confirmed(shift_group(still.graph, outside_gates(still)), still, X).reasons == (
        f"gates from outside that do not move with the input at {outside_gates(still)[0]}",
    )


def test_gates_of_relu_are_not_from_outside():
    trace = trace_network(Residual().eval(), (1, 4, 6))
    assert outside_gates(trace) == ()
    assert confirmed(shift_group(trace.graph), trace, np.zeros((1, 1, 4, 6))).looked_at == 0


def test_gates_that_cannot_be_shifted_by_whole_positions(rng):
    net, X = net_of(conv(1, 3, stride=2), *head(3)), rng.standard_normal((2, 1, 4, 6))
    table = npk.record_gates(net, X)
    assert gates_move(table, npk.record_gates(net, np.roll(X, 2, 2)), (2, 0), table.names)
    assert not gates_move(table, npk.record_gates(net, np.roll(X, 1, 2)), (1, 0), table.names)
    assert not gates_move(table, npk.record_gates(net, X), (2, 0), table.names)


@pytest.mark.parametrize(
    ("group", "text"),
    [
        (ShiftGroup((4, 6), (1, 1)), "all circular shifts: every layer moves with its input"),
        (
            ShiftGroup((4, 6), (2, 2), ("stride 2 at a",)),
            "circular shifts by multiples of 2: stride 2 at a",
        ),
        (
            ShiftGroup((4, 6), (4, 3), ("a", "b")),
            "circular shifts by none along axis 1, multiples of 3 along axis 2: a; b",
        ),
        (ShiftGroup((4, 6), None, ("flatten at fc",)), "no circular shift: flatten at fc"),
    ],
)
def test_a_group_says_what_it_is(group, text):
    assert str(group).startswith(text)


def test_generators():
    assert ShiftGroup((4, 6), (4, 3)).generators == ((0, 3),)
    assert ShiftGroup((4, 6), (1, 2)).generators == ((1, 0), (0, 2))
    assert ShiftGroup((4, 6), None).generators == ()


def test_effort_of_a_fully_connected_network():
    """One pair of positions a step; masks of 5 and 70 gates take 1 and 2 words, the input 3 real
    numbers.
    """
    graph = npk.trace(
        net_of(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 70), nn.ReLU(), nn.Linear(70, 2)), (3,)
    )
    recursion = plan(graph, bias="ignore")
    found = effort(recursion, [mask.factors[0].kind == "gate" for mask in recursion.masks])
    assert (found.masks, found.fields, found.words) == (3, 3, 3 + 1 + 2)
    assert found.operations == found.words + found.reads


def test_effort_of_a_convolution():
    """All pairs of 24 positions in the overlaps of inputs and of gates, 9 offsets each in the
    field, then single positions.
    """
    graph = npk.trace(net_of(conv(1, 3), *head(3)), (1, 4, 6))
    recursion = plan(graph, bias="ignore")
    found = effort(recursion, [mask.factors[0].kind == "gate" for mask in recursion.masks])
    assert found.words == 2 * 24**2
    assert found.reads == 24**2 + 9 * 24**2 + 24**2 + 1 + 1
    assert found.cells == 2 * 24**2 + 3


def test_nodes_in_words():
    graph = npk.trace(Residual().eval(), (1, 4, 6))
    said = {module_of(node): node.describe() for node in graph.nodes}
    assert said["x"] == "input"
    assert said["main"] == "convolution 3x3, stride 2x2"
    assert said["skip"] == "convolution 1x1, stride 2x2"
    assert said["norm"] == "batch norm"
    assert said["head"] == "linear"
    assert said["mean"] == "global average pool"
    pools = net_of(
        nn.Conv2d(1, 3, 3, padding=2, dilation=2),
        nn.LeakyReLU(0.5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(18, 2),
    )
    words = [node.describe() for node in npk.trace(pools, (1, 4, 6)).nodes]
    assert words == [
        "input",
        "convolution 3x3, padding 2, dilation 2",
        "gate, slope 0.5",
        "max pool 2x2, stride 2x2",
        "linear on 2x3 positions",
    ]


def test_long_counts_are_exact_powers():
    assert math.log10(
        npk.trace(net_of(*[nn.Linear(10, 10) for _ in range(40)]), (10,)).path_count()
    ) == pytest.approx(40)
