"""Files that are written whole or not at all, and by one process at a time."""

import contextlib
import ctypes
import errno
import glob
import hashlib
import json
import os
import platform
import re
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from npk.errors import StoreError

if TYPE_CHECKING:
    from filelock import BaseFileLock

_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}
_MOMENT = 60.0  # seconds: far longer than the time between two renamings
_in_use: set[str] = set()  # temporary names that this process took


@contextlib.contextmanager
def written_whole(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it to ``path`` when the block ends without an
    error.

    The temporary path does not exist yet: the block may create a file or a folder. A folder
    replaces an older folder.

    Raises:
        StoreError: the folder is missing or read-only, or the disk is full. Nothing is left
            half-written.
    """
    path = Path(path)
    temporary = temporary_beside(path)
    try:
        yield temporary
        _replace(temporary, path)
    except StoreError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(
            f"cannot write {path}: {reason}. Choose a folder that exists, is writable and has room."
        ) from error
    finally:
        _remove(temporary)


def temporary_beside(path: Path) -> Path:
    """A hidden name beside ``path`` that nobody else takes; what killed processes of this host left
    there is put back or removed.

    Args:
        path: what will be written.

    Returns:
        The name; nothing is there yet.
    """
    put_back(path)
    for left in _left_beside(path) if os.name == "posix" else ():
        if left.suffix == ".tmp" or os.path.lexists(path):  # never the only copy
            _remove(left)
    own = path.with_name(
        f".{path.name}.{platform.node() or 'host'}-{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp"
    )
    _in_use.add(own.name)
    return own


def put_back(path: Path) -> None:
    """Put a folder back under its name whose replacement was cut short by a kill, where the system
    cannot let two names change places.

    Args:
        path: its name; nothing is done where something is there.
    """
    if os.path.lexists(path):
        return
    for old in (left for left in _left_beside(path) if left.suffix == ".old"):
        # another process was faster, or the folder is read-only: what follows says so
        with contextlib.suppress(OSError):
            os.rename(old, path)
            return


def _left_beside(path: Path) -> list[Path]:
    """What killed processes left beside a name, the latest first."""
    pattern = re.compile(
        rf"\.{re.escape(path.name)}\.(?:(.*)-)?(\d+)(?:\.[0-9a-f]{{8}})?\.(tmp|old)", re.DOTALL
    )
    leftovers: list[tuple[float, Path]] = []
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        with contextlib.suppress(OSError):  # gone by now
            if (match := pattern.fullmatch(left.name)) and _is_left(left, *match.groups()):
                leftovers.append((left.lstat().st_ctime, left))
    return [left for _, left in sorted(leftovers, reverse=True)]


def _is_left(left: Path, host: str | None, process: str, kind: str) -> bool:
    """Whether nobody works with it. Of other hosts only a folder out of its place says so, once it
    is out for longer than a renaming.
    """
    if host not in (None, platform.node() or "host"):
        return kind == "old" and time.time() - left.lstat().st_ctime > _MOMENT
    # a process of an earlier life of the machine may have had the same number
    if int(process) == os.getpid():
        return left.name not in _in_use
    return not _is_alive(int(process))


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True


def _replace(temporary: Path, path: Path) -> None:
    """Put what was written in its place; two folders change places in one step."""
    if not (temporary.is_dir() and path.is_dir()):
        os.replace(temporary, path)
    elif not _change_places(temporary, path):
        old = temporary.with_suffix(".old")  # :func:`put_back` knows it
        _in_use.add(old.name)
        os.replace(path, old)
        try:
            os.replace(temporary, path)
        except OSError:
            os.replace(old, path)
            raise
        _remove(old)


def _change_places(one: Path, other: Path) -> bool:
    """Let two names change places in one step; whether the system and the file system could."""
    names = {"linux": "renameat2", "darwin": "renamex_np"}
    if sys.platform not in names:
        return False
    function = getattr(ctypes.CDLL(None), names[sys.platform], None)
    if function is None:
        return False
    here = ctypes.c_int(-100)
    a = os.fsencode(one.absolute())
    b = os.fsencode(other.absolute())
    exchange = ctypes.c_uint(2)
    return (
        function(here, a, here, b, exchange)
        if sys.platform == "linux"
        else function(a, b, exchange)
    ) == 0


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        # never made, or its folder is no folder: the error under way says so
        with contextlib.suppress(OSError):
            path.unlink()


def digest(*parts: bytes | memoryview) -> str:
    """SHA-256 of the parts in order, as 64 hexadecimal digits."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part)
    return total.hexdigest()


@contextlib.contextmanager
def locked(path: str | os.PathLike, of: str | os.PathLike | None = None) -> Iterator[None]:
    """Hold the exclusive lock file ``path`` until the block ends; never wait for it.

    The kernel of the operating system holds the lock for this process alone, and lets it go when
    the process ends, however it ends: what a killed process leaves behind does not matter. A file
    beside the lock says who holds it. The lock file itself stays behind, empty: removing it would
    let two processes lock two files of one name. Choose a hidden name.

    Args:
        path: the lock file.
        of: what is written under the lock, for messages; ``path`` if left out.

    Raises:
        StoreError: another process (or another place in this one) holds the lock; the folder is
            missing or read-only; its file system has no locks.
    """
    from filelock import FileLock

    path, of = Path(path), path if of is None else of
    if not path.absolute().parent.is_dir():  # filelock would make it
        raise StoreError(
            f"cannot write {of}: there is no folder {path.absolute().parent}. Make "
            f"it, or choose another one."
        )
    if path.is_symlink():
        raise StoreError(
            f"cannot lock {of}: {path} is a link, and npk follows none there. Remove it."
        )
    lock = FileLock(path, blocking=False, thread_local=False, fallback_to_soft=False)
    _acquire(lock, path, of)
    owner, holder = os.getpid(), _holder_file(path)
    try:
        _say_who(holder)
        yield
    finally:
        if os.getpid() == owner:  # a forked child has neither the lock nor a say in who holds it
            _remove(holder)
            lock.release()


def _acquire(lock: "BaseFileLock", path: Path, of: str | os.PathLike) -> None:
    from filelock import Timeout

    try:
        lock.acquire()
    except Timeout:
        raise StoreError(
            f"{of} is being written by {_who(_holder_file(path))}. Wait for it to end, or stop it."
        ) from None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, NotImplementedError) or error.errno in _NO_LOCKS:
            message = (
                f"cannot lock {of}: its file system has no locks, so two runs could write at once. "
                f"Choose a folder on another one."
            )
            raise StoreError(message) from error
        reason = error.strerror or str(error)
        raise StoreError(
            f"cannot lock {of}: {path}: {reason}. Choose a folder that is writable and has room."
        ) from error


def _holder_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _say_who(holder: Path) -> None:
    """Write who holds the lock: the lock needs no text, so a full disk is no error."""
    _remove(holder)
    temporary = holder.with_name(f"{holder.name}.tmp")  # only the holder of the lock writes it
    who = {
        "process": os.getpid(),
        "host": platform.node(),
        "since": datetime.now().astimezone().isoformat(" ", "seconds"),
    }
    _remove(temporary)
    try:
        with temporary.open("x") as file:  # through no link
            json.dump(who, file)
        os.replace(temporary, holder)
    except OSError:
        _remove(temporary)


def _who(holder: Path) -> str:
    try:
        who = json.loads(holder.read_text())
        return f"process {int(who['process'])} on host {who['host']} (since {who['since']})"
    except (OSError, ValueError, TypeError, KeyError):
        return "another process"
