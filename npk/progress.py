"""Progress: an object that is always passed, never asked for.

Code that takes longer than a second receives a :class:`Progress` and says what it does; it never asks whether anyone looks.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Protocol

Advance = Callable[[int], None]


class Progress(Protocol):
    """Anything that can show a task of known length."""

    def task(self, description: str, total: int) -> contextlib.AbstractContextManager[Advance]:
        """Open a task; the context gives a function that is called with the number of steps just done."""
        ...


class Silent:
    """Shows nothing."""

    @contextlib.contextmanager
    def task(self, description: str, total: int) -> Iterator[Advance]:
        """Count nothing."""
        yield lambda steps: None


class Bar:
    """A bar on the terminal (standard error), through rich."""

    @contextlib.contextmanager
    def task(self, description: str, total: int) -> Iterator[Advance]:
        """Show one bar until the context ends."""
        from rich import progress
        from rich.console import Console

        columns = (
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(compact=True),
        )
        with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bars:
            bar = bars.add_task(description, total=total)
            yield lambda steps: bars.advance(bar, steps)


def as_progress(progress: "bool | Progress") -> Progress:
    """``True``: a bar if standard error is a terminal; ``False``: silence; anything else is used as it is."""
    if isinstance(progress, bool):
        return Bar() if progress and sys.stderr.isatty() else Silent()
    return progress
