"""Progress: an object that is always passed, never asked for.

Code that takes longer than a second receives a :class:`Progress` and says what it does; it never
asks whether anyone looks. Who looks may go away at any time: progress never ends a computation, and
only monotonic clocks are read.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TextIO, TypeAlias, Union

from npk import shown
from npk.errors import OptionError

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

Advance = Callable[[int], None]
# what JSON can say
Fact: TypeAlias = Union[bool, int, float, str, "Sequence[Fact]", "Mapping[str, Fact]", None]

_SECONDS_BETWEEN_EVENTS = 0.1


class Progress(Protocol):
    """Anything that can show a task of known length, and what is worth knowing before or after it."""

    def task(
        self, description: str, total: int, done: int = 0
    ) -> contextlib.AbstractContextManager[Advance]:
        """Open a task of ``total`` steps, ``done`` of them by an earlier run; the context gives a
        function that is called with the number of steps just done.
        """
        ...

    def note(self, name: str, text: str, /, **facts: Fact) -> None:
        """Tell something in one line, such as the plan before the work: ``text`` for people,
        ``name`` and ``facts`` for programs.
        """
        ...


class Silent:
    """Shows nothing."""

    @contextlib.contextmanager
    def task(self, description: str, total: int, done: int = 0) -> Iterator[Advance]:
        """Count nothing."""
        yield lambda steps: None

    def note(self, name: str, text: str, /, **facts: Fact) -> None:
        """Tell nothing."""


class Bar:
    """Bars on the terminal (standard error), through rich; notes appear above them. A task inside
    another one has a bar of its own.
    """

    def __init__(self) -> None:
        self._bars: RichProgress | None = None

    @contextlib.contextmanager
    def task(self, description: str, total: int, done: int = 0) -> Iterator[Advance]:
        """Show one bar until the context ends: steps done, rate, time elapsed and left."""
        pace = _Pace(total, done)
        with self._shown() as bars:
            bar = bars.add_task(description, total=total, completed=done, pace=pace)

            def advance(steps: int) -> None:
                pace.done += steps
                bars.update(bar, completed=pace.done)

            try:
                yield advance
            finally:
                bars.remove_task(bar)

    def note(self, name: str, text: str, /, **facts: Fact) -> None:
        """Print the text above the bars."""
        from rich.console import Console

        console = self._bars.console if self._bars else Console(stderr=True)
        with contextlib.suppress(OSError):  # the terminal is gone
            console.print(
                _one_line(text), soft_wrap=True, markup=False, highlight=False, emoji=False
            )

    @contextlib.contextmanager
    def _shown(self) -> Iterator["RichProgress"]:
        """The display; the outermost task starts and ends it."""
        if self._bars is not None:
            yield self._bars
            return
        bars = self._bars = _display()
        bars.start()
        try:
            yield bars
        finally:
            self._bars = None
            with contextlib.suppress(OSError):  # the terminal is gone
                bars.stop()


def _display() -> "RichProgress":
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        # written anew at every refresh, so that its times go on
        progress.TextColumn("{task.fields[pace]}", markup=False),
    )
    return progress.Progress(*columns, console=Console(stderr=True), transient=True)


class Notebook:
    """Bars below a cell of a notebook, each gone when its task ends; notes stay as lines.

    They are HTML that is written anew, by IPython alone: rich would show nothing without ipywidgets.
    """

    @contextlib.contextmanager
    def task(self, description: str, total: int, done: int = 0) -> Iterator[Advance]:
        """Show one bar until the context ends: steps done, rate, time elapsed and left."""
        from IPython.display import display  # pyright: ignore[reportMissingImports]

        pace, told = _Pace(total, done), 0.0

        def content() -> dict[str, str]:
            text = f"{description} {pace.done}/{total} {pace}"
            return {"text/plain": text, "text/html": shown.bar(text, pace.done, total)}

        handle = display(content(), raw=True, display_id=True)

        def advance(steps: int) -> None:
            nonlocal told
            pace.done += steps
            if pace.seconds - told >= _SECONDS_BETWEEN_EVENTS or pace.done >= total:
                told = pace.seconds
                handle.update(content(), raw=True)

        try:
            yield advance
        finally:
            handle.update({"text/plain": "", "text/html": ""}, raw=True)

    def note(self, name: str, text: str, /, **facts: Fact) -> None:
        """Write the text below the cell."""
        _write_line(sys.stderr, _one_line(text))


class Lines:
    """Notes as plain lines on standard error, no bars: for a command without a terminal."""

    @contextlib.contextmanager
    def task(self, description: str, total: int, done: int = 0) -> Iterator[Advance]:
        """Count nothing."""
        yield lambda steps: None

    def note(self, name: str, text: str, /, **facts: Fact) -> None:
        """Write the text."""
        _write_line(sys.stderr, _one_line(text))


class Events:
    """A JSON object a line: for programs that watch.

    ``begin`` (task, total, done), ``progress`` (task, done, total, seconds, left), ``end`` (task,
    done, total, seconds); notes are events under their own name. Steps that an earlier run did
    count as done, not in the time left. A task that was interrupted or failed ends with fewer steps
    done than its total. Progress is told about ten times a second at most, and always at the last
    step.

    Args:
        stream: text; every line is flushed. Once it takes no more lines (a closed pipe, a full
            disk), nothing is told any longer.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream: TextIO | None = stream

    @contextlib.contextmanager
    def task(self, description: str, total: int, done: int = 0) -> Iterator[Advance]:
        """Tell begin, progress and end."""
        pace = _Pace(total, done)
        self._tell("begin", task=description, total=total, done=done)
        told = -_SECONDS_BETWEEN_EVENTS

        def advance(steps: int) -> None:
            nonlocal told
            pace.done += steps
            seconds = pace.seconds
            if seconds - told >= _SECONDS_BETWEEN_EVENTS or pace.done >= total:
                told, left = seconds, pace.left
                left = None if left is None else round(left, 3)
                self._tell(
                    "progress",
                    task=description,
                    done=pace.done,
                    total=total,
                    seconds=round(seconds, 3),
                    left=left,
                )

        try:
            yield advance
        finally:
            self._tell(
                "end", task=description, done=pace.done, total=total, seconds=round(pace.seconds, 3)
            )

    def note(self, name: str, text: str, /, **facts: Fact) -> None:
        """Tell the facts as an event of this name; the text is for people."""
        self._tell(name, **facts)

    def _tell(self, event: str, /, **facts: Fact) -> None:
        line = json.dumps({"event": event, **facts} | {"event": event}, allow_nan=False)
        if self._stream is not None and not _write_line(self._stream, line):
            self._stream = None


@dataclass
class _Pace:
    """How fast a task goes, the steps of an earlier run left out; as text for a bar."""

    total: int
    done: int
    before: int = field(init=False)
    start: float = field(init=False)

    def __post_init__(self) -> None:
        self.before, self.start = self.done, time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start

    @property
    def left(self) -> float | None:
        """Seconds; ``None`` before the first step of this run."""
        own = self.done - self.before
        return self.seconds / own * max(0, self.total - self.done) if own > 0 else None

    def __str__(self) -> str:
        own, seconds, left = self.done - self.before, self.seconds, self.left
        if own <= 0 or left is None or seconds <= 0:
            return f"{_clock(seconds)} elapsed"
        return f"{_rate(own, seconds)}, {_clock(seconds)} elapsed, {_clock(left)} left"


def _rate(steps: int, seconds: float) -> str:
    """``12.3/s``, or ``4.1 s each`` for slow steps."""
    if steps >= seconds:
        return f"{steps / seconds:.1f}/s"
    each = seconds / steps
    return f"{each:.1f} s each" if each < 60 else f"{_clock(each)} each"


def _clock(seconds: float) -> str:
    """``0:07``, ``12:34`` or ``5:04:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _write_line(stream: TextIO, line: str) -> bool:
    """Whether the stream took the line; one whose reader has gone leads nowhere from then on."""
    try:
        stream.write(line + "\n")
        stream.flush()
    except BrokenPipeError:
        lead_nowhere(stream)
        return False
    except (OSError, ValueError):  # no room; closed
        return False
    return True


def lead_nowhere(stream: TextIO) -> None:
    """Let a stream whose reader has gone take whatever comes.

    Args:
        stream: with a file of its own.
    """
    with contextlib.suppress(OSError), open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def duration(seconds: float) -> str:
    """A time that one can plan with, such as ``42 min``."""
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"


def as_progress(progress: "bool | Progress") -> Progress:
    """``True``: a bar in a notebook, or if standard error is a terminal; ``False``: silence; a
    Progress is used as it is.

    Raises:
        OptionError: none of these.
    """
    # NumPy's, without importing it
    if isinstance(progress, bool) or type(progress).__name__ in ("bool", "bool_"):
        if progress and _in_notebook():
            return Notebook()
        return Bar() if progress and _is_terminal() else Silent()
    if isinstance(progress, type) or not callable(getattr(progress, "task", None)):
        raise OptionError(
            f"progress is of type {type(progress).__name__}. Give True, False or a progress, such "
            f"as npk.progress.Events(file)."
        )
    return progress


def _in_notebook() -> bool:
    """Whether this is the process behind a notebook, whose IPython talks to it from elsewhere."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


def _is_terminal() -> bool:
    """Whether there is someone to look at standard error; it may be missing, or closed."""
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except ValueError:
        return False
