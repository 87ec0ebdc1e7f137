"""The `npk` command. Exit codes: 0 done, 1 a check failed, 2 wrong use or bad input, 130
interrupted, 141 nobody reads the output.

Whatever goes wrong is told in one line on standard error; ``--debug`` adds the traceback. What a
terminal cannot show of a text is written as an escape.
"""

import contextlib
import gc
import io
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import typer

from npk.cli import laboratory  # noqa: F401 (adds its commands)
from npk.cli.commands import app
from npk.cli.options import JSON_IS_A_FILE
from npk.cli.words import in_shell_words
from npk.errors import NpkError, missing
from npk.progress import lead_nowhere

UNREAD, INTERRUPTED, REFUSED = 141, 130, 2
_QUIET = {"--quiet", "-q"}
_ANYWHERE = {"--debug", *_QUIET}
_COMPLETION = ("--show-completion", "--install-completion")
_COMPLETING = "_NPK_COMPLETE"  # set by the shell that wants to know what may follow
# made between two looks for garbage: what is loaded makes half a million that stay, and by Python's
# own 700 they would be looked at over and over meanwhile
_OBJECTS = 50_000


def main() -> None:
    """Run the command line of this process and exit."""
    gc.set_threshold(_OBJECTS)
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
        arguments: without the program's name; none at all shows the help. ``--debug`` and
            ``--quiet`` may stand anywhere.

    Returns:
        The exit code.
    """
    debug, quiet = "--debug" in arguments, not _QUIET.isdisjoint(arguments)
    given = [word for word in arguments if word not in _ANYWHERE] or ["--help"]
    completes = _COMPLETING in os.environ or given[0] in _COMPLETION
    flags: dict[str, str] = {}
    try:
        commands = typer.main.get_command(app)
        flags = _flags(commands, given)
        with _quiet() if quiet else _notes(flags):
            code = commands.main(args=given, prog_name="npk", standalone_mode=False) or 0
    except BrokenPipeError:
        code = UNREAD
        lead_nowhere(sys.stdout)
    except SystemExit as end:  # of typer or rich where nobody reads, else of code of the user's
        code = UNREAD if _leads_nowhere(sys.stdout) else REFUSED
        if completes:
            code = int(end.code or 0)
        elif code == REFUSED:
            _say(
                f"the command was ended by sys.exit({end.code!r}) in code that it ran. Look at "
                f"the code that --arch names."
            )
    except Exception as error:
        if debug:
            traceback.print_exc()
        code = REFUSED
        _say(in_shell_words(_line(error), flags))
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
        said = message().rstrip(".").replace("Value error, ", "")
        if getattr(error, "option_name", None) == "--json":  # it stands last, and names nothing
            said = f"{said}. {JSON_IS_A_FILE}"
        return f"{said}. See `{context.command_path if context else 'npk'} --help`."
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
        f"unexpected {type(error).__name__}: {str(error).rstrip('. ')}. This is a mistake in npk: "
        f"please report it with what --debug shows."
    )


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # nobody listens
        typer.echo(f"npk: {' '.join(text.split())}", err=True)


def _flags(commands: Any, given: Sequence[str]) -> dict[str, str]:
    """The options of the command that is called, by the names of what they are in Python."""
    name = next((word for word in given if word in commands.commands), None)
    parameters = commands.commands[name].params if name else ()
    longest = {
        p.name: max(p.opts, key=len) for p in parameters if p.param_type_name == "option" and p.name
    }
    return longest | ({"arch_options": longest["arch_option"]} if "arch_option" in longest else {})


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing on standard error, but the line of an error when all is over."""
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stderr(nowhere),
        warnings.catch_warnings(action="ignore"),
    ):
        yield


@contextlib.contextmanager
def _notes(flags: Mapping[str, str]) -> Iterator[None]:
    """Warnings as one line each; those of libraries to their developers are left out."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        _say(f"note: {in_shell_words(str(message), flags)}")

    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", category=FutureWarning, module="(torch|sklearn|zarr|numba)"
        )
        warnings.showwarning = show
        yield
