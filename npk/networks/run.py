"""The run of a training: its options, its state between two epochs, and the file that keeps it."""

import copy
import dataclasses
import json
import math
import pickle
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from npk.errors import CheckpointError, DataError, NpkError, OptionError
from npk.files import digest, written_whole

FORMAT = "npk training checkpoint 1"
_STATE = ("best_state", "losses", "accuracies", "best_epoch", "best_loss")


@dataclasses.dataclass(frozen=True)
class Options:
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
            value = getattr(self, name)
            if not isinstance(value, str | None) or value not in allowed:
                raise OptionError(
                    f"{name} is {value!r}, it must be one of {', '.join(map(str, allowed))}. "
                    f"Choose one of these."
                )
        patience = () if self.patience is None else ("patience",)
        for name in ("epochs", "batch_size", "shift", *patience):
            value = getattr(self, name)
            if not _is_number(value, Integral) or value < 1:
                raise OptionError(
                    f"{name} is {value!r}, it must be a positive whole number. Correct it."
                )
        if not _is_number(self.seed, Integral) or not 0 <= self.seed < 2**32:
            raise OptionError(
                f"seed is {self.seed!r}, it must be a whole number from 0 to 2**32 - 1. Correct it."
            )
        shares = ("validation", "label_smoothing", "momentum")
        for name in (*shares, "weight_decay", "learning_rate"):
            value, top = getattr(self, name), 1 if name in shares else math.inf
            if not _is_number(value, Real) or not 0 <= value < top:
                raise OptionError(
                    f"{name} is {value!r}, it must be at least 0 and below {top}. Correct it."
                )


def _is_number(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


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


class Run:
    """The state of a training between two epochs."""

    def __init__(
        self,
        net: nn.Module,
        data: tuple[np.ndarray, np.ndarray],
        options: Options,
        device: torch.device,
    ):
        self.net, self.options, self.device = net, options, device
        X, y = (torch.from_numpy(array).to(device) for array in data)
        parts = _split(data[1], options.validation, options.seed)
        kept, held = (torch.from_numpy(part).to(device) for part in parts)
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
        options, smoothing = self.options, self.options.label_smoothing
        total, seen = torch.zeros((), device=self.device), 0
        order = torch.randperm(len(self.X)).to(self.device)
        for step, batch in enumerate(order.split(options.batch_size)):
            if len(batch) == 1 < self.steps:
                continue  # batch norm cannot do with a single sample; another epoch will have it
            share = _factor(options.schedule, number + step / self.steps, options.epochs)
            for group in self.optimizer.param_groups:
                group["lr"] = options.learning_rate * share
            x = self.X[batch]
            if options.augment == "shift":
                x = _shifted(x, options.shift)
            loss = functional.cross_entropy(self.net(x), self.y[batch], label_smoothing=smoothing)
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
            **{name: getattr(self, name) for name in _STATE},
        }
        with written_whole(path) as temporary:
            torch.save(state, temporary)

    def resume(self, path: Path, identity: str) -> int:
        """Take up the state in ``path``, if there is one; gives the epochs that it had done."""
        if not path.exists():
            return 0
        state = _read(path, self.device)
        if state["identity"] != identity:
            raise CheckpointError(
                f"{path} belongs to another training (network, data, regime or options differ). "
                f"Choose another checkpoint, or delete it."
            )
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name in _STATE:
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


def _optimizer(net: nn.Module, options: Options) -> torch.optim.Optimizer:
    learning = [p for p in net.parameters() if p.requires_grad]
    rate, decay = options.learning_rate, options.weight_decay
    if options.optimizer == "adam":
        return torch.optim.AdamW(learning, lr=rate, weight_decay=decay)
    return torch.optim.SGD(learning, lr=rate, momentum=options.momentum, weight_decay=decay)


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


def identity_of(
    net: nn.Module, data: tuple[np.ndarray, np.ndarray], options: Options, regime: str
) -> str:
    """Digest of all that decides how a training goes on: network, frozen weights, data, options."""
    shapes = {name: list(p.shape) for name, p in net.named_parameters()}
    architecture = getattr(net, "architecture", None)
    facts = json.dumps([dataclasses.asdict(options), regime, architecture, shapes])
    frozen = [p.detach().cpu().numpy().tobytes() for p in net.parameters() if not p.requires_grad]
    return digest(facts.encode(), data[0].tobytes(), data[1].tobytes(), *frozen)
