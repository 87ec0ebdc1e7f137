"""A launcher of the CUDA backend whose device is an emulator."""

import functools
import re

import numpy as np

from emu.fibers import FiberKernel, FiberModule
from emu.nvrtc import compilers
from emu.ptx import PtxKernel


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
        options: of the engine: ``major`` for "ptx", ``order`` for the others.
    """

    xp = np

    def __init__(self, engine, capability=80, edit=lambda source: source, **options):
        self.engine, self.capability, self.edit, self.options, self.launched = engine, capability, edit, options, []

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
        return np.ascontiguousarray(array).copy()

    def to_host(self, array, out=None):
        if out is None:
            return array.copy()
        out[:] = array
        return out

    def empty(self, shape, dtype, cleared=False):
        return np.full(shape, np.nan if dtype.kind == "f" and not cleared else 0, dtype)

    def host_memory(self, size, dtype):
        return np.full(size, np.nan, dtype)
