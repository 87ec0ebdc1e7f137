"""Backends apply a recursion to one tile of pairs. Others ask here for one by name."""

from typing import TYPE_CHECKING, Any

from npk.backends.base import Backend as Backend

if TYPE_CHECKING:
    from npk.gates.table import GateTable
    from npk.progress import Progress
    from npk.recursion.steps import Recursion


def check_backend(name: str) -> None:
    """Refuse a backend that is not available here, before any work.

    Args:
        name: "reference", "cpu" or "cuda".

    Raises:
        BackendError: "cuda" without CuPy, a driver, or a device that is new enough.
    """
    if name == "cuda":
        from npk.backends.cuda import launcher

        launcher.find_launcher()


def make_backend(
    name: str,
    recursion: "Recursion",
    table: "GateTable",
    dtype: str,
    progress: "Progress",
    *,
    one_device: bool = False,
) -> Backend:
    """A backend, compiled for a recursion.

    Args:
        name: "reference", "cpu" or "cuda".
        recursion: what to compute.
        table: any table of the gates that will come: tells hard masks from soft ones.
        dtype: "float32" or "float64".
        progress: told of a compilation that takes a while.
        one_device: on the current device only, since others have processes too.

    Returns:
        The backend.

    Raises:
        BackendError: it is not available.
    """
    if name == "reference":
        from npk.backends.reference import ReferenceBackend

        return ReferenceBackend(recursion, table, dtype)
    if name == "cuda":
        from npk.backends.cuda.several import on_devices

        return on_devices(recursion, table, dtype, one=one_device)
    from npk.backends.cpu import CpuBackend

    backend = CpuBackend(recursion, table, dtype)
    backend.compile(progress)
    return backend


def device_arrays() -> Any:
    """The module of arrays on the current CUDA device, which has NumPy's functions.

    Returns:
        CuPy.

    Raises:
        BackendError: no CuPy, driver, or device that is new enough.
    """
    from npk.backends.cuda import launcher

    return launcher.find_launcher().xp
