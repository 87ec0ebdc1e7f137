"""How values are shown: in one line by ``repr``, and as tables in a notebook.

All HTML for notebooks is made here. Every text is escaped, and whatever a value holds, what is
shown of it has a bounded size.
"""

import base64
import dataclasses
import html
import io
import reprlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

_LINE = 240  # characters of a repr
_TEXT, _ROWS, _COLUMNS, _NUMBERS = 200, 30, 14, 8  # most of each that is shown
_DEPTH = 2  # tables within tables
_PIXELS, _WIDTH = 128, 256  # most of a picture a side, and how wide it is shown
_STYLE = "text-align:left;vertical-align:top"


class Shown:
    """Base of dataclasses of results: each is shown in one line, and by tables in a notebook."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # there before the decorator comes, which would make one of all fields
        if "__repr__" not in vars(cls):
            cls.__repr__ = cls.__repr__

    def __repr__(self) -> str:
        return one_line(self)

    def _repr_html_(self) -> str:
        return _whole(self, 0)


def one_line(value: Any) -> str:
    """A dataclass in one short line: numbers and short texts as they are, of anything longer how
    many there are.

    Args:
        value: the dataclass.

    Returns:
        The line.
    """
    said = ", ".join(f"{name}{_short(part)}" for name, part in _fields(value))
    if len(said) > _LINE:
        said = said[:_LINE].rsplit(", ", 1)[0] + ", ..."
    return f"<npk.{type(value).__name__} {said}>"


def _fields(value: Any) -> list[tuple[str, Any]]:
    return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]


def _short(value: Any) -> str:
    """What stands behind a field's name."""
    if getattr(value, "shape", ()):  # an array, of NumPy, which results do without
        return f": {'x'.join(map(str, value.shape))} {value.dtype}"
    if dataclasses.is_dataclass(value):
        return f": {type(value).__name__}"
    if isinstance(value, Sequence | dict) and not isinstance(value, str):
        return f": {len(value)}"
    return f"={' '.join(reprlib.repr(value).split())}"


def table(
    head: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "", *, most: int = _ROWS
) -> str:
    """A table for a notebook.

    Args:
        head: names of the columns.
        rows: a value a column; what is no text is written in short. Of many rows and columns the
            first are shown, and how many there are.
        caption: a line above it.
        most: rows that are shown.

    Returns:
        HTML.
    """
    return _table(head, [[_cell(value, _DEPTH) for value in row] for row in rows], caption, most)


def _table(
    head: Sequence[str], rows: Sequence[Sequence[str]], caption: str, most: int = _ROWS
) -> str:
    """A table whose cells are HTML."""
    more = "<th>...</th>" if len(head) > _COLUMNS else ""
    names = "".join(f'<th style="{_STYLE}">{_escaped(name)}</th>' for name in head[:_COLUMNS])
    lines = [
        "".join(f'<td style="{_STYLE}">{cell}</td>' for cell in row[:_COLUMNS])
        for row in rows[:most]
    ]
    if len(rows) > most:
        lines.append(f'<td colspan="{_COLUMNS}">... the first {most} of {len(rows)}</td>')
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    above = f'<caption style="{_STYLE}">{_escaped(caption)}</caption>' if caption else ""
    return f"<table>{above}<thead><tr>{names}{more}</tr></thead><tbody>{body}</tbody></table>"


def _escaped(text: str) -> str:
    cut = text if len(text) <= _TEXT else text[:_TEXT] + "..."
    return html.escape(cut)


def _cell(value: Any, depth: int) -> str:
    """A value in a table; tables within it as deep as is allowed."""
    if hasattr(value, "dtype"):
        value = value.tolist() if value.size <= _NUMBERS else _short(value)[2:]
    if isinstance(value, bool | int | str) or value is None:
        return _escaped("-" if value is None else str(value))
    if isinstance(value, float):
        return f"{value:.4g}"
    if dataclasses.is_dataclass(value):
        return _whole(value, depth) if depth < _DEPTH else _escaped(one_line(value))
    if isinstance(value, dict):
        return ", ".join(
            f"{_escaped(str(name))} {_cell(part, _DEPTH)}"
            for name, part in list(value.items())[:_NUMBERS]
        )
    if isinstance(value, Sequence):
        return _several(value, depth)
    return _escaped(reprlib.repr(value))


def _several(values: Sequence[Any], depth: int) -> str:
    """Dataclasses of one kind as a table; of other values the first ones."""
    if not values or not all(dataclasses.is_dataclass(one) for one in values):
        rest = f", ... {len(values)} in all" if len(values) > _NUMBERS else ""
        return ", ".join(_cell(one, _DEPTH) for one in values[:_NUMBERS]) + rest
    if depth >= _DEPTH:
        return f"{len(values)} of {_escaped(type(values[0]).__name__)}"
    head = [name for name, _ in _fields(values[0])]
    rows = [[_cell(part, _DEPTH) for _, part in _fields(one)] for one in values[:_ROWS]]
    inner = _table(head, [*rows, *[()] * (len(values) - len(rows))], "")
    return f"<details><summary>{len(values)}</summary>{inner}</details>"


def _whole(value: Any, depth: int) -> str:
    """A dataclass, a field a row."""
    rows = [(_escaped(name), _cell(part, depth + 1)) for name, part in _fields(value)]
    caption = f"npk.{type(value).__name__}" if depth == 0 else ""
    return _table(("", ""), rows, caption)


def bar(text: str, done: int, total: int) -> str:
    """A bar of progress for a notebook, with a text beside it.

    Args:
        text: what it says.
        done: steps.
        total: steps.

    Returns:
        HTML.
    """
    style = "font-variant-numeric:tabular-nums"
    return f'<div style="{style}"><progress value="{done}" max="{total}"></progress> {_escaped(text)}</div>'


def paragraph(text: str) -> str:
    """A line for a notebook.

    Args:
        text: what it says.

    Returns:
        HTML.
    """
    return f"<div>{_escaped(text)}</div>"


def picture(values: "np.ndarray", caption: str) -> str:
    """A matrix in shades of gray for a notebook: the least value white, the largest black.

    Args:
        values: (rows, columns); of a large one some entries are shown, evenly.
        caption: a line above it.

    Returns:
        HTML.
    """
    import numpy as np
    from PIL import Image

    every = max(1, -(-max(values.shape) // _PIXELS))
    seen = np.asarray(values[::every, ::every], np.float64)
    least, most = float(seen.min()), float(seen.max())
    shades = 255 - 255 * (seen - least) / (most - least or 1)
    file = io.BytesIO()
    Image.fromarray(shades.astype(np.uint8)).save(file, "PNG")
    pixels = base64.b64encode(file.getvalue()).decode()
    seen_of = f"every {every}th entry, " if every > 1 else ""
    said = _escaped(f"{caption}; {seen_of}white {least:.4g}, black {most:.4g}")
    image = (
        f'<img width="{_WIDTH}" style="image-rendering:pixelated" alt="" '
        f'src="data:image/png;base64,{pixels}">'
    )
    return f"<div>{said}<br>{image}</div>"
