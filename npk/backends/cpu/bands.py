"""A tile in bands of rows, so that one that takes long can tell how far it is."""

import time
from collections.abc import Callable

import numba

_SECONDS = 1.0  # that a band takes, about: what begins and ends it takes less than a thousandth
_TASKS = 16  # of each thread in a band, at least: threads that wait at its end wait for few
_GROUPS = 2  # of a task


def in_bands(
    groups: int,
    blocks: int,
    run: Callable[[slice], None],
    told: Callable[[int], None],
    pace: float | None = None,
) -> float:
    """Run all groups of rows, a band after the other.

    Where no pace is known, the first band is as small as threads are kept busy by; those behind it
    are as large as its pace says. A tile of known pace that takes no longer than a band is one.

    Args:
        groups: of rows.
        blocks: of columns.
        run: computes the groups of a slice.
        told: is called with the number of groups that are done.
        pace: groups times blocks a second, of a tile before; ``None``: not known.

    Returns:
        The pace of the last band.
    """
    least = max(1, -(-_TASKS * numba.get_num_threads() * _GROUPS // blocks))
    done, many = 0, least if pace is None else _many(pace, groups, blocks, least)
    while done < groups:
        # a rest that is no band goes with the one before
        end = groups if groups - done - many < least else done + many
        start = time.monotonic()
        run(slice(done, end))
        seconds = time.monotonic() - start
        pace = (end - done) * blocks / seconds if seconds > 0 else float(groups * blocks)
        done, many = end, _many(pace, groups, blocks, least)
        told(done)
    return pace or 1.0


def _many(pace: float, groups: int, blocks: int, least: int) -> int:
    """Groups of a band at a pace."""
    return max(least, min(groups, int(pace / blocks * _SECONDS)))
