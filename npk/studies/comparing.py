"""How alike the networks of a study are, and how far training has moved each of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from npk import measures
from npk.errors import NpkError
from npk.results import Comparison
from npk.studies.kernels import State


@dataclass(frozen=True, eq=False)
class Side:
    """Gates and kernel of a network on the first draw."""

    network: str
    gates: str
    state: State


def compared(
    before: Sequence[tuple[Side, Side]], trained: Sequence[Side], command: str
) -> list[Comparison]:
    """Each network with itself before training, and each with each other.

    Args:
        before: networks, trained and before training.
        trained: all networks, trained.
        command: what gives the numbers again.

    Returns:
        The comparisons; networks too alike or too simple for one are left out.
    """
    pairs = [*before, *combinations(trained, 2)]
    return [one for pair in pairs if (one := _compared(*pair, command)) is not None]


def _compared(first: Side, second: Side, command: str) -> Comparison | None:
    try:
        found = measures.cka_interval(first.state.K, second.state.K)
    except NpkError:  # fewer than eight samples, or a kernel that is the same for all
        return None
    flips, error = _flips(first, second)
    angle, low, high = found.angles
    return Comparison(
        first=first.network,
        second=second.network,
        gates=second.gates,  # type: ignore[arg-type]
        cka=found.value,
        cka_low=found.low,
        cka_high=found.high,
        angle=angle,
        angle_low=low,
        angle_high=high,
        level=found.level,
        flips=flips,
        flips_error=error,
        samples=len(first.state.K),
        command=command,
    )


def _flips(first: Side, second: Side) -> tuple[float | None, float | None]:
    """Share of all gates that differ, where the two networks have the same."""
    tables = first.state.table, second.state.table
    forms = [
        [(name, t.entries[name].shape, t.entries[name].kind) for name in t.names] for t in tables
    ]
    if forms[0] != forms[1] or any(kind != "hard" for _, _, kind in forms[0]):
        return None, None
    found = measures.flips(*tables)
    sizes = [len(shares) for shares in found.channels]
    widths = [
        size * tables[0].entries[name].data.shape[1]
        for size, name in zip(sizes, found.names, strict=True)
    ]
    total = sum(widths)
    share = sum(w * s for w, s in zip(widths, found.share, strict=True)) / total
    # layers of one sample go together: the largest their errors can add up to
    error = sum(w * e for w, e in zip(widths, found.error, strict=True)) / total
    return float(share), float(error)
