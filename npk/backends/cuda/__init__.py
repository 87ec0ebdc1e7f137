"""The CUDA backend: kernels of npk's own, compiled by CuPy for the device that is there."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from npk.backends.base import Backend, Told
from npk.backends.cuda import launcher as devices
from npk.backends.cuda.chain import as_chain
from npk.backends.cuda.device_masks import DeviceMasks
from npk.backends.cuda.launcher import Launcher
from npk.backends.cuda.program_runner import ProgramRunner
from npk.backends.cuda.runners import DenseRunner
from npk.backends.cuda.stage_runner import StageRunner, specialized
from npk.backends.layout import Layout, Side, is_kept_in_bits
from npk.backends.product import as_product
from npk.backends.program.compiler import compile_program
from npk.gates.device_table import DeviceGates
from npk.gates.table import GateTable
from npk.recursion.steps import Recursion


@dataclass(frozen=True)
class DeviceSide:
    """Masks of ``count`` samples on one side of a tile, on the device, as the runner arranges them."""

    count: int
    bits: Any
    reals: Any

    def __len__(self) -> int:
        return self.count


class OnDevices(Backend):
    """What backends on devices have in common: of the host's memory they take their tiles, and
    tiles are begun before they are read.
    """

    @property
    def bytes_a_pair(self) -> int:
        """Bytes of a pair's entry in the host's memory: in tiles under way, and in between."""
        return (3 + self.ahead) * self.recursion.parts * self.dtype.itemsize

    def tile(
        self,
        rows: Any,
        cols: Any,
        exponents: np.ndarray,
        diagonal: int | None = None,
        memory: np.ndarray | None = None,
        told: Told | None = None,
    ) -> np.ndarray:
        """The kernel of all pairs divided by 2**exponents[-1], ``(rows, cols)``, on the host."""
        return self.start(rows, cols, exponents, diagonal, memory)()


class CudaBackend(OnDevices):
    """A recursion made ready for tiles of one kind of gates and one dtype, on the current CUDA
    device.

    Args:
        recursion: what to compute.
        table: any table of the gates that will come: tells hard masks from soft ones.
        dtype: "float32" or "float64".
        launcher: of the device; ``None``: by CuPy.

    Raises:
        BackendError: no device that can be used.
    """

    ahead = 1  # one is computed while the one before is copied, finished and written

    def __init__(
        self, recursion: Recursion, table: GateTable, dtype: str, launcher: Launcher | None = None
    ) -> None:
        self.recursion, self.dtype = recursion, np.dtype(dtype)
        self._masks: DeviceMasks | None = None
        self.launcher: Launcher = devices.find_launcher() if launcher is None else launcher
        if product := as_product(recursion):
            self.layout = Layout(
                tuple(recursion.masks[mask] for mask in product.masks), table, self.dtype
            )
            self.runner = DenseRunner(product, self.layout, self.launcher)
        elif runner := self._stage(table):
            self.layout, self.runner = runner.layout, runner
        else:
            program = compile_program(
                recursion, [is_kept_in_bits(mask, table) for mask in recursion.masks]
            )
            self.layout = Layout(program.masks, table, self.dtype)
            self.runner = ProgramRunner(program, self.layout, self.launcher)

    def _stage(self, table: GateTable) -> StageRunner | None:
        """The runner of convolutional networks, where the network and the device are of its kind."""
        chain = as_chain(
            self.recursion, [is_kept_in_bits(mask, table) for mask in self.recursion.masks]
        )
        if chain is None:
            return None
        layout = Layout(
            tuple(self.recursion.masks[mask] for mask in chain.masks), table, self.dtype
        )
        kernels = specialized(chain, layout, self.launcher.capability)
        return StageRunner(chain, layout, self.launcher, kernels) if kernels else None

    @property
    def bytes_a_sample(self) -> int:
        """Bytes of one sample's masks in the host's memory, on one side."""
        return self.layout.bytes_a_sample

    def side(self, table: GateTable | DeviceGates) -> DeviceSide:
        """Form the masks of a table's samples: on the device, where the gates are there."""
        if isinstance(table, DeviceGates):
            return self.formed_there(table)
        return self.there(self.layout.side(table))

    def there(self, side: Side) -> DeviceSide:
        """Take masks to the device, where the runner arranges them."""
        return self._arranged(
            len(side), *(self.launcher.to_device(values) for values in (side.bits, side.reals))
        )

    def formed_there(self, gates: DeviceGates) -> DeviceSide:
        """Form the masks of gates that are on a device, on this one."""
        with self.launcher.beside_torch() as device:
            if self._masks is None:
                self._masks = DeviceMasks(self.layout, gates, device)
            bits, reals = (
                self.launcher.from_torch(values) for values in self._masks.side(gates.to(device))
            )
            return self._arranged(len(gates), bits.view(np.uint32), reals)

    def _arranged(self, count: int, bits: Any, reals: Any) -> DeviceSide:
        with self.launcher.in_line("arrange masks"):
            return DeviceSide(count, *(self.runner.arranged(values) for values in (bits, reals)))

    def start(
        self,
        rows: DeviceSide,
        cols: DeviceSide,
        exponents: np.ndarray,
        diagonal: int | None = None,
        memory: np.ndarray | None = None,
        told: Told | None = None,
    ) -> Callable[[], np.ndarray]:
        """Begin a tile, with the arguments of :meth:`tile`; what is returned waits for its values.

        Nothing waits here: kernels and the copy behind them are only put in line.
        """
        parts, left = self.recursion.parts, len(rows) if diagonal is None else diagonal
        shape = (*([parts] if parts > 1 else []), len(rows), len(cols))
        out = self.launcher.empty(shape, self.dtype, cleared=diagonal is not None)
        self.runner.run((rows.bits, rows.reals), (cols.bits, cols.reals), exponents, left, out)
        place = None if memory is None else memory[: math.prod(shape)].reshape(shape)
        return self.launcher.copy(out, place)

    def memory_of(self, side: int) -> np.ndarray:
        """Memory for tiles of up to ``side`` x ``side`` pairs, to which the device copies fast."""
        return self.launcher.host_memory(side * side, self.dtype)
