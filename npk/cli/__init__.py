"""The `npk` command. Exit codes: 0 done, 1 a check failed, 2 wrong use or bad input, 130
interrupted, 141 nobody reads the output.

Whatever goes wrong is told in one line on standard error; ``--debug`` adds the traceback. What a
terminal cannot show of a text is written as an escape.
"""

import contextlib
import io
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import typer

from npk.cli import laboratory  # noqa: F401 (adds its commands)
from npk.cli.commands import app
from npk.errors import NpkError, missing
from npk.progress import lead_nowhere

UNREAD, INTERRUPTED, REFUSED = 141, 130, 2


def main() -> None:
    """Run the command line of this process and exit."""
    _prepare_streams()
    sys.exit(_flushed(run(sys.argv[1:])))


def _prepare_streams() -> None:
    """Let any text pass: names of files may hold what the terminal's encoding does not."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by who started this process
            setattr(sys, name, open(os.devnull, "w"))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _flushed(code: int) -> int:
    """Write what is left of the output, which Python would else try with a traceback."""
    try:
        sys.stdout.flush()
    except OSError as error:
        lead_nowhere(sys.stdout)
        if isinstance(error, BrokenPipeError):
            return UNREAD
        _say(_line(error))
        return REFUSED
    return code


def run(arguments: Sequence[str]) -> int:
    """Run one command line.

    Args:
        arguments: without the program's name; none at all shows the help. ``--debug`` may stand
            anywhere.

    Returns:
        The exit code.
    """
    debug = "--debug" in arguments
    given = [argument for argument in arguments if argument != "--debug"] or ["--help"]
    try:
        with _notes():
            code = (
                typer.main.get_command(app).main(args=given, prog_name="npk", standalone_mode=False)
                or 0
            )
    except BrokenPipeError:
        code = UNREAD
        lead_nowhere(sys.stdout)
    except SystemExit as end:  # of typer or rich where nobody reads, else of code of the user's
        code = UNREAD if _leads_nowhere(sys.stdout) else REFUSED
        if code == REFUSED:
            _say(
                f"the command was ended by sys.exit({end.code!r}) in code that it ran. Look at "
                f"the code that --arch names."
            )
    except Exception as error:
        if debug:
            traceback.print_exc()
        code = REFUSED
        _say(_line(error))
    except KeyboardInterrupt:
        code = INTERRUPTED
    if code == INTERRUPTED:
        _say(
            "interrupted. Finished tiles of a kernel in a store are kept: run the same command to "
            "go on."
        )
    return code


def _leads_nowhere(stream: Any) -> bool:
    """Whether typer or rich has given a stream up."""
    if type(stream).__name__ == "PacifyFlushWrapper":
        lead_nowhere(stream.wrapped)
        sys.stdout = stream.wrapped
        return True
    try:
        return os.path.samestat(os.fstat(stream.fileno()), os.stat(os.devnull))
    except (OSError, ValueError):
        return False


def _line(error: Exception) -> str:
    """What is wrong, what came, what to do."""
    if isinstance(error, NpkError):
        return str(error)
    message = getattr(error, "format_message", None)
    if message is not None:  # wrong use, found by typer
        context = getattr(error, "ctx", None)
        return (
            f"{message().rstrip('.')}. See `{context.command_path if context else 'npk'} --help`."
        )
    if isinstance(error, ModuleNotFoundError) and (absent := missing(error)) is not None:
        return str(absent)
    if isinstance(error, MemoryError):
        return (
            f"not enough memory ({error or 'no size given'}). Use fewer samples, or give "
            f"kernels a budget with --memory."
        )
    if isinstance(error, OSError):
        place = f" {error.filename}" if error.filename else ""
        return (
            f"cannot read or write{place}: {error.strerror or error}. Check the path, its "
            f"permissions and the room on the disk."
        )
    return (
        f"unexpected {type(error).__name__}: {error}. This is a mistake in npk: please report "
        f"it with what --debug shows."
    )


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # nobody listens
        typer.echo(f"npk: {' '.join(text.split())}", err=True)


@contextlib.contextmanager
def _notes() -> Iterator[None]:
    """Warnings as one line each; those of libraries to their developers are left out."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        _say(f"note: {message}")

    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", category=FutureWarning, module="(torch|sklearn|zarr|numba)"
        )
        warnings.showwarning = show
        yield
