"""Every kernel that npk has for the GPU that is here, on small ragged shapes; for
compute-sanitizer. Results are compared with the CPU's.

python benchmarks/gpu_launches.py
"""

import itertools
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from gpu_sanitizer import DONE
from torch import nn

from npk import GateTable, record_gates
from npk.backends.cpu import CpuBackend
from npk.backends.cuda import CudaBackend
from npk.backends.cuda.launcher import Launcher, find_launcher
from npk.backends.cuda.registry import KERNELS, KERNELS_FOLDER, KernelSpec
from npk.backends.exponents import find_exponents
from npk.networks import build
from npk.recursion.planning import plan

OLD = 75  # a capability without binary tensor cores: its kernels run on newer devices too
ANYWHERE = {"dense_popc.cu", "program.cu"}  # kernels that every device takes
RESIDUAL = "stage.cu, residual"
SHAPES = ((1, 1), (3, 35), (37, 5))  # of tiles: less than a block, and not a multiple of one
TOLERANCE = {"float32": 1e-5, "float64": 1e-11}


class Watched:
    """A launcher that keeps what it launched, and says it is of another capability.

    Args:
        launcher: what does the work.
        capability: compute capability, times ten, for which kernels are chosen.
    """

    def __init__(self, launcher: Launcher, capability: int) -> None:
        self.launcher, self.capability, self.launched = launcher, capability, set[KernelSpec]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.launcher, name)

    def launch(self, spec: KernelSpec, grid: int, args: tuple[Any, ...]) -> None:
        """Launch, and keep the kernel."""
        self.launched.add(spec)
        self.launcher.launch(spec, grid, args)


def main() -> int:
    """Launch everything; 1 if a kernel was not reached or a result is wrong."""
    launcher = find_launcher()
    # without CuPy's pool every array is an allocation of its own, whose ends are watched
    launcher.xp.cuda.set_allocator(None)
    reached, worst = launch_all(launcher)
    missed = expected(launcher.capability) - {form_of(spec) for spec in reached}
    names = sorted({name_of(spec) for spec in reached})
    print(
        f"sm_{launcher.capability}: {', '.join(names)}; worst deviation {worst:.2g} of what is "
        f"promised"
    )
    if missed or not worst <= 1:
        print(
            f"not reached: {', '.join(sorted(missed)) or 'none'}; results "
            f"{'as promised' if worst <= 1 else 'wrong'}",
            file=sys.stderr,
        )
        return 1
    print(DONE)
    return 0


def expected(capability: int) -> set[str]:
    """Forms of the kernels that a device has to reach: all of them where there are binary tensor
    cores.
    """
    every = {file.name for file in KERNELS_FOLDER.iterdir() if file.name.endswith(".cu")} | {
        RESIDUAL
    }
    return every if KERNELS["dense", "bmma", "float32"].serves(capability) else ANYWHERE & every


def form_of(spec: KernelSpec) -> str:
    """File of a kernel, with what makes two of it."""
    return RESIDUAL if dict(spec.defines).get("NPK_SLOTS") == "1" else spec.file


def name_of(spec: KernelSpec) -> str:
    """Entry and arithmetic of a kernel, whatever else it is compiled for."""
    form = "residual" if form_of(spec) == RESIDUAL else dict(spec.defines).get("NPK_REAL", "")
    return f"{spec.entry} {form}".strip()


def launch_all(launcher: Launcher) -> tuple[set[KernelSpec], float]:
    """Tiles of all networks in both arithmetics, for the device and for an older one.

    Returns:
        The kernels, and the worst deviation from the CPU's results, as a multiple of the tolerance.
    """
    reached, worst, recorded = set[KernelSpec](), 0.0, list(tables())
    for capability in {launcher.capability, min(launcher.capability, OLD)}:
        watched = Watched(launcher, capability)
        for table, dtype in itertools.product(recorded, TOLERANCE):
            worst = max(worst, deviation(table, dtype, watched) / TOLERANCE[dtype])
        reached |= watched.launched
    return reached, worst


def tables() -> Iterator[GateTable]:
    """Gates of a few samples of networks that take different kernels, with numbers of channels that
    fill no word.
    """
    torch.manual_seed(0)
    circular, pooled = (
        {"padding": 1, "padding_mode": "circular"},
        (nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )
    networks = [
        ((6,), (nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 70), nn.ReLU(), nn.Linear(70, 2))),
        (
            (2, 5, 5),
            (
                nn.Conv2d(2, 9, 3, **circular),
                nn.ReLU(),
                nn.Conv2d(9, 35, 3, **circular),
                nn.ReLU(),
                *pooled,
                nn.Linear(35, 2),
            ),
        ),
        (
            (2, 6, 4),
            (
                nn.Conv2d(2, 9, 3, padding=1),
                nn.ReLU(),
                nn.AvgPool2d(2),
                nn.Conv2d(9, 8, 2),
                nn.ReLU(),
                *pooled,
                nn.Linear(8, 2),
            ),
        ),
        (
            (2, 5, 4),
            (
                nn.Conv2d(2, 9, 3, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Conv2d(9, 8, 2),
                nn.ReLU(),
                nn.Flatten(),
                nn.Linear(8, 2),
            ),
        ),
    ]
    for shape, layers in networks:
        net = nn.Sequential(*layers).double().eval()
        yield record_gates(net, _samples(shape))
    gated = build(
        "residual",
        input_shape=(2, 6, 6),
        classes=2,
        widths=(9, 9, 12),
        strides=(1, 1, 2),
        skip="gated",
        seed=0,
    )
    yield record_gates(gated.double().eval(), _samples((2, 6, 6)))


def _samples(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((max(map(max, SHAPES)), *shape))


def deviation(table: GateTable, dtype: str, launcher: Watched) -> float:
    """The worst entry of all tiles against the CPU's, relative to the largest."""
    recursion = plan(table.graph, bias="ignore")
    exponents, worst = find_exponents(recursion, table), 0.0
    cpu, device = (
        CpuBackend(recursion, table, dtype),
        CudaBackend(recursion, table, dtype, launcher),
    )
    for n, m in SHAPES:
        rows, cols = table.take(slice(0, n)), table.take(slice(0, m))
        expected, made = (b.tile(b.side(rows), b.side(cols), exponents) for b in (cpu, device))
        worst = max(worst, float(np.abs(made - expected).max() / (np.abs(expected).max() or 1.0)))
    return worst


if __name__ == "__main__":
    sys.exit(main())
