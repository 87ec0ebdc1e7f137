"""Residual networks of the demo: their kernel is the sum of the kernels of all sub-networks."""

from typing import TYPE_CHECKING

from npk.checks.ensemble import check_ensemble
from npk.progress import Progress
from npk.results import CheckResult

if TYPE_CHECKING:
    import torch

    from npk.demo import Samples

_SAMPLES = 4


def ensembles(samples: "Samples", seed: int, progress: Progress) -> tuple[CheckResult, ...]:
    """The sum over sub-networks, without a gate after the sums and with one.

    Args:
        samples: of the demo.
        seed: of weights and training.
        progress: counts networks.

    Returns:
        A check a network; the product form holds without such gates only.
    """
    results, X = [], samples.test.X[:_SAMPLES]
    with progress.task("residual networks", 2) as advance:
        for skip in ("ungated", "gated"):
            net = _residual(samples, skip, seed)
            results.append(check_ensemble(net, X, name=f"residual network, {skip} skips"))
            advance(1)
    return tuple(results)


def _residual(samples: "Samples", skip: str, seed: int) -> "torch.nn.Module":
    """A small dense residual network, trained for a moment so that its gates are not random."""
    from npk import networks

    shape, classes = list(samples.train.X.shape[1:]), len(samples.classes)
    net = networks.build(
        "residual",
        input_shape=shape,
        classes=classes,
        flavor="fc",
        widths=[64] * 4,
        block_layers=1 if skip == "ungated" else 2,
        skip=skip,
        seed=seed,
    )
    networks.train(
        net, samples.train.X, samples.train.require_labels(), epochs=5, seed=seed, progress=False
    )
    return net
