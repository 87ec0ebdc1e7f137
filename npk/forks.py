"""What a forked process must know of the one it came from: its threads are not here.

OpenMP, which torch and Numba share, waits for ever for threads that are in the other process. So a
process that was forked beside torch computes in one thread, and one that was forked beside parallel
code of Numba, which ends such a process, is refused (``backends/jit.py``). Loaded with npk itself:
what is asked after the fork comes too late.
"""

import os
import sys

_lost: list[str] = []  # the layer of Numba whose threads ran in the process this was forked from
_single: list[bool] = []  # whether torch was there, and may have left threads behind


def lost_layer() -> str | None:
    """The layer of Numba whose threads ran in the process that this one was forked from."""
    return _lost[0] if _lost else None


def most_threads(wanted: int) -> int:
    """How many of the threads that are wanted may be used in this process."""
    return 1 if _single else wanted


def running_layer() -> str | None:
    """The layer of Numba whose threads run in this process, if they do."""
    numba = sys.modules.get("numba")
    try:
        return None if numba is None else numba.threading_layer()
    except (AttributeError, ValueError):  # nothing parallel has run yet
        return None


def _after_fork() -> None:
    if (layer := running_layer()) is not None:
        _lost[:] = [layer]
    if (torch := sys.modules.get("torch")) is not None:
        _single[:] = [True]
        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
