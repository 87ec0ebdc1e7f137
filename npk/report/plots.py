"""Drawings inside a page: figures as SVG that follows the page's colors, and kernels to look into."""

import base64
import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from npk.report import style
from npk.report.figures import heat_range
from npk.report.pictures import png_source
from npk.report.subjects import class_name
from npk.results import KernelSummary, StudyResult

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

_VARIABLES = {
    style.INK: "var(--ink)",
    style.MUTED: "var(--muted)",
    style.RULE: "var(--rule)",
    style.PAPER: "var(--paper)",
    style.BAR: "var(--bar)",
    style.COLOR[""]: "var(--other)",
    **{color: f"var(--{kind})" for kind, color in style.COLOR.items() if kind},
}
_STOPS = 16  # of a scale of colors: between them the page interpolates


def inline_svg(figure: "Figure", alternative: str, key: str) -> "Markup":
    """The figure as SVG inside HTML: colors and type are the page's own, ids begin with ``key``."""
    from markupsafe import Markup

    stream = io.StringIO()
    figure.savefig(
        stream,
        format="svg",
        facecolor="none",
        metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
    )
    text = stream.getvalue()
    body = re.sub(
        r"<style.*?</style>|<metadata>.*?</metadata>",
        "",
        text[text.index("<defs>") : text.rindex("</svg>")],
        flags=re.DOTALL,
    )
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', body))
    body = re.sub(
        r' id="([^"]*)"', lambda match: match.group() if match.group(1) in used else "", body
    )
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\1{key}-", body)
    body = re.sub("#[0-9a-f]{6}", lambda match: _VARIABLES.get(match.group(), match.group()), body)
    body = re.sub(r"'DejaVu Sans'(, [^;\"]*)?", "var(--sans)", body)
    body = re.sub(r"data:image/png;base64,([^\"]*)", _with_a_palette, body)
    width, height = figure.get_size_inches()
    view_box = f"0 0 {72 * width:g} {72 * height:g}"
    widest = 1.2 * 96 * width  # CSS pixels: a small figure does not grow to the width of the page
    style = f"max-width:{widest:.0f}px"
    frame = Markup('<svg viewBox="{}" style="{}" role="img" aria-label="{}">{}</svg>')
    return frame.format(view_box, style, alternative, Markup(body))


def _with_a_palette(found: re.Match[str]) -> str:
    """A PNG picture of at most 256 colors with a palette, which takes a third; others as they are."""
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(found[1]))) as image:
        solid, colors = image.convert("RGB"), image.getcolors(256)
        if colors is None or any(
            color[3:] != (255,)
            for _, color in colors
            if isinstance(color, tuple) and image.mode == "RGBA"
        ):
            return found.group()
    stream = io.BytesIO()
    few = solid.convert("P", palette=Image.Palette.ADAPTIVE, colors=256)
    few.save(stream, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def interactive(run: StudyResult) -> dict[str, Any] | None:
    """Kernels as bytes, with the classes of their rows and the scale of colors; ``None``: no kernel.

    A value v is shown as round(255 (v - low) / (high - low)).
    """
    shown = [kernel for kernel in run.kernels if kernel.heat]
    if not shown:
        return None
    sheet, place = _sheet(run, shown)
    kernels = [_kernel(run, kernel) for kernel in shown]
    for made, kernel in zip(kernels, shown, strict=True):
        made["pictures"] = [place[number] for number in kernel.heat_pictures if place]
    return {"colors": _colors(), "kernels": kernels, "pictures": sheet}


def _sheet(
    run: StudyResult, shown: Sequence[KernelSummary]
) -> tuple[dict[str, Any] | None, dict[int, int]]:
    """All pictures of the rows of kernels as one, one below the other; and the place of each by its
    number.
    """
    numbers = dict.fromkeys(number for kernel in shown for number in kernel.heat_pictures)
    known = {picture.number: picture for picture in run.pictures}
    found = [known[number] for number in numbers if number in known]
    if not found or not all(kernel.heat_pictures for kernel in shown):
        return None, {}
    height, width = found[0].shape[:2]
    pixels = b"".join(base64.b64decode(picture.pixels) for picture in found)
    source = png_source((height * len(found), *found[0].shape[1:]), pixels)
    place = {number: i for i, number in enumerate(numbers)}
    return {"source": source, "width": width, "height": height}, place


def _kernel(run: StudyResult, kernel: KernelSummary) -> dict[str, Any]:
    import numpy as np

    heat = np.asarray(kernel.heat, dtype=float)
    low, high = float(heat.min()), float(max(heat.max(), heat.min() + 1e-9))
    others = [k.heat for k in run.kernels if k.network == kernel.network and k.heat]
    ends = [round(255 * (end - low) / (high - low), 1) for end in heat_range(others)]
    values = np.round(255 * (heat - low) / (high - low)).astype(np.uint8)
    when = "before" if kernel.gates == "untrained" else "after"
    return {
        "name": f"{kernel.network}, {when} training",
        "low": low,
        "high": high,
        "ends": ends,
        "labels": [class_name(run, label) if label >= 0 else "" for label in kernel.heat_labels],
        "values": base64.b64encode(values.tobytes()).decode(),
    }


def _colors() -> list[list[int]]:
    from matplotlib import colormaps

    scale = colormaps[style.HEAT]
    return [[round(255 * c) for c in scale(i / _STOPS)[:3]] for i in range(_STOPS + 1)]
