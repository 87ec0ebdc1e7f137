"""Recipes: build and train arguments that were tuned on the demo's data sets.

Two families: ``conv-gap`` is shift-invariant (circular padding and a global pool; for digits
without any stride, hence under all shifts; for mnist with two strides of 2, hence under shifts by
multiples of 4), ``conv-flat`` keeps position.
"""

import copy
from typing import Any

from npk.errors import OptionError

_GAP = {
    "arch": "conv",
    "channels": [64, 64, 64],
    "padding": "circular",
    "readout": "gap",
    "bias": False,
    "batch_norm": True,
}
_FLAT = {
    "arch": "conv",
    "channels": [64, 64],
    "padding": "zero",
    "readout": "flatten",
    "bias": False,
    "batch_norm": True,
}

_BY_LOSS = {"select": "loss"}  # the epoch with the smallest loss on validation: so they were tuned
_SHIFTED = {**_BY_LOSS, "augment": "shift"}

_DIGITS = {
    "conv-gap": (
        {**_GAP, "channels": [48, 48, 48], "strides": [1, 1, 1]},
        {**_BY_LOSS, "epochs": 28},
    ),
    "conv-flat": ({**_FLAT, "strides": [1, 2]}, {**_SHIFTED, "epochs": 30, "shift": 1}),
}
_MNIST = {
    "conv-gap": ({**_GAP, "strides": [2, 2, 1]}, {**_SHIFTED, "epochs": 12, "shift": 2}),
    "conv-flat": ({**_FLAT, "strides": [2, 2]}, {**_SHIFTED, "epochs": 15, "shift": 2}),
}
FAMILIES = tuple(_DIGITS)
KINDS = ("dnn", "dgn", "dlgn")


def _recipes(
    families: dict[str, tuple[dict, dict]],
) -> dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any]]]:
    return {
        (family, kind): ({**make, "kind": kind}, dict(fit))
        for family, (make, fit) in families.items()
        for kind in KINDS
    }


RECIPES = {"digits": _recipes(_DIGITS), "mnist": _recipes(_MNIST)}


def recipe(data: str, family: str, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments for :func:`npk.networks.build` (all but ``input_shape``, ``classes`` and
    ``seed``) and :func:`npk.networks.train`.

    Args:
        data: ``"digits"`` (8 x 8) | ``"mnist"`` (28 x 28).
        family: ``"conv-gap"`` | ``"conv-flat"``.
        kind: ``"dnn"`` | ``"dgn"`` | ``"dlgn"``.

    Returns:
        Two dictionaries of the caller's own.

    Raises:
        OptionError: there is no such recipe.
    """
    if data not in RECIPES or (family, kind) not in RECIPES[data]:
        names = (
            f"data {', '.join(RECIPES)}; families {', '.join(FAMILIES)}; kinds {', '.join(KINDS)}"
        )
        raise OptionError(
            f"there is no recipe for {data!r}, {family!r}, {kind!r}. There are {names}."
        )
    return copy.deepcopy(RECIPES[data][family, kind])
