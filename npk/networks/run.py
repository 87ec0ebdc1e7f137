"""The run of a training: its state between two epochs, and the file that keeps it."""

import copy
import dataclasses
import functools
import json
import math
import pickle
import reprlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from npk.errors import CheckpointError, DataError, NpkError
from npk.files import digest, written_whole
from npk.networks.gated import GatedNetwork
from npk.networks.options import Options
from npk.networks.steps import LOSSES, augmented, optimizer_of, rate_share

FORMAT = "npk training checkpoint 2"
_STATE = ("losses", "accuracies", "held_losses", "best_epoch", "best_score", "kept", "snapshots")
_BATCH = 512  # samples at once where nothing is learnt
_MOST_GATES = 1 << 30  # bytes of frozen gates that are recorded; more are made anew in each step

State = dict[str, Tensor]


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
        self.X, self.y = (torch.from_numpy(array).to(device) for array in data)
        parts = _split(data[1], options.validation, options.seed)
        self.rows, self.held = (torch.from_numpy(part).to(device) for part in parts)
        self.steps = -(-len(self.rows) // options.batch_size)
        self.optimizer, self.loss = optimizer_of(net, options), LOSSES[options.loss]
        self.losses: list[float] = []
        self.accuracies: list[float] = []
        self.held_losses: list[float] = []
        self.best_epoch, self.best_score = 0, (-math.inf, -math.inf)
        self.kept: State = {}  # the weights of the best epoch, where that need not be the last
        self.snapshots: dict[int, State] = {}

    def finished(self) -> bool:
        """All epochs done, or no improvement for ``patience`` epochs."""
        done, patience = len(self.losses), self.options.patience
        return done >= self.options.epochs or (
            patience is not None and done - self.best_epoch >= patience
        )

    def epoch(self) -> None:
        """One pass over the training samples, then validation."""
        number = len(self.losses)
        if number == 0:
            self._snapshot(0)
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
        self.held_losses.append(held_loss)
        self._select(accuracy, held_loss)
        self._snapshot(number + 1)

    def chosen(self) -> State:
        """The weights that the network is to have."""
        return self.kept or self.net.state_dict()

    def _select(self, accuracy: float, loss: float) -> None:
        """Whether this epoch is the best so far."""
        loss = math.inf if math.isnan(loss) else loss
        selection = self.options.selection
        score = (accuracy, -loss) if selection == "accuracy" else (-loss, 0.0)
        if selection == "last" or self.best_epoch == 0 or score > self.best_score:
            self.best_epoch, self.best_score = len(self.losses), score
            self.kept = {} if selection == "last" else copy.deepcopy(self.net.state_dict())

    def _snapshot(self, epoch: int) -> None:
        if epoch in self.options.snapshots:
            self.snapshots[epoch] = copy.deepcopy(self.net.state_dict())

    def _pass(self, number: int) -> float:
        """Mean loss of an epoch of training steps."""
        self.net.train()
        options = self.options
        total, seen = torch.zeros((), device=self.device), 0
        order = self.rows[torch.randperm(len(self.rows)).to(self.device)]
        for step, batch in enumerate(order.split(options.batch_size)):
            if len(batch) == 1 < self.steps:
                continue  # batch norm cannot do with a single sample; another epoch will have it
            share = rate_share(options, number + step / self.steps)
            for group in self.optimizer.param_groups:
                group["lr"] = options.learning_rate * share
            loss = self.loss(self._logits(batch), self.y[batch], options.label_smoothing)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            total, seen = total + loss.detach() * len(batch), seen + len(batch)
        return float(total) / seen

    def _logits(self, rows: Tensor) -> Tensor:
        """Of some samples, in training augmented; under frozen gates that were recorded once."""
        x = self.X[rows]
        if self.net.training:
            x = augmented(x, self.options)
        if isinstance(self.net, GatedNetwork) and self._frozen_gates:
            return self.net.under(x, [gates[rows] for gates in self._frozen_gates])
        return self.net(x)

    @functools.cached_property
    def _frozen_gates(self) -> list[Tensor]:
        """The gates of all samples, layer by layer, where no step changes them and they are few."""
        net = self.net
        if not isinstance(net, GatedNetwork) or not net.is_frozen() or self.options.augmentations:
            return []
        with torch.no_grad():
            size = sum(gates.numel() for gates in net.gates(self.X[:1])) * len(self.X)
            parts = self.X.split(_BATCH) if size <= _MOST_GATES else ()
            made = [[gates.bool() for gates in net.gates(part)] for part in parts]
        return [torch.cat(layer) for layer in zip(*made, strict=True)]

    @torch.no_grad()
    def _validate(self) -> tuple[float, float]:
        """Accuracy and loss on the validation samples."""
        self.net.eval()
        if len(self.held) == 0:
            return math.nan, math.nan
        logits, y = torch.cat([self._logits(rows) for rows in self.held.split(_BATCH)]), self.y
        accuracy = (logits.argmax(1) == y[self.held]).double().mean()
        return float(accuracy), float(self.loss(logits, y[self.held], 0.0))

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
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return 0
        except OSError as error:  # such as a name that is too long
            raise CheckpointError(
                f"cannot look for the checkpoint {reprlib.repr(str(path))}: {error.strerror}. "
                f"Choose another path."
            ) from error
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


def identity_of(
    net: nn.Module, data: tuple[np.ndarray, np.ndarray], options: Options, regime: str
) -> str:
    """Digest of all that decides how a training goes on: network, frozen weights, data, options."""
    shapes = {name: list(p.shape) for name, p in net.named_parameters()}
    architecture = getattr(net, "architecture", None)
    given = [dataclasses.asdict(options), regime, architecture, shapes]
    facts = json.dumps(given, default=lambda number: number.item())  # of NumPy
    frozen = [p.detach().cpu().numpy().tobytes() for p in net.parameters() if not p.requires_grad]
    return digest(facts.encode(), data[0].tobytes(), data[1].tobytes(), *frozen)
