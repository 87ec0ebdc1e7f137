"""What calls of npk are to a type checker: read by pyright in `make lint`, and run by nobody."""
# pyright: reportUnnecessaryTypeIgnoreComment=true

from typing import assert_type

import numpy as np
import torch

import npk


def kernels(net: torch.nn.Module, X: np.ndarray, table: npk.GateTable) -> None:
    assert_type(npk.kernel(net, X), np.ndarray)
    assert_type(npk.kernel(net, X, X, scale="cosine", progress=False), np.ndarray)
    assert_type(npk.kernel(net, torch.zeros(2, 3)), np.ndarray)
    assert_type(npk.kernel(net, X, out="K.zarr", memory="2GB"), npk.Gram)
    assert_type(npk.kernel(table), np.ndarray)
    assert_type(npk.kernel(table, table, out="K.zarr"), npk.Gram)


def types_of_numbers(net: torch.nn.Module, X: np.ndarray) -> None:
    npk.kernel(net, X, dtype="float64")
    npk.kernel(net, X, dtype=np.float64)
    npk.kernel(net, X, dtype=np.dtype("float32"))
    npk.kernel(net, X, dtype=torch.float32)
    npk.NPKSVC(net, dtype=np.float64)
    npk.NPKRidge(net, dtype=np.dtype("float64"))


def refused(net: torch.nn.Module, X: np.ndarray, table: npk.GateTable) -> None:
    """Each of these is an error; an ignored line without one is reported."""
    npk.kernel(net)  # pyright: ignore[reportArgumentType]
    npk.kernel(net, X, scale="cosin")  # pyright: ignore[reportCallIssue, reportArgumentType]
    npk.kernel(net, X, dtype="float16")  # pyright: ignore[reportCallIssue, reportArgumentType]
    npk.kernel(net, X, bia="paths")  # pyright: ignore[reportCallIssue]
    npk.kernel(table, table, X)  # pyright: ignore[reportArgumentType]
    npk.NPKSVC(net, gates="harder")  # pyright: ignore[reportArgumentType]
    npk.check_invariance(net, X, bias="all")  # pyright: ignore[reportArgumentType]
    npk.study(net, X, backend="gpu")  # pyright: ignore[reportCallIssue]
