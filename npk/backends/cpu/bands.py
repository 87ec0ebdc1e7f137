"""A tile in bands of rows, so that one that takes long can tell how far it is."""

import time
from collections.abc import Callable

import numba

_SECONDS = 1.0  # that a band takes, about: what begins and ends it takes less than a thousandth
_TASKS = 16  # of each thread in a band, at least: threads that wait at its end wait for few
_GROUPS = 2  # of a task


def in_bands(
    groups: int, blocks: int, run: Callable[[slice], None], told: Callable[[int], None]
) -> None:
    """Run all groups of rows, a band after the other.

    The first band is as small as threads are kept busy by; those behind it are as large as its
    pace says. Where a tile takes no longer than a band there are two.

    Args:
        groups: of rows.
        blocks: of columns.
        run: computes the groups of a slice.
        told: is called with the number of groups that are done.
    """
    least = max(1, -(-_TASKS * numba.get_num_threads() * _GROUPS // blocks))
    done, many = 0, least
    while done < groups:
        # a rest that is no band goes with the one before
        end = groups if groups - done - many < least else done + many
        start = time.monotonic()
        run(slice(done, end))
        seconds = time.monotonic() - start
        pace = (end - done) / seconds if seconds > 0 else groups
        done, many = end, max(least, min(groups, int(pace * _SECONDS)))
        told(done)
