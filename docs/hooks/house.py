"""MkDocs hook: the list of files on the design page comes from the files themselves, so that it is
never out of date.
"""

import ast
from pathlib import Path
from typing import Any

MARK = "<!-- house -->"
PACKAGE = Path(__file__).parents[2] / "npk"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the list of files where the mark is."""
    return markdown.replace(MARK, house()) if MARK in markdown else markdown


def house() -> str:
    """Every module with the first line of its docstring, as a Markdown table."""
    files = sorted(
        PACKAGE.rglob("*.py"), key=lambda path: (len(path.parts) > len(PACKAGE.parts) + 1, path)
    )
    rows = [f"| `{path.relative_to(PACKAGE.parent)}` | {_first_line(path)} |" for path in files]
    return "\n".join(["| file | what is in it |", "|---|---|", *rows])


def _first_line(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    paragraph = " ".join(text.split("\n\n")[0].split())
    return paragraph.replace("|", "\\|").replace("``", "`")
