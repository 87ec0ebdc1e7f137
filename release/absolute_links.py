"""README with absolute links, as a package index shows it: run in the checkout that is built from.

``python release/absolute_links.py PAGES PICTURES`` rewrites README.md in place; PAGES and PICTURES are
the addresses under which the files of the tag are read, and their bytes are loaded.
"""

import re
import sys
from pathlib import Path

LINK = re.compile(r"(!?)\[((?:[^\[\]]|!\[[^\]]*\]\([^)]*\))*)\]\((?!https?:|#)([^)]+)\)")


def absolute(text: str, pages: str, pictures: str) -> str:
    """The text, whose relative links are under two addresses."""
    return LINK.sub(
        lambda m: f"{m[1]}[{m[2]}]({(pictures if m[1] else pages).rstrip('/')}/{m[3]})", text
    )


if __name__ == "__main__":
    readme = Path("README.md")
    readme.write_text(absolute(readme.read_text(), *sys.argv[1:3]))
