"""`npk verify-store`: what is sound, incomplete or damaged is told; what is dropped is computed
again, and nothing else is.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest

import npk
from npk import cli
from npk.errors import StoreError
from npk.files import locked
from npk.gram.store import GramStore
from npk.gram.verification import examine
from npk.gram.work import Work
from npk.progress import Silent

SIDE, N, M = 16, 40, 24  # 3 tiles down, 2 across; 6 in one triangle


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A checkpoint, samples, a gate table, and sound kernels: symmetric, and of rows with columns."""
    found = tmp_path_factory.mktemp("verification")
    net = npk.networks.build("fc", input_shape=(12,), classes=3, hidden=[40, 30], seed=0)
    npk.save(net, found / "net.safetensors")
    X = np.random.default_rng(0).standard_normal((N + M, 12), dtype=np.float32)
    np.save(found / "X.npy", X[:N])
    np.save(found / "Y.npy", X[N:])
    npk.record_gates(net, X[:N]).save(found / "X.gates")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("npk.gram.tiles._LARGEST", SIDE)
        patch.setattr("npk.gates.pieces._PIECE_SAMPLES", SIDE)
        npk.kernel(net, X[:N], out=found / "square.zarr", progress=False)
        npk.kernel(net, X[:N], X[N:], out=found / "wide.zarr", progress=False)
    return found


@pytest.fixture
def folder(origin, tmp_path, monkeypatch):
    """A copy of its own for a test, and the current folder."""
    shutil.copytree(origin, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr("npk.gram.tiles._LARGEST", SIDE)
    return tmp_path / "work"


@pytest.fixture
def npk_command(folder, capsys):
    """Run a command line in this process; gives exit code, standard output and standard error."""

    def call(*arguments):
        capsys.readouterr()
        code = cli.run([str(argument) for argument in arguments])
        return (code, *capsys.readouterr())

    return call


@pytest.fixture
def work(monkeypatch):
    """The tiles that are computed, and the numbers of samples that are recorded together."""
    from npk.gates.store import GateStore

    found = {"tiles": [], "pieces": []}
    start, write = Work._start, GateStore.write
    monkeypatch.setattr(
        Work,
        "_start",
        lambda self, tile, *rest: (
            found["tiles"].append((tile.row, tile.col)),
            start(self, tile, *rest),
        )[1],
    )
    monkeypatch.setattr(
        GateStore,
        "write",
        lambda self, start, table: (
            found["pieces"].append((start, len(table))),
            write(self, start, table),
        )[1],
    )
    return found


def kernel_command(store):
    wide = ["--against", "Y.npy"] if "wide" in store else []
    return ["kernel", "net.safetensors", "--data", "X.npy", *wide, "--out", store]


def flip(path, at=0):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def files(store):
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in Path(store).rglob("*")
        if path.is_file() and path.name[0] != "."
    }


def refused(result, *texts):
    """Exit code 2, nothing on standard output, one line of error that holds the texts."""
    code, out, err = result
    assert (code, out) == (cli.REFUSED, ""), err
    assert err.startswith("npk: ")
    assert err.count("\n") == 1
    assert "unexpected" not in err
    for text in texts:
        assert text in err


SOUND = {
    "square.zarr": "40 x 40 float32, 6 tiles",
    "wide.zarr": "40 x 24 float32, 6 tiles",
    "X.gates": "gates of 40 samples",
}


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize("store", SOUND)
def test_what_is_sound(npk_command, store, drop):
    before = files(store)
    assert npk_command("verify-store", store, *["--drop"] * drop)[:2] == (
        0,
        f"{store}: {SOUND[store]}\n",
    )
    assert files(store) == before


def test_what_is_not_complete_is_sound_and_says_so(npk_command):
    with GramStore.writing("square.zarr") as store:
        for tile in list(store.plan)[1:3]:
            store.forget(tile)
        store.rows.forget(16)
    said = "square.zarr: 40 x 40 float32, 6 tiles, 2 of them missing\n"
    assert npk_command("verify-store", "square.zarr")[:2] == (0, said)
    from npk.gates.store import GateStore

    GateStore.open("X.gates", write=True).forget(0)
    assert npk_command("verify-store", "X.gates")[1].endswith(
        ": gates of 40 samples, 40 of them missing\n"
    )


DAMAGES = {
    "a tile": ("square.zarr", "tiles/0-0/c/0/2", "tile (0, 2)", [(0, 2)], []),
    "a tile of a wide one": ("wide.zarr", "tiles/0-0/c/2/1", "tile (2, 1)", [(2, 1)], []),
    "a checksum": ("square.zarr", "checksums/0-0/c/1/2", "tile (1, 2)", [(1, 2)], []),
    "gates": (
        "square.zarr",
        "rows/0/gates/1/c/1/0/0",
        "gates of samples 16 to 31 of the rows",
        [],
        [(16, 16)],
    ),
    "inputs of the last": (
        "square.zarr",
        "rows/0/inputs/c/2/0",
        "gates of samples 32 to 39 of the rows",
        [],
        [(32, 8)],
    ),
    "gates of columns": (
        "wide.zarr",
        "cols/0/gates/0/c/1/0/0",
        "gates of samples 16 to 23 of the columns",
        [],
        [(16, 8)],
    ),
    "a checksum of gates": (
        "wide.zarr",
        "rows/0/checksums/c/1",
        "gates of samples 16 to 31 of the rows",
        [],
        [(16, 16)],
    ),
}


@pytest.mark.parametrize("how", ["a byte", "cut short"])
@pytest.mark.parametrize(
    ("store", "file", "what", "tiles", "pieces"), DAMAGES.values(), ids=DAMAGES
)
def test_what_is_damaged_is_told_dropped_and_made_again(
    store, file, what, tiles, pieces, how, npk_command, work
):
    before, path = files(store), Path(store) / file
    flip(path) if how == "a byte" else path.write_bytes(path.read_bytes()[:3])
    damaged = files(store)
    lost = how == "cut short" and "checksums" in file  # then nobody knows what the others are like
    refused(npk_command("verify-store", store), store, "checksums" if lost else what, "amaged")
    assert files(store) == damaged
    code, out, _ = npk_command("verify-store", store, "--drop")
    assert code == 0
    assert out.splitlines()[1:] == [
        f"dropped: {what}. The command that wrote the store computes that again."
    ]
    assert work == {"tiles": [], "pieces": []}
    code, _, err = npk_command(*kernel_command(store))
    assert code == 0, err
    assert work == {"tiles": tiles, "pieces": pieces}
    assert files(store) == before  # to the bit
    assert npk_command("verify-store", store)[0] == 0


def test_all_damage_is_told_at_once(npk_command, work):
    store = Path("square.zarr")
    before = files(store)
    for file in ("tiles/0-0/c/0/0", "tiles/0-0/c/1/2", "rows/0/gates/0/c/0/0/0"):
        flip(store / file)
    both = "tile (0, 0), tile (1, 2), gates of samples 0 to 15 of the rows"
    refused(
        npk_command("verify-store", store),
        f"is damaged: {both}. All else is sound. Drop that with --drop, then run the command",
    )
    assert f"dropped: {both}." in npk_command("verify-store", store, "--drop")[1]
    assert npk_command(*kernel_command("square.zarr"))[0] == 0
    assert work["tiles"] == [(0, 0), (1, 2)]
    assert files(store) == before


def test_checksums_that_are_lost_with_others_that_are_not(npk_command, work):
    """One that cannot be read hides none of the damage that can be told."""
    store = Path("square.zarr")
    before = files(store)
    (store / "checksums/0-0/c/0/1").write_bytes(b"abc")
    flip(store / "tiles/0-0/c/2/2")
    assert "dropped: tile (0, 1), tile (2, 2)." in npk_command("verify-store", store, "--drop")[1]
    assert npk_command(*kernel_command("square.zarr"))[0] == 0
    assert work["tiles"] == [(0, 1), (2, 2)]
    assert files(store) == before


@pytest.mark.parametrize("name", ["tiles/0-0", "checksums/0-0"])
def test_a_description_that_is_cut_short(name, npk_command):
    (Path("square.zarr") / name / "zarr.json").write_text("{")
    for command in (["verify-store", "square.zarr", "--drop"], kernel_command("square.zarr")):
        refused_after_the_plan(
            npk_command(*command),
            "square.zarr is damaged",
            f"{name}/zarr.json is missing or cut short",
        )


def refused_after_the_plan(result, *texts):
    code, out, err = result
    refused(
        (
            code,
            out,
            "".join(
                line for line in err.splitlines(keepends=True) if not line.startswith("plan: ")
            ),
        ),
        *texts,
    )


def test_a_description_that_is_cut_short_where_no_tile_is_done(npk_command):
    with GramStore.writing("square.zarr") as store:
        for tile in store.plan:
            store.forget(tile)
    (Path("square.zarr") / "tiles/0-0/zarr.json").write_text("{")
    refused_after_the_plan(
        npk_command(*kernel_command("square.zarr")),
        "square.zarr is damaged: tiles/0-0/zarr.json is missing or cut short",
    )


@pytest.mark.parametrize("drop", [False, True])
def test_damaged_gate_tables_are_recorded_again(npk_command, drop):
    flip(Path("X.gates/0/inputs/c/0/0"))
    damaged = files("X.gates")
    refused(
        npk_command("verify-store", "X.gates", *["--drop"] * drop),
        "X.gates is damaged: gates of samples 0 to 39",
        "Record it again.",
    )
    assert files("X.gates") == damaged


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize(
    "what", ["nothing", "a file", "a folder", "another group", "a manifest cut short"]
)
def test_what_is_not_a_store(npk_command, what, drop):
    import zarr

    place = Path("other")
    if what == "a file":
        place.write_text("")
    elif what == "a folder":
        place.mkdir()
    elif what == "another group":
        zarr.open_group(place, mode="w")
    elif what == "a manifest cut short":
        shutil.copytree("square.zarr", place)
        (place / "zarr.json").write_text((place / "zarr.json").read_text()[:-9])
    there = files(place) if place.is_dir() else None
    refused(npk_command("verify-store", place, *["--drop"] * drop), "other")
    assert there is None or files(place) == there


def test_nothing_is_dropped_while_another_process_writes(npk_command):
    flip(Path("square.zarr/tiles/0-0/c/0/0"))
    damaged = files("square.zarr")
    with locked("square.zarr/.lock", of="it"):
        refused(
            npk_command("verify-store", "square.zarr", "--drop"),
            "square.zarr is being written by process",
            "Wait for it to end",
        )
        refused(
            npk_command("verify-store", "square.zarr"),
            "square.zarr is damaged: tile (0, 0). All else is sound",
        )
    assert files("square.zarr") == damaged


def test_what_was_found_is_a_value(folder):
    flip(Path("square.zarr/tiles/0-0/c/0/0"))
    with pytest.raises(
        StoreError,
        match=r"damaged: tile \(0, 0\)\. All else is sound\. Drop that "
        r"with --drop",
    ):
        examine("square.zarr", Silent()).refuse_damage()
    found = examine("square.zarr", Silent(), drop=True)
    assert (found.damaged, found.dropped) == (("tile (0, 0)",), True)
    found = examine("square.zarr", Silent(), drop=True)
    assert (found.damaged, found.dropped, found.content) == (
        (),
        False,
        "40 x 40 float32, 6 tiles, 1 of them missing",
    )
