"""A launcher of the CUDA backend whose device is an emulator."""

import contextlib
import functools
import re

import numpy as np
import torch

from emu.fibers import FiberKernel, FiberModule
from emu.nvrtc import compilers
from emu.ptx import PtxKernel
from npk.errors import DeviceMemoryError


@functools.cache
def ptx_kernel(source, entry, options=(), arch=80, major=12):
    """A kernel as PTX, compiled for an architecture by a version of NVRTC."""
    return PtxKernel(compilers()[major].ptx(source, arch, options), entry)


@functools.cache
def fiber_kernel(source, entry, options=(), mode="check"):
    """A kernel as C++."""
    return FiberKernel(FiberModule(source, mode, options), entry)


def written(source, entry):
    """Numbers of the parameters of a kernel that are pointers to what it may write."""
    params = re.search(rf"{entry}\s*\(([^)]*)\)\s*\{{", source)[1].split(",")
    return tuple(i for i, param in enumerate(params) if "*" in param and "const" not in param)


class EmulatedLauncher:
    """A device by NumPy: ``engine`` is "ptx", "fast" or "check".

    Args:
        engine: of the kernels.
        capability: of the device.
        edit: changes a source before it is compiled.
        room: most bytes of an array of the device.
        options: of the engine: ``major`` for "ptx", ``order`` for the others.
    """

    xp = np

    def __init__(self, engine, capability=80, edit=lambda source: source, room=None, **options):
        self.engine, self.capability, self.edit, self.room, self.options = (
            engine,
            capability,
            edit,
            room,
            options,
        )
        self.launched, self.events = [], []  # kernels; what began and what was waited for

    def launch(self, spec, grid, args):
        assert spec.serves(self.capability)
        source = self.edit(spec.source)
        self.launched.append((spec, grid))
        if self.engine == "ptx":
            kernel = ptx_kernel(source, spec.entry, spec.options, self.capability, **self.options)
            kernel(grid, spec.threads, args, written(source, spec.entry))
        else:
            kernel = fiber_kernel(source, spec.entry, spec.options, self.engine)
            kernel(grid, spec.threads, args, written(source, spec.entry), **self.options)

    def to_device(self, array):
        self._take(array.nbytes)
        return np.ascontiguousarray(array).copy()

    def in_line(self, what):
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def beside_torch(self):
        """The CPU's memory is that of the device."""
        yield torch.device("cpu")

    def from_torch(self, tensor):
        """By DLPack too."""
        self._take(tensor.nbytes)
        return np.from_dlpack(tensor)

    def _take(self, size):
        """The device has no room for more than ``room`` bytes at once."""
        if self.room is not None and size > self.room:
            raise DeviceMemoryError(f"the GPU cannot take {size} bytes: {self.room} are free.")

    def copy(self, array, out=None):
        """The values are there only once one has waited."""
        there = np.empty_like(array) if out is None else out
        there[:] = np.nan
        number = len(self.events)
        self.events.append(f"begun {number}")

        def wait():
            self.events.append(f"read {number}")
            there[:] = array
            return there

        return wait

    def empty(self, shape, dtype, cleared=False):
        self._take(int(np.prod(shape)) * dtype.itemsize)
        return np.full(shape, np.nan if dtype.kind == "f" and not cleared else 0, dtype)

    def host_memory(self, size, dtype):
        return np.full(size, np.nan, dtype)
