"""One look for all figures: colors, type sizes, panels and the way numbers are written."""

import contextlib
import math
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, RULE, PAPER = "#1b1e22", "#5c636b", "#d5d9de", "#fdfdfc"
# Okabe and Ito's palette: told apart with every common color blindness. The marker says the kind
# once more.
COLOR = {"dnn": "#0072b2", "dgn": "#d55e00", "dlgn": "#009e73", "dlgn-sf": "#cc79a7", "": "#6b6f76"}
BAR = "#8b939c"
HEAT = "cividis"
LAYERS = ("plasma", 0.35, 0.72)  # from the input to the output, to be seen on light and dark pages
PANEL = 3.4  # inches; a phone shows one panel a row, a desktop two
ZERO = 1e-17  # where a logarithmic axis puts an exact zero

NOTHING = "\N{EN DASH}"  # where a number would stand
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 7,
    "axes.labelsize": 8,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.unicode_minus": True,
    "text.color": INK,
    "text.parse_math": False,  # a name with dollar signs is a name
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "legend.handlelength": 2.2,
    "svg.fonttype": "none",
    "svg.hashsalt": "npk",
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
}


@contextlib.contextmanager
def house_style() -> Iterator[None]:
    """Matplotlib's settings, borrowed while a figure is drawn and saved."""
    import matplotlib

    with matplotlib.rc_context(_RC):
        yield


def blank(width: float, height: float) -> "Figure":
    """An empty figure, sizes in inches, whose parts make room for each other's labels."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure(
        figsize=(width, height),
        layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06, wspace=0.03, hspace=0.03),
    )


def panels(count: int, columns: int, size: tuple[float, float]) -> tuple["Figure", list["Axes"]]:
    """A figure of ``count`` equal panels, ``columns`` in a row, each ``size`` inches."""
    columns = max(1, min(columns, count))
    rows = math.ceil(count / columns)
    figure = blank(size[0] * columns, size[1] * rows)
    return figure, [figure.add_subplot(rows, columns, i + 1) for i in range(count)]


def legend_above(figure: "Figure", axes: list["Axes"], columns: int) -> None:
    """One legend for all panels, above them, for which the figure grows.

    Args:
        figure: of the panels.
        axes: the panels, whose lines have labels.
        columns: of the legend.
    """
    entries: dict[Any, Any] = {}
    for ax in axes:
        entries |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    if entries:
        figure.set_figheight(
            figure.get_figheight() + 0.1 + 0.16 * math.ceil(len(entries) / columns)
        )
        place = {"loc": "outside upper left", "ncols": columns}
        figure.legend(entries.values(), entries.keys(), **place)


def power(value: float, _position: float = 0) -> str:
    """A tick of a logarithmic axis: ``10⁻³``."""
    exponent = round(math.log10(value)) if value > 0 else 0
    return "1" if exponent == 0 else f"10{str(exponent).translate(_SUPERSCRIPT)}"


def scientific(value: float | None) -> str:
    """Two digits and a power of ten (``3.1 × 10⁻¹⁵``); plain decimals where they are shorter."""
    if value is None:
        return "not finite"
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e4:
        return f"{value:.3g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}\N{NO-BREAK SPACE}\N{MULTIPLICATION SIGN}\N{NO-BREAK SPACE}10{str(int(exponent)).translate(_SUPERSCRIPT)}"


def hundredths(value: float | None) -> str:
    """Two decimals, or a dash where there is nothing."""
    return NOTHING if value is None else f"{value:.2f}"


def percent(share: float, digits: int = 1) -> str:
    """A share of 0..1 as ``97.8 %`` with a space that does not break."""
    return f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def points(difference: float, error: float | None) -> str:
    """A difference of shares in points: ``+9.5 ± 0.8``."""
    text = f"{100 * difference:+.1f}".replace("-", "\N{MINUS SIGN}")
    space = "\N{NO-BREAK SPACE}"
    return text if error is None else f"{text}{space}±{space}{100 * error:.1f}"


def duration(seconds: float) -> str:
    """``0.4 s``, ``12 s``, ``3 min 20 s``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{round(seconds) // 60} min {round(seconds) % 60} s"


def wrapped(label: str, width: int = 24) -> str:
    """A label broken into lines."""
    return "\n".join(textwrap.wrap(label, width)) or label
