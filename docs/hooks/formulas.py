"""MkDocs hook: formulas become MathML while the pages are built, so that they show in any browser,
without a script or a network.

``pymdownx.arithmatex`` marks the formulas; this hook replaces what it marked.
"""

import html
import re
from typing import Any

from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """Replace every marked formula of a page."""
    return FORMULA.sub(_mathml, content)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Refuse a page on which a formula was left over.

    Raises:
        ValueError: arithmatex marked a formula that ``FORMULA`` does not match.
    """
    if 'class="arithmatex"' in output:
        raise ValueError(
            f"a formula on {page.file.src_uri} was not turned into MathML. Does it "
            f"end where it should?"
        )
    return output


def _mathml(match: re.Match[str]) -> str:
    display = "block" if match[2] == "[" else "inline"
    return convert(html.unescape(match[3]).strip(), display=display)
