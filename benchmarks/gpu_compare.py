"""npk's kernels and solvers on a GPU beside their peers there, in turns in one run; each peer's
numbers are compared with npk's before.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import bench_dense
import numpy as np
import torch
from bench_ridge import ALPHA, problem
from gpu_launches import OLD, Watched
from gpu_peers import Fields, MatrixProducts, cholesky, cuml_ridge
from timing import Route, Timing, measured

from npk import GateTable, networks, record_gates
from npk.backends.cuda import CudaBackend
from npk.backends.cuda.launcher import Launcher
from npk.backends.exponents import find_exponents
from npk.machines import ridge
from npk.recursion.planning import plan

LARGE = {
    "dense": {"n": 8192, "width": 1024, "depth": 4},
    "conv": {"n": 128, "side": 32, "channels": 64, "depth": 4},
    "ridge": {"n": 12000},
}
OUTPUTS = 10  # columns of the targets of ridge


@dataclass(frozen=True)
class Place:
    """Where routes run: npk's launcher, what waits until all is done, torch's device, and the
    solvers' backend.
    """

    launcher: Launcher
    wait: Callable[[], object]
    device: str = "cuda"
    backend: str = "cuda"

    def done(self, run: Callable[[], object]) -> Callable[[], object]:
        """A route of torch, that ends when the device has."""
        return lambda: (run(), self.wait())


@dataclass(frozen=True)
class Comparison:
    """Timings of one task, of one of ``unit``; the first is npk's. ``notes``: what could not be
    compared.
    """

    name: str
    unit: str
    sizes: dict[str, int]
    timings: list[Timing]
    notes: list[str] = field(default_factory=list)


class Tile:
    """All pairs of a table's samples by the CUDA backend, as often as is asked for."""

    def __init__(self, table: GateTable, place: Place) -> None:
        recursion = plan(table.graph, bias="ignore")
        self.backend, self.exponents = (
            CudaBackend(recursion, table, "float32", place.launcher),
            find_exponents(recursion, table),
        )
        self.side, self.wait = self.backend.side(table), place.wait
        self.out = place.launcher.empty((len(table), len(table)), np.dtype("float32"))
        self.memory = self.backend.memory_of(len(table))

    @property
    def kind(self) -> str:
        """Which of npk's kernels it is."""
        return (
            self.backend.runner.spec.entry
            if hasattr(self.backend.runner, "spec")
            else type(self.backend.runner).__name__
        )

    def stay(self) -> None:
        """Compute, and leave the tile on the device."""
        masks = (self.side.bits, self.side.reals)
        self.backend.runner.run(masks, masks, self.exponents, len(self.side), self.out)
        self.wait()

    def bring(self) -> np.ndarray:
        """Compute, and copy the tile to the host."""
        return self.backend.tile(self.side, self.side, self.exponents, memory=self.memory)

    def numbers(self) -> np.ndarray:
        """The kernel."""
        return np.ldexp(self.bring().astype(np.float64), int(self.exponents[-1]))


def dense(place: Place, n: int, width: int, depth: int, repeat: int) -> Comparison:
    """Chains of dense layers beside one matrix product a layer on the same gates."""
    sizes = {"n": n, "width": width, "depth": depth}
    options = SimpleNamespace(**sizes)
    table = record_gates(bench_dense.network(options), bench_dense.samples(options))
    tile = Tile(table, place)
    peers = {
        f"torch GEMM, {name}": MatrixProducts(table, place.device, getattr(torch, name))
        for name in ("float16", "float32")
    }
    for peer in peers.values():
        check(peer(), tile.numbers())
    routes = [
        Route(f"npk {tile.kind}", tile.stay),
        Route(f"npk {tile.kind}, copied to the host", tile.bring),
    ]
    routes += [Route(name, place.done(peer)) for name, peer in peers.items()]
    return Comparison("dense layers", "tile", sizes, measured(routes, repeat))


def conv(place: Place, n: int, side: int, channels: int, depth: int, repeat: int) -> Comparison:
    """Convolutions with a global pool beside fields that are written to memory after each layer."""
    sizes = {"n": n, "side": side, "channels": channels, "depth": depth}
    net = networks.build(
        "conv",
        input_shape=(3, side, side),
        classes=10,
        channels=[channels] * depth,
        bias=False,
        seed=0,
    )
    table = record_gates(
        net, np.random.default_rng(0).standard_normal((n, 3, side, side), dtype=np.float32)
    )
    tile, fields = Tile(table, place), Fields(table, side, place.device)
    check(fields(), tile.numbers()[0, : fields.pairs])
    # the one that takes every network
    general = Tile(table, replace(place, launcher=Watched(place.launcher, OLD)))
    routes = [
        Route(f"npk {tile.kind}", tile.stay),
        Route(f"npk {general.kind}, as on old devices", general.stay),
    ]
    routes.append(Route("a field a layer, in torch", place.done(fields)))
    counts = (n * n, n * n, fields.pairs)
    timings = [
        timing.per(count) for timing, count in zip(measured(routes, repeat), counts, strict=True)
    ]
    return Comparison("pooled convolutions", "pair", sizes, timings)


def solvers(place: Place, n: int, repeat: int) -> Comparison:
    """Exact ridge beside torch's Cholesky and cuML's kernel ridge; K comes from the host's memory
    in all of them.
    """
    K, y = problem(n, OUTPUTS)
    unit = float(np.mean(np.diagonal(K)))
    routes = [
        Route("npk ridge, alpha given", lambda: ridge.fit(K, y, ALPHA, backend=place.backend))
    ]
    routes.append(Route("torch Cholesky", lambda: by_torch(K, y, ALPHA * unit, place)))
    found = ridge.fit(K, y, ALPHA, backend=place.backend).solution.coefficients
    np.testing.assert_allclose(
        by_torch(K, y, ALPHA * unit, place), found, rtol=1e-6, atol=1e-6 * np.abs(found).max()
    )
    peer = cuml_ridge(ALPHA * unit)
    notes = (
        []
        if peer
        else [
            "cuML is not installed: nothing to compare with (pip install cuml-cu12, or cuml-cu13)"
        ]
    )
    if peer:
        routes.append(Route("cuML KernelRidge", place.done(lambda: peer.fit(K, y))))
    routes.append(Route("npk ridge, alpha auto", lambda: ridge.fit(K, y, backend=place.backend)))
    return Comparison(
        "ridge", "solution", {"n": n, "outputs": OUTPUTS}, measured(routes, repeat), notes
    )


def by_torch(K: np.ndarray, y: np.ndarray, weight: float, place: Place) -> np.ndarray:
    """There, solved, and back."""
    return (
        cholesky(
            torch.as_tensor(K, device=place.device), torch.as_tensor(y, device=place.device), weight
        )
        .cpu()
        .numpy()
    )


def check(actual: torch.Tensor, expected: np.ndarray) -> None:
    """A peer that computes something else is no peer."""
    np.testing.assert_allclose(
        actual.cpu().numpy(), expected, rtol=1e-3, atol=1e-4 * float(np.abs(expected).max())
    )


def compare_all(place: Place, sizes: dict[str, dict[str, Any]], repeat: int) -> list[Comparison]:
    """Every comparison."""
    routes = {"dense": dense, "conv": conv, "ridge": solvers}
    return [routes[name](place, **options, repeat=repeat) for name, options in sizes.items()]
