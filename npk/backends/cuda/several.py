"""Several CUDA devices: the tiles of a matrix in turns."""

import functools
import itertools
from collections.abc import Callable, Sequence

import numpy as np

from npk.backends.base import Told
from npk.backends.cuda import CudaBackend, DeviceSide, OnDevices, devices
from npk.backends.layout import Side
from npk.gates.device_table import DeviceGates
from npk.gates.table import GateTable
from npk.recursion.steps import Recursion


class SharedSide:
    """Masks of samples, formed once, on each device from when it first asks for them.

    Args:
        backends: of the devices.
        masks: in the host's memory; or gates on a device, of which each device forms its own.
    """

    def __init__(self, backends: Sequence[CudaBackend], masks: Side | DeviceGates) -> None:
        self.backends, self.masks = backends, masks
        self.on: Callable[[int], DeviceSide] = functools.cache(self._on)

    def _on(self, number: int) -> DeviceSide:
        backend, masks = self.backends[number], self.masks
        return (
            backend.formed_there(masks) if isinstance(masks, DeviceGates) else backend.there(masks)
        )

    def __len__(self) -> int:
        return len(self.masks)


class SeveralDevices(OnDevices):
    """A backend of each device: see :class:`npk.backends.cuda.CudaBackend` for the meaning of each
    method.

    Args:
        backends: of the devices, for the same recursion and gates.
    """

    def __init__(self, backends: Sequence[CudaBackend]) -> None:
        self.backends = backends
        self.recursion = backends[0].recursion
        self.dtype = backends[0].dtype
        self.ahead = len(backends)  # one on each device
        self._turns = itertools.cycle(range(len(backends)))

    @property
    def bytes_a_sample(self) -> int:
        """Bytes of one sample's masks, on one side."""
        return self.backends[0].bytes_a_sample

    def side(self, table: GateTable | DeviceGates) -> SharedSide:
        """Form the masks of a table's samples."""
        return SharedSide(
            self.backends,
            table if isinstance(table, DeviceGates) else self.backends[0].layout.side(table),
        )

    def start(
        self,
        rows: SharedSide,
        cols: SharedSide,
        exponents: np.ndarray,
        diagonal: int | None = None,
        memory: np.ndarray | None = None,
        told: Told | None = None,
    ) -> Callable[[], np.ndarray]:
        """Begin a tile on the device whose turn it is."""
        number = next(self._turns)
        return self.backends[number].start(
            rows.on(number), cols.on(number), exponents, diagonal, memory, told
        )

    def memory_of(self, side: int) -> np.ndarray:
        """Memory for tiles of up to ``side`` x ``side`` pairs, to which all devices copy fast."""
        return self.backends[0].memory_of(side)


def on_devices(
    recursion: Recursion, table: GateTable, dtype: str, *, one: bool = False
) -> CudaBackend | SeveralDevices:
    """The backend of the devices that can be seen (CUDA_VISIBLE_DEVICES chooses).

    Args:
        recursion: what to compute.
        table: any table of the gates that will come.
        dtype: "float32" or "float64".
        one: the current device alone.

    Raises:
        BackendError: no device that can be used.
    """
    launchers = [devices.find_launcher()] if one else devices.find_launchers()
    backends = [CudaBackend(recursion, table, dtype, launcher) for launcher in launchers]
    return backends[0] if len(backends) == 1 else SeveralDevices(backends)
