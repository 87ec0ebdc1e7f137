"""A folder that replaces another: whatever kills the process, the old or the new one is under its
name, and no leftover stays.
"""

import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import npk.files
from npk.errors import StoreError
from npk.files import put_back, written_whole

needs_exchange = pytest.mark.skipif(
    sys.platform not in ("linux", "darwin"), reason="this system lets no names change places"
)

REPLACE = """
import os, signal, sys
from pathlib import Path
import npk.files as files

change_places, replace, remove, after = files._change_places, os.replace, files._remove, int(sys.argv[2])
steps = iter(range(10**6))

def killed():
    if next(steps) == after:
        os.kill(os.getpid(), signal.SIGKILL)

def step(do):
    def stepping(*of):
        killed()
        return do(*of)
    return stepping

files._change_places = step(change_places if sys.argv[3] == "exchange" else lambda *of: False)
files.os.replace, files._remove = step(replace), step(remove)
with files.written_whole(Path(sys.argv[1])) as temporary:
    killed()
    temporary.mkdir()
    (temporary / "what").write_text("new")
killed()
print("done")
"""


def folder(path, what="old"):
    path.mkdir()
    (path / "what").write_text(what)
    return path


def save(path, what):
    with written_whole(path) as temporary:
        folder(temporary, what)


@pytest.fixture(params=[pytest.param("exchange", marks=needs_exchange), "two renamings"])
def how(request, monkeypatch):
    """Where names can change places, and where they cannot."""
    if request.param != "exchange":
        monkeypatch.setattr(npk.files, "_change_places", lambda *of: False)
    return request.param


@needs_exchange
def test_names_change_places_here(tmp_path):
    one, other = folder(tmp_path / "one", "1"), folder(tmp_path / "other", "2")
    assert npk.files._change_places(one, other)
    assert ((one / "what").read_text(), (other / "what").read_text()) == ("2", "1")
    assert not npk.files._change_places(one, tmp_path / "nothing")


def test_a_folder_is_replaced_and_nothing_is_left(how, tmp_path):
    save(tmp_path / "g", "old")
    for what in ("new", "newer"):
        save(tmp_path / "g", what)
        assert (tmp_path / "g" / "what").read_text() == what
        assert os.listdir(tmp_path) == ["g"]


@pytest.mark.parametrize("how", [pytest.param("exchange", marks=needs_exchange), "two renamings"])
def test_a_kill_at_any_step_leaves_the_old_or_the_new_folder(how, tmp_path):
    seen, steps = set(), 0
    while True:
        place = tmp_path / f"{steps}"
        place.mkdir()
        folder(place / "g")
        found = subprocess.run(
            [sys.executable, "-c", REPLACE, place / "g", str(steps), how],
            capture_output=True,
            text=True,
            check=False,
        )
        put_back(place / "g")  # what every reader does first
        what = (place / "g" / "what").read_text()
        seen.add(what)
        if found.stdout == "done\n":
            break
        assert found.returncode == -signal.SIGKILL, found.stderr
        save(place / "g", "newest")
        assert (place / "g" / "what").read_text() == "newest"
        assert os.listdir(place) == ["g"]
        steps += 1
    assert steps >= 4
    assert (seen, what) == ({"old", "new"}, "new")


@pytest.fixture
def dead():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    "name", [".g.{host}-{pid}.0123abcd.old", ".g.{host}-{pid}.old", ".g.{pid}.old"]
)
def test_the_only_copy_is_put_back_by_the_next_that_reads_or_writes(name, dead, tmp_path):
    left = tmp_path / name.format(host=platform.node() or "host", pid=dead)
    for use in (put_back, lambda path: save(path.with_name("h"), "h") or put_back(path)):
        folder(left)
        # never whole
        (tmp_path / f".g.{platform.node() or 'host'}-{dead}.tmp").mkdir(exist_ok=True)
        use(tmp_path / "g")
        assert (tmp_path / "g" / "what").read_text() == "old"
        shutil.rmtree(tmp_path / "g")
    folder(left)
    with pytest.raises(StoreError), written_whole(tmp_path / "g"):
        raise StoreError(str((tmp_path / "g" / "what").read_text() == "old"))
    assert (tmp_path / "g" / "what").read_text() == "old"


def test_what_others_have_at_work_is_left_alone(tmp_path):
    """Of a living process, and of another host as long as it may be between two renamings."""
    names = [
        f".g.{platform.node() or 'host'}-{os.getppid()}.old",
        f".g.{platform.node() or 'host'}-{os.getppid()}.tmp",
        ".g.elsewhere-1.old",
    ]
    for name in names:
        folder(tmp_path / name)
    put_back(tmp_path / "g")
    assert not (tmp_path / "g").exists()
    save(tmp_path / "g", "new")
    assert sorted(os.listdir(tmp_path)) == sorted([*names, "g"])


def test_what_another_host_left_is_put_back_after_a_while(tmp_path, monkeypatch):
    folder(tmp_path / ".g.elsewhere-1.old")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 61)
    put_back(tmp_path / "g")
    assert (tmp_path / "g" / "what").read_text() == "old"


def test_a_number_of_a_process_may_come_again(tmp_path, monkeypatch):
    """In a container the process that goes on often has the number of the one that was killed."""
    folder(tmp_path / f".g.{platform.node() or 'host'}-{os.getpid()}.tmp", "half")
    save(tmp_path / "g", "new")
    assert os.listdir(tmp_path) == ["g"]


def test_two_at_once_in_one_process(tmp_path):
    with written_whole(tmp_path / "g") as one, written_whole(tmp_path / "g") as other:
        folder(one, "first")
        folder(other, "second")
    assert (tmp_path / "g" / "what").read_text() == "first"  # that block ends last
    assert os.listdir(tmp_path) == ["g"]


def test_a_disk_that_fails_at_the_second_renaming_leaves_the_old_folder(tmp_path, monkeypatch):
    folder(tmp_path / "g")
    replace, calls = os.replace, []

    def failing(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(npk.files, "_change_places", lambda *of: False)
    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(StoreError, match="cannot write .*g: Input/output error"):
        save(tmp_path / "g", "new")
    assert os.listdir(tmp_path) == ["g"]
    assert (tmp_path / "g" / "what").read_text() == "old"


def test_a_link_is_replaced_and_what_it_leads_to_is_not(how, tmp_path):
    folder(tmp_path / "mine", "mine")
    os.symlink(tmp_path / "mine", tmp_path / "g")
    save(tmp_path / "g", "new")
    assert (tmp_path / "g" / "what").read_text() == "new"
    assert (tmp_path / "mine" / "what").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["g", "mine"]


def test_gates_are_put_back_by_whatever_opens_them(dead, tmp_path, capsys):
    import numpy as np

    from npk import cli
    from npk.gates.table import GateTable

    net = npk.networks.build("fc", input_shape=(6,), classes=3, hidden=[5], seed=1)
    table = npk.record_gates(net, np.ones((4, 6), np.float32))
    place, away = (
        tmp_path / "X.gates",
        tmp_path / f".X.gates.{platform.node() or 'host'}-{dead}.0123abcd.old",
    )
    table.save(place)
    for use in (
        lambda: GateTable.load(place),
        lambda: cli.run(["verify-store", str(place)]) and pytest.fail("not put back"),
        lambda: (
            cli.run(["kernel", str(place), "--out", str(tmp_path / "K.npy")])
            and pytest.fail("not put back")
        ),
    ):
        os.rename(place, away)
        use()
        assert Path(place).is_dir()
