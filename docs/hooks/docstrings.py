"""Griffe extension: the few Sphinx marks in our docstrings, said in Markdown, so that the reference
pages show them.
"""

import re
import textwrap
from itertools import pairwise
from typing import Any

import griffe

DISPLAY = re.compile(r"^( *)\.\. math::[ \t]*(.*(?:\n(?:[ \t]*\n)*\1 +\S.*)*)", re.MULTILINE)
INLINE = re.compile(r":math:`([^`]+)`")
ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc):`[~!]?([^`<]+)`")
TABLE = re.compile(
    r"^( *)(=+(?: +=+)+)\n(.*?)^\1\2[ \t]*(?=\n[ "
    r"\t]*\n|\n*\Z)",
    re.MULTILINE | re.DOTALL,
)


class Markdown(griffe.Extension):
    """Rewrites docstrings before they are parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite one docstring in place."""
        if obj.docstring is not None:
            obj.docstring.value = rewritten(obj.docstring.value)


def rewritten(text: str) -> str:
    """Formulas, roles and simple tables of a docstring, in Markdown."""
    text = DISPLAY.sub(_display, TABLE.sub(_table, text))
    return ROLE.sub(r"`\1`", INLINE.sub(r"$\1$", text))


def _display(match: re.Match[str]) -> str:
    return f"{match[1]}$$\n{textwrap.indent(' '.join(match[2].split()), match[1])}\n{match[1]}$$"


def _table(match: re.Match[str]) -> str:
    """A simple table: columns as wide as the marks of its rulers; a row with an empty first cell
    goes on with the row before.
    """
    indent, ruler, body = match.groups()
    starts = [mark.start() for mark in re.finditer("=+", ruler)]
    head, *tail = re.split(r"^ *=+(?: +=+)+\n", body, flags=re.MULTILINE)
    rows: list[list[str]] = [[""] * len(starts)] if not tail else []
    for line in (head + "".join(tail)).splitlines():
        text = line[len(indent) :]
        cells = [text[a:b].strip() for a, b in pairwise([*starts, None])]
        if cells[0] or not rows:
            rows.append(cells)
        else:
            rows[-1] = [f"{old} {new}".strip() for old, new in zip(rows[-1], cells, strict=True)]
    rows.insert(1, ["---"] * len(starts))
    return "\n".join(
        f"{indent}| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows
    )
