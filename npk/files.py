"""Files that are written whole or not at all, and by one process at a time."""

import contextlib
import errno
import glob
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from npk.errors import StoreError

if TYPE_CHECKING:
    from filelock import BaseFileLock

_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}


@contextlib.contextmanager
def written_whole(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it to ``path`` when the block ends without an error.

    The temporary path does not exist yet: the block may create a file or a folder. A folder replaces an older folder.

    Raises:
        StoreError: the folder is missing or read-only, or the disk is full. Nothing is left half-written.
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
        raise StoreError(f"cannot write {path}: {reason}. Choose a folder that exists, is writable and has room.") from error
    finally:
        _remove(temporary)


def temporary_beside(path: Path) -> Path:
    """A hidden name beside ``path`` that no other process takes; what killed processes of this host left there is removed.

    Args:
        path: what will be written.

    Returns:
        The name; nothing is there yet.
    """
    own = f".{path.name}.{platform.node() or 'host'}-"
    for left in path.parent.glob(f"{glob.escape(own)}*.tmp") if os.name == "posix" else ():
        number = left.name.removeprefix(own).removesuffix(".tmp")
        if number.isdigit() and not _is_alive(int(number)):
            _remove(left)
    return path.with_name(f"{own}{os.getpid()}.tmp")


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True


def _replace(temporary: Path, path: Path) -> None:
    if temporary.is_dir() and path.is_dir():
        old = path.with_name(f".{path.name}.{os.getpid()}.old")
        os.replace(path, old)
        os.replace(temporary, path)
        shutil.rmtree(old)
    else:
        os.replace(temporary, path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):  # never made, or its folder is no folder: the error under way says so
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

    The kernel of the operating system holds the lock for this process alone, and lets it go when the process ends, however it ends: what
    a killed process leaves behind does not matter. A file beside the lock says who holds it. The lock file itself stays behind, empty:
    removing it would let two processes lock two files of one name. Choose a hidden name.

    Args:
        path: the lock file.
        of: what is written under the lock, for messages; ``path`` if left out.

    Raises:
        StoreError: another process (or another place in this one) holds the lock; the folder is missing or read-only; its file system
            has no locks.
    """
    from filelock import FileLock

    path, of = Path(path), path if of is None else of
    if not path.absolute().parent.is_dir():  # filelock would make it
        raise StoreError(f"cannot write {of}: there is no folder {path.absolute().parent}. Make it, or choose another one.")
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
        raise StoreError(f"{of} is being written by {_who(_holder_file(path))}. Wait for it to end, or stop it.") from None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, NotImplementedError) or error.errno in _NO_LOCKS:
            message = f"cannot lock {of}: its file system has no locks, so two runs could write at once. Choose a folder on another one."
            raise StoreError(message) from error
        reason = error.strerror or str(error)
        raise StoreError(f"cannot lock {of}: {path}: {reason}. Choose a folder that is writable and has room.") from error


def _holder_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _say_who(holder: Path) -> None:
    """Write who holds the lock. The lock does not need it, so a full disk is no error; what an earlier holder said goes first."""
    _remove(holder)
    temporary = holder.with_name(f"{holder.name}.tmp")  # only the holder of the lock writes it
    who = {"process": os.getpid(), "host": platform.node(), "since": datetime.now().astimezone().isoformat(" ", "seconds")}
    try:
        temporary.write_text(json.dumps(who))
        os.replace(temporary, holder)
    except OSError:
        _remove(temporary)


def _who(holder: Path) -> str:
    try:
        who = json.loads(holder.read_text())
        return f"process {int(who['process'])} on host {who['host']} (since {who['since']})"
    except (OSError, ValueError, TypeError, KeyError):
        return "another process"
