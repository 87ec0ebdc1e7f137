"""Verification: everything that a store holds is read once and compared with its checksum."""

from dataclasses import dataclass, replace
from pathlib import Path

from npk.errors import StoreError
from npk.gates.store import GateStore
from npk.gram.store import GramStore
from npk.progress import Progress
from npk.stores.manifests import content_of


@dataclass(frozen=True)
class Verification:
    """``content`` in words, how many tiles (of a gate table: samples) are ``missing``, the parts
    that are ``damaged``, and whether they were ``dropped``.
    """

    path: Path
    content: str
    missing: int
    damaged: tuple[str, ...]
    dropped: bool

    def refuse_damage(self) -> None:
        """Raise if something is damaged that was not dropped.

        Raises:
            StoreError: so it is.
        """
        if self.damaged and not self.dropped:
            if content_of(self.path) == "gate table":
                mend = "Record it again"
            else:
                mend = "Drop that with --drop, then run the command that wrote it again"
            raise StoreError(
                f"{self.path} is damaged: {', '.join(self.damaged)}. All else is sound. {mend}."
            )


def examine(path: str | Path, progress: Progress, *, drop: bool = False) -> Verification:
    """Read a kernel or a gate table on disk, and compare all of it with its checksums.

    Args:
        path: the store.
        progress: counts tiles and pieces.
        drop: count what is damaged as not done, so that the command that wrote the store computes
            it again.

    Returns:
        What was found.

    Raises:
        StoreError: nothing that npk wrote, or another process writes it.
    """
    if content_of(path) == "gate table":
        found = _gates(GateStore.open(path), progress)
    elif drop:
        with GramStore.writing(path) as store:
            found = _gram(store, progress, drop=True)
    else:
        found = _gram(GramStore.open(path), progress)
    return replace(found, path=Path(path))


def _gates(store: GateStore, progress: Progress, name: str = "gates") -> Verification:
    with progress.task(f"checking {name}", len(store.pieces)) as advance:
        damaged = tuple(
            f"{name} of samples {start} to {stop - 1}" for start, stop in store.verify()
        )
        advance(len(store.pieces))
    missing = sum(stop - start for start, stop in store.missing())
    rest = f", {missing} of them missing" if missing else ""
    content = f"gates of {len(store)} samples{rest}"
    return Verification(store.path, content, missing, damaged, False)


def _gram(store: GramStore, progress: Progress, *, drop: bool = False) -> Verification:
    unread = store.unreadable() if drop else []
    for tile in unread:
        store.forget(tile)
    todo = {(tile.row, tile.col) for tile in store.missing()}
    done = [tile for tile in store.plan if (tile.row, tile.col) not in todo]
    with progress.task("checking tiles", len(done)) as advance:
        bad = list(store.damaged(done, advance))
    if store.plan.symmetric:
        sides = {"rows": store.rows}
    else:
        sides = {"rows": store.rows, "columns": store.cols}
    gates = {name: _damaged_gates(side, drop) for name, side in sides.items()}
    if drop:
        for tile in bad:
            store.forget(tile)
        for name, pieces in gates.items():
            for start, _ in pieces:
                sides[name].forget(start)
    damaged = [f"tile ({tile.row}, {tile.col})" for tile in unread + bad]
    damaged += [
        f"gates of samples {start} to {stop - 1} of the {name}"
        for name, pieces in gates.items()
        for start, stop in pieces
    ]
    missing = len(todo) - len(unread)
    rest = f", {missing} of them missing" if missing else ""
    plan = store.plan
    of = store.about.get("of", "paths")
    what = store.manifest["dtype"] + (f" of {of}" if of != "paths" else "")
    content = f"{plan.n} x {plan.m} {what}, {len(plan)} tiles{rest}"
    return Verification(store.path, content, missing, tuple(damaged), drop and bool(damaged))


def _damaged_gates(side: GateStore, drop: bool) -> list[tuple[int, int]]:
    """Pieces that are damaged; where the checksums are, those that cannot be read."""
    try:
        return list(side.verify())
    except StoreError:
        if not drop:
            raise
        return [piece for piece in side.pieces if not _is_readable(side, *piece)]


def _is_readable(side: GateStore, start: int, stop: int) -> bool:
    try:
        side.take(slice(start, stop))
    except StoreError:
        return False
    return True
