"""The one seam between npk and the device. Everything above it runs anywhere."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from npk.backends.cuda.registry import KernelSpec
from npk.errors import BackendError, DeviceMemoryError

if TYPE_CHECKING:
    import torch

OLDEST = 70  # compute capability, times ten, of the oldest device that npk is for
_ELSE = 'or use backend="cpu"'


Masks = tuple[Any, Any]  # bits and numbers of samples, on the device


class Launcher(Protocol):
    """What the CUDA backend asks of a device."""

    xp: Any  # the array library of the device: NumPy's interface

    @property
    def capability(self) -> int:
        """Compute capability of the device, times ten."""
        ...

    def launch(self, spec: KernelSpec, grid: int, args: tuple[Any, ...]) -> None:
        """Run a kernel with ``grid`` blocks; ``args``: device arrays and NumPy's scalars."""
        ...

    def in_line(self, what: str) -> "contextlib.AbstractContextManager[None]":
        """A context for work on arrays in line with the kernels; ``what`` is done, for messages."""
        ...

    def to_device(self, array: np.ndarray) -> Any:
        """The array on the device."""
        ...

    def beside_torch(self) -> "contextlib.AbstractContextManager[torch.device]":
        """A context in which torch runs in order with the kernels; gives torch's device."""
        ...

    def from_torch(self, tensor: "torch.Tensor") -> Any:
        """A tensor of the device as an array, in the same memory."""
        ...

    def copy(self, array: Any, out: np.ndarray | None = None) -> Callable[[], np.ndarray]:
        """Begin to copy the array to the host, to ``out`` if given; what is returned waits."""
        ...

    def empty(self, shape: tuple[int, ...], dtype: np.dtype, *, cleared: bool = False) -> Any:
        """A new array on the device, of zeros if ``cleared``."""
        ...

    def host_memory(self, size: int, dtype: np.dtype) -> np.ndarray:
        """Flat memory of the host to which results are copied fast."""
        ...


class CupyLauncher:
    """A CUDA device, by CuPy: kernels in one stream, in order; copies to the host in another one,
    behind them.

    Args:
        cupy: the module.
        number: of the device; ``None``: the current one.
    """

    def __init__(self, cupy: Any, number: int | None = None) -> None:
        self.xp = cupy
        self.device = cupy.cuda.Device(number)
        with self.device:
            self.stream = cupy.cuda.Stream(non_blocking=True)
            self.copies = cupy.cuda.Stream(non_blocking=True)
        self._functions: dict[KernelSpec, Any] = {}
        self._flying: list[tuple[Any, Any, np.ndarray]] = []

    @property
    def capability(self) -> int:
        """Compute capability of the device, times ten."""
        return int(self.device.compute_capability)

    def launch(self, spec: KernelSpec, grid: int, args: tuple[Any, ...]) -> None:
        """Run a kernel with ``grid`` blocks; compiled on first use, and kept by CuPy on disk.

        Args:
            spec: the kernel.
            grid: number of blocks.
            args: arrays of the device and NumPy's scalars.
        """
        function = self._function(spec)
        with self.in_line("launch a kernel"):
            function((grid,), (spec.threads,), args)

    def _function(self, spec: KernelSpec) -> Any:
        if spec not in self._functions:
            try:
                with self.device:
                    module = self.xp.RawModule(
                        code=spec.source, options=("-std=c++17", *spec.options)
                    )
                    self._functions[spec] = module.get_function(spec.entry)
            except Exception as error:  # of the compiler, its library or the driver
                raise BackendError(
                    f"CuPy cannot compile npk's kernel {spec.entry} on this machine: "
                    f"{_line(error)}. "
                    f"Reinstall CuPy with its compiler (pip install '.[cuda12]'), {_ELSE}."
                ) from error
        return self._functions[spec]

    def to_device(self, array: np.ndarray) -> Any:
        """The array on the device."""
        with self.in_line("take", array.nbytes):
            return self.xp.asarray(array)

    @contextlib.contextmanager
    def beside_torch(self) -> "Iterator[torch.device]":
        """Have torch's operators run in the stream of the kernels: memory that they give back is
        given out anew only behind these.

        Raises:
            DeviceMemoryError: torch finds no memory.
        """
        import torch

        stream = torch.cuda.ExternalStream(self.stream.ptr, device=self.device.id)
        try:
            with self.in_line("form masks"), torch.cuda.stream(stream):
                yield torch.device("cuda", self.device.id)
        except torch.OutOfMemoryError as error:
            _give_back(self.xp)
            raise DeviceMemoryError(
                f"the GPU cannot take the masks: {_line(error)}. Free memory on the GPU, {_ELSE}."
            ) from error

    def from_torch(self, tensor: "torch.Tensor") -> Any:
        """A tensor of the device as an array: by DLPack, whose null pointer is no CUDA memory."""
        if tensor.numel() == 0:
            return self.xp.empty(
                tuple(tensor.shape), np.dtype(str(tensor.dtype).removeprefix("torch."))
            )
        return self.xp.from_dlpack(tensor)

    def copy(self, array: Any, out: np.ndarray | None = None) -> Callable[[], np.ndarray]:
        """Begin to copy the array to the host's memory, behind all that is in line so far; what
        comes later does not wait for it.

        Args:
            array: of the device.
            out: page-locked memory; ``None``: new memory.

        Returns:
            What waits for the copy, and gives it.
        """
        event = functools.partial(self.xp.cuda.Event, disable_timing=True)
        with self.in_line("give"):
            computed = event()
            computed.record(self.stream)
            self.copies.wait_event(computed)
            on_host = array.get(stream=self.copies, out=out, blocking=False)
            copied = event()
            copied.record(self.copies)
        # device and host keep their memory until the copy is done, even if nobody waits for it
        self._flying = [copy for copy in self._flying if not copy[0].done] + [
            (copied, array, on_host)
        ]

        def wait() -> np.ndarray:
            with self.in_line("give"):
                copied.synchronize()
            return on_host

        return wait

    def empty(self, shape: tuple[int, ...], dtype: np.dtype, *, cleared: bool = False) -> Any:
        """A new array on the device, of zeros if ``cleared``."""
        make = self.xp.zeros if cleared else self.xp.empty
        with self.in_line("take", int(np.prod(shape)) * dtype.itemsize):
            return make(shape, dtype)

    def host_memory(self, size: int, dtype: np.dtype) -> np.ndarray:
        """Flat page-locked memory of the host: the device writes into it without a copy in between."""
        with self.in_line("use memory of the host"):
            return np.frombuffer(
                self.xp.cuda.alloc_pinned_memory(max(1, size) * dtype.itemsize), dtype, size
            )

    @contextlib.contextmanager
    def in_line(self, what: str, size: int = 0) -> Iterator[None]:
        """The device as the current one, its arrays worked on in line with the kernels; its errors
        as errors of npk.

        Args:
            what: is done, for messages.
            size: bytes that are taken.

        Raises:
            DeviceMemoryError: there is no room.
            BackendError: the device failed.
        """
        cuda = self.xp.cuda
        try:
            with self.device, self.stream:
                yield
        except cuda.memory.OutOfMemoryError as error:
            _give_back(self.xp)
            free, total = cuda.runtime.memGetInfo()
            raise DeviceMemoryError(
                f"the GPU cannot {f'take {size / 1e9:.2f} GB' if size else what}: {free / 1e9:.2f} "
                f"of {total / 1e9:.2f} GB are free. Free memory on the GPU, {_ELSE}."
            ) from error
        except cuda.runtime.CUDARuntimeError as error:
            raise BackendError(
                f"the GPU failed to {what}: {_line(error)}. Look at nvidia-smi, {_ELSE}."
            ) from error


def find_launcher() -> CupyLauncher:
    """The launcher of the current CUDA device.

    Returns:
        The launcher.

    Raises:
        BackendError: without CuPy, a driver, a device, or one that is new enough.
    """
    return CupyLauncher(_checked_cupy())


def find_launchers() -> list[CupyLauncher]:
    """Launchers of the current CUDA device, and of all others that can be seen and are of its
    compute capability.

    Another one may have other kernels, which round otherwise: an entry would depend on the device
    whose turn it was.

    Returns:
        The launchers, that of the current device first.

    Raises:
        BackendError: without CuPy, a driver, a device, or a current one that is new enough.
    """
    cupy = _checked_cupy()
    current = cupy.cuda.Device()
    devices = [cupy.cuda.Device(number) for number in range(cupy.cuda.runtime.getDeviceCount())]
    others = [
        d.id
        for d in devices
        if d.id != current.id and d.compute_capability == current.compute_capability
    ]
    return [CupyLauncher(cupy, number) for number in (current.id, *others)]


def _checked_cupy() -> Any:
    """CuPy, with a driver and a current device that npk can use."""
    cupy = _import_cupy()
    try:
        _check_driver(cupy)
        _check_device(cupy)
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise BackendError(
            f"the CUDA driver does not work: {_line(error)}. Look at nvidia-smi, {_ELSE}."
        ) from error
    return cupy


def _import_cupy() -> Any:
    try:
        import cupy
    except ModuleNotFoundError as error:
        raise BackendError(
            'backend="cuda" needs CuPy, which is not installed. '
            f"Install it with pip install '.[cuda12]' (drivers for CUDA 13: '.[cuda13]'), "
            f"{_ELSE}."
        ) from error
    except ImportError as error:
        raise BackendError(
            f"CuPy is installed, but cannot be imported: {_line(error)}. Reinstall it with pip "
            f"install '.[cuda12]', {_ELSE}."
        ) from error
    return cupy


def _check_driver(cupy: Any) -> None:
    """Whether there is a driver, and one that knows the CUDA of this CuPy."""
    runtime = cupy.cuda.runtime
    driver, built = runtime.driverGetVersion(), runtime.runtimeGetVersion()
    if driver == 0:
        raise BackendError(
            f"there is no NVIDIA driver on this machine. Install one (nvidia-smi "
            f"then lists the GPUs), {_ELSE}."
        )
    if driver // 1000 < built // 1000:
        if driver // 1000 == 12:
            other = ", exchange CuPy for that of pip install '.[cuda12]'"
        else:
            other = ""
        raise BackendError(
            f"the NVIDIA driver knows CUDA {_version(driver)}, this CuPy is made for CUDA "
            f"{_version(built)}. Update the driver{other}, {_ELSE}."
        )


def _check_device(cupy: Any) -> None:
    """Whether a device can be seen, and is new enough."""
    runtime = cupy.cuda.runtime
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        if "NoDevice" not in str(error):
            raise
        count = 0
    if count == 0:
        raise BackendError(
            f"there is an NVIDIA driver, but no device can be seen. Look at nvidia-smi and at "
            f"CUDA_VISIBLE_DEVICES, {_ELSE}."
        )
    capability = int(cupy.cuda.Device().compute_capability)
    if capability < OLDEST:
        raise BackendError(
            f"the CUDA device has compute capability {capability / 10}, npk's kernels need "
            f"{OLDEST / 10} or newer. Choose another device with CUDA_VISIBLE_DEVICES, {_ELSE}."
        )


def _give_back(cupy: Any) -> None:
    """Give the device what CuPy and torch keep for later, so that something smaller may fit."""
    import torch

    cupy.get_default_memory_pool().free_all_blocks()
    torch.cuda.empty_cache()


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _line(error: Exception) -> str:
    """The first line of what an error says."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
