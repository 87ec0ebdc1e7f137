"""Drawings inside a page: figures as SVG that follows the page's colors, and the interactive plots.

Plotly takes some HTML in its texts, so names are escaped for it too.
"""

import io
import re
from html import escape
from typing import TYPE_CHECKING, Any

from npk.report import style
from npk.report.figures import class_name, heat_range, line_of
from npk.report.subjects import Subject, subjects
from npk.results import KernelSummary, RunResult

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
_PLOTLY_DASH = ("solid", "dash", "dot", "dashdot")


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
    width, height = figure.get_size_inches()
    view_box = f"0 0 {72 * width:g} {72 * height:g}"
    widest = 1.2 * 96 * width  # CSS pixels: a small figure does not grow to the width of the page
    style = f"max-width:{widest:.0f}px"
    frame = Markup('<svg viewBox="{}" style="{}" role="img" aria-label="{}">{}</svg>')
    return frame.format(view_box, style, alternative, Markup(body))


def interactive(run: RunResult) -> dict[str, list[dict[str, Any]]]:
    """Data and layout of each interactive plot; a plot with several variants has a menu."""
    heat = [_heat(run, kernel) for kernel in run.kernels if kernel.heat]
    if any(value > 0 for kernel in run.kernels for value in kernel.spectrum):
        spectrum = [_spectrum(run)]
    else:
        spectrum = []
    return {
        name: variants for name, variants in (("heat", heat), ("spectrum", spectrum)) if variants
    }


def _heat(run: RunResult, kernel: KernelSummary) -> dict[str, Any]:
    labels, seen = [], {}
    for index in kernel.heat_labels:
        seen[index] = seen.get(index, 0) + 1
        labels.append(f"{escape(class_name(run, index))}, no. {seen[index]}")
    edges = [i for i in range(1, len(labels)) if kernel.heat_labels[i] != kernel.heat_labels[i - 1]]
    trace = {
        "type": "heatmap",
        "z": [[round(value, 3) for value in row] for row in kernel.heat],
        "x": labels,
        "y": labels,
        "colorscale": "Cividis",
        "colorbar": {"thickness": 10, "outlinewidth": 0, "tickfont": {"size": 11}, "len": 0.9},
        "hovertemplate": "%{y}<br>%{x}<br>cosine %{z:.3f}<extra></extra>",
        **dict(zip(("zmin", "zmax"), heat_range(kernel.heat), strict=True)),
    }
    ticks = _class_axis(run, kernel.heat_labels, edges)
    layout = {
        **_layout(),
        "xaxis": {**ticks, "constrain": "domain"},
        "yaxis": {**ticks, "autorange": "reversed", "scaleanchor": "x", "constrain": "domain"},
        "shapes": _boundaries(edges, len(labels)),
        "margin": {"l": 40, "r": 10, "t": 10, "b": 40},
    }
    return {"name": kernel.network, "data": [trace], "layout": layout}


def _class_axis(run: RunResult, labels: list[int], edges: list[int]) -> dict[str, Any]:
    starts, ends = [0, *edges], [*edges, len(labels)]
    few = 0 < len(starts) <= 20 and labels
    return {
        "type": "category",
        "tickmode": "array",
        "tickvals": [(a + b - 1) / 2 for a, b in zip(starts, ends, strict=True)] if few else [],
        "ticktext": [escape(class_name(run, labels[a])) for a in starts] if few else [],
        "ticks": "",
        "showgrid": False,
        "zeroline": False,
    }


def _boundaries(edges: list[int], size: int) -> list[dict[str, Any]]:
    line = {"color": "#ffffff", "width": 0.6}
    across = [
        {"type": "line", "x0": e - 0.5, "x1": e - 0.5, "y0": -0.5, "y1": size - 0.5, "line": line}
        for e in edges
    ]
    return across + [
        {"type": "line", "y0": e - 0.5, "y1": e - 0.5, "x0": -0.5, "x1": size - 0.5, "line": line}
        for e in edges
    ]


def _spectrum(run: RunResult) -> dict[str, Any]:
    curves = {
        kernel.network: kernel
        for kernel in run.kernels
        if any(value > 0 for value in kernel.spectrum)
    }
    traces = [
        _spectrum_line(run, subject, curves[subject.name])
        for subject in subjects(run)
        if subject.name in curves
    ]
    axis = {
        "type": "log",
        "gridcolor": "var(--rule)",
        "linecolor": "var(--muted)",
        "zeroline": False,
        "dtick": 1,
    }
    powers = {"exponentformat": "power", "tickfont": {"size": 10}}
    layout = {
        **_layout(),
        "xaxis": {**axis, "title": {"text": "index of the eigenvalue", "font": {"size": 12}}},
        "yaxis": {**axis, "title": {"text": "share of the trace", "font": {"size": 12}}, **powers},
        "legend": {
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1.02,
            "yanchor": "bottom",
            "font": {"color": "var(--ink)"},
        },
        "margin": {"l": 64, "r": 12, "t": 10, "b": 48},
    }
    return {"name": "spectrum", "data": traces, "layout": layout}


def _spectrum_line(run: RunResult, subject: Subject, kernel: KernelSummary) -> dict[str, Any]:
    points = [
        (i + 1, float(f"{value:.4g}")) for i, value in enumerate(kernel.spectrum) if value > 0
    ]
    look = line_of(run, subject)
    dash = _PLOTLY_DASH[style.DASHES.index(look["linestyle"])]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": escape(subject.name),
        "x": [index for index, _ in points],
        "y": [value for _, value in points],
        "line": {"color": _VARIABLES[look["color"]], "dash": dash, "width": 1.8},
        "hovertemplate": "no. %{x}: %{y:.2e}<extra>%{fullData.name}</extra>",
    }


def _layout() -> dict[str, Any]:
    return {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {
            "family": "system-ui, Segoe UI, Roboto, DejaVu Sans, sans-serif",
            "size": 12,
            "color": "var(--muted)",
        },
        "hoverlabel": {
            "bgcolor": "var(--tint)",
            "bordercolor": "var(--muted)",
            "font": {"color": "var(--ink)"},
        },
    }
