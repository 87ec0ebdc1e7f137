"""Which motions leave a kernel alone: what structure promises is what is measured, on every level."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

import npk
from npk.checks import invariance, levels
from npk.checks.groups import GROUPS, Mapped, family
from npk.cli import run
from npk.cli.checking import as_shifts
from npk.errors import DataError, OptionError
from npk.reading.tracing import trace_network
from npk.results import CheckResult, InvarianceCase
from npk.structure.motions import Permutation, Shift, Turn, along, reflections, shifts, turns
from npk.structure.prediction import Prediction

GAP = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
CIRCULAR, ZEROS = {"padding_mode": "circular"}, {"padding_mode": "zeros"}


def conv(i, o, k=3, **options):
    return nn.Conv2d(i, o, k, padding=k // 2, **{**CIRCULAR, **options})


def network(*layers, seed=0):
    torch.manual_seed(seed)
    for layer in layers:
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    return nn.Sequential(*layers).double().eval()


def plain(*between, first=CIRCULAR, second=CIRCULAR, k=3):
    layers = conv(1, 4, k, **first), nn.ReLU(), *between, conv(4, 4, k, **second), nn.ReLU()
    return network(*layers, *GAP, nn.Linear(4, 3))


def draw(*shape):
    return np.random.default_rng(0).standard_normal(shape)


X = draw(3, 1, 4, 4)


def case_of(result):
    (case,) = result.details.cases
    assert isinstance(case, InvarianceCase)
    return case


# motions


@pytest.mark.parametrize("by", [(0, 0), (1, 0), (2, 3), (-1, 5)])
def test_a_circular_shift_is_numpys_roll(by):
    motion = Shift((4, 6), by)
    A = draw(2, 3, 4, 6)
    np.testing.assert_array_equal(motion.moved(A), np.roll(A, by, (2, 3)))
    assert motion.is_identity == (by == (0, 0))
    coarse = motion.taps((2, 3))
    assert (coarse is None) == any(r % 2 for r in by)
    if coarse is not None:
        B, half = draw(2, 1, 2, 3), tuple(r // 2 for r in by)
        np.testing.assert_array_equal(along(B, coarse), np.roll(B, half, (2, 3)))
    np.testing.assert_array_equal(motion.taps((1, 1)), [0])
    assert motion.taps((4,)) is None


def test_a_filled_shift_loses_what_leaves_the_picture():
    A = np.arange(1.0, 7).reshape(1, 1, 2, 3)
    moved = Shift((2, 3), (0, 1), circular=False).moved(A)[0, 0]
    np.testing.assert_array_equal(moved, [[0, 1, 2], [0, 4, 5]])
    moved = Shift((2, 3), (-1, 0), circular=False).moved(A)[0, 0]
    np.testing.assert_array_equal(moved, [[4, 5, 6], [0, 0, 0]])
    assert not Shift((2, 3), (5, 0), circular=False).moved(A).any()


def test_distances():
    assert Shift((8, 8), (7, 3)).distance == pytest.approx(np.hypot(1, 3))
    assert Shift((8, 8), (7, 3), circular=False).distance == pytest.approx(np.hypot(7, 3))
    assert Turn((8, 8), 1).distance == Permutation((2,), (1, 0)).distance == 0


def test_turns_and_reflections_are_numpys():
    A = draw(2, 1, 4, 4)
    for quarters in range(4):
        np.testing.assert_array_equal(
            Turn((4, 4), quarters).moved(A), np.rot90(A, quarters, (2, 3))
        )
    np.testing.assert_array_equal(Turn((4, 4), 0, (0, 1)).moved(A), A[:, :, ::-1, ::-1])
    both = Turn((4, 4), 1, (1,)).moved(A)
    np.testing.assert_array_equal(both, np.rot90(A[..., ::-1], 1, (2, 3)))
    assert Turn((4, 6), 1).taps((4, 6)) is None
    assert Turn((4, 4), 1, (1,)).name == "turn by 90°, reflected along axis 2"


def test_groups_are_complete_and_begin_with_the_identity():
    sizes = {"circular": 24, "filled": 7 * 11, "reflections": 4, "turns": 2, "dihedral": 4}
    for name, size in sizes.items():
        found = family(name, (4, 6), "all", lambda motion: False, 0)
        assert (len(found.elements), found.size) == (size, size)
        assert found.elements[0].is_identity
        assert len({one.name for one in found.elements}) == size
    assert len(turns((4, 4))) == 4
    assert len(turns((4, 4), reflected=True)) == 8
    assert len(reflections((3, 3, 3))) == 8
    assert len(shifts((5,))) == 5
    assert sizes.keys() == GROUPS.keys()


def test_the_dihedral_elements_make_a_group():
    every = {tuple(m.taps((3, 3)).tolist()) for m in turns((3, 3), reflected=True)}
    assert len(every) == 8
    products = {tuple(np.array(b)[list(a)].tolist()) for a, b in itertools.product(every, every)}
    assert products == every


def test_drawn_elements_are_of_both_kinds():
    even = lambda motion: not any(r % 2 for r in motion.by)  # noqa: E731
    found = family("circular", (32, 32), 41, even, 3)
    assert (len(found.elements), found.size) == (41, 1024)
    assert sum(map(even, found.elements)) == 21
    assert found == family("circular", (32, 32), 41, even, 3)
    assert found != family("circular", (32, 32), 41, even, 4)
    assert len(family("circular", (32, 32), "auto", even, 3).elements) == 256
    few = family("circular", (4, 4), 9, lambda motion: motion.is_identity, 0)
    assert len(set(few.elements)) == 9


def test_large_pictures_are_drawn_from_in_a_moment(monkeypatch):
    """Nothing is worked out for each of 50,000 shifts, or asked of each of 200,000."""

    def asked(self, grid):
        raise AssertionError("the places of a shift were asked for")

    monkeypatch.setattr(Shift, "taps", asked)
    every = family(
        "circular", (224, 224), "auto", lambda motion: not any(r % 32 for r in motion.by), 0
    )
    assert (len(every.elements), every.size) == (256, 224 * 224)
    assert sum(not any(r % 32 for r in motion.by) for motion in every.elements) == 49
    filled = family("filled", (224, 224), "auto", lambda motion: asked(motion, ()), 0)
    assert (len(filled.elements), filled.size) == (256, 447 * 447)
    assert [motion.is_identity for motion in filled.elements] == [True] + [False] * 255


# what is promised is what is measured

NETWORKS = {
    "circular": (plain, "all shifts", 16),
    "zero padding": (lambda: plain(first=ZEROS, second=ZEROS), "the identity alone", 1),
    "stride": (lambda: plain(second={"stride": 2}), "even shifts", 4),
    "two strides": (
        lambda: plain(first={"stride": 2}, second={"stride": 2}),
        "the identity alone",
        1,
    ),
    "one axis": (
        lambda: plain(second={"stride": (1, 2)}),
        "shifts by multiples of 1 along axis 1, multiples of 2 along axis 2",
        8,
    ),
    "max pool": (lambda: plain(nn.MaxPool2d(2)), "even shifts", 4),
    "average pool": (lambda: plain(nn.AvgPool2d(2)), "even shifts", 4),
    "flatten": (
        lambda: network(conv(1, 2), nn.ReLU(), nn.Flatten(), nn.Linear(32, 2)),
        "the identity alone",
        1,
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_shifts_that_structure_promises_hold_and_no_others(name):
    make, predicted, count = NETWORKS[name]
    result = npk.check_invariance(make(), X, name="conv", label=name)
    case = case_of(result)
    assert result.passed
    assert result.measured == case.worst_inside < 1e-12
    assert (case.label, case.predicted, case.inside, case.holds) == (name, predicted, count, count)
    assert (case.outside, case.also) == (16 - count, 0)
    assert case.outside == 0 or 1e-3 < case.outside_median <= case.outside_worst
    assert bool(case.reasons) == (case.outside > 0)
    assert f"predicted: {predicted}; holds on {count} of {count}, worst" in case.summary
    assert case.summary in result.statement or case.summary[1:] in result.statement
    assert CheckResult.from_json(result.to_json()) == result


class Copies(nn.Module):
    """The picture in four positions, the same filters for all: turned, the copies change places."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(1, 4, (1, 3, 3), padding=(0, 1, 1), padding_mode="circular")
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        copies = [x]
        for _ in range(3):
            copies.append(copies[-1].transpose(2, 3).flip(3))
        return self.head(torch.relu(self.conv(torch.stack(copies, 2))).mean((2, 3, 4)))


class Polyphase(nn.Module):
    """The phase with the largest norm, of four."""

    def forward(self, x):
        n, c, h, w = x.shape
        cut = x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4)
        phases = cut.reshape(n, c, 4, h // 2, w // 2)
        norms = phases.pow(2).sum((1, 3, 4))
        others = [torch.cat([norms[:, :i], norms[:, i + 1 :]], 1).amax(1) for i in range(4)]
        return (phases * (norms - torch.stack(others, 1) > 0).view(n, 1, 4, 1, 1)).sum(2)


class Own(nn.Module):
    """Gates from outside: of columns that are told apart, or of a convolution of the input."""

    def __init__(self, moves):
        super().__init__()
        self.first, self.gate = conv(1, 3), conv(1, 3) if moves else nn.Linear(4, 4)
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        return self.head((self.first(x) * (self.gate(x) > 0)).mean((2, 3)))


def made(module):
    torch.manual_seed(1)
    return module.double().eval()


@pytest.mark.parametrize(
    ("make", "group", "inside", "size"),
    [
        (lambda: made(Copies()), "turns", 4, 4),
        (lambda: made(Copies()), "dihedral", 4, 8),
        (plain, "dihedral", 1, 8),
        (plain, "reflections", 1, 4),
        (lambda: plain(k=1), "dihedral", 8, 8),
        (lambda: plain(k=1, second={"stride": 2}), "turns", 1, 4),
        (plain, "filled", 1, 49),
        (lambda: plain(Polyphase()), "circular", 16, 16),
        (lambda: made(Own(True)), "circular", 16, 16),
        (lambda: made(Own(False)), "circular", 4, 16),  # its rows are alike
    ],
)
def test_other_groups_and_gates_from_outside(make, group, inside, size):
    result = npk.check_invariance(make(), X, group=group)
    case = case_of(result)
    assert result.passed
    assert (case.inside, case.holds, case.inside + case.outside) == (inside, inside, size)
    assert case.also == 0
    assert case.worst_inside < 1e-12
    assert (case.outside_worst is None) == (inside == size)


def test_a_permutation_and_a_function():
    blocks = np.arange(16).reshape(4, 4)[[2, 3, 0, 1]].reshape(-1)
    elements = {
        "half a turn of the torus": blocks,
        "any": np.random.default_rng(1).permutation(16),
        "brighter": lambda samples: 2 * samples,
        "a shift": lambda samples: np.roll(samples, 1, 2),
    }
    result = npk.check_invariance(plain(), X, group=elements)
    case = case_of(result)
    told = {one.name: (one.predicted, one.kernel < 1e-12) for one in case.moved}
    assert told == {
        "half a turn of the torus": (True, True),
        "any": (False, False),
        "brighter": (None, False),
        "a shift": (None, True),
    }
    assert (case.inside, case.holds, result.passed) == (3, 2, False)
    only = npk.check_invariance(plain(), X, group={"a shift": elements["a shift"]})
    assert only.passed
    assert "predicted: nothing, for structure does not tell" in case_of(only).summary


def test_a_list_of_shifts():
    net = plain(second={"stride": 2})
    case = case_of(npk.check_invariance(net, X, [(0, 2), (2, 2), (1, 0)]))
    assert [one.by for one in case.moved] == [(0, 2), (2, 2), (1, 0)]
    assert (case.inside, case.holds, case.outside, case.size) == (2, 2, 1, 16)
    assert "3 of 16 looked at" in case.summary


def test_pictures_of_one_and_of_three_axes():
    one = network(
        nn.Conv1d(1, 3, 3, padding=1, padding_mode="circular"), nn.ReLU(), nn.AdaptiveAvgPool1d(1)
    )
    assert case_of(npk.check_invariance(one, draw(2, 1, 6))).holds == 6
    assert case_of(npk.check_invariance(one, draw(2, 1, 6), group="reflections")).outside == 1
    three = network(nn.Conv3d(1, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten())
    assert case_of(npk.check_invariance(three, draw(2, 1, 2, 2, 3))).holds == 12


# a prediction that is wrong is seen


def test_a_wrong_prediction_fails(monkeypatch):
    monkeypatch.setattr(Prediction, "keeps", lambda self, motion: True)
    result = npk.check_invariance(plain(second={"stride": 2}), X)
    assert not result.passed
    assert result.measured > 1e-2
    assert (case_of(result).inside, case_of(result).holds) == (16, 4)


def test_more_than_structure_promises_is_told(monkeypatch):
    monkeypatch.setattr(Prediction, "keeps", lambda self, motion: motion.is_identity)
    result = npk.check_invariance(plain(), X)
    assert result.passed
    assert case_of(result).also == 15
    assert "15 hold too" in result.statement


def test_samples_within_rounding_show_nothing(monkeypatch):
    """A moved sample with one flipped gate is left out; where all are, nothing is shown."""

    def flip(before, after, taps):
        differ = np.zeros(before.shape, bool)
        differ[:, 0, 0, 0] = True
        return differ

    monkeypatch.setattr(levels, "flipped", flip)
    result = npk.check_invariance(network(conv(1, 2), nn.ReLU(), *GAP), X)
    assert (result.passed, case_of(result).rounding) == (False, 3 * 16)
    assert "48 moved samples left out" in result.statement


# levels


def test_every_level_is_what_it_says():
    """Each number against a loop over samples."""
    net = plain(first=ZEROS, second={**CIRCULAR, "stride": 2})
    case = case_of(npk.check_invariance(net, X, [(0, 2), (1, 0)]))
    table = npk.record_gates(net, X)
    K = npk.kernel(net, X, dtype="float64", progress=False)
    root = np.sqrt(np.diag(K))
    with torch.no_grad():
        output = net(torch.tensor(X)).numpy()
    for one in case.moved:
        moved = np.roll(X, one.by, (2, 3))
        after = npk.record_gates(net, moved)
        first = np.mean(np.roll(table[0], one.by, (2, 3)) != after[0])
        assert one.gates[0] == pytest.approx(first)
        if one.by == (1, 0):
            assert one.gates[1] is None
        else:
            assert one.gates[1] == pytest.approx(
                np.mean(np.roll(table[1], (0, 1), (2, 3)) != after[1])
            )
        L = npk.kernel(net, moved, X, dtype="float64", progress=False)
        assert one.kernel == pytest.approx(np.max(abs(L - K) / np.outer(root, root)))
        with torch.no_grad():
            other = net(torch.tensor(moved)).numpy()
        far = np.linalg.norm(other - output, axis=1) / np.linalg.norm(output, axis=1)
        assert one.output == pytest.approx(far.mean())
        assert one.labels == pytest.approx(np.mean(other.argmax(1) == output.argmax(1)))
        differ = np.linalg.norm((moved - X).reshape(3, -1), axis=1)
        assert one.input == pytest.approx(
            np.mean(differ / np.linalg.norm(X.reshape(3, -1), axis=1))
        )


def test_curves_are_means_over_samples_at_a_distance():
    case = case_of(npk.check_invariance(plain(first=ZEROS), X))
    curves = {curve.level: curve for curve in case.curves}
    assert list(curves) == ["input", "gates 1", "gates 3", "kernel", "output", "same label"]
    at = {point.distance: point for point in curves["input"].points}
    assert {distance: point.elements for distance, point in at.items()} == {0: 1, 1: 8, 2: 6, 3: 1}
    assert at[0].mean == 0
    near = [one.input for one in case.moved if round(one.distance) == 1]
    assert at[1].mean == pytest.approx(np.mean(near))
    assert at[1].low < at[1].mean < at[1].high
    assert not case_of(npk.check_invariance(plain(), X, group="turns")).curves


def test_intervals_hold_the_mean_as_often_as_they_say():
    rng = np.random.default_rng(0)
    found = [levels.interval(rng.standard_normal(5)) for _ in range(2000)]
    assert np.mean([low < 0 < high for _, low, high in found]) == pytest.approx(0.95, abs=0.015)
    assert levels.interval(np.array([2.0])) == (2.0, 2.0, 2.0)


def test_a_network_with_one_output_has_no_labels():
    net = network(conv(1, 2), nn.ReLU(), *GAP, nn.Linear(2, 1))
    assert {one.labels for one in case_of(npk.check_invariance(net, X, 4)).moved} == {None}


def test_a_dead_sample_moves_by_nothing():
    zeros = np.concatenate([X, np.zeros((1, 1, 4, 4))])
    net = network(nn.Conv2d(1, 3, 1, bias=False), nn.ReLU(), *GAP)
    assert npk.check_invariance(net, zeros).passed


def test_the_prediction_reads_fixed_filters():
    class Blur(nn.Module):
        def __init__(self, *filt):
            super().__init__()
            self.register_buffer("filt", torch.tensor([[[filt]]]).repeat(4, 1, 1, 1))

        def forward(self, x):
            padded = nn.functional.pad(x, (0, 1, 0, 0), mode="circular")
            return nn.functional.conv2d(padded, self.filt, groups=4)

    for filters, promised in (((0.5, 0.5), [True] * 4), ((0.7, 0.3), [True, True, False, False])):
        net = plain(Blur(*filters), k=1)
        case = case_of(npk.check_invariance(net, X, group="reflections", fixed="2.filt"))
        assert [one.predicted for one in case.moved] == promised
        assert (case.holds, case.also) == (sum(promised), 0)


def test_prediction_says_what_breaks():
    prediction = Prediction(trace_network(plain(first=ZEROS), (1, 4, 4)))
    assert "zero padding" in prediction.reason(Shift((4, 4), (1, 0)))
    lost = prediction.reason(Shift((4, 4), (1, 0), circular=False))
    assert lost == "what leaves the picture is lost"
    assert prediction.reason(Turn((4, 4), 1)) == "convolution 3x3, padding 1 at 0"


# what is refused


@pytest.mark.parametrize(
    ("shape", "options", "error", "why"),
    [
        ((3, 5), {}, DataError, "has no positions to shift"),
        ((3, 1, 4, 4), {"shifts": "some"}, OptionError, "shifts='some' is not known"),
        ((3, 1, 4, 4), {"shifts": 1}, OptionError, "shifts=1 is not known"),
        ((3, 1, 4, 4), {"shifts": [(1,)]}, OptionError, r"does not fit positions \(4, 4\)"),
        ((3, 1, 4, 4), {"shifts": []}, OptionError, r"shifts=\[\] does not fit"),
        ((3, 1, 4, 4), {"shifts": 3.5}, OptionError, r"shifts=3.5 does not fit"),
        ((3, 1, 4, 4), {"group": "mirror"}, OptionError, "group='mirror' is not known"),
        ((3, 1, 4, 4), {"group": {}}, OptionError, "has no elements"),
        ((3, 1, 4, 4), {"group": {"a": [0, 0, 1]}}, OptionError, "'a' of group= is no permutation"),
        (
            (3, 1, 4, 4),
            {"group": "turns", "shifts": 4},
            OptionError,
            "shifts=4 is for groups of shifts, not turns",
        ),
        ((3, 1, 4, 4), {"group": {"a": lambda x: x[:1]}}, DataError, "'a' of group= makes"),
    ],
)
def test_what_is_refused(shape, options, error, why):
    with pytest.raises(error, match=why):
        npk.check_invariance(plain(), draw(*shape), **options)


def test_one_axis_does_not_turn():
    net = network(nn.Conv1d(1, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool1d(1))
    with pytest.raises(OptionError, match="do not turn"):
        npk.check_invariance(net, draw(2, 1, 4), group="turns")


def test_a_function_may_not_write_into_the_samples():
    def spoil(samples):
        samples[:] = 0
        return samples

    before = X.copy()
    npk.check_invariance(plain(), X, group={"zero": spoil})
    np.testing.assert_array_equal(X, before)
    assert Mapped("same", lambda samples: samples).moved(X) is not X


# command line


@pytest.fixture
def checkpoint(tmp_path):
    net = npk.networks.build(
        "conv", input_shape=(1, 4, 4), classes=3, channels=[4, 4], strides=[1, 2], seed=0
    )
    npk.save(net, tmp_path / "net.safetensors")
    np.save(tmp_path / "X.npy", X.astype(np.float32))
    return tmp_path


def test_the_command_takes_shifts_group_and_gates(checkpoint, capsys):
    words = ["invariance", str(checkpoint / "net.safetensors"), "--data", str(checkpoint / "X.npy")]
    json = checkpoint / "c.json"
    assert run(["check", *words, "--shifts", "0,2;1,0", "--json", str(json)]) == 0
    assert [one.by for one in case_of(CheckResult.load(json)).moved] == [(0, 2), (1, 0)]
    assert "Predicted: even shifts; holds on 1 of 1" in capsys.readouterr().out
    assert run(["check", *words, "--group", "dihedral", "--gates", "hard", "--samples", "2"]) == 0
    assert "the identity alone" in capsys.readouterr().out
    assert run(["check", "duality", *words[1:], "--shifts", "all"]) == 2
    assert "`npk check duality` does not take --shifts" in capsys.readouterr().err
    assert run(["check", *words, "--shifts", "0,a"]) == 2
    assert "--shifts '0,a' is not understood" in capsys.readouterr().err


def test_shifts_as_the_command_line_writes_them():
    assert [as_shifts(text) for text in ("all", "12", "0,1;-2,2", "1;2")] == [
        "all",
        12,
        [(0, 1), (-2, 2)],
        [(1,), (2,)],
    ]


def test_the_module_says_what_it_measures():
    assert "predicted by structure and measured" in invariance.__doc__
