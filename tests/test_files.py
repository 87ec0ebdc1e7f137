"""Lock files: one writer at a time, and nothing that a killed process leaves behind matters."""

import errno
import json
import os
import platform
import signal
import subprocess
import sys
import warnings

import filelock
import pytest

from npk.errors import StoreError
from npk.files import locked

HOLD = """
import sys
from npk.files import locked

with locked(sys.argv[1], of="K.zarr"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def lock(tmp_path):
    return tmp_path / ".K.zarr.lock"


@pytest.fixture
def holder(lock):
    """Another process that holds the lock until its standard input closes."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.stdin.close()
    process.stdout.close()
    process.wait()


def free(lock):
    with locked(lock):
        return True


def test_a_second_process_is_refused_and_told_who_writes(lock, holder):
    who = rf"process {holder.pid} on host {platform.node()} \(since 20\d\d-.*\)"
    with (
        pytest.raises(
            StoreError,
            match=rf"^K\.zarr is being written by {who}\. Wait for it to "
            rf"end, or stop it\.$",
        ),
        locked(lock, of="K.zarr"),
    ):
        pass
    holder.stdin.close()
    assert holder.wait() == 0
    assert free(lock)


def test_the_lock_of_a_killed_process_is_free_at_once(lock, holder):
    holder.send_signal(signal.SIGKILL)
    assert holder.wait() == -signal.SIGKILL
    # what is left says so still
    assert json.loads(lock.with_name(".K.zarr.lock.json").read_text())["process"] == holder.pid
    with (
        locked(lock),
        pytest.raises(StoreError, match=f"is being written by process {os.getpid()} on"),
        locked(lock),
    ):
        pass
    assert os.listdir(lock.parent) == [lock.name]


def test_the_same_process_is_refused_too_and_the_first_hold_goes_on(lock):
    with locked(lock):
        for _ in range(2):
            with (
                pytest.raises(
                    StoreError,
                    match=rf"{lock} is being written by process "
                    rf"{os.getpid()}",
                ),
                locked(lock),
            ):
                pass
    assert free(lock)


@pytest.mark.parametrize(
    "said", [None, "", "{", "[]", '{"process": "x", "host": "h", "since": ""}', '{"process": 3}']
)
def test_what_the_file_beside_says_does_not_matter(lock, said):
    beside = lock.with_name(".K.zarr.lock.json")
    with locked(lock):
        beside.unlink()
        if said is not None:
            beside.write_text(said)
        with (
            pytest.raises(
                StoreError, match="K is being written by another process. Wait for it to end"
            ),
            locked(lock, of="K"),
        ):
            pass


def test_only_an_empty_hidden_file_stays_behind(lock):
    lock.with_name(".K.zarr.lock.json.tmp").write_text("of a process that was killed")
    for _ in range(2):
        with locked(lock):
            assert sorted(os.listdir(lock.parent)) == [".K.zarr.lock", ".K.zarr.lock.json"]
        assert os.listdir(lock.parent) == [".K.zarr.lock"]
    assert lock.read_bytes() == b""


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_released_on_an_error(lock, error):
    with pytest.raises(error), locked(lock):
        raise error
    assert free(lock)


def test_a_full_disk_hides_who_writes_and_nothing_else(lock, monkeypatch):
    lock.with_name(".K.zarr.lock.json").write_text(
        '{"process": 1, "host": "of a process that was killed", "since": ""}'
    )

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with (
        locked(lock),
        pytest.raises(StoreError, match="is being written by another process"),
        locked(lock),
    ):
        pass
    assert os.listdir(lock.parent) == [lock.name]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize("leaves", [True, False], ids=["child leaves the block", "child goes on"])
def test_a_forked_child_does_not_keep_the_lock(lock, leaves):
    beside = lock.with_name(".K.zarr.lock.json")
    read, write = os.pipe()
    parent = os.getpid()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking a process with threads
        try:
            with locked(lock):
                child = os.fork()
                if child == 0 and not leaves:
                    os.read(read, 1)
                    os._exit(0)
                if child:
                    if leaves:
                        assert os.waitpid(child, 0)[1] == 0
                    assert beside.exists()
                    with pytest.raises(StoreError, match=f"process {parent} on"), locked(lock):
                        pass
        finally:
            if os.getpid() != parent:
                os._exit(0)
    assert free(lock)  # though the child lives
    os.write(write, b"x")
    if not leaves:
        os.waitpid(child, 0)
    os.close(read)
    os.close(write)


def failing_flock(monkeypatch, error):
    def fail(self):
        raise error

    monkeypatch.setattr(filelock.FileLock, "_acquire", fail)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSYS, "Function not implemented"),
        OSError(errno.EOPNOTSUPP, "x"),
        OSError(errno.ENOLCK, "x"),
        NotImplementedError(),
    ],
)
def test_a_file_system_without_locks(lock, monkeypatch, error):
    failing_flock(monkeypatch, error)
    with pytest.raises(
        StoreError,
        match="cannot lock K: its file system has no locks, so two runs "
        ".* Choose a folder on another one",
    ):
        with locked(lock, of="K"):
            pass


@pytest.mark.skipif(not filelock.has_fcntl, reason="this system locks in another way")
def test_no_lock_of_a_weaker_kind_is_taken_instead(lock, monkeypatch):
    import fcntl

    def no_flock(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", no_flock)
    with pytest.raises(StoreError, match="its file system has no locks"), locked(lock):
        pass


def test_a_read_only_folder(lock, monkeypatch):
    failing_flock(monkeypatch, PermissionError(errno.EACCES, "Permission denied"))
    with pytest.raises(
        StoreError, match="cannot lock K: .*: Permission denied. Choose a folder that is writable"
    ):
        with locked(lock, of="K"):
            pass


def test_a_folder_that_is_not_there_is_not_made(tmp_path):
    with (
        pytest.raises(StoreError, match="cannot write .*: there is no folder .*none. Make it"),
        locked(tmp_path / "none" / ".lock"),
    ):
        pass
    assert os.listdir(tmp_path) == []


def test_a_folder_in_the_place_of_the_lock(lock):
    lock.mkdir()
    with pytest.raises(StoreError, match="cannot lock .*: Is a directory"), locked(lock):
        pass
