"""Tasks on all threads of the machine: NumPy and libsvm let other threads of Python run."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

R = TypeVar("R")


def threads() -> int:
    """How many this machine has."""
    return os.cpu_count() or 1


def on_threads(
    function: Callable[..., R], tasks: Sequence[tuple[Any, ...]], sizes: Sequence[float]
) -> list[R]:
    """Results in the order of the tasks, of which the largest are begun first."""
    workers = min(len(tasks), threads())
    if workers <= 1:
        return [function(*task) for task in tasks]
    order = sorted(range(len(tasks)), key=lambda at: -sizes[at])
    with ThreadPoolExecutor(workers) as pool:
        begun = {at: pool.submit(function, *tasks[at]) for at in order}
    return [begun[at].result() for at in range(len(tasks))]
