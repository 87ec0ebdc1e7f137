"""Hooks of a network that is traced: those that only look are left out, the others belong to it."""

import contextlib
import dataclasses
import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as everywhere

from npk.networks.given import tensors_in


@dataclasses.dataclass
class _Hook:
    """A forward hook or pre-hook, and whether it has changed anything when it was called."""

    function: Callable[..., Any]
    with_kwargs: bool
    changes: bool = False


class Hooks:
    """The hooks on the modules of a copied network, and those on all modules; the copy calls them
    by way of this.

    Args:
        net: the copy, whose modules are given their calls. Hooks that ``forward`` puts on them are
            called, too.
    """

    def __init__(self, net: nn.Module) -> None:
        self.all: list[_Hook] = []
        self.changing_only = False
        for part in net.modules():
            if not isinstance(part, torch.jit.ScriptModule):
                self._take(part)

    def _take(self, part: nn.Module) -> None:
        before = self._of(everywhere._global_forward_pre_hooks, {}) + self._of(
            part._forward_pre_hooks, part._forward_pre_hooks_with_kwargs
        )
        after = self._of(
            everywhere._global_forward_hooks, everywhere._global_forward_hooks_with_kwargs
        ) + self._of(part._forward_hooks, part._forward_hooks_with_kwargs)
        if (
            before
            or after
            or everywhere._global_backward_hooks
            or everywhere._global_backward_pre_hooks
        ):
            self.all += before + after
            part._forward_pre_hooks.clear()
            part._forward_hooks.clear()
            # what __call__ calls first, if it is there
            part._compiled_call_impl = functools.partial(self._call, part, before, after)

    @staticmethod
    def _of(hooks: dict, with_kwargs: dict) -> list[_Hook]:
        return [_Hook(function, key in with_kwargs) for key, function in hooks.items()]

    def _call(
        self, part: nn.Module, before: list[_Hook], after: list[_Hook], *args: Any, **kwargs: Any
    ) -> Any:
        for hook in self._called(before):
            given = (args, kwargs) if hook.with_kwargs else (args,)
            answer = _watched(hook, part, given, [args, *kwargs.values()])
            if answer is not None and hook.with_kwargs:
                args, kwargs = answer
            elif answer is not None:
                args = answer if isinstance(answer, tuple) else (answer,)
        result = part.forward(*args, **kwargs)
        late = self._of(part._forward_hooks, part._forward_hooks_with_kwargs)
        for hook in [*self._called(after), *late]:
            given = (args, kwargs, result) if hook.with_kwargs else (args, result)
            answer = _watched(hook, part, given, [args, *kwargs.values(), result])
            result = result if answer is None else answer
        return result

    def _called(self, hooks: list[_Hook]) -> list[_Hook]:
        return [hook for hook in hooks if hook.changes or not self.changing_only]

    def as_in(self, other: "Hooks") -> None:
        """Call those that are called in another copy of the same network."""
        self.changing_only = other.changing_only
        for hook, original in zip(self.all, other.all, strict=True):
            hook.changes = original.changes

    def leave_out_lookers(
        self, net: nn.Module, anew: Callable[[], nn.Module], example: torch.Tensor
    ) -> None:
        """From now on call only the hooks that change something; all of them, where the network
        gives other values without the others.

        Args:
            net: the copy, which has been run already.
            anew: makes another copy, which has not: what hooks have put aside is not there.
            example: samples.
        """
        if all(hook.changes for hook in self.all):
            return  # or there are none
        try:
            right, other = tensors_in(net(example)), anew()
            self.changing_only = True
            Hooks(other).as_in(self)
            same = all(map(_equal, right, tensors_in(other(example))))
        except Exception:  # without a hook, or on these samples
            same = False
        for hook in self.all:
            hook.changes |= not same


@contextlib.contextmanager
def not_called_here() -> Iterator[None]:
    """Hooks on all modules are not called in this thread: torch.export has modules of its own."""
    me, put = threading.get_ident(), []
    for hooks in (everywhere._global_forward_pre_hooks, everywhere._global_forward_hooks):
        for key, function in list(hooks.items()):
            hooks[key] = functools.partial(_elsewhere, me, function)
            put.append((hooks, key, function))
    try:
        yield
    finally:
        for hooks, key, function in put:
            if key in hooks:  # the user may have removed it meanwhile
                hooks[key] = function


def _elsewhere(thread: int, function: Callable[..., Any], *arguments: Any) -> Any:
    return None if threading.get_ident() == thread else function(*arguments)


def _watched(hook: _Hook, part: nn.Module, given: tuple, seen: list[Any]) -> Any:
    """Call a hook: does it answer, write into a tensor or set something on the module?"""
    tensors = tensors_in(seen)
    before = _state(part), [tensor._version for tensor in tensors]
    answer = hook.function(part, *given)
    hook.changes |= answer is not None or before != (
        _state(part),
        [tensor._version for tensor in tensors],
    )
    return answer


def _state(part: nn.Module) -> list[tuple[str, int]]:
    held: Iterable = [
        *part.__dict__.items(),
        *part._parameters.items(),
        *part._buffers.items(),
        *part._modules.items(),
    ]
    return [(name, id(value)) for name, value in held]


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and bool(((one == other) | (one.isnan() & other.isnan())).all())
