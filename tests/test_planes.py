"""Which pairs of positions are visited, and in how many independent units."""

import numpy as np
import pytest
import torch
from torch import nn

import npk
from npk.backends.program.compiler import compile_program
from npk.backends.program.outlines import UnitOutline
from npk.errors import OptionError
from npk.recursion.planes import plan_steps
from npk.recursion.planning import plan
from npk.recursion.steps import Field

GAP = (nn.AdaptiveAvgPool2d(1), nn.Flatten())


def conv(i, o, k=3, **options):
    return nn.Conv2d(i, o, k, **{"padding": k // 2, "padding_mode": "circular", **options})


def planes(*layers, shape=(1, 4, 4)):
    return plan_steps(plan(npk.trace(nn.Sequential(*layers).eval(), shape), bias="ignore"))


def displacements(found, number, wrap=True):
    """Distinct t - s among the needed pairs of a step; on the torus, or as they are."""
    step = found[number].step
    s, t = (
        np.stack(np.unravel_index(flat, step.grid))
        for flat in np.divmod(found[number].pairs, step.positions)
    )
    return {
        tuple(d) for d in ((t - s) % np.array(step.grid)[:, None] if wrap else t - s).T.tolist()
    }


def units(found, number):
    return np.unique(found[number].labels, return_counts=True)


def fields(found):
    return [
        number
        for number, step in enumerate(found)
        if isinstance(step.step, Field) and step.step.positions > 1
    ]


def test_circular_convolutions_and_a_global_pool_are_independent_planes():
    found = planes(conv(1, 2), nn.ReLU(), conv(2, 2), nn.ReLU(), *GAP, nn.Linear(2, 2))
    P = 16
    for number in fields(found):
        labels, counts = units(found, number)
        assert len(labels) == P
        assert (counts == P).all()
        assert len(displacements(found, number)) == P
    # input and field of each convolution; the pool, the head and the kernel have one position
    assert sum(len(step.pairs) * step.step.groups for step in found) == 4 * P * P + 3
    assert any(step.reduces for step in found)


def test_zero_padding_keeps_displacements_apart():
    found = planes(
        conv(1, 2, padding_mode="zeros"),
        nn.ReLU(),
        conv(2, 2, padding_mode="zeros"),
        nn.ReLU(),
        *GAP,
        nn.Linear(2, 2),
    )
    for number in fields(found):
        assert len(units(found, number)[0]) == 7 * 7  # displacements -3..3 on each axis


def test_flatten_needs_equal_positions_only():
    found = planes(conv(1, 2), nn.ReLU(), conv(2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(32, 2))
    for number in fields(found):
        assert displacements(found, number) == {(0, 0)}
        assert len(found[number].pairs) == 16


def test_strides_discard_planes():
    found = planes(
        conv(1, 2),
        nn.ReLU(),
        conv(2, 2, stride=2),
        nn.ReLU(),
        *GAP,
        nn.Linear(2, 2),
        shape=(1, 8, 8),
    )
    first, second = fields(found)
    assert len(displacements(found, second)) == 16
    # a quarter of 64
    assert displacements(found, first) == {(a, b) for a in (0, 2, 4, 6) for b in (0, 2, 4, 6)}


def test_stride_that_does_not_divide():
    found = planes(
        conv(1, 2),
        nn.ReLU(),
        conv(2, 2, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(18, 2),
        shape=(1, 5, 5),
    )
    first, second = fields(found)
    assert displacements(found, second) == {(0, 0)}
    assert displacements(found, first) == {(0, 0)}


def test_pools_couple_planes():
    found = planes(
        conv(1, 2), nn.ReLU(), nn.AvgPool2d(2), conv(2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)
    )
    first, second = fields(found)
    assert displacements(found, second) == {(0, 0)}
    # p * 0 + (b - a)
    assert displacements(found, first, wrap=False) == {
        (a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)
    }
    assert len(units(found, first)[0]) == 9  # each plane by itself: the pool adds them up


def test_thirty_two_by_thirty_two_with_two_strided_stages_keeps_64_of_1024_planes():
    """math.md: ResNet-110 on 32 x 32. Here its frame with the padding that makes displacements
    wrap.
    """
    stages = [
        conv(3, 2),
        nn.ReLU(),
        conv(2, 2, stride=2),
        nn.ReLU(),
        conv(2, 2, stride=2),
        nn.ReLU(),
    ]
    found = planes(*stages, *GAP, nn.Linear(2, 2), shape=(3, 32, 32))
    assert [len(displacements(found, number)) for number in fields(found)] == [64, 64, 64]
    assert len(found[fields(found)[0]].pairs) == 64 * 1024


def test_resnet_110_visits_few_pairs_at_full_resolution():
    """With zero padding displacements do not wrap: 15 x 15 partly empty planes that hold as many
    pairs as 64 full ones.
    """
    net = npk.networks.build(
        "resnet110", "dnn", input_shape=(3, 32, 32), classes=10, blocks=1, width=1, seed=0
    ).eval()
    found = plan_steps(plan(npk.trace(net, (3, 32, 32)), bias="ignore"))
    full = [number for number in fields(found) if found[number].step.grid == (32, 32)]
    assert full
    for number in full:
        assert len(displacements(found, number)) == 64
        assert len(displacements(found, number, wrap=False)) == 225
        assert len(found[number].pairs) == 64 * 1024


def test_units_run_after_what_they_need():
    found = planes(
        conv(1, 2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        conv(2, 2),
        nn.ReLU(),
        *GAP,
        nn.Linear(2, 3),
        nn.ReLU(),
        nn.Linear(3, 2),
    )
    for step in found:
        for inflow in step.inflows:
            if inflow.source is None:
                continue
            source, pair = found[inflow.source], inflow.links(step.pairs).pair
            unit = np.full(source.step.positions**2, -1)
            unit[source.pairs] = source.labels
            rows, _ = np.nonzero(pair >= 0)
            own, there = step.labels[rows], unit[pair[pair >= 0]]
            assert (there < own).all() if inflow.deferred else (there == own).all()


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(conv(1, 1, padding_mode="zeros") for _ in range(4))

    def forward(self, x):
        for layer in self.convs:
            x = torch.relu(x + layer(x))
        return x


def test_layers_that_look_alike_share_their_arrays():
    found = planes(Residual(), *GAP, nn.Linear(1, 2))
    assert len({found[number].look for number in fields(found)}) == 1
    for name in ("pairs", "ordered", "bounds", "ranks"):
        first, *rest = (getattr(found[number], name) for number in fields(found))
        assert all(array is first for array in rest)
    stream = [step for step in found if step.step.grid == (4, 4) and len(step.inflows) > 1]
    inflows = [
        inflow for step in stream for inflow in step.inflows if inflow.source in fields(found)
    ]
    assert len(inflows) > 4
    assert len({inflow.tables for inflow in inflows}) == 1


def test_pairs_come_in_chunks(monkeypatch):
    layers = (
        conv(1, 2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        conv(2, 2, padding_mode="zeros"),
        nn.ReLU(),
        *GAP,
        nn.Linear(2, 2),
    )
    whole = planes(*layers, shape=(1, 7, 7))
    for name in ("needed._CHUNK", "planes._MANY"):
        monkeypatch.setattr(f"npk.recursion.{name}", 100)
    pieces = planes(*layers, shape=(1, 7, 7))
    for name in ("pairs", "labels", "ranks"):
        for one, other in zip(whole, pieces, strict=True):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


WINDOWS = {
    "circular": (conv(1, 2), conv(2, 2, 5)),
    "zeros": (conv(1, 2, padding_mode="zeros"), conv(2, 2, 5, padding_mode="zeros")),
    "both": (conv(1, 2), conv(2, 2, padding_mode="zeros")),
    "wide": (conv(1, 2, padding=2), conv(2, 2, dilation=2, padding=2)),
    "strides": (conv(1, 2, stride=2), conv(2, 2, padding_mode="zeros", stride=2)),
    "edges": (conv(1, 2, padding_mode="reflect"), conv(2, 2, padding_mode="replicate")),
    "valid": (conv(1, 2, padding=0), conv(2, 2, 2, padding=3, padding_mode="zeros")),
}


@pytest.mark.parametrize("windows", WINDOWS)
def test_a_few_pairs_tell_which_planes_need_each_other(windows, monkeypatch):
    """The same units as from all pairs of all offsets."""
    first, second = WINDOWS[windows]
    layers = (first, nn.ReLU(), nn.MaxPool2d(2, 1), second, nn.ReLU(), *GAP, nn.Linear(2, 2))
    recursion = plan(npk.trace(nn.Sequential(*layers).eval(), (1, 6, 5)))
    few = plan_steps(recursion)
    everything = lambda view, _, inside: (  # noqa: E731
        (column, view.pairs, False) for column in range(inside.shape[1])
    )
    monkeypatch.setattr("npk.recursion.planes._telling", everything)
    for one, other in zip(few, plan_steps(recursion), strict=True):
        np.testing.assert_array_equal(one.labels, other.labels)


@pytest.mark.parametrize(("mode", "outlines"), [("circular", 2), ("zeros", 6 * 6 + 1)])
def test_units_that_look_alike_are_laid_out_once(mode, outlines, monkeypatch):
    """On the torus all planes; with padding those of one size, whatever the signs of their
    displacement. One more is what follows the pool.
    """
    made, of = [], UnitOutline.of

    def counted(*arguments):
        made.append(of(*arguments))
        return made[-1]

    monkeypatch.setattr(UnitOutline, "of", counted)
    layers = [conv(1, 1, padding_mode=mode), nn.ReLU(), conv(1, 1, padding_mode=mode), nn.ReLU()]
    net = nn.Sequential(*layers, *GAP, nn.Linear(1, 2)).eval()
    recursion = plan(npk.trace(net, (1, 6, 6)))
    program = compile_program(recursion, [True] * len(recursion.masks))
    assert len(made) == outlines
    assert len(program.operations) > 36 * 4  # of all units


def test_slots_are_used_again():
    layers = [layer for _ in range(20) for layer in (conv(1, 1), nn.ReLU())]
    deep, flat = (
        plan(
            npk.trace(nn.Sequential(*some, *GAP, nn.Linear(1, 2)).eval(), (1, 4, 4)), bias="ignore"
        )
        for some in (layers, layers[:4])
    )
    deep, flat = (
        compile_program(recursion, [True] * len(recursion.masks)) for recursion in (deep, flat)
    )
    assert deep.cells == flat.cells
    assert len(deep.tables) == len(flat.tables)  # all planes and layers look alike


@pytest.mark.parametrize("option", ["scale", "bias", "value_input"])
def test_unknown_options(option):
    graph = npk.trace(nn.Sequential(nn.Linear(2, 2)), (2,))
    with pytest.raises(OptionError, match=f"{option}='other' is not known. Choose one of"):
        plan(graph, **{option: "other"})


@pytest.mark.filterwarnings("ignore::npk.errors.KernelWarning")
def test_a_pad_that_nothing_looks_through(rng):
    """A layer that sees only padding in some unit, and one that sees nothing else."""
    net = nn.Sequential(
        nn.ConstantPad1d(1, 0.0),
        nn.Conv1d(1, 2, 2),
        nn.ConstantPad1d(1, 0.0),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(2, 2),
    )
    blind = nn.Sequential(nn.Conv1d(1, 2, 1, padding=4, stride=20), nn.Flatten(), nn.Linear(2, 2))
    for network in (net, blind):
        table = npk.record_gates(network.double().eval(), rng.standard_normal((3, 1, 4)))
        for bias in ("ignore", "paths"):
            exact = npk.kernel(table, bias=bias, dtype="float64", backend="reference")
            np.testing.assert_allclose(
                npk.kernel(table, bias=bias, dtype="float64"), exact, rtol=1e-12
            )
            assert torch.isfinite(torch.as_tensor(exact)).all()
