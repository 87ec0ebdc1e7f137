"""A stand-in for CuPy on NumPy, with a limited memory: what CuPy refuses it refuses too, so that a
forgotten copy is found.
"""

import contextlib
import operator
import sys
import weakref
from types import ModuleType, SimpleNamespace

import numpy as np
from scipy import linalg
from test_cuda_backend import OutOfMemory, RuntimeFailure, fake_cupy

RuntimeFailure.__module__ = "cupy_backends.cuda.api.runtime"  # as CuPy's own


class StrictDevice:
    """A device of some bytes, and the module that stands for CuPy on it.

    ``peak``: the most that its arrays took at once; ``most``: the largest array.
    """

    def __init__(self, capacity=10**9):
        self.capacity, self.used, self.peak, self.most, self.raising = capacity, 0, 0, 0, False
        numpy = (
            "asarray",
            "zeros",
            "array",
            "einsum",
            "tensordot",
            "isfinite",
            "diag_indices_from",
        )
        made = {name: self._wrapped(getattr(np, name)) for name in numpy}
        made["asarray"] = self.asarray
        made["linalg"] = SimpleNamespace(
            norm=self._wrapped(np.linalg.norm),
            eigh=self._wrapped(np.linalg.eigh),
            cholesky=self.cholesky,
        )
        self.cupy = fake_cupy(
            **made, get_default_memory_pool=lambda: SimpleNamespace(free_bytes=lambda: 0)
        )
        self.cupy.cuda.runtime.memGetInfo = lambda: (self.capacity - self.used, self.capacity)

    def install(self, monkeypatch):
        """In the place of cupy and cupyx."""
        cupyx, scipy, solvers = (
            ModuleType("cupyx"),
            ModuleType("cupyx.scipy"),
            ModuleType("cupyx.scipy.linalg"),
        )
        cupyx.errstate, solvers.solve_triangular = (
            self.errstate,
            self._wrapped(linalg.solve_triangular),
        )
        for name, module in (
            ("cupy", self.cupy),
            ("cupyx", cupyx),
            ("cupyx.scipy", scipy),
            ("cupyx.scipy.linalg", solvers),
        ):
            monkeypatch.setitem(sys.modules, name, module)

    def take(self, nbytes, owner):
        if self.used + nbytes > self.capacity:
            raise OutOfMemory(f"Out of memory allocating {nbytes} bytes")
        self.used, self.most = self.used + nbytes, max(self.most, nbytes)
        self.peak = max(self.peak, self.used)
        weakref.finalize(owner, self.release, nbytes)

    def release(self, nbytes):
        self.used -= nbytes

    def asarray(self, values):
        return values if isinstance(values, StrictArray) else StrictArray(np.array(values), self)

    @contextlib.contextmanager
    def errstate(self, *, linalg):
        self.raising = linalg == "raise"
        yield
        self.raising = False

    def cholesky(self, system):
        """CuPy says nothing of a matrix that is not definite, unless it was asked to."""
        try:
            return StrictArray(np.linalg.cholesky(system.plain), self)
        except np.linalg.LinAlgError:
            if self.raising:
                raise
            return StrictArray(np.full(system.shape, np.nan), self)

    def _wrapped(self, function):
        """A function of NumPy for arrays of the device alone."""

        def run(*args, **options):
            for arg in args:
                if isinstance(arg, np.ndarray | list):
                    raise TypeError(f"Unsupported type {type(arg)}")
            return self.made(function(*map(plain, args), **options))

        return run

    def made(self, result):
        if isinstance(result, tuple):
            return tuple(map(self.made, result))
        return StrictArray(result, self) if isinstance(result, np.ndarray | np.generic) else result


def plain(value):
    if isinstance(value, tuple):
        return tuple(map(plain, value))
    return value.plain if isinstance(value, StrictArray) else value


class StrictArray:
    """An array of the device. NumPy's arrays do not meet it, and it becomes one only by ``get``."""

    __array_ufunc__ = None
    __hash__ = None

    def __init__(self, values, device):
        self.plain, self.device = np.asarray(values), device
        if self.plain.base is None:
            device.take(self.plain.nbytes, self.plain if self.plain.ndim else self)

    def __array__(self, *_, **__):
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` "
            "to construct a NumPy array explicitly."
        )

    def _with(self, function, other, swapped=False):
        if isinstance(other, np.ndarray | list):
            raise TypeError(f"Unsupported type {type(other)}")
        pair = (plain(other), self.plain) if swapped else (self.plain, plain(other))
        return StrictArray(function(*pair), self.device)

    def get(self):
        return self.plain.copy()

    def __getitem__(self, key):
        return StrictArray(self.plain[self._index(key)], self.device)

    def __setitem__(self, key, value):
        if isinstance(value, np.ndarray | list):
            raise TypeError(f"Unsupported type {type(value)}")
        self.plain[self._index(key)] = plain(value)

    @staticmethod
    def _index(key):
        for part in key if isinstance(key, tuple) else (key,):
            if isinstance(part, np.ndarray | list):
                raise TypeError("an index of the host would be copied to the device without notice")
        return plain(key)

    def __len__(self):
        return len(self.plain)

    def __float__(self):
        return float(self.plain)

    def __bool__(self):
        return bool(self.plain)

    shape, ndim, dtype = (
        property(lambda self, name=name: getattr(self.plain, name))
        for name in ("shape", "ndim", "dtype")
    )
    T = property(lambda self: StrictArray(self.plain.T, self.device))

    def astype(self, dtype, copy=True):
        return (
            StrictArray(self.plain.astype(dtype), self.device)
            if copy or self.dtype != dtype
            else self
        )


for _name in ("add", "sub", "mul", "truediv", "matmul", "le", "gt"):
    _function = getattr(operator, _name)
    setattr(StrictArray, f"__{_name}__", lambda self, other, f=_function: self._with(f, other))
    setattr(
        StrictArray, f"__r{_name}__", lambda self, other, f=_function: self._with(f, other, True)
    )
for _name in ("copy", "any", "all", "max"):
    setattr(
        StrictArray, _name, lambda self, f=_name: StrictArray(getattr(self.plain, f)(), self.device)
    )
