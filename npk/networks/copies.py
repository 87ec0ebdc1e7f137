"""Another module object for every module of a network, with the very parameters and buffers: it can
be run and traced, and hooks can be taken off it, while the network itself stays as it is.
"""

import collections
import contextlib
import dataclasses
import functools
import types
from typing import Any

import torch
from torch import nn

_HOOKS_OF_STATES = (
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)
_HOOKS_OF_GRADIENTS = ("_backward_hooks", "_backward_pre_hooks")


def inside(net: nn.Module) -> nn.Module | None:
    """What a wrapper is around: of ``torch.compile``, ``DataParallel``,
    ``DistributedDataParallel``, ``AveragedModel``.

    Args:
        net: a module.

    Returns:
        The module in the wrapper; ``None`` for a module that is no wrapper.
    """
    held = net.__dict__.get("_modules", {})
    if "_orig_mod" in held and type(net).__name__ == "OptimizedModule":
        return held["_orig_mod"]
    wrappers = (
        nn.DataParallel,
        nn.parallel.DistributedDataParallel,
        torch.optim.swa_utils.AveragedModel,
    )
    return held["module"] if isinstance(net, wrappers) else None


def copied(net: nn.Module) -> nn.Module:
    """Copy the modules of a network, not its tensors; wrappers are left out, and hooks on state
    dicts and gradients, too.

    Lists, dicts and bound methods among the attributes are copied with the modules: what
    ``forward`` keeps in them stays in the copy.

    Args:
        net: the network.

    Returns:
        The copy. Its parameters and buffers are those of the network.
    """
    return _Copier().of(net)


class _Copier:
    """Copies of modules and of the containers that may hold them, each once."""

    def __init__(self) -> None:
        self.made: dict[int, Any] = {}
        self.sources: list[Any] = []  # alive as long as their ids count

    def of(self, value: Any) -> Any:
        """The copy of a value; the value itself where it can hold no module of the network."""
        if id(value) in self.made:
            return self.made[id(value)]
        if isinstance(value, nn.Module):
            return self._module(value)
        if type(value) in (dict, collections.OrderedDict, collections.defaultdict):
            return self._filled(
                value,
                copy := value.copy(),
                lambda: copy.update({key: self.of(v) for key, v in value.items()}),
            )
        if type(value) in (list, collections.deque):
            copy = value.copy()
            copy.clear()
            return self._filled(value, copy, lambda: copy.extend(map(self.of, value)))
        if type(value) is set:
            return self._filled(value, copy := set(), lambda: copy.update(map(self.of, value)))
        return self._immutable(value)

    def _filled(self, value: Any, copy: Any, fill: Any) -> Any:
        """Known before it is filled: containers may hold themselves."""
        self.made[id(value)] = copy
        self.sources.append(value)
        fill()
        return copy

    def _immutable(self, value: Any) -> Any:
        if type(value) is tuple:
            return tuple(map(self.of, value))
        if isinstance(value, types.MethodType):
            return types.MethodType(value.__func__, self.of(value.__self__))
        if isinstance(value, types.FunctionType) and value.__closure__:
            return self._function(value)
        if isinstance(value, functools.partial):
            return functools.partial(
                self.of(value.func),
                *map(self.of, value.args),
                **{k: self.of(v) for k, v in value.keywords.items()},
            )
        plain = isinstance(value, types.SimpleNamespace) or (
            dataclasses.is_dataclass(value) and not isinstance(value, type)
        )
        return self._object(value) if plain and hasattr(value, "__dict__") else value

    def _function(self, function: types.FunctionType) -> Any:
        """A function that is closed over modules is closed over their copies."""
        cells = tuple(types.CellType() for _ in function.__closure__ or ())
        copy = types.FunctionType(
            function.__code__, function.__globals__, function.__name__, function.__defaults__, cells
        )
        copy.__kwdefaults__ = function.__kwdefaults__
        copy.__dict__.update(function.__dict__)

        def fill() -> None:
            for cell, old in zip(cells, function.__closure__ or (), strict=True):
                with contextlib.suppress(ValueError):  # a cell may be empty
                    cell.cell_contents = self.of(old.cell_contents)

        return self._filled(function, copy, fill)

    def _object(self, value: Any) -> Any:
        copy = object.__new__(type(value))
        return self._filled(
            value,
            copy,
            lambda: copy.__dict__.update(
                {name: self.of(held) for name, held in value.__dict__.items()}
            ),
        )

    def _module(self, module: nn.Module) -> Any:
        held = inside(module)
        if held is not None:
            copy = self.of(held)
        elif isinstance(module, torch.jit.ScriptModule):
            copy = module
        else:
            copy = self._object(module)
            for name in (*_HOOKS_OF_STATES, *_HOOKS_OF_GRADIENTS):
                copy.__dict__.get(name, {}).clear()
            copy.__dict__.pop("_compiled_call_impl", None)  # of net.compile()
        self.made[id(module)] = copy
        self.sources.append(module)
        return copy
