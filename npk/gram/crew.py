"""The workers of a cluster as they come and go, and how long a run waits where there are none."""

import time

from npk.errors import BackendError, OptionError
from npk.progress import Progress

AGAIN = "Finished tiles are kept: run again to go on."
# name in Dask's configuration, and what holds without it
_NO_WORKERS, _NO_WORKERS_TIMEOUT = "npk.no-workers-timeout", "60s"
_TURNOVERS = 5  # times that all workers are replaced by others before a single task is done


class Crew:
    """The workers that are there, and for how long there have been none: a run waits for some, but
    not for ever.

    Args:
        progress: told when there is nobody to work.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress, self.limit = progress, patience()
        self.known: set[str] = set()
        self.turnovers, self.none_since = 0, None

    def did_something(self) -> None:
        """A task is done."""
        self.turnovers = 0

    def is_now(self, workers: set[str]) -> None:
        """Take note of who is there.

        Raises:
            BackendError: nobody has been there for too long, or all have been lost over and over
                without having done anything.
        """
        if not workers:
            self._wait()
            return
        self.none_since = None
        if self.known.isdisjoint(workers):
            self.turnovers += bool(self.known)
            self.known = workers
        if self.turnovers >= _TURNOVERS:
            raise BackendError(
                f"all workers were lost {self.turnovers} times, one crew after another, and none "
                f"of them finished a task. Their logs say why; often it is memory. {AGAIN}"
            )

    def _wait(self) -> None:
        now = time.monotonic()
        if self.none_since is None:
            self.none_since = now
            self.progress.note(
                "waiting", "there are no workers: waiting for some to join", workers=0
            )
            self.progress.note(
                "patience",
                f"the run ends after {self.limit:g} seconds without one",
                seconds=self.limit,
            )
        if now - self.none_since >= self.limit:
            raise BackendError(
                f"there have been no workers for {self.limit:g} seconds. {AGAIN} Start workers "
                f"before, or wait longer for them: set {_NO_WORKERS} in Dask's configuration, such "
                f"as DASK_NPK__NO_WORKERS_TIMEOUT=12h in the environment."
            )


def patience() -> float:
    """Seconds to wait where there are no workers, as Dask's configuration has it.

    Returns:
        The seconds.

    Raises:
        OptionError: the configuration has something else.
    """
    from dask import config
    from dask.utils import parse_timedelta

    value = config.get(_NO_WORKERS, _NO_WORKERS_TIMEOUT)
    try:
        seconds = float(parse_timedelta(value))
    except (ValueError, TypeError, KeyError, AttributeError):
        seconds = -1.0
    if not seconds >= 0:
        raise OptionError(
            f"{_NO_WORKERS} is {value!r} in Dask's configuration, and no time. Give "
            f"one such as 60s, 10m or 12h."
        )
    return seconds
