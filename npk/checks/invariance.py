"""Invariance: circular shifts of the input leave the kernel alone where layers are circular, of
stride 1, and the read-out is global.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from npk.errors import DataError, OptionError
from npk.gates.table import GateTable
from npk.gram.kernel import NeuralPathKernel
from npk.results import CheckResult, InvarianceCase, InvarianceDetails, Shifted
from npk.samples import as_samples
from npk.typed import finite

if TYPE_CHECKING:
    import torch

_TOLERANCE = {"float32": 1e-5, "float64": 1e-10}

_ROUNDING = 1e-4  # share of gates that may flip because a pre-activation is within rounding of 0

Shift = tuple[int, ...]


def check_invariance(
    net: "torch.nn.Module",
    X: np.ndarray,
    shifts: str | Sequence[Shift] = "all",
    *,
    gates: str = "auto",
    name: str = "network",
    label: str = "",
) -> CheckResult:
    r"""Measure :math:`K(\mathrm{rot}(x, r), x')` against :math:`K(x, x')` for circular shifts r ("rotations" in the papers).

    Args:
        net: a network in eval mode.
        X: images ``(n, channels, *positions)``; a few suffice.
        shifts: "all", or shifts as tuples with one number an axis.
        gates: "hard", "soft" or "auto".
        name: what the report calls the network.
        label: what the figure calls the case; the name if empty.

    Returns:
        ``measured``: worst difference relative to the root of the diagonals. Shifted samples in
            which at most one gate in 10,000
        flipped are left out of it and counted apart (``rounding``): there a pre-activation lies
            within rounding of 0.
        ``details``, a :class:`npk.results.InvarianceDetails` with one case: for each shift the
        worst difference over all samples, and how many gates are not the shifted gates.
        ``passed``: all shifts asked for leave the kernel alone.

    Raises:
        DataError: samples without positions.
        OptionError: shifts that do not fit the samples.
    """
    import torch

    X = as_samples(X)
    if X.ndim < 3:
        raise DataError(
            f"X has shape {X.shape}, which has no positions to shift. Give images (n, "
            f"channels, height, width)."
        )
    chosen = _shifts(shifts, X.shape[2:])
    dtype = next((p.dtype for p in net.parameters()), torch.float32)
    kernel = NeuralPathKernel(net, dtype="float64", gates=gates, progress=False)
    table = kernel.record(X)
    axes = tuple(range(2, X.ndim))
    moved = kernel.record(np.concatenate([np.roll(X, shift, axes) for shift in chosen]))
    deviation = _deviations(kernel, table, moved)
    flips = np.array(
        [
            _flips(table, moved.take(slice(i * len(X), (i + 1) * len(X))), shift)
            for i, shift in enumerate(chosen)
        ]
    )
    worst = deviation.reshape(len(chosen), len(X), len(X)).max(2)
    gates_each = sum(int(np.prod(e.shape)) for e in table.entries.values())
    rounding = (flips > 0) & (flips <= max(1, _ROUNDING * gates_each))
    measured = float(worst[~rounding].max(initial=0.0))
    tolerance = _TOLERANCE["float64" if dtype == torch.float64 else "float32"]
    passed = bool(measured <= tolerance and not rounding.all())
    case = InvarianceCase(
        label=label or name,
        shifts=tuple(map(_shifted, chosen, worst)),
        worst=finite(worst.max()),
        expected="invariant" if passed else "broken",
        flips=int(flips.sum()),
        rounding=int(rounding.sum()),
        gates=gates_each * len(moved),
    )
    statement = (
        f"K(rot(x, r), x') = K(x, x') for {len(chosen)} circular shifts r, relative to the root of "
        f"the diagonals"
    )
    details = InvarianceDetails((case,))
    return CheckResult("invariance", name, statement, passed, finite(measured), tolerance, details)


def _shifted(by: Shift, deviations: np.ndarray) -> Shifted:
    return Shifted(tuple(map(int, by)), finite(deviations.max()))


def _shifts(shifts: str | Sequence[Shift], grid: Shift) -> list[Shift]:
    if isinstance(shifts, str):
        if shifts != "all":
            raise OptionError(
                f'shifts={shifts!r} is not known. Give "all", or a list of shifts '
                f"such as [(0, 1), (2, 2)]."
            )
        return list(np.ndindex(*grid))
    steps = [tuple(int(side) for side in shift) for shift in shifts]
    if not steps or any(len(shift) != len(grid) for shift in steps):
        raise OptionError(
            f"shifts={shifts!r} does not fit positions {grid}. Give at least one "
            f"shift with {len(grid)} numbers each."
        )
    return steps


def _deviations(kernel: NeuralPathKernel, table: GateTable, moved: GateTable) -> np.ndarray:
    """``(shifts * n, n)``: |K(rot x, x') - K(x, x')| / sqrt(K(x, x) K(x', x'))."""
    base, root = kernel(table, table), np.sqrt(kernel.diagonal(table))
    copies = len(moved) // len(table)
    unit = np.tile(np.outer(root, root), (copies, 1))
    difference = np.abs(kernel(moved, table) - np.tile(base, (copies, 1)))
    return np.divide(difference, unit, out=np.zeros_like(difference), where=unit > 0)


def _flips(table: GateTable, moved: GateTable, shift: Shift) -> np.ndarray:
    """Gates of each shifted sample that differ from the sample's shifted gates, ``(n,)``."""
    flips = np.zeros(len(table), np.int64)
    grid = table.inputs.shape[2:]
    for before, after in zip(table, moved, strict=True):
        layer, sides = before, before.shape[2:]
        if len(sides) == len(grid) and layer[0, 0].size > 1:
            steps = [divmod(r * side, n) for r, side, n in zip(shift, sides, grid, strict=True)]
            if any(rest for _, rest in steps):
                # a stride: the shifted image has no gates at whole positions to compare with
                continue
            layer = np.roll(layer, [step for step, _ in steps], tuple(range(2, layer.ndim)))
        differ = layer != after if layer.dtype == bool else np.abs(layer - after) > 1e-3
        flips += differ.reshape(len(table), -1).sum(1)
    return flips
