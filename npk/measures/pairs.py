"""Which gates two samples share, layer by layer."""

from dataclasses import dataclass
from numbers import Integral

import numpy as np

from npk.errors import OptionError
from npk.gates.table import GateTable
from npk.measures.given import Floats, checked_table, refuse_soft
from npk.shown import Shown


@dataclass(frozen=True, eq=False)
class SharedGates(Shown):
    """Shares of each layer's gates, from the input on, each ``(layers,)``; the four add up to 1."""

    names: tuple[str, ...]  # of the gate layers
    both: Floats  # on for both samples: their overlap over the width
    first: Floats  # on for the first alone
    second: Floats
    neither: Floats


def shared_gates(table: GateTable, first: int, second: int) -> SharedGates:
    r"""Shares of the gates that are on for both of two samples, for one of them, for none.

    .. math:: \text{both}_l = \frac{\langle G_l(x),\, G_l(x') \rangle}{\text{width of } l}

    Args:
        table: hard gates of some samples.
        first: number of a sample.
        second: number of another, or of the same.

    Returns:
        The shares, layer by layer.

    Raises:
        DataError: no gate table, or one without samples or gate layers.
        OptionError: soft gates, or a number that is none of a sample.
    """
    checked_table(table)
    refuse_soft(table, "this measure")
    for place in (first, second):
        if not isinstance(place, Integral) or not 0 <= place < len(table):
            what = f"sample {place!r} is asked for, and there are {len(table)}"
            raise OptionError(f"{what}. Give a number from 0 to {len(table) - 1}.")
    rows = table.take(np.array([first, second]))
    pairs = [layer.reshape(2, -1).astype(bool) for layer in rows]
    shares = [
        [(a & b).mean(), (a & ~b).mean(), (~a & b).mean(), (~a & ~b).mean()] for a, b in pairs
    ]
    return SharedGates(rows.names, *np.array(shares, np.float64).T)
