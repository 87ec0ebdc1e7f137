"""Faults under a run that writes a store: a clear error in one line, exit code 2, nothing lost, and
the same command goes on afterwards.

The disk's own faults are real where this process may mount file systems (root on Linux), and put
into zarr's writing everywhere.
"""

import contextlib
import errno
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

import npk
from npk import cli
from npk.gram.store import GramStore

SIDE, TILES, HALF = 16, 6, 3  # of 40 samples: three tiles across, one triangle
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """Checkpoint, samples, and ``half.zarr``: a store of an interrupted run with three of six
    tiles.
    """
    found = tmp_path_factory.mktemp("faults")
    for name, seed in (("net", 0), ("other", 1)):
        npk.save(
            npk.networks.build("fc", input_shape=(12,), classes=3, hidden=[40, 30], seed=seed),
            found / f"{name}.safetensors",
        )
    np.save(found / "X.npy", np.random.default_rng(0).standard_normal((40, 12), dtype=np.float32))
    np.save(
        found / "K.npy", npk.kernel(npk.load(found / "net.safetensors"), np.load(found / "X.npy"))
    )
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(found):
        small_tiles(patch)
        at_write(patch, HALF, interrupt)
        assert cli.run([*command(found / "half.zarr")]) == cli.INTERRUPTED
    return found


@pytest.fixture
def folder(origin, tmp_path, monkeypatch):
    """A copy of its own for a test, and the current folder."""
    shutil.copytree(origin, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    small_tiles(monkeypatch)
    return tmp_path / "work"


@pytest.fixture
def half(folder):
    return folder / "half.zarr"


@pytest.fixture
def npk_kernel(capsys):
    """Run `npk kernel` in this process; gives exit code, standard output and standard error."""

    def call(store, data="X.npy"):
        capsys.readouterr()
        code = cli.run(command(store, data))
        return (code, *capsys.readouterr())

    return call


def command(store, data="X.npy"):
    return ["kernel", "net.safetensors", "--data", data, "--out", str(store)]


def small_tiles(patch):
    patch.setattr("npk.gram.tiles._LARGEST", SIDE)


def interrupt(*_):
    raise KeyboardInterrupt


def at_write(patch, after, happen):
    """Something happens at the writing of a tile, after so many others."""
    write, calls = GramStore.write, []

    def writing(self, tile, values):
        calls.append(tile)
        if len(calls) == after + 1:
            happen(self.path)
        write(self, tile, values)

    patch.setattr(GramStore, "write", writing)


def refused(result, *texts):
    """Exit code 2, nothing on standard output, one line of error that holds the texts; the plan may
    stand above it.
    """
    code, out, err = result
    assert code == cli.REFUSED, (code, err)
    assert out == ""
    (line,) = (
        line
        for line in err.splitlines()
        if line.startswith("npk: ") and not line.startswith("npk: note")
    )
    assert err.endswith(line + "\n")
    assert "Traceback" not in err
    assert "unexpected" not in line
    for text in texts:
        assert text in line


def files(store):
    """Everything in a store that is not temporary: bytes by name."""
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in store.rglob("*")
        if path.is_file() and path.name[0] != "."
    }


def finished(store):
    """Finished tiles: their bytes, and which file holds them."""
    opened = GramStore.open(store)
    chunks = {path.parts[-2:]: path.stat() for path in store.glob("tiles/*/c/*/*")}
    done = [
        (tile, chunks[str(tile.row), str(tile.col)]) for tile in opened.plan if opened.is_done(tile)
    ]
    return {
        (tile.row, tile.col): (opened.read(tile).tobytes(), file.st_ino, file.st_mtime_ns)
        for tile, file in done
    }


def goes_on(result, store, before):
    """The run ends well; the store is whole, right, without temporary files, and no tile of before
    was written again.
    """
    assert result[0] == 0, result[2]
    after = finished(store)
    assert {tile: after[tile] for tile in before} == before
    np.testing.assert_array_equal(np.asarray(npk.Gram.load(store)), np.load("K.npy"))
    left = {path.name for path in store.rglob(".*")} | {
        path.name for path in store.parent.glob(f".{store.name}*")
    }
    assert not {name for name in left if ".lock" not in name}
    assert not [path for path in store.rglob("*") if path.name.endswith((".tmp", ".partial"))]


def test_an_interrupted_run_goes_on(half, npk_kernel):
    before = finished(half)
    assert len(before) == HALF
    result = npk_kernel(half)
    goes_on(result, half, before)
    assert f"{HALF} of {TILES} tiles from an earlier run" in result[1]


# the disk


def full_at(patch, place, after=0):
    """Every write below a place in the store fails, after some."""
    put, calls = zarr.storage.LocalStore.set, []

    async def writing(self, key, value):
        calls.extend([key] if place in f"{self.root.name}/{key}" else [])
        if len(calls) > after and place in f"{self.root.name}/{key}":
            raise FULL
        await put(self, key, value)

    patch.setattr(zarr.storage.LocalStore, "set", writing)


@pytest.mark.parametrize("place", ["tiles/0-0/c/", "checksums/0-0/c/"])
@pytest.mark.parametrize("after", [0, 2])
def test_full_disk_at_a_tile(folder, half, npk_kernel, place, after):
    before = finished(half)
    with pytest.MonkeyPatch.context() as patch:
        full_at(patch, place, after)
        refused(npk_kernel(half), "No space left on device", "half.zarr", "kept")
    kept = finished(half)
    assert len(kept) == HALF + after
    assert {tile: kept[tile] for tile in before} == before
    goes_on(npk_kernel(half), half, kept)


@pytest.mark.parametrize("place", ["rows/0/gates/", "rows/0/inputs/c/", "rows/0/checksums/c/"])
def test_full_disk_at_the_gates(folder, npk_kernel, place):
    with pytest.MonkeyPatch.context() as patch:
        full_at(patch, place, after=0 if "/c/" in place else 3)
        refused(npk_kernel(folder / "K.zarr"), "No space left on device", "K.zarr")
    goes_on(npk_kernel(folder / "K.zarr"), folder / "K.zarr", {})


def test_full_disk_at_a_new_store(folder, npk_kernel):
    there = sorted(os.listdir(folder))
    with pytest.MonkeyPatch.context() as patch:
        full_at(patch, "zarr.json")
        refused(npk_kernel(folder / "K.zarr"), "No space left on device", "K.zarr")
    assert sorted(os.listdir(folder)) == there
    goes_on(npk_kernel(folder / "K.zarr"), folder / "K.zarr", {})


@pytest.fixture
def disk(tmp_path):
    """A disk of 1 MB; ``disk("size=64m")`` gives it other options."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if (
        not sys.platform.startswith("linux")
        or os.geteuid() != 0
        or subprocess.run(mount, capture_output=True, check=False).returncode
    ):
        pytest.skip("this process may not mount file systems")
    yield (
        place,
        lambda options: subprocess.run(
            ["mount", "-o", f"remount,{options}", str(place)], check=True
        ),
    )
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_is_really_full(folder, disk, npk_kernel, monkeypatch):
    place, remount = disk
    monkeypatch.setattr("npk.gram.tiles._LARGEST", 128)
    X = np.random.default_rng(1).standard_normal((700, 12), dtype=np.float32)
    np.save("many.npy", X)
    np.save("K.npy", npk.kernel(npk.load("net.safetensors"), X))  # 1.0 MB in one triangle of tiles
    refused(npk_kernel(place / "K.zarr", "many.npy"), "No space left on device", "K.zarr", "kept")
    before = finished(place / "K.zarr")
    assert 0 < len(before) < 21
    refused(npk_kernel(place / "K.zarr", "many.npy"), "No space left on device", "K.zarr")
    assert finished(place / "K.zarr").items() >= before.items()
    remount("size=64m")
    goes_on(npk_kernel(place / "K.zarr", "many.npy"), place / "K.zarr", before)


def test_a_read_only_disk(half, disk, npk_kernel):
    place, remount = disk
    store = place / "K.zarr"
    shutil.copytree(half, store)
    before, remaining = finished(store), files(store)
    remount("ro")
    refused(npk_kernel(store), "cannot lock", "K.zarr", "Read-only")
    refused(npk_kernel(place / "new.zarr"), "cannot write", "new.zarr", "ead-only")
    assert files(store) == remaining
    remount("rw")
    assert os.listdir(place) == ["K.zarr"]
    goes_on(npk_kernel(store), store, before)


def test_a_store_that_is_read_only_in_a_folder_that_is_not(half, disk, npk_kernel):
    place, remount = disk
    before = finished(half)
    shutil.copytree(half, place, dirs_exist_ok=True)
    shutil.rmtree(half)
    half.mkdir()
    subprocess.run(["mount", "--bind", str(place), str(half)], check=True)
    try:
        remount("ro")
        subprocess.run(["mount", "-o", "remount,bind,ro", str(half)], check=True)
        remaining = files(half)
        refused(npk_kernel(half), "half.zarr", "Read-only file system")
        assert files(half) == remaining
        remount("rw")
        subprocess.run(["mount", "-o", "remount,bind,rw", str(half)], check=True)
        assert finished(half).keys() == before.keys()
        goes_on(npk_kernel(half), half, finished(half))
    finally:
        subprocess.run(["umount", "-l", str(half)], check=True)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="no folder is read-only for this user"
)
def test_a_read_only_folder(half, npk_kernel):
    before = finished(half)
    half.chmod(0o500)
    refused(npk_kernel(half), "half.zarr", "Permission denied")
    half.chmod(0o700)
    goes_on(npk_kernel(half), half, before)


# damage


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def first_chunk(place):
    return next(
        path
        for path in sorted(place.rglob("*"))
        if path.is_file() and path.name != "zarr.json" and path.name[0] != "."
    )


def damaged_and_mended(npk_kernel, store, path, damage, *texts):
    """A damaged file is told and nothing else is touched; with the file as it was the run goes on."""
    before, content, status = finished(store), path.read_bytes(), path.stat()
    damage(path)
    remaining = files(store)
    refused(npk_kernel(store), store.name, *texts)
    assert files(store) == remaining
    with path.open("r+b") as file:  # the same file, or it would seem to be written by npk
        file.write(content)
        file.truncate()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    goes_on(npk_kernel(store), store, before)


@pytest.mark.parametrize("at", [0, -1])
def test_a_flipped_byte_in_a_tile(half, npk_kernel, at):
    damaged_and_mended(
        npk_kernel,
        half,
        first_chunk(half / "tiles"),
        lambda path: flip(path, at),
        "damaged at tile (0, 0)",
    )


@pytest.mark.parametrize("what", ["gates", "inputs", "checksums"])
def test_a_flipped_byte_in_the_gates(half, npk_kernel, what):
    damaged_and_mended(
        npk_kernel,
        half,
        first_chunk(half / "rows" / "0" / what),
        lambda path: flip(path, 0),
        "damaged",
    )


def test_a_flipped_byte_in_a_checksum(half, npk_kernel):
    damaged_and_mended(
        npk_kernel,
        half,
        first_chunk(half / "checksums"),
        lambda path: flip(path, 0),
        "damaged at tile (0, 0)",
    )


@pytest.mark.slow
def test_every_manifest_cut_short(half, npk_kernel, tmp_path):
    """That of a folder between may go unnoticed: nothing is read from it. Then the run ends well."""
    names, noticed = sorted(str(path.relative_to(half)) for path in half.rglob("zarr.json")), []
    for name in names:
        store = tmp_path / "one" / "half.zarr"
        shutil.copytree(half, store)
        before, remaining, content = finished(store), files(store), (store / name).read_bytes()
        os.truncate(store / name, len(content) // 2)
        result = npk_kernel(store)
        if result[0]:
            noticed.append(name)
            refused(result, "half.zarr", "damaged")
            assert files(store) == remaining | {name: content[: len(content) // 2]}
            (store / name).write_bytes(content)
            result = npk_kernel(store)
        goes_on(result, store, before)
        shutil.rmtree(store)
    arrays = {str(path.parent.relative_to(half) / "zarr.json") for path in half.rglob("c")}
    assert {"zarr.json", "rows/zarr.json", *arrays} <= set(noticed)


def test_a_changed_manifest(half, npk_kernel):
    def change(path):
        path.write_text(path.read_text().replace('"side": 16', '"side": 8'))

    assert '"side": 16' in (half / "zarr.json").read_text()
    damaged_and_mended(npk_kernel, half, half / "zarr.json", change, "damaged")


def test_a_damaged_tile_is_dropped_and_computed_again(half, npk_kernel, capsys):
    damaged = (0, 0)
    before = {tile: found for tile, found in finished(half).items() if tile != damaged}
    flip(first_chunk(half / "tiles"), 0)
    refused(npk_kernel(half), "verify-store", "--drop")
    cli.run(["verify-store", str(half), "--drop"])
    assert "(0, 0)" in "".join(capsys.readouterr())
    assert finished(half) == before
    goes_on(npk_kernel(half), half, before)


# something else in the place of the network or the data


def test_a_changed_checkpoint(half, npk_kernel):
    before, remaining, content = finished(half), files(half), Path("net.safetensors").read_bytes()
    shutil.copy("other.safetensors", "net.safetensors")
    refused(npk_kernel(half), "half.zarr holds another kernel", "other weights")
    assert files(half) == remaining
    Path("net.safetensors").write_bytes(content)
    goes_on(npk_kernel(half), half, before)


def test_a_changed_data_file(half, npk_kernel):
    before, remaining, X = finished(half), files(half), np.load("X.npy")
    for other in (X + (np.arange(40) == 39)[:, None], X[::-1], X[:39]):
        np.save("X.npy", other.astype(np.float32))
        refused(npk_kernel(half), "half.zarr holds another kernel", "rows")
        assert files(half) == remaining
    np.save("X.npy", X)
    goes_on(npk_kernel(half), half, before)


# the folder


@pytest.mark.parametrize("after", [0, 1])
def test_a_store_that_is_moved_away_during_a_run(folder, half, npk_kernel, after):
    before, away = finished(half), folder / "away.zarr"
    with pytest.MonkeyPatch.context() as patch:
        at_write(patch, after, lambda path: os.rename(path, away))
        refused(npk_kernel(half), "half.zarr", "gone")
    assert not half.exists()
    kept = finished(away)
    assert len(kept) == HALF + after
    assert {tile: kept[tile] for tile in before} == before
    os.rename(away, half)
    goes_on(npk_kernel(half), half, kept)


def test_a_store_that_vanishes_during_a_run(folder, npk_kernel):
    with pytest.MonkeyPatch.context() as patch:
        at_write(patch, 2, shutil.rmtree)
        refused(npk_kernel(folder / "K.zarr"), "K.zarr", "gone")
    assert not (folder / "K.zarr").exists()
    goes_on(npk_kernel(folder / "K.zarr"), folder / "K.zarr", {})


def test_a_store_that_vanishes_while_gates_are_read(half, npk_kernel, monkeypatch):
    from npk.gates.store import GateStore

    take, away = GateStore.take, half.with_name("away.zarr")

    def taking(self, rows):
        if half.exists():
            os.rename(half, away)
        return take(self, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GateStore, "take", taking)
        refused(npk_kernel(half), "half.zarr")
    assert not half.exists()
    os.rename(away, half)
    goes_on(npk_kernel(half), half, finished(half))


def test_what_a_killed_run_left_is_cleared_away(half, npk_kernel):
    before = finished(half)
    (half / "tiles" / "0-0" / "c" / "0" / "1.0123456789abcdef.partial").write_bytes(b"half a tile")
    (half / ".lock").touch()
    (half / ".lock.json").write_text('{"process": 1, "host": "another", "since": "long ago"}')
    goes_on(npk_kernel(half), half, before)


def test_what_a_run_left_that_was_killed_making_a_store_is_cleared_away(folder, npk_kernel):
    left = folder / f".K.zarr.{platform.node()}-4194304.tmp"  # no process has this number
    left.mkdir()
    goes_on(npk_kernel(folder / "K.zarr"), folder / "K.zarr", {})
    assert not left.exists()


# processes

WAITING = f"""
import sys
from npk import cli
from npk.gram import tiles
from npk.gram.store import GramStore

tiles._LARGEST, write = {SIDE}, GramStore.write

def writing(self, tile, values):
    write(self, tile, values)
    print("tile", flush=True)
    sys.stdin.readline()

GramStore.write = writing
sys.exit(cli.run(sys.argv[1:]))
"""


@pytest.fixture
def writer(folder):
    """Another process that computes ``K.zarr`` and waits for a line after every tile."""
    line = [sys.executable, "-c", WAITING, *command(folder / "K.zarr")]
    environment = {**os.environ, "PYTHONPATH": str(Path(npk.__file__).parents[1])}
    process = subprocess.Popen(
        line,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout.readline() == "tile\n"
    yield process
    process.kill()
    process.stdin.close()
    process.stdout.close()
    process.wait()


@pytest.mark.slow
def test_two_writers_at_once(folder, writer, npk_kernel):
    store = folder / "K.zarr"
    before, remaining = finished(store), files(store)
    refused(
        npk_kernel(store),
        "K.zarr is being written by process",
        str(writer.pid),
        "Wait for it to end, or stop it",
    )
    assert files(store) == remaining
    with contextlib.suppress(BrokenPipeError):
        for _ in range(TILES):
            writer.stdin.write("\n")
            writer.stdin.flush()
    assert writer.wait() == 0
    goes_on(npk_kernel(store), store, before)


@pytest.mark.slow
def test_the_second_writer_goes_on_after_the_first_was_killed(folder, writer, npk_kernel):
    store = folder / "K.zarr"
    refused(npk_kernel(store), "is being written by process", str(writer.pid))
    writer.kill()
    writer.wait()
    before = finished(store)
    assert len(before) == 1
    goes_on(npk_kernel(store), store, before)


@pytest.mark.slow
def test_reading_while_another_process_writes(folder, writer):
    gram = npk.Gram.load(folder / "K.zarr")
    assert not gram.complete
    assert len(finished(folder / "K.zarr")) == 1
