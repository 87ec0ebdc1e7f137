"""Training: learning, selection on validation, seeds, checkpoints, refusals."""

import numpy as np
import pytest
import torch

from npk.errors import BackendError, CheckpointError, DataError, NpkError, OptionError
from npk.networks import RECIPES, TrainingResult, build, recipe, train
from npk.networks.options import AUGMENTATIONS, CHOICES, Options
from npk.networks.run import Run, _split
from npk.networks.steps import LOSSES, flipped, moved, rate_share

QUICK = {"epochs": 4, "batch_size": 16, "learning_rate": 1e-2, "progress": False}


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
def data(rng):
    """Three classes of 6 x 6 images, told apart by a bar in rows 0, 2 or 4."""
    y = np.arange(90) % 3
    X = 0.3 * rng.random((90, 1, 6, 6), dtype=np.float32)
    X[np.arange(90), 0, 2 * y] += 1
    return X, y


def network(kind="dnn", **options):
    chosen = {"channels": (6, 6), "readout": "flatten", "batch_norm": True, "seed": 0, **options}
    return build("conv", kind, input_shape=(1, 6, 6), classes=3, **chosen)


def state(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def assert_same_state(one, two):
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


class Killed(Exception):
    pass


class KilledAfter:
    """A progress object that stands for a kill after some epochs."""

    def __init__(self, epochs):
        self.left = epochs

    def task(self, description, total):
        import contextlib

        return contextlib.nullcontext(self.advance)

    def advance(self, steps):
        self.left -= steps
        if self.left == 0:
            raise Killed


@pytest.mark.parametrize("kind", ["dnn", "dgn", "dlgn", "dlgn-sf"])
def test_every_kind_learns(kind, data):
    X, y = data
    net = network(kind)
    result = train(net, X, y, **{**QUICK, "epochs": 12})
    with torch.no_grad():
        accuracy = (net(torch.from_numpy(X)).argmax(1).numpy() == y).mean()
    assert accuracy > 0.95
    assert result.curve_train[-1] < result.curve_train[0] / 2
    assert result.epochs == len(result.curve_validation) == 12
    assert result.validation_accuracy == result.curve_validation[result.best_epoch - 1]
    assert result.regime == ("relu" if kind == "dnn" else "dlnpf")
    assert not net.training
    assert TrainingResult.from_json(result.to_json()) == result


@pytest.mark.parametrize("optimizer", CHOICES["optimizer"])
@pytest.mark.parametrize("schedule", CHOICES["schedule"])
def test_optimizers_and_schedules(optimizer, schedule, data):
    result = train(
        network(),
        *data,
        **QUICK,
        optimizer=optimizer,
        schedule=schedule,
        weight_decay=1e-3,
        label_smoothing=0.1,
    )
    assert result.curve_train[-1] < result.curve_train[0]


# accuracy and loss on validation, epoch by epoch
SCORES = [(0.5, 2.0), (0.9, 1.5), (0.6, 1.0), (0.9, 1.2), (0.9, 1.3), (0.7, np.nan)]


@pytest.mark.parametrize(
    ("options", "selection", "epoch"),
    [
        ({"select": "loss"}, "loss", 3),
        ({"select": "accuracy"}, "accuracy", 4),  # of equal ones that with the smallest loss
        ({"select": "last"}, "last", 6),
        ({}, "last", 6),
        ({"schedule": "cosine"}, "last", 6),
        ({"schedule": "constant"}, "accuracy", 4),
        ({"schedule": "step"}, "accuracy", 4),
        ({"patience": 4}, "loss", 3),
        ({"schedule": "constant", "select": "last"}, "last", 6),
    ],
)
def test_network_has_the_weights_of_the_epoch_that_is_selected(
    options, selection, epoch, data, monkeypatch
):
    scores, seen = iter(SCORES), []

    def score(run):
        seen.append(state(run.net))
        return next(scores)

    monkeypatch.setattr("npk.networks.run.Run._validate", score)
    net = network()
    result = train(net, *data, **{**QUICK, "epochs": 6}, **options)
    assert (result.select, result.best_epoch) == (selection, epoch)
    assert result.validation_accuracy == SCORES[epoch - 1][0]
    assert result.curve_validation_loss == [2.0, 1.5, 1.0, 1.2, 1.3, None]
    assert_same_state(state(net), seen[epoch - 1])


@pytest.mark.parametrize("select", ["accuracy", "loss"])
def test_a_first_epoch_that_is_no_number_is_not_kept(select, data, monkeypatch):
    scores = iter([(0.0, np.nan), (0.5, 2.0), (0.4, 3.0)])
    monkeypatch.setattr("npk.networks.run.Run._validate", lambda run: next(scores))
    assert train(network(), *data, **{**QUICK, "epochs": 3}, select=select).best_epoch == 2


def test_validation_samples_are_never_trained_on(data, monkeypatch):
    X, y = data
    kept, held = _split(y, 0.2, 0)
    assert np.bincount(y[held]).tolist() == [6, 6, 6]
    assert sorted([*kept, *held]) == list(range(90))
    changed = X.copy()
    changed[held] = 0
    nets = network(), network()
    monkeypatch.setattr("npk.networks.run.Run._validate", lambda run: (0.5, len(run.losses)))
    for net, samples in zip(nets, (X, changed), strict=True):
        train(net, samples, y, **QUICK, validation=0.2)
    assert_same_state(state(nets[0]), state(nets[1]))


def test_without_validation_the_last_weights_stay(data):
    result = train(network(), *data, **QUICK, validation=0)
    assert result.best_epoch == 4
    assert result.validation_accuracy is None
    assert result.curve_validation == [None] * result.epochs
    assert TrainingResult.from_json(result.to_json()) == result


def test_seed_decides_everything_and_the_global_state_is_left_alone(data):
    nets = [network() for _ in range(3)]
    before = torch.random.get_rng_state()
    for net, seed in zip(nets, (1, 1, 2), strict=True):
        train(net, *data, **QUICK, seed=seed, augment="shift")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert_same_state(state(nets[0]), state(nets[1]))
    assert not torch.equal(next(nets[0].parameters()), next(nets[2].parameters()))


def test_every_epoch_sees_all_samples_in_an_order_of_its_own(data, monkeypatch):
    seen = []
    monkeypatch.setattr("npk.networks.run.augmented", lambda x, options: seen.append(x) or x)
    train(network(), *data, **{**QUICK, "epochs": 2}, augment="shift", validation=0)
    first, second = torch.cat(seen[:6]).numpy(), torch.cat(seen[6:]).numpy()
    assert not np.array_equal(first, second)
    for epoch in (first, second):
        assert np.array_equal(
            np.unique(epoch.reshape(90, 36), axis=0), np.unique(data[0].reshape(90, 36), axis=0)
        )


def test_single_sample_left_over_does_not_break_batch_norm(data):
    X, y = data
    net = build("fc", input_shape=(36,), classes=3, hidden=(4,), batch_norm=True, seed=0)
    assert train(net, X.reshape(90, 36)[:81], y[:81], **QUICK, validation=0).epochs == 4


def test_patience_stops_early(data, monkeypatch):
    monkeypatch.setattr("npk.networks.run.Run._validate", lambda run: (0.5, len(run.losses)))
    result = train(network(), *data, **{**QUICK, "epochs": 50}, patience=3)
    assert (result.epochs, result.best_epoch) == (4, 1)


def test_frozen_gates_stay_as_they_are(data):
    net = network("dgn", gates="hard")
    before, value = state(net.gating), state(net.value)
    assert train(net, *data, **QUICK, weight_decay=0.1).regime == "frnpf-ii"
    assert_same_state(state(net.gating), before)
    assert not torch.equal(next(net.value.parameters()), value["layers.0.weight"])


def test_learnt_gates_are_copied(data):
    plain = network()
    train(plain, *data, **QUICK)
    net = network("dgn", gates="hard", seed=5)
    train(net, *data, **QUICK, regime="flnpf", features=plain)
    assert torch.equal(net.gating.stack.layers[0].weight, plain.value.layers[0].weight)


def rolled(image, down, right):
    return image.roll((down, right), (1, 2))


def cropped(image, down, right):
    """The image padded by one pixel of zeros, and cut out again."""
    padded = torch.nn.functional.pad(image, (1, 1, 1, 1))
    return padded[:, 1 - down :, 1 - right :][:, : image.shape[1], : image.shape[2]]


@pytest.mark.parametrize(("circular", "alike"), [(True, rolled), (False, cropped)])
def test_every_image_is_moved_by_its_own_offset(circular, alike):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        x = torch.randn(200, 2, 5, 4)
        there = moved(x, 1, circular)
    places = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)]
    found = [
        [place for place in places if torch.equal(alike(one, *place), two)]
        for one, two in zip(x, there, strict=True)
    ]
    assert all(len(offsets) == 1 for offsets in found)
    assert {offsets[0] for offsets in found} == {*places}


def test_images_are_flipped_left_for_right_each_by_itself():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        x = torch.randn(100, 2, 3, 4)
        there = flipped(x)
    same = [torch.equal(one, two) for one, two in zip(x, there, strict=True)]
    assert 30 < sum(same) < 70
    for number, kept in enumerate(same):
        assert kept or torch.equal(there[number], x[number].flip(2))


@pytest.mark.parametrize("augment", [*AUGMENTATIONS, "flip,crop", ["crop", "shift"]])
def test_augmentations_change_the_images_and_nothing_after_training(augment, data):
    X, y = data
    nets = network(), network()
    before = X.copy()
    results = [
        train(net, X, y, **QUICK, augment=augment if net is nets[0] else None) for net in nets
    ]
    assert results[0].curve_train != results[1].curve_train
    np.testing.assert_array_equal(X, before)


def scheduled(schedule, epochs, **options):
    names = {"schedule": schedule, "epochs": 10, "warm_up": 0, "milestones": None, **options}
    return [rate_share(Options(**{**OPTIONS, **names}), epoch) for epoch in epochs]


OPTIONS = {
    "validation": 0.1, "epochs": 10, "batch_size": 8, "optimizer": "sgd", "loss": "mse",
    "learning_rate": 0.1, "weight_decay": 0, "momentum": 0, "schedule": "step", "warm_up": 0,
    "milestones": None, "label_smoothing": 0, "augment": None, "shift": 1, "select": None,
    "patience": None, "snapshots": (), "seed": 0,
}  # fmt: skip


def test_schedules():
    assert scheduled("constant", (0, 9)) == [1, 1]
    assert scheduled("cosine", (0, 5, 10)) == pytest.approx([1, 0.5, 0])
    assert scheduled("one-cycle", (0, 3, 10)) == pytest.approx([0.04, 1, 0])
    assert scheduled("step", (0, 4.9, 5, 7.4, 7.5, 9.9)) == pytest.approx(
        [1, 1, *[0.1] * 2, *[0.01] * 2]
    )
    assert scheduled("step", (0, 2, 9), milestones=[2, 3]) == pytest.approx([1, 0.1, 0.01])
    assert scheduled("step", (0, 9), milestones=()) == [1, 1]


def test_warm_up_rises_to_where_the_schedule_begins():
    for schedule in ("cosine", "step", "constant"):
        assert scheduled(schedule, (0, 1, 2), warm_up=2) == pytest.approx([0.04, 0.52, 1])
    assert scheduled("cosine", (6, 10), warm_up=2) == pytest.approx([0.5, 0])


def test_losses_are_what_they_say():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        logits, y = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 2, 1, 1, 0])
    for smoothing in (0.0, 0.3):
        share = (1 - smoothing) * np.eye(3)[y] + smoothing / 3
        log_soft = logits.numpy() - np.log(np.exp(logits.numpy()).sum(1, keepdims=True))
        expected = {
            "cross-entropy": -(share * log_soft).sum(1).mean(),
            "mse": np.mean((logits.numpy() - (2 * share - 1)) ** 2),
        }
        for name, loss in LOSSES.items():
            assert float(loss(logits, y, smoothing)) == pytest.approx(expected[name])


@pytest.mark.parametrize("loss", CHOICES["loss"])
def test_every_loss_teaches(loss, data):
    result = train(network(), *data, **{**QUICK, "epochs": 12}, loss=loss)
    assert result.validation_accuracy == 1
    assert result.curve_validation_loss[-1] < result.curve_validation_loss[0]


# ------------------------------------------------------------------------------------------------ on the way


def test_snapshots_are_the_network_as_it_was(data):
    at_each = {}
    net = network()
    before = state(net)
    result = train(
        net,
        *data,
        **QUICK,
        snapshots=range(0, 5, 2),
        callback=lambda epoch, now: at_each.update({epoch: (now.training, state(now))}),
    )
    assert [*result.snapshots] == [0, 2, 4]
    assert [*at_each] == [1, 2, 3, 4]
    assert not any(training for training, _ in at_each.values())
    assert_same_state(state(result.snapshots[0]), before)
    assert_same_state(state(result.snapshots[2]), at_each[2][1])
    assert_same_state(state(result.snapshots[4]), state(net))
    assert result.snapshots[2].architecture == net.architecture
    assert not result.snapshots[2].training
    assert "snapshots" not in result.to_json()


def test_a_training_that_stops_early_has_no_later_snapshots(data, monkeypatch):
    monkeypatch.setattr("npk.networks.run.Run._validate", lambda run: (0.5, len(run.losses)))
    result = train(network(), *data, **{**QUICK, "epochs": 20}, patience=3, snapshots=[0, 2, 20])
    assert [*result.snapshots] == [0, 2]


@pytest.mark.parametrize("kind", ["dgn", "dlgn-sf"])
def test_frozen_gates_are_recorded_once_and_change_nothing(kind, data, monkeypatch):
    """Over two networks whose gates are the same: one records them, one makes them each step."""
    passes = []
    for most in (1 << 30, 1):
        monkeypatch.setattr("npk.networks.run._MOST_GATES", most)
        net, count = network(kind, gates="hard"), []
        net.gating.register_forward_hook(lambda *_, count=count: count.append(1))
        train(net, *data, **QUICK)
        passes.append((len(count), state(net)))
    assert passes[0][0] == 3  # one sample to see the outputs, one to count the gates; then all
    assert passes[1][0] > 4 * 6
    one, two = (found for _, found in passes)
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-5)


def test_gates_of_moving_images_are_not_recorded(data, monkeypatch):
    """Nor those that learn."""
    recorded = []
    real = Run._frozen_gates.func
    monkeypatch.setattr(
        Run, "_frozen_gates", property(lambda run: recorded.append(real(run)) or [])
    )
    train(network("dgn", gates="hard"), *data, **QUICK, augment="shift")
    train(network("dgn"), *data, **QUICK)
    assert recorded
    assert not any(recorded)


# ------------------------------------------------------------------------------------------------ checkpoints


@pytest.mark.parametrize(
    ("kind", "optimizer", "more"),
    [
        ("dnn", "sgd", {"augment": "shift"}),
        ("dlgn", "adam", {"augment": "flip,crop", "select": "accuracy"}),
        ("dgn", "rmsprop", {"select": "loss", "snapshots": [0, 2, 5]}),
    ],
)
def test_killed_training_continues_to_the_same_weights(kind, optimizer, more, data, tmp_path):
    options = {**QUICK, "epochs": 6, "optimizer": optimizer, **more}
    whole = network(kind)
    undisturbed = train(whole, *data, **options)
    path = tmp_path / "state.ckpt"
    killed = network(kind)
    with pytest.raises(Killed):
        train(killed, *data, **{**options, "progress": KilledAfter(4)}, checkpoint=path)
    assert not killed.training
    resumed = network(kind)
    result = train(resumed, *data, **options, checkpoint=path)
    assert result.resumed_from == 4
    assert_same_state(state(resumed), state(whole))
    assert result.curve_train == undisturbed.curve_train
    assert result.curve_validation == undisturbed.curve_validation
    assert result.best_epoch == undisturbed.best_epoch
    assert [*result.snapshots] == [*undisturbed.snapshots] == [*more.get("snapshots", [])]
    for epoch, was in result.snapshots.items():
        assert_same_state(state(was), state(undisturbed.snapshots[epoch]))
    again = network(kind)
    assert train(again, *data, **options, checkpoint=path).resumed_from == 6
    assert_same_state(state(again), state(whole))


def test_checkpoint_of_another_training_is_refused_and_kept(data, tmp_path):
    path = tmp_path / "state.ckpt"
    train(network(), *data, **QUICK, checkpoint=path)
    before = path.read_bytes()
    X, y = data
    for net, samples, options in [
        (network(seed=1), X, {}),
        (network(channels=(6, 7)), X, {}),
        (network(), X + 1, {}),
        (network(), X, {"weight_decay": 0.1}),
        (network("dgn"), X, {}),
    ]:
        with pytest.raises(CheckpointError, match="belongs to another training"):
            train(net, samples, y, **QUICK, **options, checkpoint=path)
    assert path.read_bytes() == before


def test_checkpoint_with_other_frozen_gates_is_refused(data, tmp_path):
    path = tmp_path / "state.ckpt"
    train(
        network("dgn", gates="hard"),
        *data,
        **QUICK,
        regime="flnpf",
        features=network(seed=1),
        checkpoint=path,
    )
    with pytest.raises(CheckpointError, match="belongs to another training"):
        train(
            network("dgn", gates="hard"),
            *data,
            **QUICK,
            regime="flnpf",
            features=network(seed=2),
            checkpoint=path,
        )


def test_unreadable_checkpoints_are_refused(data, tmp_path):
    path = tmp_path / "state.ckpt"
    train(network(), *data, **QUICK, checkpoint=path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"not a checkpoint"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="not a readable training checkpoint"):
            train(network(), *data, **QUICK, checkpoint=path)
    torch.save({"weights": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="is not a checkpoint of"):
        train(network(), *data, **QUICK, checkpoint=path)


# ------------------------------------------------------------------------------------------------ refusals


def _with(X, index, value):
    X = X.copy()
    X.flat[index] = value
    return X


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, y: (X[:0], y[:0]), "X has shape .0, 1, 6, 6."),
        (lambda X, y: (X.astype(str), y), "X has dtype <U32. Give an array of numbers"),
        (lambda X, y: (X, y[:-1]), r"y has shape \(89,\)"),
        (lambda X, y: (X, y + 0.5), "y has shape .90,. and type float64"),
        (lambda X, y: (_with(X, 5, np.nan), y), "X has 1 values that are NaN or infinite"),
        (lambda X, y: (X, y + 1), "y holds classes 1 to 3, the network has 3 outputs"),
        (lambda X, y: (X[..., :5], y), "the network was built for .1, 6, 6."),
        (lambda X, y: (X[:3], y[:3]), "leave none for validation=0.1"),
    ],
)
def test_unfit_data_are_refused(change, message, data):
    with pytest.raises(DataError, match=message):
        train(network(), *change(*data), **QUICK)


def test_augmentations_need_images(data):
    X, y = data
    net = build("fc", input_shape=(36,), classes=3, hidden=(4,))
    for augment in AUGMENTATIONS:
        with pytest.raises(DataError, match=f"augment='{augment}' needs images"):
            train(net, X.reshape(90, 36), y, **QUICK, augment=augment)


def test_crops_leave_something_of_the_images(data):
    with pytest.raises(DataError, match="crops by up to 6 pixels leave nothing of images of 6 x 6"):
        train(network(), *data, **QUICK, augment="flip,crop", shift=6)
    train(network(), *data, **{**QUICK, "epochs": 1}, augment="crop", shift=5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "lion"}, "optimizer is 'lion'"),
        ({"schedule": "steps"}, "schedule is 'steps'"),
        ({"select": "best"}, "select is 'best'"),
        ({"loss": None}, "loss is None, it must be one of cross-entropy, mse"),
        ({"augment": "turn"}, "augment is 'turn', it must name one or several of shift, flip"),
        ({"augment": ["flip", "turn"]}, r"augment is \['flip', 'turn'\]"),
        ({"warm_up": -1}, "warm_up is -1, it must be at least 0"),
        ({"warm_up": 1}, "warm_up is 1, but a one-cycle schedule rises"),
        ({"warm_up": 5, "schedule": "cosine"}, "warm_up is 5 epochs of 4"),
        ({"milestones": [2]}, "milestones belong to schedule='step', and it is 'one-cycle'"),
        ({"milestones": [0], "schedule": "step"}, r"milestones is \[0\].* from 1 to 4"),
        ({"milestones": 2, "schedule": "step"}, "milestones is 2, it must hold ascending"),
        ({"snapshots": [0, 5]}, r"snapshots is \[0, 5\].* from 0 to 4"),
        ({"snapshots": [2, 1]}, "it must hold ascending whole numbers"),
        ({"snapshots": "02"}, "snapshots is '02'"),
        ({"select": "loss", "validation": 0}, "select is 'loss', but no samples are kept"),
        ({"patience": 2, "validation": 0}, "patience is given, but no samples are kept"),
        ({"patience": 2, "select": "last"}, "patience stops where validation gets no better"),
        ({"callback": 3}, "callback is 3, it must be a function of epoch and network"),
        ({"epochs": 0}, "epochs is 0, it must be a positive"),
        ({"batch_size": 2.5}, "batch_size is 2.5"),
        ({"patience": 0}, "patience is 0"),
        ({"validation": 1.0}, "validation is 1.0, it must be at least 0 and below 1"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0"),
        ({"device": "tpu"}, "device is 'tpu'"),
        ({"regime": "npf"}, "regime is 'npf', it must be one of"),
        ({"regime": np.array(["relu"] * 2)}, "regime is array.*, it must be the name of one"),
        ({"checkpoint": 3}, "checkpoint is 3, it must be the path of a file"),
        ({"checkpoint": "a\0b"}, r"checkpoint is 'a\\x00b', it must be the path of a file"),
        ({"seed": 2**32}, "seed is 4294967296, it must be a whole number from 0"),
    ],
)
def test_wrong_options_are_refused(options, message, data):
    with pytest.raises(OptionError, match=message):
        train(network(), *data, **{**QUICK, **options})


def test_a_checkpoint_that_the_system_cannot_look_for_is_refused(data, tmp_path):
    with pytest.raises(CheckpointError, match="cannot look for the checkpoint .*too long. Choose"):
        train(network(), *data, **QUICK, checkpoint=tmp_path / ("9" * 400))


def test_missing_cuda_is_refused(data, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackendError, match="finds no CUDA device"):
        train(network(), *data, **QUICK, device="cuda")


def test_diverging_loss_is_an_error(data):
    net = network(batch_norm=False)
    with pytest.raises(NpkError, match="training diverged: the loss of epoch"):
        train(
            net,
            *data,
            **{**QUICK, "learning_rate": 1e18, "schedule": "constant", "optimizer": "sgd"},
        )
    assert not net.training


@pytest.mark.gpu
def test_training_on_cuda_gives_the_network_back_on_the_cpu(data):
    net = network("dlgn")
    result = train(net, *data, **{**QUICK, "epochs": 12}, device="cuda")
    assert result.validation_accuracy > 0.9
    assert next(net.parameters()).device.type == "cpu"


# ------------------------------------------------------------------------------------------------ recipes


def test_every_recipe_fits_its_data(rng):
    for data, size in (("digits", 8), ("mnist", 28)):
        for family, kind in RECIPES[data]:
            make, fit = recipe(data, family, kind)
            net = build(**make, input_shape=(1, size, size), classes=10, seed=0)
            X, y = rng.random((30, 1, size, size), dtype=np.float32), np.arange(30) % 10
            assert (
                train(net, X, y, **{**fit, "epochs": 1}, validation=0.4, progress=False).epochs == 1
            )


def test_changing_a_recipe_changes_no_other():
    make, _ = recipe("digits", "conv-gap", "dnn")
    before = list(make["channels"])
    make["channels"].append(7)
    assert recipe("digits", "conv-gap", "dnn")[0]["channels"] == before


def test_unknown_recipe_is_refused():
    with pytest.raises(OptionError, match="there is no recipe for 'digits', 'conv', 'dnn'"):
        recipe("digits", "conv", "dnn")
