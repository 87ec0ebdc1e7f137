"""Training from the command line: build, train, measure, save."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npk.cli.reading import SHARE, network, settings, training_and_test
from npk.data import Dataset
from npk.errors import OptionError

if TYPE_CHECKING:
    from torch import nn


def check_checkpoint(out: Path) -> None:
    """Refuse a checkpoint that could not describe its network, before the training.

    Raises:
        OptionError: not a .safetensors file.
    """
    if out.suffix.lower() != ".safetensors":
        raise OptionError(
            f"--out {out} is no .safetensors file, the kind that describes its network. Give for "
            f"instance --out model.safetensors."
        )


def train_and_save(
    arch: str,
    kind: str,
    data: str,
    out: Path,
    *,
    options: Sequence[str],
    features: Path | None,
    **training: Any,
) -> str:
    """Train on three quarters of the data, measure on the last quarter, save with what was found.

    Args:
        arch: of :func:`npk.networks.build`.
        kind: of :func:`npk.networks.build`.
        data: DATA.
        out: the checkpoint.
        options: ``key=json`` for :func:`npk.networks.build`.
        features: checkpoint of the network whose gates are copied.
        **training: of :func:`npk.networks.train`; ``seed`` is that of the weights and of the split
            too.

    Returns:
        What came out, in a line.
    """
    from npk.checkpoint import save
    from npk.demo.networks import accuracy
    from npk.networks import describe, train

    seed = training["seed"]
    kept, held = training_and_test(data, None, seed)
    net = built(arch, kind, kept, seed, settings(options))
    lent = None if features is None else network(features)
    found = train(net, kept.X, kept.require_labels(), features=lent, progress=True, **training)
    right = accuracy(net, held.X, held.require_labels())
    save(
        net,
        out,
        accuracy=right,
        data=data,
        seed=seed,
        test=SHARE,
        regime=found.regime,
        epoch=found.best_epoch,
    )
    return (
        f"{out}: {describe(net)}; test accuracy {100 * right:.1f} % ({len(held)} samples), "
        f"epoch {found.best_epoch} of {found.epochs}"
    )


def built(arch: str, kind: str, data: Dataset, seed: int, options: dict[str, Any]) -> "nn.Module":
    """A fresh network for a data set.

    Raises:
        OptionError: options of the wrong type.
    """
    from npk.networks import build

    try:
        return build(
            arch,
            kind,
            input_shape=data.X.shape[1:],
            classes=len(data.classes),
            seed=seed,
            **options,
        )
    except TypeError as error:
        raise OptionError(
            f"the options of {arch} cannot be used ({error}). Write numbers and lists as JSON, "
            f"such as channels=[64,64]."
        ) from error
