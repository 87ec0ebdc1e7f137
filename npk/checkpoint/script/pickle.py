"""The objects of a TorchScript archive, read from its pickles without unpickling.

A pickle is a program. This machine knows only the steps that ``torch.jit.save`` writes, and the few
functions named there, which it carries out itself; nothing is imported and nothing of the file's is
called.
"""

import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from npk.checkpoint.archives import Archive
from npk.checkpoint.program.graph import ALWAYS_ALLOWED

STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_MARK = object()
_VALUES = (  # steps whose argument is a value
    *(
        "BINUNICODE SHORT_BINUNICODE BININT BININT1 BININT2 LONG1 BINFLOAT BINSTRING "
        "SHORT_BINSTRING"
    ).split(),
)
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "MARK": lambda: _MARK,
}
_LISTS = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")


class Strange(Exception):
    """What is wrong with a pickle, in a few words."""


@dataclass(frozen=True)
class Name:
    """A name that the pickle asks for."""

    text: str


@dataclass(eq=False)
class ScriptObject:
    """An object of a class of the archive."""

    kind: str
    values: dict[str, Any] = field(default_factory=dict)


class Pickled:
    """The pickles of an archive; tensors that share a storage there share it here."""

    def __init__(self, archive: Archive, root: str) -> None:
        self._archive, self._root = archive, root
        self._flat: dict[str, torch.Tensor] = {}

    def read(self, name: str) -> Any:
        """What ``name.pkl`` holds; its tensors lie in the folder ``name``.

        Args:
            name: ``data`` or ``constants``.

        Raises:
            Strange: a step, a name or a tensor that torch would not have written.
        """
        machine = _Machine(lambda *storage: self._storage(name, *storage))
        try:
            return machine.run(self._archive.read(f"{self._root}{name}.pkl"))
        except (
            Strange,
            ArithmeticError,
            LookupError,
            TypeError,
            ValueError,
            RuntimeError,
            AttributeError,
        ) as error:
            raise Strange(f"{name}.pkl: {error}") from error

    def _storage(self, folder: str, kind: Any, key: Any, count: Any) -> torch.Tensor:
        dtype = STORAGES.get(kind.text.removeprefix("torch.")) if isinstance(kind, Name) else None
        record = f"{self._root}{folder}/{key}"
        if dtype is None or type(count) is not int:
            raise Strange(f"it has tensors of {getattr(kind, 'text', kind)}")
        if record not in self._flat:
            content = bytearray(self._archive.read(record))
            if len(content) != count * dtype.itemsize:
                raise Strange(
                    f"{record} has {len(content):,} bytes, not those of {count:,} cells of {dtype}"
                )
            self._flat[record] = (
                torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
            )
        if self._flat[record].dtype != dtype:
            raise Strange(f"{record} is of two kinds")
        return self._flat[record]


class _Machine:
    """Carries out a pickle's steps, as far as they make plain values, tensors and known objects."""

    def __init__(self, storage: Callable[[Any, Any, Any], torch.Tensor]) -> None:
        self._storage = storage
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, content: bytes) -> Any:
        for step, argument, _ in pickletools.genops(content):
            if step.name == "STOP":
                (result,) = self._stack
                return result
            self._step(step.name, argument)
        raise Strange("it is cut")

    def _step(self, name: str, argument: Any) -> None:
        if name in _VALUES:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name]())
        elif name in ("BINGET", "LONG_BINGET"):
            self._stack.append(self._memo[argument])
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self._stack[-1]
        elif name == "GLOBAL":
            self._stack.append(Name(argument.replace(" ", ".")))
        elif name == "TUPLE":
            self._stack.append(tuple(self._since_mark()))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            if len(self._stack) < count:
                raise Strange("it is damaged")
            self._stack[-count:] = [tuple(self._stack[-count:])]
        elif name in ("APPEND", "APPENDS", "SETITEM", "SETITEMS"):
            self._fill(name)
        elif name in ("REDUCE", "NEWOBJ", "BUILD", "BINPERSID"):
            self._make(name)
        elif name != "PROTO":
            raise Strange(f"npk knows no {name} in it")

    def _since_mark(self) -> list[Any]:
        at = max(i for i, value in enumerate(self._stack) if value is _MARK)
        items = self._stack[at + 1 :]
        del self._stack[at:]
        return items

    def _fill(self, name: str) -> None:
        """Entries of the list or dictionary under them."""
        count = {"APPEND": 1, "SETITEM": 2}.get(name)
        values = (
            self._since_mark() if count is None else [self._stack.pop() for _ in range(count)][::-1]
        )
        target = self._stack[-1]
        if type(target) is list and name.startswith("APPEND"):
            target.extend(values)
        elif type(target) is dict and name.startswith("SETITEM"):
            target.update(zip(values[::2], values[1::2], strict=True))
        else:
            raise Strange("it is damaged")

    def _make(self, name: str) -> None:
        argument = self._stack.pop()
        if name == "BINPERSID":
            what, kind, key, _, count = argument
            self._stack.append(self._storage(kind, key, count) if what == "storage" else None)
            return
        target = self._stack.pop()
        if name == "REDUCE":
            self._stack.append(_called(target, argument))
        elif name == "NEWOBJ":
            if (
                not isinstance(target, Name)
                or not target.text.startswith("__torch__.")
                or argument != ()
            ):
                raise Strange(f"it makes an object of {getattr(target, 'text', target)}")
            self._stack.append(ScriptObject(target.text))
        else:
            _build(target, argument)
            self._stack.append(target)


def _build(target: Any, state: Any) -> None:
    if (
        not isinstance(target, ScriptObject)
        or type(state) is not dict
        or not all(type(key) is str for key in state)
    ):
        raise Strange("an object in it has no plain attributes")
    target.values.update(state)


def _called(target: Any, arguments: Any) -> Any:
    """What one of the functions that torch names there gives."""
    name = target.text if isinstance(target, Name) else type(target).__name__
    if name == "torch._utils._rebuild_tensor_v2":
        return _tensor(*arguments[:4])
    if name in [f"torch.jit._pickle.{each}" for each in _LISTS] and type(arguments[0]) is list:
        return arguments[0]
    if name == "torch.jit._pickle.restore_type_tag":
        return arguments[0]
    if name == "collections.OrderedDict" and arguments == ():
        return {}
    if name == "torch.device" and type(arguments[0]) is str:
        return torch.device("cpu")
    raise Strange(f"it asks for {name}, and npk never runs pickled code")


def _tensor(
    flat: torch.Tensor, offset: int, sides: tuple[int, ...], strides: tuple[int, ...]
) -> torch.Tensor:
    """A view of a storage that stays within it."""
    numbers = [offset, *sides, *strides]
    if len(sides) != len(strides) or not all(
        type(number) is int and 0 <= number < 1 << 62 for number in numbers
    ):
        raise Strange("a tensor in it has no shape")
    last = offset + sum((side - 1) * stride for side, stride in zip(sides, strides, strict=True))
    if math.prod(sides) and (
        last >= flat.numel() or math.prod(sides) > max(flat.numel(), ALWAYS_ALLOWED)
    ):
        raise Strange(f"a tensor of shape {sides} in it is larger than its {flat.numel():,} cells")
    return flat.as_strided(sides, strides, offset)
