"""The training of a network: what is asked and checked, and the loop over epochs."""

import contextlib
import copy
import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from npk.errors import BackendError, DataError, NpkError, OptionError
from npk.layouts import check_layout, known_shape
from npk.networks.given import as_network
from npk.networks.options import Options
from npk.networks.regimes import default_regime, prepare
from npk.networks.run import Run, State, identity_of
from npk.progress import Progress, as_progress
from npk.results import Result
from npk.samples import as_array, as_samples
from npk.typed import STAYS, finite


@dataclasses.dataclass(frozen=True)
class TrainingResult(Result):
    """How a training went. Written as JSON it leaves out the networks of ``snapshots``."""

    regime: str
    select: str  # which epoch was taken: "last" | "accuracy" | "loss"
    epochs: int  # epochs done, fewer than asked for if training stopped early
    best_epoch: int  # counted from 1, the one that was taken: its weights are the network's
    validation_accuracy: float | None  # after that epoch, 0..1; None without validation
    curve_train: list[float]  # mean loss of each epoch
    curve_validation: list[float | None]  # accuracy after each epoch; None without validation
    curve_validation_loss: list[float | None]  # loss after each epoch; None where it is not finite
    seconds: float  # of this call
    resumed_from: int  # epochs that an earlier call had done
    # the network as it was after these epochs
    snapshots: dict[int, nn.Module] = dataclasses.field(
        default_factory=dict, repr=False, compare=False, metadata=STAYS
    )


def train(
    net: nn.Module,
    X: np.ndarray,
    y: np.ndarray,
    *,
    regime: str | None = None,
    features: nn.Module | None = None,
    validation: float = 0.1,
    epochs: int = 60,
    batch_size: int = 64,
    optimizer: str = "adam",
    loss: str = "cross-entropy",
    learning_rate: float = 3e-3,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    schedule: str = "one-cycle",
    warm_up: float = 0,
    milestones: Sequence[int] | None = None,
    label_smoothing: float = 0.0,
    augment: str | Sequence[str] | None = None,
    shift: int = 1,
    select: str | None = None,
    patience: int | None = None,
    snapshots: Sequence[int] = (),
    callback: Callable[[int, nn.Module], object] | None = None,
    seed: int = 0,
    device: str = "cpu",
    checkpoint: str | os.PathLike | None = None,
    progress: bool | Progress = True,
) -> TrainingResult:
    """Train ``net`` in place; it gets the weights of the epoch that ``select`` names.

    The validation samples are a stratified share of ``X``; a test set is never seen. The network
    ends in evaluation mode, on the device it came from. With ``checkpoint``, a training that was
    killed continues and ends with the weights of an undisturbed one.

    Args:
        net: a network made by :func:`npk.networks.build`, or any module from samples to logits.
        X: samples (n, channels, height, width) or (n, d), in any of the forms that
            :mod:`npk.samples` lists.
        y: class numbers (n,), from 0.
        regime: see :func:`npk.networks.regimes.prepare`; ``None``: relu for plain networks, dlnpf
            for soft and frnpf-ii for hard gates.
        features: the trained network whose gates regime ``"flnpf"`` copies.
        validation: share of each class kept for validation.
        epochs: passes over the training samples.
        batch_size: samples a step.
        optimizer: ``"adam"`` (with decoupled weight decay) | ``"sgd"`` | ``"rmsprop"``.
        loss: ``"cross-entropy"`` (of the softmax) | ``"mse"``, the mean of squared distances to 1
            for the class and -1 for the others.
        learning_rate: the largest of the schedule.
        weight_decay: of every parameter that learns.
        momentum: of ``"sgd"``.
        schedule: ``"one-cycle"`` (30 % rise, then cosine fall to 0) | ``"cosine"`` (fall to 0) |
            ``"step"`` (divided by 10 at each of ``milestones``) | ``"constant"``.
        warm_up: epochs, also parts of one, in which the rate rises linearly to where the schedule
            begins; one-cycle has a rise of its own.
        milestones: after which epochs ``"step"`` divides the rate; ``None``: after half and three
            quarters of all.
        label_smoothing: share of the target that is spread over all classes.
        augment: what happens to each image at random: ``"shift"`` (moved circularly by up to
            ``shift`` pixels both ways), ``"flip"`` (left for right), ``"crop"`` (moved with zeros
            around the image: a crop of the padded image); several as ``"flip,crop"`` or a list.
        shift: pixels of ``"shift"`` and ``"crop"``.
        select: whose weights the network gets: those of the ``"last"`` epoch, of the one with the
            largest ``"accuracy"`` or with the smallest ``"loss"`` on validation. ``None``: the
            last where the schedule ends at rate 0 (one-cycle, cosine) or nothing is kept for
            validation, else by accuracy; with ``patience`` by loss.
        patience: stop after so many epochs that are not better by ``select``.
        snapshots: after which epochs a copy of the network is kept, 0 for before training.
        callback: called as ``callback(epoch, net)`` after each epoch, from 1, with the network in
            evaluation mode on ``device``. It must not change the network.
        seed: of split, order and augmentation; torch's global random state is left alone.
        device: ``"cpu"`` | ``"cuda"``.
        checkpoint: file for the state of the training, written after each epoch; an existing one is
            resumed.
        progress: a bar, silence, or a progress object.

    Returns:
        Losses, accuracies, the epoch that was taken, seconds, and ``snapshots``, a network an epoch.

    Raises:
        DataError: samples or labels that are empty, not finite, or do not fit each other or the
            network.
        OptionError: an option that is unknown or does not suit the network.
        BackendError: no such device here.
        CheckpointError: the checkpoint is unreadable or belongs to another training.
        NpkError: the loss diverged.
    """
    given = locals()
    options = Options(**{field.name: given[field.name] for field in dataclasses.fields(Options)})
    as_network(net)
    start, data = time.perf_counter(), _checked(net, X, y, options)
    regime = _checked_regime(net, regime)
    _check_kinds(checkpoint, callback)
    prepare(net, regime, features=features)
    with _borrowed(net, device):
        run = Run(net, data, options, torch.device(device))
        identity = identity_of(net, data, options, regime) if checkpoint is not None else ""
        resumed_from = run.resume(Path(checkpoint), identity) if checkpoint is not None else 0
        kind = getattr(net, "architecture", {}).get("kind", "network")
        with as_progress(progress).task(f"train {kind}", epochs) as advance:
            advance(resumed_from)
            while not run.finished():
                run.epoch()
                if checkpoint is not None:
                    run.save(Path(checkpoint), identity)
                if callback is not None:
                    callback(len(run.losses), net.eval())
                advance(1)
        net.load_state_dict(run.chosen())
    return TrainingResult(
        regime=regime,
        select=options.selection,
        epochs=len(run.losses),
        best_epoch=run.best_epoch,
        validation_accuracy=finite(run.accuracies[run.best_epoch - 1]),
        curve_train=run.losses,
        curve_validation=[finite(accuracy) for accuracy in run.accuracies],
        curve_validation_loss=[finite(loss) for loss in run.held_losses],
        seconds=time.perf_counter() - start,
        resumed_from=resumed_from,
        snapshots={epoch: _as_it_was(net, state) for epoch, state in run.snapshots.items()},
    )


def _checked_regime(net: nn.Module, regime: str | None) -> str:
    if not isinstance(regime, str | None):
        raise OptionError(f"regime is {regime!r}, it must be the name of one. Correct it.")
    return default_regime(net) if regime is None else regime


def _check_kinds(checkpoint: object, callback: object) -> None:
    if checkpoint is not None and (
        not isinstance(checkpoint, (str, os.PathLike)) or "\0" in str(checkpoint)
    ):
        raise OptionError(
            f"checkpoint is {checkpoint!r}, it must be the path of a file. Correct it."
        )
    if callback is not None and not callable(callback):
        raise OptionError(
            f"callback is {callback!r}, it must be a function of epoch and network. Correct it."
        )


def _as_it_was(net: nn.Module, state: State) -> nn.Module:
    """A copy of the network with other weights."""
    past = copy.deepcopy(net)
    past.load_state_dict(state)
    return past


@contextlib.contextmanager
def _borrowed(net: nn.Module, device: str) -> Iterator[None]:
    """The network on ``device``; afterwards in evaluation mode where it came from."""
    if not isinstance(device, str) or device not in ("cpu", "cuda"):
        raise OptionError(f"device is {device!r}, it must be cpu or cuda. Choose one of these.")
    if device == "cuda" and not torch.cuda.is_available():
        raise BackendError(
            "device is 'cuda', but torch finds no CUDA device here. Use device='cpu'."
        )
    home = next(net.parameters()).device
    try:
        net.to(device)
        yield
    finally:
        net.to(home).eval()


def _checked(
    net: nn.Module, X: np.ndarray, y: np.ndarray, options: Options
) -> tuple[np.ndarray, np.ndarray]:
    """The samples as float32 and the labels as int64, fit for this network."""
    if not isinstance(net, nn.Module) or next(net.parameters(), None) is None:
        raise OptionError(
            f"net is of type {type(net).__name__} without parameters. Give a torch "
            f"module with weights to train."
        )
    X, y = as_samples(X), as_array(y, "y")
    if y.shape != (len(X),) or y.dtype.kind not in "iu":
        raise DataError(
            f"y has shape {y.shape} and type {y.dtype}, X has {len(X)} samples. Give "
            f"one whole class number a sample."
        )
    _check_images(X.shape, options)
    X, y = np.require(X, np.float32, ["C", "W"]), y.astype(np.int64)
    classes = _outputs(net, X)
    if y.min() < 0 or y.max() >= classes:
        raise DataError(
            f"y holds classes {y.min()} to {y.max()}, the network has {classes} "
            f"outputs. Number the classes from 0."
        )
    return X, y


def _check_images(shape: tuple[int, ...], options: Options) -> None:
    """Refuse augmentations of what is no image, or that leave nothing of it."""
    if not options.augmentations:
        return
    if len(shape) != 4:
        raise DataError(
            f"augment={options.augment!r} needs images (n, channels, height, width), X has shape "
            f"{shape}. Leave augment out."
        )
    if "crop" in options.augmentations and options.shift >= min(shape[2:]):
        raise DataError(
            f"crops by up to {options.shift} pixels leave nothing of images of {shape[2]} x "
            f"{shape[3]}. Give a smaller shift."
        )


def _outputs(net: nn.Module, X: np.ndarray) -> int:
    """Number of outputs, found by passing one sample through."""
    check_layout(net, X.shape)
    expected = known_shape(net)
    if expected is not None and X.shape[1:] != expected:
        raise DataError(
            f"X has samples of shape {list(X.shape[1:])}, the network was built for "
            f"{list(expected)}. Reshape X or build another network."
        )
    net.eval()
    try:
        with torch.no_grad():
            # a copy: it may work in place
            logits = net(torch.tensor(X[:1], device=next(net.parameters()).device))
    except NpkError:
        raise
    except Exception as error:  # of the user's own code: of any kind
        why = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise DataError(
            f"the network does not take samples of shape {X.shape[1:]}: {why}. Give X "
            f"the shape it was made for."
        ) from error
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
        is_tensor = isinstance(logits, torch.Tensor)
        what = f"shape {tuple(logits.shape)}" if is_tensor else f"type {type(logits).__name__}"
        raise DataError(
            f"the network gives an output of {what} for one sample. Train one that "
            f"gives logits (n, classes)."
        )
    return logits.shape[1]
