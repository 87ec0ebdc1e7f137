"""A kernel computed into a store: made, gone on with, or made larger; and the plan before it."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from npk.backends import Backend
from npk.errors import StoreError
from npk.gates.pieces import samples_at_once
from npk.gram.engine import Engine
from npk.gram.executors import Executor
from npk.gram.sources import Source
from npk.gram.store import GramStore
from npk.gram.tiles import Demand, TilePlan, plan_tiles
from npk.gram.work import Work, memory_demand

_WORDS = {
    "network": "another network or other weights",
    "rows": "other samples in the rows",
    "columns": "other samples in the columns",
}
_DIGEST = 64  # hexadecimal digits
Sources = tuple[Source, ...]
GIVEN = "given"  # where a store says what is known of the samples of its rows


def write_store(
    engine: Engine, sources: Sources, out: str | Path, executor: Executor, *, resume: bool
) -> None:
    """Compute what is missing of a store, and make the store if there is none.

    Args:
        engine: of the kernel.
        sources: of the rows, and of the columns if those are others.
        out: path of the store.
        executor: computes the tiles, here or elsewhere.
        resume: go on with a store that is there.

    Raises:
        StoreError: the store is of another kernel, is damaged, is being written by another process,
            or cannot be written.
        OptionError: the memory promise cannot be kept.
    """
    if not Path(out).exists() or not any(Path(out).iterdir()):  # an empty folder is given way to
        _create(engine, sources, out)
    elif not resume:
        raise StoreError(
            f"{out} exists and resume=False. Choose another name, remove it, or go on "
            f"with it: resume=True."
        )
    with GramStore.writing(out) as store:
        _adopt(engine, store, sources)
        for source, gates in zip(sources, (store.rows, store.cols), strict=False):
            source.fill(gates, engine.progress)
        _fill(engine, store, sources, executor)


def _create(engine: Engine, sources: Sources, out: str | Path) -> None:
    few = tuple(source.few() for source in sources)
    backend, exponents = engine.prepare(few[-1])
    plan, _ = plan_on_disk(engine, backend, sources, few[0].nbytes // len(few[0]))
    GramStore.create(
        out, plan, engine.options.dtype, _about(engine, sources, (plan.n, plan.m)), exponents, few
    )


def plan_on_disk(
    engine: Engine, backend: Backend, sources: Sources, gates: int, side: int | None = None
) -> tuple[TilePlan, Demand]:
    """The tiles of a kernel on disk, and the bytes that it takes in memory.

    Args:
        engine: of the kernel.
        backend: made ready.
        sources: of the rows, and of the columns if those are others.
        gates: bytes of a sample and its gates on disk.
        side: of the tiles that are there already.

    Returns:
        Plan and bytes.

    Raises:
        OptionError: the memory promise cannot be kept.
    """
    together, held = samples_at_once(gates), sum(source.nbytes for source in sources)
    before = max(source.bytes_to_fill(min(together, len(source))) for source in sources)
    demand = memory_demand(
        backend,
        engine,
        held + 2 * gates * min(together, max(map(len, sources))),
        gates=gates,
        before=before,
    )
    sizes = len(sources[0]), len(sources[-1])
    return plan_tiles(
        *sizes, demand, budget=engine.promise.bytes, symmetric=len(sources) == 1, side=side
    ), demand


def plan_in_memory(
    engine: Engine, backend: Backend, sources: Sources, gates: int
) -> tuple[TilePlan, Demand]:
    """The tiles of a kernel in memory, and the bytes that it takes from the recording of the gates
    on.

    Args:
        engine: of the kernel.
        backend: made ready.
        sources: of the rows, and of the columns if those are others.
        gates: bytes of a sample and its gates.

    Returns:
        Plan and bytes.

    Raises:
        OptionError: the memory promise cannot be kept.
    """
    rows, cols, sizes = sources[0], sources[1:], (len(sources[0]), len(sources[-1]))
    held = gates * sum(map(len, sources))
    loading = [
        rows.bytes_to_load() + sum(s.nbytes for s in cols),
        *(gates * len(rows) + s.bytes_to_load() for s in cols),
    ]
    demand = memory_demand(
        backend, engine, held, sizes, before=max(0, *(most - held for most in loading))
    )
    return planned(engine, backend, demand, sizes, gates, symmetric=not cols)


def planned(
    engine: Engine,
    backend: Backend,
    demand: Demand,
    shape: tuple[int, int],
    gates: int,
    *,
    symmetric: bool,
) -> tuple[TilePlan, Demand]:
    """The tiles of a kernel in memory, and its bytes with the columns that then stay.

    Args:
        engine: of the kernel.
        backend: made ready.
        demand: bytes without such columns.
        shape: of the matrix.
        gates: bytes of a column's sample and its gates.
        symmetric: only the upper triangle is computed.

    Returns:
        Plan and bytes.

    Raises:
        OptionError: the memory promise cannot be kept.
    """
    budget = engine.promise.bytes
    plan = plan_tiles(*shape, demand, budget=budget, symmetric=symmetric)
    column = backend.bytes_a_sample + gates if backend.keeps_sides else 0
    return plan, demand.keeping(plan, budget, column)


def _adopt(engine: Engine, store: GramStore, sources: Sources) -> None:
    """Take a store of these samples as it is; one of the first of them grows."""
    suits(engine, store, sources)
    # a promise that cannot be kept is refused before anything is recorded or made larger
    if engine.promise.bytes is not None:
        backend, _ = engine.prepare(sources[-1].few())
        plan_on_disk(engine, backend, sources, store.rows.bytes_a_sample, store.plan.side)
    sizes = len(sources[0]), len(sources[-1])
    store.grow(*sizes, _about(engine, sources, sizes))


def suits(engine: Engine, store: GramStore, sources: Sources) -> None:
    """See that a store is of these samples, or of the first of them.

    Args:
        engine: of the kernel.
        store: that is there already.
        sources: of the rows, and of the columns if those are others.

    Raises:
        StoreError: it is of something else.
    """
    plan, sizes = store.plan, (len(sources[0]), len(sources[-1]))
    if plan.symmetric != (len(sources) == 1):
        reasons = ["the columns are the rows in one of them, and others in the other"]
    else:
        counts = zip(("rows", "columns"), (plan.n, plan.m), sizes, strict=True)
        reasons = [
            f"it has {there} {axis}, here are {here}"
            for axis, there, here in counts
            if here < there
        ]
    here = _about(engine, sources, (plan.n, plan.m))
    here.pop(GIVEN)  # the samples themselves are compared
    reasons = reasons or differences(store.about, here)
    if reasons:
        raise StoreError(
            f"{store.path} holds another kernel: {'; '.join(reasons)}. Choose another name, or the "
            f"same network, data and options."
        )


def _about(engine: Engine, sources: Sources, sizes: tuple[int, int]) -> dict[str, Any]:
    """What a kernel is of, its first samples on each side: what must not change when a run goes on."""
    from npk import __version__

    sides = [source.digest(size) for source, size in zip(sources, sizes, strict=False)]
    digests = {
        "network": sources[0].network,
        "rows": sides[0],
        "columns": sides[1] if len(sides) == 2 else "the rows",
    }
    options = asdict(engine.options.settled(sources[0].graph))
    return {**options, **digests, "npk": __version__, GIVEN: sources[0].given}


def differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """What differs between what a store says of itself and what is asked for, in words.

    Args:
        there: of the store.
        here: of the call.

    Returns:
        A few words for each difference.
    """
    return [
        _difference(key, there.get(key), value)
        for key, value in here.items()
        if there.get(key) != value
    ]


def _difference(key: str, there: object, here: object) -> str:
    if key in _WORDS:
        return f"{_WORDS[key]} ({_short(there)} there, {_short(here)} here)"
    return f"{key} is {there!r} there and {here!r} here"


def _short(value: object) -> str:
    """The beginning of a digest; words as they are."""
    text = str(value)
    return text[:12] if len(text) == _DIGEST else text


def _fill(engine: Engine, store: GramStore, sources: Sources, executor: Executor) -> None:
    """Compute the tiles that are missing, after a look at those that are not."""
    todo, plan = store.missing(), store.plan
    _check(engine, store, len(plan) - len(todo), {(tile.row, tile.col) for tile in todo})
    if not todo:  # nothing is compiled, and no gate is read
        engine.progress.note(
            "plan",
            f"plan: {_size(plan)}, all of them done",
            n=plan.n,
            m=plan.m,
            tiles=len(plan),
            todo=0,
            side=plan.side,
        )
        return
    work = Work.of(engine, store)
    _, demand = plan_on_disk(engine, work.backend, sources, store.rows.bytes_a_sample, plan.side)
    tell(engine, plan, demand, len(todo))
    executor.compute(work, store, todo)


def _check(engine: Engine, store: GramStore, done: int, todo: set[tuple[int, int]]) -> None:
    """Read the tiles of an earlier run: damage would otherwise show when the matrix is used."""
    if done:
        with engine.progress.task("checking tiles of an earlier run", done) as advance:
            for tile in store.plan:
                if (tile.row, tile.col) not in todo:
                    store.read(tile)
                    advance(1)


def tell(engine: Engine, plan: TilePlan, demand: Demand, todo: int) -> None:
    """Tell the plan before the work starts: tiles and bytes at the peak.

    Args:
        engine: where progress is told.
        plan: of the whole matrix.
        demand: bytes.
        todo: tiles to compute.
    """
    bytes_ = demand.bytes(plan.largest)
    done = "" if todo == len(plan) else f", {len(plan) - todo} of them done"
    text = f"plan: {_size(plan)}{done}, at most {bytes_ / 1e6:,.0f} MB"
    engine.progress.note(
        "plan", text, n=plan.n, m=plan.m, tiles=len(plan), todo=todo, side=plan.side, bytes=bytes_
    )


def _size(plan: TilePlan) -> str:
    return (
        f"{plan.n} x {plan.m}, {len(plan)} tile{'s' * (len(plan) != 1)} of at most {plan.side} "
        f"x {plan.side}"
    )
