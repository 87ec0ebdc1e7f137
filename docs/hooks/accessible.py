"""MkDocs hook: what a keyboard and a screen reader need and the theme leaves out."""

from typing import Any

REPAIRS = {
    # the search has no name
    'data-md-component="search" role="dialog"': 'data-md-component="search" role="dialog" aria-label="Search"',
    # code and formulas that are wider than the page are scrolled with the keys
    "<pre><code>": '<pre><code tabindex="0">',
    'display="block">': 'display="block" tabindex="0">',
    "<pre><span></span><code>": '<pre><span></span><code tabindex="0">',
}


def on_post_page(output: str, **_: Any) -> str:
    """The page with the repairs."""
    for before, after in REPAIRS.items():
        output = output.replace(before, after)
    return output
