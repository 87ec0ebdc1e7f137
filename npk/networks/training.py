"""The training loop: validation split, seeds, early stopping, checkpoints that resume."""

import contextlib
import copy
import dataclasses
import json
import math
import os
import pickle
import time
from collections.abc import Iterator
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from npk.errors import BackendError, CheckpointError, DataError, NpkError, OptionError
from npk.files import digest, written_whole
from npk.layouts import check_layout, known_shape
from npk.networks.given import as_network
from npk.networks.regimes import default_regime, prepare
from npk.progress import Progress, as_progress
from npk.results import Result
from npk.samples import as_array, as_samples
from npk.typed import finite

FORMAT = "npk training checkpoint 1"


@dataclasses.dataclass(frozen=True)
class TrainingResult(Result):
    """How a training went."""

    regime: str
    epochs: int  # epochs done, fewer than asked for if training stopped early
    # counted from 1, smallest loss on validation; the network has the weights after this epoch
    best_epoch: int
    validation_accuracy: float | None  # at the best epoch, 0..1; None without validation
    curve_train: list[float]  # mean loss of each epoch
    curve_validation: list[float | None]  # accuracy after each epoch; None without validation
    seconds: float  # of this call
    resumed_from: int  # epochs that an earlier call had done


@dataclasses.dataclass(frozen=True)
class _Options:
    """What changes the numbers of a training."""

    validation: float
    epochs: int
    batch_size: int
    optimizer: str
    learning_rate: float
    weight_decay: float
    momentum: float
    schedule: str
    label_smoothing: float
    augment: str | None
    shift: int
    patience: int | None
    seed: int

    def __post_init__(self) -> None:
        choices = {
            "optimizer": ("adam", "sgd"),
            "schedule": ("one-cycle", "cosine", "constant"),
            "augment": (None, "shift"),
        }
        for name, allowed in choices.items():
            if (
                not isinstance(getattr(self, name), str | None)
                or getattr(self, name) not in allowed
            ):
                raise OptionError(
                    f"{name} is {getattr(self, name)!r}, it must be one of "
                    f"{', '.join(map(str, allowed))}. Choose one of these."
                )
        for name in (
            "epochs",
            "batch_size",
            "shift",
            *(("patience",) if self.patience is not None else ()),
        ):
            if not _is_number(getattr(self, name), Integral) or getattr(self, name) < 1:
                raise OptionError(
                    f"{name} is {getattr(self, name)!r}, it must be a positive whole "
                    f"number. Correct it."
                )
        if not _is_number(self.seed, Integral) or not 0 <= self.seed < 2**32:
            raise OptionError(
                f"seed is {self.seed!r}, it must be a whole number from 0 to 2**32 - 1. Correct it."
            )
        for name, top in (
            ("validation", 1),
            ("label_smoothing", 1),
            ("momentum", 1),
            ("weight_decay", math.inf),
            ("learning_rate", math.inf),
        ):
            if not _is_number(getattr(self, name), Real) or not 0 <= getattr(self, name) < top:
                raise OptionError(
                    f"{name} is {getattr(self, name)!r}, it must be at least 0 and "
                    f"below {top}. Correct it."
                )


def _is_number(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


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
    learning_rate: float = 3e-3,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    schedule: str = "one-cycle",
    label_smoothing: float = 0.0,
    augment: str | None = None,
    shift: int = 1,
    patience: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    checkpoint: str | os.PathLike | None = None,
    progress: bool | Progress = True,
) -> TrainingResult:
    """Train ``net`` in place by softmax cross-entropy; it gets the weights of the epoch with the
    smallest loss on validation.

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
        validation: share of each class kept for validation; with 0 the last epoch's weights are
            kept.
        epochs: passes over the training samples.
        batch_size: samples a step.
        optimizer: ``"adam"`` (with decoupled weight decay) | ``"sgd"``.
        learning_rate: the largest of the schedule.
        weight_decay: of every parameter that learns.
        momentum: of ``"sgd"``.
        schedule: ``"one-cycle"`` (30 % rise, then cosine fall) | ``"cosine"`` | ``"constant"``.
        label_smoothing: share of the target that is spread over all classes.
        augment: ``"shift"``: each image is shifted circularly, at random, by up to ``shift`` pixels
            both ways.
        shift: see ``augment``.
        patience: stop after so many epochs without improvement.
        seed: of split, order and augmentation; torch's global random state is left alone.
        device: ``"cpu"`` | ``"cuda"``.
        checkpoint: file for the state of the training, written after each epoch; an existing one is
            resumed.
        progress: a bar, silence, or a progress object.

    Returns:
        Losses, accuracies, best epoch, seconds.

    Raises:
        DataError: samples or labels that are empty, not finite, or do not fit each other or the
            network.
        OptionError: an option that is unknown or does not suit the network.
        BackendError: no such device here.
        CheckpointError: the checkpoint is unreadable or belongs to another training.
        NpkError: the loss diverged.
    """
    given = locals()
    options = _Options(**{field.name: given[field.name] for field in dataclasses.fields(_Options)})
    as_network(net)
    start, data = time.perf_counter(), _checked(net, X, y, augment)
    if not isinstance(regime, str | None):
        raise OptionError(f"regime is {regime!r}, it must be the name of one. Correct it.")
    regime = default_regime(net) if regime is None else regime
    if checkpoint is not None and not isinstance(checkpoint, (str, os.PathLike)):
        raise OptionError(
            f"checkpoint is {checkpoint!r}, it must be the path of a file. Correct it."
        )
    prepare(net, regime, features=features)
    with _borrowed(net, device):
        run = _Run(net, data, options, torch.device(device))
        identity = _identity(net, data, options, regime) if checkpoint is not None else ""
        resumed_from = run.resume(Path(checkpoint), identity) if checkpoint is not None else 0
        with as_progress(progress).task(
            f"train {getattr(net, 'architecture', {}).get('kind', 'network')}", epochs
        ) as advance:
            advance(resumed_from)
            while not run.finished():
                run.epoch()
                if checkpoint is not None:
                    run.save(Path(checkpoint), identity)
                advance(1)
        net.load_state_dict(run.best_state)
    return TrainingResult(
        regime=regime,
        epochs=len(run.losses),
        best_epoch=run.best_epoch,
        validation_accuracy=finite(run.accuracies[run.best_epoch - 1]),
        curve_train=run.losses,
        curve_validation=[finite(accuracy) for accuracy in run.accuracies],
        seconds=time.perf_counter() - start,
        resumed_from=resumed_from,
    )


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
    net: nn.Module, X: np.ndarray, y: np.ndarray, augment: str | None
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
    if augment == "shift" and X.ndim != 4:
        raise DataError(
            f"augment='shift' needs images (n, channels, height, width), X has shape "
            f"{X.shape}. Leave augment out."
        )
    X, y = np.require(X, np.float32, ["C", "W"]), y.astype(np.int64)
    classes = _outputs(net, X)
    if y.min() < 0 or y.max() >= classes:
        raise DataError(
            f"y holds classes {y.min()} to {y.max()}, the network has {classes} "
            f"outputs. Number the classes from 0."
        )
    return X, y


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
            found = net(torch.tensor(X[:1], device=next(net.parameters()).device))
    except NpkError:
        raise
    except Exception as error:  # of the user's own code: of any kind
        why = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise DataError(
            f"the network does not take samples of shape {X.shape[1:]}: {why}. Give X "
            f"the shape it was made for."
        ) from error
    if not isinstance(found, torch.Tensor) or found.ndim != 2:
        if isinstance(found, torch.Tensor):
            what = f"shape {tuple(found.shape)}"
        else:
            what = f"type {type(found).__name__}"
        raise DataError(
            f"the network gives an output of {what} for one sample. Train one that "
            f"gives logits (n, classes)."
        )
    return found.shape[1]


def _split(y: np.ndarray, validation: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of training and validation samples: of every class the same share."""
    rng = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(y):
        members = rng.permutation(np.flatnonzero(y == label))
        chosen.append(members[: round(validation * len(members))])
    held = np.sort(np.concatenate(chosen))
    if validation > 0 and len(held) == 0:
        raise DataError(
            f"{len(y)} samples leave none for validation={validation}. Give more "
            f"samples or a larger share, or validation=0."
        )
    return np.setdiff1d(np.arange(len(y)), held), held


class _Run:
    """The state of a training between two epochs."""

    def __init__(
        self,
        net: nn.Module,
        data: tuple[np.ndarray, np.ndarray],
        options: _Options,
        device: torch.device,
    ):
        self.net, self.options, self.device = net, options, device
        X, y = (torch.from_numpy(array).to(device) for array in data)
        kept, held = (
            torch.from_numpy(part).to(device)
            for part in _split(data[1], options.validation, options.seed)
        )
        self.X, self.y, self.X_held, self.y_held = X[kept], y[kept], X[held], y[held]
        self.steps = -(-len(kept) // options.batch_size)
        self.optimizer = _optimizer(net, options)
        self.losses: list[float] = []
        self.accuracies: list[float] = []
        self.best_epoch, self.best_loss = 0, math.inf
        self.best_state: dict[str, Tensor] = {}

    def finished(self) -> bool:
        """All epochs done, or no improvement for ``patience`` epochs."""
        done, patience = len(self.losses), self.options.patience
        return done >= self.options.epochs or (
            patience is not None and done - self.best_epoch >= patience
        )

    def epoch(self) -> None:
        """One pass over the training samples, then validation."""
        number = len(self.losses)
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            # a function of the epoch: nothing to store for a resume
            torch.manual_seed(self.options.seed * 1_000_003 + number)
            loss = self._pass(number)
        if not math.isfinite(loss):
            rate = self.options.learning_rate
            raise NpkError(
                f"training diverged: the loss of epoch {number + 1} is {loss}. Lower "
                f"learning_rate (now {rate:g}) or scale X."
            )
        self.losses.append(loss)
        accuracy, held_loss = self._validate()
        self.accuracies.append(accuracy)
        if len(self.y_held) == 0 or held_loss < self.best_loss or not self.best_state:
            self.best_epoch, self.best_loss = number + 1, held_loss
            self.best_state = copy.deepcopy(self.net.state_dict())

    def _pass(self, number: int) -> float:
        """Mean loss of an epoch of training steps."""
        self.net.train()
        total, seen = torch.zeros((), device=self.device), 0
        for step, batch in enumerate(
            torch.randperm(len(self.X)).to(self.device).split(self.options.batch_size)
        ):
            if len(batch) == 1 < self.steps:
                continue  # batch norm cannot do with a single sample; another epoch will have it
            for group in self.optimizer.param_groups:
                group["lr"] = self.options.learning_rate * _factor(
                    self.options.schedule, number + step / self.steps, self.options.epochs
                )
            if self.options.augment == "shift":
                x = _shifted(self.X[batch], self.options.shift)
            else:
                x = self.X[batch]
            loss = functional.cross_entropy(
                self.net(x), self.y[batch], label_smoothing=self.options.label_smoothing
            )
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            total, seen = total + loss.detach() * len(batch), seen + len(batch)
        return float(total) / seen

    @torch.no_grad()
    def _validate(self) -> tuple[float, float]:
        """Accuracy and loss on the validation samples; the loss, the less noisy one, chooses."""
        self.net.eval()
        if len(self.y_held) == 0:
            return math.nan, math.nan
        logits = torch.cat([self.net(x.clone()) for x in self.X_held.split(512)])
        accuracy = (logits.argmax(1) == self.y_held).double().mean()
        return float(accuracy), float(functional.cross_entropy(logits, self.y_held))

    def save(self, path: Path, identity: str) -> None:
        """Write the state whole or not at all."""
        state = {
            "format": FORMAT,
            "identity": identity,
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best_state": self.best_state,
            **{
                name: getattr(self, name)
                for name in ("losses", "accuracies", "best_epoch", "best_loss")
            },
        }
        with written_whole(path) as temporary:
            torch.save(state, temporary)

    def resume(self, path: Path, identity: str) -> int:
        """Take up the state in ``path``, if there is one; gives the epochs that it had done."""
        if not path.exists():
            return 0
        state = _read(path, self.device)
        if state["identity"] != identity:
            message = (
                f"{path} belongs to another training (network, data, regime or options differ)."
            )
            raise CheckpointError(f"{message} Choose another checkpoint, or delete it.")
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name in ("losses", "accuracies", "best_epoch", "best_loss", "best_state"):
            setattr(self, name, state[name])
        return len(self.losses)


def _read(path: Path, device: torch.device) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{path} is not a readable training checkpoint. Was it cut off? Choose another path, "
            f"or delete it."
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is not a checkpoint of `{FORMAT}`. Choose another path, or delete it."
        )
    return state


def _optimizer(net: nn.Module, options: _Options) -> torch.optim.Optimizer:
    learning = [p for p in net.parameters() if p.requires_grad]
    if options.optimizer == "adam":
        return torch.optim.AdamW(
            learning, lr=options.learning_rate, weight_decay=options.weight_decay
        )
    return torch.optim.SGD(
        learning,
        lr=options.learning_rate,
        momentum=options.momentum,
        weight_decay=options.weight_decay,
    )


def _factor(schedule: str, epoch: float, epochs: int) -> float:
    """Share of the largest learning rate after ``epoch`` of ``epochs``."""
    if schedule == "constant":
        return 1.0
    rise = 0.3 * epochs if schedule == "one-cycle" else 0.0
    if epoch < rise:
        return 0.04 + 0.96 * epoch / rise
    return 0.5 * (1 + math.cos(math.pi * (epoch - rise) / (epochs - rise)))


def _shifted(x: Tensor, shift: int) -> Tensor:
    """Each image shifted circularly by its own random offset of at most ``shift`` pixels."""
    n, _, height, width = x.shape
    down, right = torch.randint(-shift, shift + 1, (2, n, 1)).to(x.device)
    rows = (torch.arange(height, device=x.device) + down) % height
    columns = (torch.arange(width, device=x.device) + right) % width
    samples = torch.arange(n, device=x.device)[:, None, None]
    return x.transpose(0, 1)[:, samples, rows[:, :, None], columns[:, None, :]].transpose(0, 1)


def _identity(
    net: nn.Module, data: tuple[np.ndarray, np.ndarray], options: _Options, regime: str
) -> str:
    """Digest of all that decides how a training goes on: network, frozen weights, data, options."""
    shapes = {name: list(p.shape) for name, p in net.named_parameters()}
    facts = json.dumps(
        [dataclasses.asdict(options), regime, getattr(net, "architecture", None), shapes]
    )
    frozen = [p.detach().cpu().numpy().tobytes() for p in net.parameters() if not p.requires_grad]
    return digest(facts.encode(), data[0].tobytes(), data[1].tobytes(), *frozen)
