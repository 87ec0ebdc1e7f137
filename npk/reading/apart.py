"""Torch in a thread of its own, where nothing holds that the caller has set in his; and nothing
that he sees is redirected.

Modes of gradients and inference, autocast, a default device and modes that intercept functions
belong to a thread: a new one has none of them. Warnings and torch's log are held back by filters
that look at the thread.
"""

import contextlib
import contextvars
import logging
import os
import pickle
import random
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch

R = TypeVar("R")

_tracing = threading.RLock()  # torch.export changes torch for all threads while it works
_entering = threading.Lock()
_quiet: set[int] = set()  # threads


def _new_locks() -> None:
    """In a forked child: the thread that held a lock is not there."""
    global _tracing, _entering
    _tracing, _entering = threading.RLock(), threading.Lock()
    _quiet.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_locks)


@contextlib.contextmanager
def thread_of_its_own() -> Iterator[Callable[..., Any]]:
    """A quiet thread for torch, without gradients, on the caller's CUDA stream."""
    context, stream = contextvars.copy_context(), _stream()
    with ThreadPoolExecutor(1, thread_name_prefix="npk") as pool:

        def there(function: Callable[..., Any], *arguments: Any) -> Any:
            return pool.submit(context.run, _alone, stream, function, arguments).result()

        yield there


def apart(function: Callable[..., R], *arguments: Any) -> R:
    """Call a function in a thread of its own.

    Args:
        function: what to call.
        arguments: of it.

    Returns:
        Its result.
    """
    with thread_of_its_own() as quietly:
        return quietly(function, *arguments)


def _stream() -> Any:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.current_stream()
    return None


def _alone(stream: Any, function: Callable[..., R], arguments: tuple) -> R:
    with (
        torch.no_grad(),
        _without_warnings(),
        torch.cuda.stream(stream) if stream is not None else contextlib.nullcontext(),
    ):
        return function(*arguments)


class _HereOnly:
    """The pattern of a filter of warnings that fits in quiet threads only, and a filter of handlers
    that stops torch's log there.
    """

    def match(self, _text: str) -> bool:
        return threading.get_ident() in _quiet

    def filter(self, record: logging.LogRecord) -> bool:
        return record.name.split(".")[0] != "torch" or threading.get_ident() not in _quiet


_HERE = _HereOnly()
_IGNORED: Any = ("ignore", _HERE, Warning, None, 0)


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Hold back warnings in this thread; what other threads say and set meanwhile stays as it is."""
    me, filters = threading.get_ident(), warnings.filters
    if me in _quiet:
        yield
        return
    with _entering:
        _quiet.add(me)
        if not any(entry is _IGNORED for entry in filters):
            filters.insert(0, _IGNORED)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        with _entering:
            _quiet.discard(me)
            if not _quiet:
                warnings.filters[:] = [entry for entry in warnings.filters if entry is not _IGNORED]  # type: ignore[index]


@contextlib.contextmanager
def alone_with_torch() -> Iterator[None]:
    """While torch is changed for all threads: one at a time, without its warnings and log, and with
    all random states as they were.
    """
    with _tracing, _without_warnings(), _random_states_kept():
        handlers = _handlers()
        for handler in handlers:
            handler.addFilter(_HERE)
        try:
            yield
        finally:
            for handler in handlers:
                handler.removeFilter(_HERE)


def _handlers() -> list[logging.Handler]:
    """All that may show a record of torch."""
    loggers = [
        logging.root,
        *(
            logging.getLogger(name)
            for name in list(logging.root.manager.loggerDict)
            if name.split(".")[0] == "torch"
        ),
    ]
    return [
        *(handler for logger in loggers for handler in logger.handlers),
        *([logging.lastResort] if logging.lastResort else []),
    ]


@contextlib.contextmanager
def _random_states_kept() -> Iterator[None]:
    """The random states of torch, NumPy and Python, put back if something has drawn."""
    numpys = np.random.get_state(legacy=False)  # noqa: NPY002 - the user's network may draw from it
    torchs, pythons = torch.get_rng_state(), random.getstate()
    cuda = torch.cuda.get_rng_state_all() if _stream() is not None else []
    try:
        yield
    finally:
        if not torch.equal(torch.get_rng_state(), torchs):
            torch.set_rng_state(torchs)
        if pickle.dumps(np.random.get_state(legacy=False)) != pickle.dumps(numpys):  # noqa: NPY002
            np.random.set_state(numpys)  # noqa: NPY002
        if random.getstate() != pythons:
            random.setstate(pythons)
        if cuda and not all(map(torch.equal, torch.cuda.get_rng_state_all(), cuda)):
            torch.cuda.set_rng_state_all(cuda)
