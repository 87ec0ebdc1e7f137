"""What the papers train: networks of three kinds, their training regimes, the training loop."""

from npk.networks.building import build, describe
from npk.networks.gated import permute_gates
from npk.networks.gating import Gate, gate
from npk.networks.recipes import RECIPES, recipe
from npk.networks.regimes import prepare
from npk.networks.training import TrainingResult, train

__all__ = [
    "RECIPES",
    "Gate",
    "TrainingResult",
    "build",
    "describe",
    "gate",
    "permute_gates",
    "prepare",
    "recipe",
    "train",
]
