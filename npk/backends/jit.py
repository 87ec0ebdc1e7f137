"""Numba on this machine: where it keeps what it compiles, and its threads.

One caller at a time, beside the threads of torch, and not in a process that was forked from one
that has them.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

from npk import forks
from npk.errors import BackendError

# layers of Numba that start anew in a forked process; OpenMP ends it, or waits for ever
_FORK_SAFE = ("tbb", "workqueue")
# where two threads start parallel code at once, some of Numba's layers end the process
_launching = threading.RLock()


def _after_fork() -> None:
    global _launching  # noqa: PLW0603 - the thread that held it is not there
    _launching = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def check_threads() -> None:
    """Refuse what would never end.

    Raises:
        BackendError: this process was forked from one in which parallel code of Numba has run.
    """
    layer = forks.lost_layer()
    if layer is not None and layer not in _FORK_SAFE:
        raise BackendError(
            "this process was forked from one that has computed kernels, or run other parallel "
            "code of Numba, whose threads are not here. "
            'Start processes by "spawn" or "forkserver": multiprocessing.get_context("spawn"), or '
            "joblib with its default backend."
        )


@contextlib.contextmanager
def torch_threads_kept() -> Iterator[None]:
    """Around parallel code of Numba, whose OpenMP layer changes the number of threads that torch
    uses in this process: put it back.

    Raises:
        BackendError: as :func:`check_threads`.
    """
    check_threads()
    with _launching:
        torch = sys.modules.get("torch")
        before = torch.get_num_threads() if torch else 0
        if forks.most_threads(2) == 1:
            _one_thread()
        yield
        if torch and torch.get_num_threads() != before:
            torch.set_num_threads(before)


def _one_thread() -> None:
    import numba

    numba.set_num_threads(1)


def can_cache() -> bool:
    """Whether Numba finds a place on disk for what it compiles: not everywhere may it write."""
    import numba

    try:
        numba.njit(cache=True)(can_cache)
    except RuntimeError:
        return False
    return True
