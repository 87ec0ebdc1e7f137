"""Why a network cannot be run or traced: the line of its own code, and what to write instead."""

import inspect
import traceback

import torch
from torch import nn

from npk.errors import NpkError, ShapeError, UnsupportedGraphError
from npk.reading.exported import is_users, place

_OF_SHAPES = (RuntimeError, ValueError, IndexError, AssertionError)
_VALUES_ARE_TAKEN = ("numpy", "tensor subclass", "data pointer", "faketensor", "storage")


def of_inputs(net: nn.Module) -> str | None:
    """What is wrong with a network's ``forward``, if samples alone do not do for it."""
    try:
        signature = inspect.signature(net.forward)
    except (TypeError, ValueError):
        return None
    try:
        signature.bind(None)
    except TypeError:
        needed = [
            p
            for p in signature.parameters.values()
            if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ]
        names = (
            " and ".join(p.name + " (by name only)" * (p.kind is p.KEYWORD_ONLY) for p in needed)
            or "nothing"
        )
        return (
            f"forward of {type(net).__name__} takes {names}; npk reads networks of one input. "
            "Wrap it in a module whose forward takes the samples alone."
        )
    return None


def of_forward(net: nn.Module, example: torch.Tensor, error: Exception) -> NpkError:
    """The error for a network that failed on samples of a shape."""
    if isinstance(error, (RuntimeError, ValueError, IndexError)):
        kind = ""
    else:
        kind = f"{type(error).__name__}: "
    about = (
        f"{type(net).__name__} does not accept samples of shape {tuple(example.shape[1:])}: "
        f"{kind}{_first_line(error)}{_at(error)}."
    )
    if isinstance(error, _OF_SHAPES) and not isinstance(error, NotImplementedError):
        return ShapeError(f"{about} Give X the shape the network was made for.")
    return UnsupportedGraphError(
        f"{about} Mend its forward, or give X the shape the network was made for."
    )


def of_tracing(net: nn.Module, error: Exception, fixed: list[str]) -> str:
    """What ``torch.export`` did not trace in a network that runs.

    Args:
        net: the network.
        error: what was raised, in its forward or behind it.
        fixed: lines at which something was found out about the number of samples.
    """
    name, text = type(net).__name__, f"{type(error).__name__}: {_first_line(error)}"
    at = _at(error)
    if "Constraints violated" in text:
        return _of_batch_size(name, "constant" in str(error), f" ({fixed[0]})" if fixed else "")
    if "data-dependent" in str(error).lower() or "DataDependent" in type(error).__name__:
        return of_values(name, at)
    if any(word in text.lower() for word in _VALUES_ARE_TAKEN) and at:
        return (
            f"{name} takes values out of torch{at}: {text}. Compute with torch alone: NumPy, "
            f"Python's math, .data_ptr() and the like cannot be traced."
        )
    return (
        f"torch.export cannot trace {name}{at}: {text}. While a network is traced its tensors "
        f"have shapes, and no values."
    )


def _of_batch_size(name: str, constant: bool, at: str) -> str:
    if constant:
        return (
            f"{name} makes a plain number of the batch size{at}, as len(x), int(x.size(0)) and "
            f"loops over x do. Write x.shape[0] for it, and x.flatten(1) for x.view(len(x), -1)."
        )
    return (
        f"{name} does something else for some batch sizes{at}. Have it depend on the shape of a "
        f"sample alone."
    )


def of_values(name: str, at: str) -> str:
    """What to say of a network whose numbers or control flow depend on the values of its samples."""
    return (
        f"{name} makes a number of the values of its samples, or decides by them{at}, so its paths "
        f"are not those of one network. Leave .item(), float(...) and if out of its forward, or "
        f"have them depend on the shape of a sample alone."
    )


def _first_line(error: Exception) -> str:
    return (
        (str(error).strip() or "no reason given").splitlines()[0].split(". ")[0].rstrip(".")[:300]
    )


def _at(error: Exception) -> str:
    """The last line of the network's own code on the way to an error."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if is_users(frame.filename)
    ]
    return f" ({place(frames[-1].filename, frames[-1].lineno)})" if frames else ""
