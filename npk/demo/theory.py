"""The demo's checks of the theory: where it holds, and networks built so that it must not."""

import dataclasses
import math
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from npk.checks.duality import check_duality
from npk.checks.ensemble import check_ensemble
from npk.checks.invariance import check_invariance
from npk.progress import Progress
from npk.results import CheckResult, InvarianceDetails

if TYPE_CHECKING:
    import torch

    from npk.demo import Samples
    from npk.demo.networks import Trained

_SAMPLES = 4
_BROKEN = 1e-3  # a deviation that no rounding makes


def check_theory(
    samples: "Samples", networks: list["Trained"], seed: int, progress: Progress
) -> tuple[CheckResult, ...]:
    """Duality of all networks, invariance with counter-examples, the residual ensemble."""
    X = samples.test.X
    with progress.task("checks of the theory", len(networks) + 3) as advance:
        results = []
        for trained in networks:
            summary = trained.summary
            found = check_duality(trained.net, X, seed=seed, name=summary.name, progress=False)
            results.append(found)
            advance(1)
        results.append(_invariance(networks, X[:_SAMPLES], seed))
        advance(1)
        for skip in ("ungated", "gated"):
            results.append(
                check_ensemble(
                    _residual(samples, skip, seed),
                    X[:_SAMPLES],
                    name=f"residual network, {skip} skips",
                )
            )
            advance(1)
    return tuple(results)


def _invariance(networks: list["Trained"], X: np.ndarray, seed: int) -> CheckResult:
    """What structure promises holds, on the shift-invariant networks; of zero padding and of a
    flatten it promises nothing, and by how much they break it is shown.
    """
    from npk import networks as rooms

    first = next(t for t in networks if t.summary.family == "shift-invariant")
    make = cast("dict[str, Any]", first.net.architecture)  # made by npk.networks.build
    holds = [
        check_invariance(t.net, X, name=t.summary.name, label=t.summary.name)
        for t in networks
        if t.summary.family == "shift-invariant"
    ]
    breaks = {
        "zero padding": {**make, "padding": "zero"},
        "flatten read-out": {**make, "readout": "flatten"},
    }
    others = [
        check_invariance(rooms.build(**{**made, "seed": seed}), X, label=label)
        for label, made in breaks.items()
    ]
    broken = all(_beyond(check) > _BROKEN for check in others)
    passed = all(check.passed for check in (*holds, *others)) and broken
    worst = max(holds, key=_size)
    promised = worst.statement.split(". ")[0]
    return dataclasses.replace(
        worst,
        network="conv-gap networks",
        passed=passed,
        statement=f"{promised}, as structure promises; and padding or flatten break it",
        details=_merged((*holds, *others)),
    )


def _beyond(check: CheckResult) -> float:
    """The worst deviation that structure does not rule out."""
    cases = check.details.cases if isinstance(check.details, InvarianceDetails) else ()
    return max((case.outside_worst or 0.0 for case in cases), default=0.0)


def _size(check: CheckResult) -> float:
    return math.inf if check.measured is None else check.measured


def _merged(checks: tuple[CheckResult, ...]) -> InvarianceDetails:
    details = [check.details for check in checks if isinstance(check.details, InvarianceDetails)]
    return InvarianceDetails(tuple(case for one in details for case in one.cases))


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
        net,
        samples.kernel_train.X,
        samples.kernel_train.require_labels(),
        epochs=5,
        seed=seed,
        progress=False,
    )
    return net
