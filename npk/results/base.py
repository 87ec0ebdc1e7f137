"""What all results are: frozen plain values, to JSON and back."""

import dataclasses
from pathlib import Path
from typing import Any, Self

from npk.errors import DataError, StoreError
from npk.files import written_whole
from npk.typed import Typed, parse_object, strict_json

FORMAT = 2  # of all files; a field that is added, left out or means another thing makes it another
_AGAIN = "Make it again with the command that wrote it"


@dataclasses.dataclass(frozen=True)
class Result(Typed):
    """Base of all results."""

    def to_json(self) -> str:
        """The result as JSON text; ``from_json`` gives it back."""
        head = {"format": FORMAT, "result": type(self).__name__}
        return strict_json({**head, **self.to_values()})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The result that ``to_json`` wrote.

        Raises:
            StoreError: the text is not JSON, of another format, or not this kind of result.
        """
        try:
            values = parse_object(text)
        except ValueError as error:
            raise cls._damaged(error) from error
        cls._check_head(values.pop("format", None), values.pop("result", None))
        try:
            return cls.from_values(values)
        except DataError as error:
            raise cls._damaged(error) from error

    @classmethod
    def _damaged(cls, error: Exception) -> StoreError:
        what = f"this is not a {cls.__name__} in JSON ({error})"
        return StoreError(f"{what}. Was the file cut off, or written by another program?")

    @classmethod
    def _check_head(cls, version: Any, kind: Any) -> None:
        if version is None:
            what = f"this is not a {cls.__name__} in JSON that this npk reads"
            raise StoreError(f"{what}: it has no format number, as files of earlier npk. {_AGAIN}.")
        if version != FORMAT:
            what = f"this file has format {version!r}, and this npk reads format {FORMAT}"
            raise StoreError(f"{what}. {_AGAIN}, or read it with the npk that wrote it.")
        if kind != cls.__name__:
            raise StoreError(f"this is a {kind!r}, not a {cls.__name__}. Name another file.")

    def save(self, path: str | Path) -> None:
        """Write the JSON file whole or not at all."""
        with written_whole(path) as temporary:
            temporary.write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file that :meth:`save` wrote.

        Raises:
            StoreError: no such file, of another format, or not this kind of result.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            message = f"cannot read {path}: {error.strerror}. Name a file that `npk` wrote."
            raise StoreError(message) from error
        except UnicodeDecodeError as error:
            raise cls._damaged(error) from error
        return cls.from_json(text)


def kind_of(path: str | Path) -> str:
    """Of which class the result in a file is; empty where nothing tells.

    Args:
        path: of the file.

    Returns:
        The name of the class.
    """
    try:
        return str(parse_object(Path(path).read_text(encoding="utf-8")).get("result", ""))
    except (OSError, ValueError):  # told by who reads it whole
        return ""


@dataclasses.dataclass(frozen=True)
class Case(Typed):
    """One comparison of a check."""

    label: str  # what was compared
    deviation: float | None  # relative; None: not finite


class Details(Typed):
    """Base of what the figure of a check draws."""


@dataclasses.dataclass(frozen=True)
class CaseDetails(Details):
    """One comparison after the other: all that most checks have to tell."""

    cases: tuple[Case, ...]
