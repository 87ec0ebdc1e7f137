"""Each measure against its formula in plain loops; identities; refusals; figures."""

import itertools
import math

import matplotlib.figure
import numpy as np
import pytest
import torch
from torch import nn

import npk
from npk import measures
from npk.errors import DataError, DataTypeError, OptionError, ShapeError
from npk.gates.store import GateStore
from npk.gates.table import ones_in
from npk.measures import given, matrices
from npk.measures.intervals import weighted_cka

N = 14
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 0, 1, 1, 0])
OPTIONS = {"scale": "cosine", "dtype": "float64", "backend": "reference", "progress": False}


def kernel_of(seed, n=N, rank=6):
    phi = np.random.default_rng(seed).standard_normal((n, rank))
    return phi @ phi.T + 0.1 * np.eye(n) + 2.0


def centred(K):
    """HKH entry by entry."""
    n = len(K)
    means = [sum(K[i][j] for j in range(n)) / n for i in range(n)]
    total = sum(means) / n
    return [[K[i][j] - means[i] - means[j] + total for j in range(n)] for i in range(n)]


def inner(A, B):
    return sum(
        a * b for row, other in zip(A, B, strict=True) for a, b in zip(row, other, strict=True)
    )


def cosine(A, B):
    return inner(A, B) / math.sqrt(inner(A, A) * inner(B, B))


@pytest.fixture(scope="module")
def tables():
    """Gates of two networks with a convolution and a dense layer, 14 samples, of which two are
    equal; 70 channels do not fill their words.
    """
    torch.manual_seed(0)
    made = []
    for _ in range(2):
        layers = (
            nn.Conv2d(1, 70, 3), nn.ReLU(), nn.Flatten(), nn.Linear(280, 5), nn.ReLU(), nn.Linear(5, 2)
        )  # fmt: skip
        X = np.random.default_rng(1).standard_normal((N, 1, 4, 4))
        X[9] = X[3]
        made.append(npk.record_gates(nn.Sequential(*layers).double().eval(), X))
    return made


@pytest.fixture
def small_blocks(monkeypatch):
    """Tables and kernels are read four samples at a time, and do not come out even."""
    monkeypatch.setattr(given, "samples_at_once", lambda size: 4)
    monkeypatch.setattr(matrices, "_BYTES", 8 * N * 4)


def stored(table, path):
    with_pieces = GateStore.create(path, table.form, len(table), piece=4)
    for start, stop in with_pieces.pieces:
        with_pieces.write(start, table.take(slice(start, stop)))
    return GateStore.open(path)


# kernels


def test_alignment_is_its_formula(small_blocks):
    K = kernel_of(0)
    same = [[float(a == b) for b in LABELS] for a in LABELS]
    expected = inner(centred(K), same) / math.sqrt(
        inner(centred(K), centred(K)) * inner(centred(same), centred(same))
    )
    assert measures.alignment(K, LABELS) == pytest.approx(expected, rel=1e-12)
    names = np.array(["x", "a", "q"])[LABELS]
    assert measures.alignment(3e200 * (K + 5), names) == pytest.approx(expected, rel=1e-9)
    Y = np.eye(3)[LABELS]
    assert measures.alignment(K, Y) == pytest.approx(expected, rel=1e-12)
    assert measures.alignment(Y @ Y.T, LABELS) == pytest.approx(1, rel=1e-12)


def test_cka_is_its_formula_and_the_angle_its_arc_cosine(small_blocks):
    K, L = kernel_of(0), kernel_of(1)
    expected = cosine(centred(K), centred(L))
    assert measures.cka(K, L) == pytest.approx(expected, rel=1e-12)
    assert measures.angle(K, L) == pytest.approx(math.acos(expected), rel=1e-12)
    assert measures.cka(K, K) == pytest.approx(1, rel=1e-14)
    assert measures.angle(K, 7 * K) == pytest.approx(0, abs=1e-14)
    shift = np.random.default_rng(2).standard_normal((N, 1))  # another mean feature
    assert measures.cka(1e-9 * (K + shift + shift.T + 9), L) == pytest.approx(expected, rel=1e-9)
    near = K + 1e-9 * L
    assert 1e-10 < measures.angle(K, near) < 1e-8  # whose cosine is 1
    assert measures.cka(K, near) == pytest.approx(1, rel=1e-15)


def test_the_angle_is_a_metric():
    kernels = [kernel_of(seed, rank=1 + seed) for seed in range(6)]
    d = {(i, j): measures.angle(kernels[i], kernels[j]) for i, j in np.ndindex(6, 6)}
    for i, j, k in itertools.permutations(range(6), 3):
        assert d[i, k] <= d[i, j] + d[j, k]
        assert d[i, j] == pytest.approx(d[j, i], rel=1e-12)


def test_draws_of_the_bootstrap_are_ckas_of_samples_drawn_again(rng):
    K, L = kernel_of(0), kernel_of(1)
    drawn = rng.integers(0, N, (3, N))
    weights = np.stack([np.bincount(row, minlength=N) for row in drawn], axis=1) / N
    found = weighted_cka(np.array(centred(K)), np.array(centred(L)), weights)
    for row, value in zip(drawn, found, strict=True):
        again = np.ix_(row, row)
        assert value == pytest.approx(cosine(centred(K[again]), centred(L[again])), rel=1e-9)


def test_the_interval_is_as_wide_as_ckas_of_other_samples_vary(rng):
    features = rng.standard_normal((2, 4, 5))

    def pair():
        X = rng.standard_normal((50, 4))
        return [X @ f @ f.T @ X.T for f in features]

    spread = np.std([measures.cka(*pair()) for _ in range(100)])
    found = [measures.cka_interval(*pair(), level=0.683, draws=100) for _ in range(10)]
    for each in found:
        assert 0 <= each.low < each.value < each.high <= 1
        value, least, largest = each.angles
        assert (math.cos(value), math.cos(least)) == pytest.approx((each.value, each.high))
        assert least < value < largest
    # one standard error either way; both sides are estimates
    assert np.mean([each.high - each.low for each in found]) / 2 == pytest.approx(spread, rel=0.3)


def test_the_interval_goes_by_level_and_seed():
    K, L = kernel_of(0), kernel_of(1)
    assert measures.cka_interval(K, L, draws=50) == measures.cka_interval(K, L, draws=50)
    assert measures.cka_interval(K, L, draws=50) != measures.cka_interval(K, L, draws=50, seed=1)
    wide, narrow = (measures.cka_interval(K, L, level=level, draws=50) for level in (0.9, 0.5))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_spectrum_and_effective_rank():
    np.testing.assert_allclose(measures.spectrum(np.diag([1.0, 3.0, 0.0])), [0.75, 0.25, 0])
    assert measures.effective_rank(np.eye(4)) == pytest.approx(4)
    assert measures.effective_rank(np.ones((4, 4))) == pytest.approx(1)
    K = kernel_of(0)
    shares = np.linalg.eigvalsh(K) / sum(K[i][i] for i in range(N))
    expected = math.exp(-sum(p * math.log(p) for p in shares))
    assert measures.effective_rank(K) == pytest.approx(expected, rel=1e-12)
    assert measures.effective_rank(measures.spectrum(1e-200 * K)) == pytest.approx(
        expected, rel=1e-9
    )


# targets


def test_nu_is_its_formula():
    K, y = kernel_of(0), np.random.default_rng(0).standard_normal(N)
    A = np.linalg.inv(K / np.trace(K) * N + 0.03 * np.eye(N))
    expected = sum(y[i] * A[i, j] * y[j] for i in range(N) for j in range(N)) / N
    assert measures.nu(K, y, 0.03) == pytest.approx(expected, rel=1e-10)
    assert measures.nu(1e9 * K, y, 0.03) == pytest.approx(expected, rel=1e-9)
    signs = np.where(LABELS == 0, 1, -1)  # whole numbers, and taken as they are
    assert measures.nu(K, signs, 0.03) == pytest.approx(signs @ A @ signs / N, rel=1e-10)
    Y = np.eye(3)[LABELS]
    for labels in (LABELS, np.array(["x", "y", "z"])[LABELS], Y):
        assert measures.nu(K, labels, 0.03) == pytest.approx(np.trace(Y.T @ A @ Y) / N, rel=1e-10)


def test_predicted_risk_is_what_n_machines_and_the_formulas_say():
    K, ridges = kernel_of(0), [1.0, 1e-2]
    unit, Y = np.trace(K) / N, np.where(LABELS[:, None] == np.arange(3), 1.0, -1.0)
    found = measures.predicted_risk(K, LABELS, ridges)
    assert found.accuracy is not None
    for number, ridge in enumerate(ridges):
        errors, right = [], 0
        for i in range(N):
            rest = [j for j in range(N) if j != i]
            inside = K[np.ix_(rest, rest)] + ridge * unit * np.eye(N - 1)
            scores = K[i, rest] @ np.linalg.solve(inside, Y[rest])
            errors += [*(scores - Y[i]) ** 2]
            right += int(scores.argmax() == LABELS[i])
        assert found.leave_one_out[number] == pytest.approx(np.mean(errors), rel=1e-9)
        assert found.accuracy[number] == right / N
        A = np.linalg.inv(K + ridge * unit * np.eye(N))
        c = A @ Y
        gcv = np.mean([N * (c[:, k] @ c[:, k]) / np.trace(A) ** 2 for k in range(3)])
        assert found.gcv[number] == pytest.approx(gcv, rel=1e-9)
        # Jacot and others, with the ridge of a sample
        B = np.linalg.inv(K / N + ridge * unit / N * np.eye(N))
        kare = np.mean([Y[:, k] @ B @ B @ Y[:, k] / N / (np.trace(B) / N) ** 2 for k in range(3)])
        assert found.kare[number] == pytest.approx(kare, rel=1e-9)
    share = found.best_accuracy
    assert share == max(found.accuracy)
    assert found.accuracy_error is not None
    assert found.accuracy_error[found.chosen] == pytest.approx(math.sqrt(share * (1 - share) / N))
    numbers = measures.predicted_risk(K, Y[:, 0], ridges)
    assert (numbers.accuracy, numbers.best_accuracy, numbers.accuracy_error) == (None,) * 3
    assert numbers.chosen == numbers.leave_one_out.argmin()


def test_kernels_on_disk_give_the_same(tmp_path, small_blocks, tables):
    def gram(table, name):
        return npk.kernel(table, **OPTIONS, out=tmp_path / name)

    disk = [gram(table, str(i)) for i, table in enumerate(tables)]
    memory = [np.asarray(K) for K in disk]
    for measure in (
        measures.cka,
        measures.angle,
        lambda K, L: measures.cka_interval(K, L, draws=9).low,
    ):
        assert measure(*disk) == pytest.approx(measure(*memory), rel=1e-12)
    for measure in (measures.alignment, lambda K, y: measures.nu(K, y, 0.1)):
        assert measure(disk[0], LABELS) == pytest.approx(measure(memory[0], LABELS), rel=1e-12)
    assert measures.effective_rank(disk[0]) == measures.effective_rank(memory[0])


# gates


def rows_of(table):
    """Of each layer, all samples' gates as lists of 0 and 1."""
    return [[[int(g) for g in sample.ravel()] for sample in layer] for layer in table]


def both(tables, tmp_path):
    """The first table in memory, and in a store."""
    return tables[0], stored(tables[0], tmp_path / "gates")


def test_class_overlap_is_a_mean_over_pairs(tables, tmp_path, small_blocks):
    for table in both(tables, tmp_path):
        found = measures.class_overlap(table, LABELS)
        for layer, gates in enumerate(rows_of(tables[0])):
            same, different = [], []
            for i, j in itertools.combinations(range(N), 2):
                shared = sum(a * b for a, b in zip(gates[i], gates[j], strict=True)) / len(gates[i])
                (same if LABELS[i] == LABELS[j] else different).append(shared)
            assert found.same[layer] == pytest.approx(np.mean(same), rel=1e-13)
            assert found.different[layer] == pytest.approx(np.mean(different), rel=1e-13)
            assert found[layer] == pytest.approx(np.mean(same) / np.mean(different), rel=1e-13)
        assert len(found) == 2
        np.testing.assert_array_equal(np.asarray(found), found.ratio)
        assert found.names == tables[0].names


def test_soft_gates_overlap_as_they_are(small_blocks):
    net = nn.Sequential(nn.Linear(3, 5), nn.SiLU(), nn.Linear(5, 2)).double().eval()
    table = npk.record_gates(net, np.random.default_rng(0).standard_normal((N, 3)))
    gates = table[0].reshape(N, -1)
    pairs = [(i, j) for i, j in itertools.combinations(range(N), 2) if LABELS[i] == LABELS[j]]
    expected = np.mean([gates[i] @ gates[j] / 5 for i, j in pairs])
    assert measures.class_overlap(table, LABELS).same[0] == pytest.approx(expected, rel=1e-12)
    (layer,) = measures.gate_statistics(table).layers
    assert (layer.kind, layer.patterns, layer.entropy) == ("soft", None, None)
    assert layer.activity == pytest.approx(gates.mean(), rel=1e-12)
    for refused in (measures.naswot, lambda t: measures.flips(t, t)):
        with pytest.raises(OptionError, match='counts gates that are on or off, .* gates="hard"'):
            refused(table)


def test_statistics_are_counts(tables, tmp_path, small_blocks):
    for table in both(tables, tmp_path):
        found = measures.gate_statistics(table)
        assert found.samples == N
        assert found.patterns == N - 1  # two samples are equal
        for layer, gates, values in zip(found.layers, rows_of(tables[0]), tables[0], strict=True):
            units = list(zip(*gates, strict=True))
            shares = [sum(unit) / N for unit in units]
            bits = [-sum(q * math.log2(q) for q in (p, 1 - p) if q) for p in shares]
            assert (layer.units, layer.kind) == (len(units), "hard")
            assert layer.dead == sum(sum(unit) == 0 for unit in units)
            assert layer.always_on == sum(sum(unit) == N for unit in units)
            assert layer.patterns == len({tuple(row) for row in gates})
            assert layer.activity == pytest.approx(np.mean(shares), rel=1e-12)
            assert layer.entropy == pytest.approx(np.mean(bits), rel=1e-12)
            channels = [float(values[:, c].mean()) for c in range(layer.shape[0])]
            assert layer.channels == pytest.approx(channels, rel=1e-12)
            assert layer.dead_channels == sum(c == 0 for c in channels)
        assert any(layer.dead or layer.always_on for layer in found.layers)
        assert type(found).from_json(found.to_json()) == found


def test_flips_are_gates_that_differ(tables, tmp_path, small_blocks):
    for table in both(tables, tmp_path):
        found = measures.flips(table, tables[1])
        for layer, (a, b) in enumerate(zip(*tables, strict=True)):
            shares = [float((a[i] != b[i]).mean()) for i in range(N)]
            assert found.share[layer] == pytest.approx(np.mean(shares), rel=1e-12)
            error = np.std(shares, ddof=1) / math.sqrt(N)
            assert found.error[layer] == pytest.approx(error, rel=1e-12)
            channels = [(a[:, c] != b[:, c]).mean() for c in range(a.shape[1])]
            np.testing.assert_allclose(found.channels[layer], channels, rtol=1e-12)
    assert not measures.flips(table, table).share.any()


def test_agreement_is_exact_and_naswot_its_determinant(tables, tmp_path, small_blocks):
    for table in both(tables, tmp_path):
        found = measures.agreement(table)
        each = zip(*rows_of(tables[0]), strict=True)
        rows = [list(itertools.chain(*layers)) for layers in each]
        for i, j in np.ndindex(N, N):
            assert found[i, j] == sum(a == b for a, b in zip(rows[i], rows[j], strict=True))
        assert measures.duplicates(table).tolist() == [9]
        with pytest.raises(
            DataError, match=r"1 samples have all gates of an earlier one: 9 as 3\."
        ):
            measures.naswot(table)
        kept = table.take(np.setdiff1d(np.arange(N), measures.duplicates(table)))
        keep = [i for i in range(N) if i != 9]
        sign, expected = np.linalg.slogdet(found[np.ix_(keep, keep)])
        assert measures.naswot(kept) == pytest.approx(sign * expected, rel=1e-9)


def identity_gates(X):
    net = nn.Sequential(
        nn.Linear(len(X[0]), len(X[0]), bias=False), nn.ReLU(), nn.Linear(len(X[0]), 1)
    )
    net[0].weight.data = torch.eye(len(X[0])).double()
    return npk.record_gates(net.double().eval(), np.array(X, np.float64))


def test_why_there_is_no_naswot():
    dead = identity_gates([[-1, -1, -1], [1, 1, 1], [-2, -1, -1]])
    with pytest.raises(DataError, match="2 as 0; no gate is on for 0, 2. Leave out"):
        measures.naswot(dead)
    with pytest.raises(DataError, match="there are 4 samples and 2 gates. Give at most 3 samples"):
        measures.naswot(identity_gates([[1, 1], [1, -1], [-1, 1], [-1, -1]]))
    dependent = [[1, 1, -1], [1, -1, -1], [-1, 1, -1], [-1, -1, -1]]
    with pytest.raises(DataError, match="gates of 4 samples have rank 3: some follow from others"):
        measures.naswot(identity_gates(dependent))


def test_ones_in(monkeypatch, rng):
    words = rng.integers(0, 2**63, (3, 5), dtype=np.uint64)[:, ::2]
    expected = [[bin(word).count("1") for word in row] for row in words.tolist()]
    assert ones_in(words).tolist() == expected
    monkeypatch.delattr(np, "bitwise_count", raising=False)  # as in NumPy 1
    assert ones_in(words).tolist() == expected


# refusals

K = kernel_of(0)
BROKEN = np.where(np.eye(N) > 0, np.nan, K)
FAR = np.where(np.eye(N) > 0, 1e-300, 1e300)  # in units of its diagonal they are not finite
KERNELS = [measures.alignment, lambda K, y: measures.nu(K, y, 0.1), measures.predicted_risk]


@pytest.mark.parametrize("measure", KERNELS)
@pytest.mark.parametrize(
    ("matrix", "y", "error", "match"),
    [
        (K[:, :3], LABELS, ShapeError, r"K has shape \(14, 3\), a Gram matrix is square"),
        (K + np.arange(N), LABELS, ShapeError, "K is not symmetric"),
        (BROKEN, LABELS, DataError, "K holds values that are not finite"),
        (np.zeros((N, N)), LABELS, DataError, "the kernel is zero on its diagonal"),
        (K, LABELS[:3], ShapeError, "there are 3 labels for 14 samples. Give one label a sample"),
        (K, np.zeros(N, int), DataError, "needs two classes, y has 1 class"),
        (K, None, DataError, "y is None"),
        (K, np.ones((3, 2)), ShapeError, r"y has shape \(3, 2\), K has 14 samples"),
    ],
)
def test_kernels_and_labels_that_are_refused(measure, matrix, y, error, match):
    with pytest.raises(error, match=match):
        measure(matrix, y)


@pytest.mark.parametrize("measure", [measures.cka, measures.angle, measures.cka_interval])
@pytest.mark.parametrize(
    ("first", "second", "error", "match"),
    [
        (K, K[:8, :8], ShapeError, "K is of 14 samples and L of 8. Give two kernels of the same"),
        (K, K[:3], ShapeError, r"the kernel L: K has shape \(3, 14\)"),
        (BROKEN, K, DataError, "^K holds values that are not finite"),
        (K, BROKEN, DataError, "the kernel L: K holds values that are not finite"),
        (K, np.full((N, N), 0.3), DataError, "L has one value for all pairs of samples"),
        (FAR, K, DataError, "^K holds values that are not finite"),
    ],
)
def test_pairs_of_kernels_that_are_refused(measure, first, second, error, match):
    with pytest.raises(error, match=match):
        measure(first, second)


def test_other_refusals(tables, tmp_path):
    table = tables[0]
    cross = npk.kernel(table, tables[0].take(slice(3)), out=tmp_path / "cross", **OPTIONS)
    with pytest.raises(ShapeError, match="K is a kernel of 14 rows with 3 other columns"):
        measures.alignment(cross, LABELS)
    with pytest.raises(DataError, match="y is the same for all samples"):
        measures.alignment(K, np.ones((N, 2)))
    with pytest.raises(OptionError, match="alpha is -1"):
        measures.nu(K, LABELS, -1)
    for options, match in (({"level": 95}, "level is 95"), ({"draws": 1}, "draws is 1")):
        with pytest.raises(OptionError, match=match):
            measures.cka_interval(K, K, **options)
    with pytest.raises(DataError, match="there are 5 samples, too few to draw from"):
        measures.cka_interval(K[:5, :5], K[:5, :5])
    with pytest.raises(ShapeError, match="there are 2 labels for 14 samples"):
        measures.class_overlap(table, [0, 1])
    with pytest.raises(DataError, match="needs two classes"):
        measures.class_overlap(table, np.zeros(N, int))
    with pytest.raises(DataError, match="y has 14 classes for 14 samples: no two are of one class"):
        measures.class_overlap(table, np.arange(N))
    with pytest.raises(ShapeError, match="14 samples with layers .* 70x2x2, .*, other of 3"):
        measures.flips(table, tables[1].take(slice(3)))
    for measure in (measures.naswot, measures.gate_statistics, measures.agreement):
        with pytest.raises(DataTypeError, match="table is a ndarray, no gate table"):
            measure(np.ones((3, 3)))
        with pytest.raises(DataError, match="table has 0 samples and 2 gate layers"):
            measure(table.take(slice(0)))


# figures


def figures(tables):
    one, other = tables
    curve = measures.predicted_risk(K, LABELS)
    overlap, flips = measures.class_overlap(one, LABELS), measures.flips(one, other)
    plot = npk.plot
    return {
        "alignment": lambda ax: plot.alignment(K, LABELS, ax=ax),
        "kernel": lambda ax: plot.kernel(K, LABELS, ax=ax),
        "cka": lambda ax: plot.cka({"a": K, "b": kernel_of(1), "the third": kernel_of(2)}, ax=ax),
        "cka_interval": lambda ax: plot.cka_interval({"a": measures.cka_interval(K, K)}, ax=ax),
        "class_overlap": lambda ax: plot.class_overlap(overlap, ax=ax),
        "class_overlaps": lambda ax: plot.class_overlap({"a": overlap, "b": overlap}, ax=ax),
        "spectrum": lambda ax: plot.spectrum({"a": K, "b": measures.spectrum(K)}, ax=ax),
        "nu": lambda ax: plot.nu(K, LABELS, [1e-2, 1.0], ax=ax),
        "predicted_risk": lambda ax: plot.predicted_risk(curve, ax=ax),
        "leave_one_out": lambda ax: plot.leave_one_out(curve, ax=ax),
        "gate_statistics": lambda ax: plot.gate_statistics(measures.gate_statistics(one), ax=ax),
        "flips": lambda ax: plot.flips(flips, ax=ax),
        "naswot": lambda ax: plot.naswot(one.take(slice(9)), ax=ax),
        "shared_gates": lambda ax: plot.shared_gates(one, 0, 3, ax=ax),
        "on_circle": lambda ax: plot.on_circle(K, ax=ax),
        "hyperplanes": lambda ax: plot.hyperplanes(
            npk.networks.build("fc", input_shape=(2,), classes=2, hidden=[3], seed=0),
            npk.data.toy("box", 20).X,
            ax=ax,
        ),
        "kernel_weights": lambda ax: plot.kernel_weights({"a": 0.2, "depth=3": 0.8}, ax=ax),
        "through_training": lambda ax: plot.through_training(
            [0, 1, 4], {"a": np.ones((3, 3)), "b": np.ones((1, 3))}, label="x", ax=ax
        ),
    }


def test_every_figure_function_is_tried(tables):
    functions = {
        name
        for name, value in vars(npk.plot).items()
        if getattr(value, "__module__", "").startswith("npk.plot") and not name.startswith("_")
    }
    functions -= {"depth_spectrum", "lesions"}  # tests/test_spectrum.py has them
    assert functions == set(figures(tables)) - {"class_overlaps"}


def test_figures_return_the_axes_they_drew_on(tables):
    for draw in figures(tables).values():
        axes = matplotlib.figure.Figure().add_subplot()
        assert draw(axes) is axes
    made = figures(tables)["flips"](None)
    assert made.figure.get_size_inches()[0] == pytest.approx(3.4)
    share = measures.flips(*tables).share
    np.testing.assert_allclose(made.containers[0].lines[0].get_ydata(), share)
    assert made.containers[0].has_yerr


def test_shared_gates_are_counted(tables):
    found = measures.shared_gates(tables[0], 2, 5)
    for i, layer in enumerate(tables[0]):
        a, b = layer[2].ravel(), layer[5].ravel()
        expected = [np.mean(a & b), np.mean(a & ~b), np.mean(~a & b), np.mean(~a & ~b)]
        shares = [found.both[i], found.first[i], found.second[i], found.neither[i]]
        np.testing.assert_allclose(shares, expected, rtol=1e-15)
    with pytest.raises(OptionError, match=r"sample 99 is asked for, and there are"):
        measures.shared_gates(tables[0], 0, 99)


def test_hyperplanes_are_where_the_gates_of_a_linear_gate_switch():
    net = npk.networks.build(
        "fc", "dlgn", input_shape=(2,), classes=2, hidden=[4, 3], bias=False, seed=1
    )
    X = npk.data.toy("circle", 50).X
    with torch.no_grad():
        q = net.gating(torch.tensor(np.eye(2, dtype=np.float32)))
    for layer in range(2):
        axes = npk.plot.hyperplanes(net, X, layer=layer)
        lines = [c for c in axes.collections if hasattr(c, "levels")]
        assert len(lines) == q[layer].shape[1]  # a line through the origin in every direction
        for unit, line in enumerate(lines):
            normal = q[layer][:, unit].numpy()
            points = np.concatenate([path.vertices for path in line.get_paths()])
            away = points @ normal / np.linalg.norm(normal)
            assert np.abs(away).max() < 1.5 * 2.2 / 200
    with pytest.raises(OptionError, match="layer is 2, and there are 2 gate layers"):
        npk.plot.hyperplanes(net, X, layer=2)
    with pytest.raises(ShapeError, match=r"samples have shape \(3, 5\)"):
        npk.plot.hyperplanes(net, np.zeros((3, 5)))
    with pytest.raises(ShapeError, match=r"K has shape \(2, 3\)"):
        npk.plot.on_circle(np.zeros((2, 3)))


def test_figures_of_wrong_things():
    numbers = measures.predicted_risk(K, np.linspace(0, 1, N))
    with pytest.raises(ShapeError, match="there are no weights to draw"):
        npk.plot.kernel_weights({})
    with pytest.raises(ShapeError, match="the curve has no accuracy"):
        npk.plot.leave_one_out(numbers)
    with pytest.raises(ShapeError, match=r"values have shape \(3, 2\) for 3 epochs"):
        npk.plot.through_training([0, 1, 2], np.ones((3, 2)))
