"""Progress objects: what each shows, that steps of earlier runs spoil no times, and that nobody who
looks away ends a computation.
"""

import contextlib
import io
import json
import re
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest

from npk import progress
from npk.progress import Bar, Events, Lines, Notebook, Silent, as_progress


class Clock:
    """A monotonic clock that goes when it is told to."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: self.now))


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture
def terminal(monkeypatch):
    """A context in which standard error is a terminal; gives what is written on it."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    return contextlib.redirect_stderr(Terminal())


def told(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


# events


def test_events_of_a_task(clock):
    stream = io.StringIO()
    with Events(stream).task("tiles", 4) as advance:
        clock.now += 2
        advance(1)
        clock.now += 2
        advance(3)
    assert told(stream) == [
        {"event": "begin", "task": "tiles", "total": 4, "done": 0},
        {"event": "progress", "task": "tiles", "done": 1, "total": 4, "seconds": 2.0, "left": 6.0},
        {"event": "progress", "task": "tiles", "done": 4, "total": 4, "seconds": 4.0, "left": 0.0},
        {"event": "end", "task": "tiles", "done": 4, "total": 4, "seconds": 4.0},
    ]


def test_a_note_is_an_event_of_its_name():
    stream = io.StringIO()
    Events(stream).note(
        "plan", "3 tiles", tiles=3, seconds=None, sides=[4, 4], name="K", text="told", event="taken"
    )
    assert told(stream) == [
        {"event": "plan", "tiles": 3, "seconds": None, "sides": [4, 4], "name": "K", "text": "told"}
    ]


def test_events_are_few_and_hold_the_last_one(clock):
    stream = io.StringIO()
    with Events(stream).task("tiles", 1000) as advance:
        for _ in range(1000):
            clock.now += 1 / 256  # exact, 3.9 s in all
            advance(1)
    steps = [event for event in told(stream) if event["event"] == "progress"]
    assert 35 < len(steps) <= 41
    assert steps[-1]["done"] == 1000


def test_steps_of_an_earlier_run_spoil_no_times(clock):
    stream = io.StringIO()
    with Events(stream).task("tiles", 100, done=90) as advance:
        advance(0)
        clock.now += 5
        advance(5)
    begin, nothing_yet, half, end = told(stream)
    assert begin == {"event": "begin", "task": "tiles", "total": 100, "done": 90}
    assert (nothing_yet["done"], nothing_yet["left"]) == (90, None)
    assert (half["done"], half["left"]) == (95, 5.0)
    assert (end["done"], end["total"]) == (95, 100)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_task_that_fails_ends_with_fewer_steps(error):
    stream = io.StringIO()

    def fail():
        with Events(stream).task("tiles", 3) as advance:
            advance(1)
            raise error

    with pytest.raises(error):
        fail()
    end = told(stream)[-1]
    assert (end["event"], end["done"], end["total"]) == ("end", 1, 3)


def test_every_line_is_flushed():
    flushed = []

    class Stream(io.StringIO):
        def flush(self):
            flushed.append(self.getvalue())

    with Events(Stream()).task("tiles", 1) as advance:
        advance(1)
    assert [text.count("\n") for text in flushed] == [1, 2, 3]
    assert all(text.endswith("\n") for text in flushed)


class Full(io.StringIO):
    """A file on a disk with room for one line."""

    def write(self, text):
        if self.getvalue():
            raise OSError(28, "No space left on device")
        return super().write(text)


def test_a_stream_that_takes_no_more_ends_no_computation():
    full, closed = Full(), io.StringIO()
    closed.close()
    for stream in (full, closed):
        events = Events(stream)
        with events.task("tiles", 2) as advance:
            advance(1)
            advance(1)
        events.note("plan", "plan")
    assert [event["event"] for event in told(full)] == ["begin"]


def test_a_stream_that_failed_once_is_left_alone(monkeypatch):
    """There may be half a line in it."""
    stream = Full()
    events = Events(stream)
    events.note("first", "")
    events.note("fails", "")
    monkeypatch.setattr(Full, "write", io.StringIO.write)
    events.note("room again", "")
    assert [event["event"] for event in told(stream)] == ["first"]


READER_GONE = """
import os, sys
from npk.progress import Events

events, pipe = Events(sys.stdout), os.fstat(1).st_ino
with events.task("tiles", 50) as advance:
    sys.stdin.read()  # until the reader has gone
    for _ in range(50):
        advance(1)
events.note("after", "after")
print("what a command says in the end")
sys.stderr.write(f"computed, pipe let go: {os.fstat(1).st_ino != pipe}")
"""


def test_a_closed_pipe_ends_no_computation():
    run = subprocess.Popen(
        [sys.executable, "-c", READER_GONE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert json.loads(run.stdout.readline())["event"] == "begin"
    run.stdout.close()
    run.stdin.close()
    assert run.stderr.read() == b"computed, pipe let go: True"
    assert run.wait() == 0
    run.stderr.close()


# bars


def test_bar_shows_task_rate_and_times(terminal, clock):
    bar = Bar()
    with terminal as stderr:
        with bar.task("kernel [tiles]", 40, done=20) as advance:
            assert bar._bars.tasks[0].completed == 20
            clock.now += 4
            advance(10)
            bar._bars.refresh()  # not wait for the next
        assert "kernel [tiles]" in stderr.getvalue()
        assert ("30/40 2.5/s, 0:04 elapsed, 0:04 left") in re.sub(
            r"\x1b\[[0-9;?]*[a-zA-Z]", "", stderr.getvalue()
        )


def test_notes_are_printed_above_the_bar(terminal):
    bar = Bar()
    with terminal as stderr:
        bar.note("plan", "4 tiles\nof [bold]5", tiles=4)
        assert stderr.getvalue() == "4 tiles of [bold]5\n"
        with bar.task("tiles", 2):
            bar.note("more", "in the middle")
        assert "in the middle\n" in stderr.getvalue()


def test_a_task_inside_a_task_has_its_own_bar(terminal):
    bar = Bar()
    with terminal:
        with bar.task("outer", 2):
            with bar.task("inner", 3) as advance:
                advance(3)
                assert [task.description for task in bar._bars.tasks] == ["outer", "inner"]
            assert [task.description for task in bar._bars.tasks] == ["outer"]
        assert bar._bars is None
        with bar.task("again", 1):
            assert [task.description for task in bar._bars.tasks] == ["again"]


def test_a_bar_ends_with_an_error(terminal):
    bar = Bar()
    with terminal, pytest.raises(KeyboardInterrupt), bar.task("outer", 2):
        raise KeyboardInterrupt
    assert bar._bars is None


def test_a_terminal_that_is_gone_ends_no_computation(terminal, monkeypatch):
    bar = Bar()

    def gone(text):
        raise OSError(5, "Input/output error")

    with terminal as stderr:
        with bar.task("tiles", 2) as advance:
            monkeypatch.setattr(stderr, "write", gone)
            bar.note("plan", "plan")
            advance(1)
        bar.note("plan", "plan")
    assert bar._bars is None


@pytest.mark.parametrize(
    ("done", "seconds", "text"),
    [
        (0, 3, "0:03 elapsed"),
        (100, 8, "12.5/s, 0:08 elapsed, 1:12 left"),
        (10, 41, "4.1 s each, 0:41 elapsed, 1:07:39 left"),
        (1, 125, "2:05 each, 2:05 elapsed, 34:41:15 left"),
    ],
)
def test_pace_in_words(clock, done, seconds, text):
    pace = progress._Pace(1100, 100)
    pace.done += done
    clock.now += seconds
    assert str(pace) == text


def test_pace_without_time_or_beyond_the_total(clock):
    pace = progress._Pace(2, 0)
    pace.done = 30
    assert str(pace) == "0:00 elapsed"
    clock.now += 10
    assert str(pace) == "3.0/s, 0:10 elapsed, 0:00 left"


# lines, silence, and which one is chosen


def test_lines_write_notes_and_no_bars(capsys):
    lines = Lines()
    with lines.task("tiles", 3, done=1) as advance:
        advance(2)
    assert capsys.readouterr() == ("", "")
    lines.note("plan", "4 tiles\n of 5", tiles=4)
    assert capsys.readouterr() == ("", "4 tiles of 5\n")


def test_lines_survive_a_standard_error_that_is_gone(monkeypatch):
    full = Full("x")
    monkeypatch.setattr(sys, "stderr", full)
    Lines().note("plan", "plan")
    assert full.getvalue() == "x"


def test_silence_shows_nothing(capsys):
    with Silent().task("tiles", 3, done=1) as advance:
        advance(2)
    Silent().note("plan", "4 tiles", tiles=4)
    assert capsys.readouterr() == ("", "")


def test_true_is_a_bar_on_a_terminal_and_silence_elsewhere(terminal):
    with terminal:
        assert isinstance(as_progress(True), Bar)
        assert isinstance(as_progress(False), Silent)
    with contextlib.redirect_stderr(io.StringIO()):
        assert isinstance(as_progress(True), Silent)
    events = Events(io.StringIO())
    assert as_progress(events) is events


# a notebook


class FakeDisplay:
    """IPython as a kernel of a notebook has it: keeps what is displayed, version after version."""

    def __init__(self, monkeypatch, kernel="a kernel"):
        self.shown = []
        display = ModuleType("IPython.display")
        display.display = self.display
        module = ModuleType("IPython")
        module.get_ipython = lambda: SimpleNamespace(kernel=kernel)
        monkeypatch.setitem(sys.modules, "IPython", module)
        monkeypatch.setitem(sys.modules, "IPython.display", display)

    def display(self, content, *, raw, display_id):
        assert raw
        assert display_id
        versions = [content]
        self.shown.append(versions)

        def update(content, *, raw):
            assert raw
            versions.append(content)

        return SimpleNamespace(update=update)


def test_true_is_a_bar_in_a_notebook(monkeypatch):
    FakeDisplay(monkeypatch)
    assert isinstance(as_progress(True), Notebook)
    assert isinstance(as_progress(False), Silent)
    FakeDisplay(monkeypatch, kernel=None)  # IPython in a terminal
    assert not isinstance(as_progress(True), Notebook)


def test_a_notebook_shows_a_bar_that_goes_when_its_task_ends(monkeypatch, clock):
    there = FakeDisplay(monkeypatch)
    with Notebook().task("tiles <b>", 4) as advance:
        clock.now += 2
        advance(1)
        clock.now += 0.01
        advance(1)  # too soon to be told
        clock.now += 3.99
        advance(2)
    (versions,) = there.shown
    assert [v["text/plain"] for v in versions] == [
        "tiles <b> 0/4 0:00 elapsed",
        "tiles <b> 1/4 2.0 s each, 0:02 elapsed, 0:06 left",
        "tiles <b> 4/4 1.5 s each, 0:06 elapsed, 0:00 left",
        "",
    ]
    assert '<progress value="1" max="4">' in versions[1]["text/html"]
    assert "tiles &lt;b&gt;" in versions[1]["text/html"]
    assert versions[-1]["text/html"] == ""


def test_a_bar_in_a_notebook_ends_with_an_error(monkeypatch):
    there = FakeDisplay(monkeypatch)
    with pytest.raises(KeyboardInterrupt), Notebook().task("tiles", 4):
        raise KeyboardInterrupt
    assert there.shown[0][-1]["text/html"] == ""


def test_notes_in_a_notebook_are_lines(monkeypatch, capsys):
    FakeDisplay(monkeypatch)
    Notebook().note("plan", "two\nlines")
    assert capsys.readouterr().err == "two lines\n"
