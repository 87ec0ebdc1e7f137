"""Frozen values that check their types when they are made, and travel as strict JSON.

JSON has no word for NaN and infinity. A number that may be one of them is of type ``float | None``,
and :func:`finite` makes it; everywhere else they are refused.
"""

import dataclasses
import functools
import json
import math
import reprlib
import sys
from collections.abc import Mapping
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, NoReturn, Self, Union, get_args, get_origin, get_type_hints

from npk.errors import DataError
from npk.shown import Shown

_WORDS = {float: "a finite number", int: "a whole number", str: "text", bool: "true or false"}
# Metadata of a field that does not travel: it may hold anything, and is in no JSON.
STAYS = MappingProxyType({"stays": True})


class Typed(Shown):
    """Base of frozen dataclasses of plain values, lists and tuples of them, and one another."""

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            DataError: a value is not of its field's type, or a number is not finite.
        """
        for name, kind in _kinds(type(self)).items():
            _check(getattr(self, name), kind, f"{name} of a {type(self).__name__}")

    @classmethod
    def from_values(cls, values: Any) -> Self:
        """Make it of what JSON holds.

        Args:
            values: a dictionary with a value for each field.

        Raises:
            DataError: fields are missing or unknown, or a value is not of its field's type.
        """
        if not isinstance(values, dict):
            came = reprlib.repr(values)
            raise DataError(f"a {cls.__name__} is {came}, and must be an object with fields")
        kinds = cls.kinds_of(values)
        missing = sorted(kinds.keys() - values.keys())
        unknown = sorted(values.keys() - kinds.keys())
        if missing:
            raise DataError(f"a {cls.__name__} lacks {', '.join(missing)}")
        if unknown:
            raise DataError(f"a {cls.__name__} has no field {', '.join(unknown)}")
        return cls(**{name: _read(values[name], kind) for name, kind in kinds.items()})

    def to_values(self) -> dict[str, Any]:
        """A dictionary of what JSON can hold; ``from_values`` takes it."""
        return {name: _written(getattr(self, name)) for name in _kinds(type(self))}

    @classmethod
    def kinds_of(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The type of each field; a class where one depends on other values says so here."""
        return _kinds(cls)


def finite(number: float) -> float | None:
    """The number, or ``None`` in the place of NaN and infinity."""
    return float(number) if math.isfinite(number) else None


def strict_json(values: dict[str, Any]) -> str:
    """JSON that every program reads: it has no token for NaN or infinity.

    Raises:
        ValueError: a number is not finite.
    """
    return json.dumps(values, indent=1, allow_nan=False)


def parse_object(text: str) -> dict[str, Any]:
    """The object that JSON text holds.

    Raises:
        ValueError: the text is no JSON, has a token for NaN or infinity, or holds no object.
    """
    try:
        values = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(values, dict):
        raise ValueError("it holds no object")
    return values


def _refuse_constant(token: str) -> NoReturn:
    raise ValueError(f"{token} is no JSON")


@functools.cache
def _kinds(cls: type) -> dict[str, Any]:
    hints, fields = get_type_hints(cls), dataclasses.fields(cls)
    return {field.name: hints[field.name] for field in fields if field.metadata != STAYS}


def _written(value: Any) -> Any:
    if isinstance(value, Typed):
        return value.to_values()
    if isinstance(value, list | tuple):
        return [_written(part) for part in value]
    return {k: _written(part) for k, part in value.items()} if isinstance(value, dict) else value


def _read(value: Any, kind: Any) -> Any:
    """A JSON value as a field has it; what does not fit is left for the check to find."""
    if isinstance(kind, type) and issubclass(kind, Typed):
        return kind.from_values(value)
    if get_origin(kind) is tuple and isinstance(value, list):
        return tuple(_read(part, get_args(kind)[0]) for part in value)
    return value


def _check(value: Any, kind: Any, place: str) -> None:
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        _check_union(value, parts, place)
    elif origin in (list, tuple):
        if not isinstance(value, origin):
            _refuse(value, f"a {origin.__name__}", place)
        for number, part in enumerate(value):
            _check(part, parts[0], f"entry {number} of {place}")
    elif origin is Mapping:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            _refuse(value, "a dictionary with names", place)
        for name, part in value.items():
            _check(part, parts[1], f"{name!r} of {place}")
    elif not _is_a(value, kind, parts):
        words = " or ".join(map(repr, parts)) if origin is Literal else _WORDS.get(kind)
        _refuse(value, words or f"a {kind.__name__}", place)


def _check_union(value: Any, parts: tuple[Any, ...], place: str) -> None:
    if any(_is_a(value, part, ()) for part in parts):
        return
    words = [_WORDS[part] for part in parts if part is not NoneType]
    _refuse(value, " or ".join([*words, "None"] if NoneType in parts else words), place)


def _is_a(value: Any, kind: Any, choices: tuple[Any, ...]) -> bool:
    if choices:
        return value in choices
    if kind is float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and abs(value) <= sys.float_info.max
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def _refuse(value: Any, wanted: str, place: str) -> NoReturn:
    raise DataError(f"{place} is {reprlib.repr(value)}, and must be {wanted}")
