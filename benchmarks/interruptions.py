"""Kill a run at random moments, resume it each time, and look from outside at what became of its
finished tiles.

python benchmarks/interruptions.py --kills 25 python benchmarks/interruptions.py --kills 25 --signal
INT

A small convolutional network with fixed weights and data, and small tiles, so that there are many;
`npk kernel` runs undisturbed once, then again and again with a signal after a random time, until
the kernel is whole; if it is whole too early, another store is begun. After every end of a process:
each tile that was finished before has the same file still (inode, time of writing, size), so it was
not computed and written again; files that a killed process left behind are counted. The whole store
is compared with the undisturbed one, byte by byte. A process that is sent SIGINT must end with exit
code 130, or by the signal itself if npk had not begun (which a shell shows as 130 too). Exit code 1
if anything does not hold.
"""

import argparse
import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import npk

Signature = tuple[int, int, int]  # inode, time of writing, bytes
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(npk.__file__).parents[1])}


def main() -> None:
    """Run undisturbed, run disturbed, compare, print."""
    options = parsed()
    with tempfile.TemporaryDirectory(prefix="npk-interruptions-", dir=options.folder) as folder:
        found = Found()
        command = prepared(Path(folder), options)
        undisturbed = Path(folder) / "A.zarr"
        seconds, startup = undisturbed_run(command, undisturbed)
        whole = npk.Gram.load(undisturbed).store
        tiles = len(list(whole.plan))
        print(
            f"undisturbed: {tiles} tiles in {seconds:.1f} s, the first after {startup:.1f} s",
            flush=True,
        )
        moments, most = (
            random.Random(options.seed),
            startup + 4 * (seconds - startup) / options.kills,
        )
        while found.signals < options.kills:
            store = Path(folder) / f"B{found.stores}.zarr"
            disturbed_run(command, store, options, lambda: moments.uniform(0, most), found)
            found.stores += 1
            found.differences += [
                f"{store.name}: {text}" for text in differences(undisturbed, store)
            ]
            shutil.rmtree(store, ignore_errors=True)
    report(found, options)
    sys.exit(1 if found.failures(options) else 0)


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=25, help="signals in all")
    parser.add_argument("--signal", choices=("KILL", "INT"), default="KILL")
    parser.add_argument("--n", type=int, default=1500, help="samples")
    parser.add_argument("--side", type=int, default=64, help="of a tile, at most")
    parser.add_argument(
        "--leftovers",
        type=int,
        default=4,
        help="temporary files of killed processes allowed at any time",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument(
        "--folder", type=Path, help="where the stores are made, for the length of the run"
    )
    return parser.parse_args()


@dataclass
class Found:
    """What was seen from outside."""

    signals: int = 0
    early: int = 0  # signals before the first tile of a store
    stores: int = 0
    most_kept: int = 0  # finished tiles that a resumed run found
    looks: int = 0  # at finished tiles, after a resumed run
    again: list[str] = field(default_factory=list)  # finished tiles whose file was written again
    lost: list[str] = field(default_factory=list)  # finished tiles that are finished no more
    # temporary files after each end of a process
    leftovers: list[int] = field(default_factory=list)
    codes: dict[int, int] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)

    def failures(self, options: argparse.Namespace) -> list[str]:
        """All that does not hold, in words."""
        allowed = {-signal.SIGKILL} if options.signal == "KILL" else {130, -signal.SIGINT}
        codes = [
            f"exit code {code}, {count} times"
            for code, count in self.codes.items()
            if code not in allowed
        ]
        most = max(self.leftovers, default=0)
        temporary = (
            [f"{most} temporary files at a time, at most {options.leftovers} are allowed"]
            if most > options.leftovers
            else []
        )
        again = [f"computed twice: {text}" for text in self.again]
        return (
            again + [f"lost: {text}" for text in self.lost] + temporary + codes + self.differences
        )


def prepared(folder: Path, options: argparse.Namespace) -> list[str]:
    """Checkpoint and data; the command line without the store."""
    net = npk.networks.build("conv", input_shape=(1, 16, 16), classes=10, channels=[64] * 4, seed=0)
    npk.save(net, folder / "net.safetensors")
    np.save(
        folder / "X.npy", np.random.default_rng(0).random((options.n, 1, 16, 16), dtype=np.float32)
    )
    npk_ = (
        f"from npk import cli; from npk.gram import tiles; tiles._LARGEST = {options.side}; "
        f"cli.main()"
    )
    return [
        sys.executable,
        "-c",
        npk_,
        "kernel",
        str(folder / "net.safetensors"),
        "--data",
        str(folder / "X.npy"),
    ]


def started(command: list[str], store: Path) -> subprocess.Popen:
    """A run of its own process."""
    line = [*command, "--out", str(store)]
    return subprocess.Popen(
        line, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def undisturbed_run(command: list[str], store: Path) -> tuple[float, float]:
    """Seconds in all, and until the first tile is there."""
    start, first = time.monotonic(), None
    process = started(command, store)
    while process.poll() is None:
        time.sleep(0.05)
        if first is None and tile_files(store):
            first = time.monotonic() - start
    seconds, err = time.monotonic() - start, process.communicate()[1]
    if process.returncode:
        sys.exit(f"the undisturbed run failed with exit code {process.returncode}: {err}")
    return seconds, seconds if first is None else first


def disturbed_run(
    command: list[str],
    store: Path,
    options: argparse.Namespace,
    moment: Callable[[], float],
    found: Found,
) -> None:
    """Begin and resume one store until it is whole; without signals once there were enough."""
    before: dict[tuple[int, int], Signature] = {}
    for _ in range(100 * options.kills):
        process, sent = started(command, store), False
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment() if found.signals < options.kills else None)
        if process.poll() is None:
            process.send_signal(getattr(signal, f"SIG{options.signal}"))
            sent = True
        err = process.communicate()[1]
        now = finished(store)
        look(store, before, now, found)
        before = now
        if process.returncode == 0:
            return
        if not sent:
            sys.exit(f"a resumed run failed with exit code {process.returncode}: {err}")
        found.signals += 1
        found.early += not now
        found.codes[process.returncode] = found.codes.get(process.returncode, 0) + 1
        print(
            f"signal {found.signals}: {len(now)} tiles finished, {found.leftovers[-1]} temporary "
            f"files",
            flush=True,
        )
    sys.exit("the runs make no progress: each ends before it finishes a tile")


def look(store: Path, before: dict, now: dict, found: Found) -> None:
    """Compare the finished tiles of two looks at a store."""
    found.looks += len(before)
    found.most_kept = max(found.most_kept, len(before))
    found.lost += [f"{store.name} tile {tile}" for tile in before if tile not in now]
    found.again += [
        f"{store.name} tile {tile}" for tile in before if tile in now and now[tile] != before[tile]
    ]
    found.leftovers.append(len(list(leftovers(store))))


def finished(store: Path) -> dict[tuple[int, int], Signature]:
    """The finished tiles of a store, each with the signature of its file."""
    if not store.exists():
        return {}
    files, opened = tile_files(store), npk.Gram.load(store).store
    return {
        (tile.row, tile.col): files[tile.row, tile.col]
        for tile in opened.plan
        if opened.is_done(tile)
    }


def tile_files(store: Path) -> dict[tuple[int, int], Signature]:
    """The files of tiles by their numbers."""
    found = {}
    for path in store.glob("tiles*/**/c/**/*"):
        if path.name.isdigit() and path.parent.name.isdigit():
            with contextlib.suppress(FileNotFoundError):  # a run is under way
                status = path.stat()
                found[int(path.parent.name), int(path.name)] = (
                    status.st_ino,
                    status.st_mtime_ns,
                    status.st_size,
                )
    return found


def leftovers(store: Path) -> Iterator[Path]:
    """Temporary files and folders in a store and beside it; a lock file is none."""
    inside = (
        path
        for path in store.rglob("*")
        if path.is_file() and not re.fullmatch(r"\d+|c|zarr\.json", path.name)
    )
    beside = (path for path in store.parent.glob(f".{store.name}*"))
    yield from (
        path for path in (*inside, *beside) if not re.search(r"\.lock(\.json)?$", path.name)
    )


def differences(undisturbed: Path, store: Path) -> list[str]:
    """Where two stores are not the same to the byte."""
    left, right = npk.Gram.load(undisturbed).store, npk.Gram.load(store).store
    plans = [
        [(tile.row, tile.col, tile.rows, tile.cols) for tile in opened.plan]
        for opened in (left, right)
    ]
    if plans[0] != plans[1]:
        return ["the tiles are cut in another way"]
    values = [
        f"tile ({t.row}, {t.col}) differs"
        for t in left.plan
        if left.read(t).tobytes() != right.read(t).tobytes()
    ]
    names = [
        {path.relative_to(root) for path in root.glob("tiles*/**/c/**/*") if path.is_file()}
        for root in (undisturbed, store)
    ]
    files = [
        f"file {name} differs"
        for name in names[0] & names[1]
        if (undisturbed / name).read_bytes() != (store / name).read_bytes()
    ]
    return values + files + [f"file {name} is in one of them alone" for name in names[0] ^ names[1]]


def report(found: Found, options: argparse.Namespace) -> None:
    """A short table, and what does not hold."""
    rows = {
        f"signals "
        f"(SIG{options.signal})": f"{found.signals}, {found.early} of them before the first tile",
        "exit codes": ", ".join(f"{code} ({count})" for code, count in sorted(found.codes.items())),
        "stores": found.stores,
        "finished tiles that a resumed run found, at most": found.most_kept,
        "looks at a finished tile after a resumed run": found.looks,
        "finished tiles computed twice": len(found.again),
        "finished tiles lost": len(found.lost),
        "temporary files at a time, at most": max(found.leftovers, default=0),
        "differences from the undisturbed store": len(found.differences),
    }
    for name, value in rows.items():
        print(f"{name:<50} {value}")
    failures = found.failures(options)
    for text in failures[:20]:
        print(f"FAIL {text}")
    print("FAIL" if failures else "PASS")


if __name__ == "__main__":
    main()
