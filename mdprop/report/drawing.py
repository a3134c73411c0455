"""Line and scatter plots as SVG text that goes into a page: the same inputs, the same bytes.

Colours are the page's own, by CSS variables, so that plots are light or dark as it is.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mdprop.report.aggregate import method_of
from mdprop.report.csvs import csv_text

# Okabe and Ito's colours, which the colour-blind tell apart; markers say it a second time.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v", "P")
_DASHES = ("-", "--", ":", "-.")  # of the branches of one method
_FILLS = ("full", "none", "left", "bottom")
TEXT, GRID = "#1b1b1c", "#dddddc"
_VARIABLES = {
    TEXT: "--text",
    GRID: "--grid",
    **{colour: f"--series-{i}" for i, colour in enumerate(COLOURS)},
}
_STYLE: Any = {"svg.hashsalt": "mdprop", "svg.fonttype": "path", "font.size": 11, "axes.spines.top": False}
_STYLE |= {"axes.spines.right": False, "axes.grid": True, "grid.color": GRID, "legend.frameon": False}
_STYLE |= {"text.parse_math": False}  # names of classes are no formulas
_STYLE |= dict.fromkeys(
    ("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor"), TEXT
)

_SHORT = 10  # letters of a name, so that four fit beside each other below a plot
_FEW = 10  # points of a curve that are marked in the plot and named in words


class Point(NamedTuple):
    """A point, and where its bars end, if it has any: above and below, left and right."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    left: float | None = None
    right: float | None = None


Series = Mapping[str, Sequence[Sequence[Point]]]  # row of the table -> one curve or more


@dataclass(frozen=True)
class Plot:
    """An SVG element with its title, its numbers in words for those who cannot see it, and as CSV."""

    title: str
    alt: str
    svg: str
    csv: str
    note: str = ""


def line_plot(
    title: str,
    x_label: str,
    y_label: str,
    series: Series,
    ticks: Sequence[float] | None = None,
    scale: str = "linear",
    levels: bool = False,
    note: str = "",
) -> Plot:
    """A line for each curve, of its method's colour and marker.

    levels: whether x, in pixels of [0, 1], is also shown in levels of 255.
    """

    def draw(axes: Axes) -> None:
        for row, look in looks(series).items():
            _curves(axes, row, series[row], look)
        axes.set_xscale(scale)
        if ticks:
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.minorticks_off()
        else:
            axes.locator_params(axis="x", integer=True)
        if levels and ticks:
            above = axes.secondary_xaxis("top")
            above.set_xticks(ticks, [f"{255 * tick:.4g}" for tick in ticks])
            above.set_xlabel("the same in levels of 255", fontsize=9)
            above.tick_params(labelsize=9)
        axes.set(xlabel=x_label, ylabel=y_label)

    alt = f"Line plot. {title}, by {x_label}. {_in_words(series)}"
    return Plot(title, alt, drawn(title, alt, draw, list(series)), series_csv(x_label, y_label, series), note)


def drawn(
    title: str, alt: str, draw: Callable[[Axes], None], names: Sequence[str], height: float = 3.9
) -> str:
    """The SVG element of a figure with one pair of axes, and a legend of `names` below it.

    height: in inches.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=(5.2, height), layout="constrained")
        draw(figure.subplots())
        columns = 4 if max(map(len, names), default=0) <= _SHORT else 2
        figure.legend(loc="outside lower center", ncols=columns, columnspacing=1.2, handlelength=1.8)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    return _element(text.getvalue(), title, alt)


def _element(svg: str, title: str, alt: str) -> str:
    """Part of a page: named in words, ids of its own, the page's colours, as large as there is room."""
    prefix = re.sub(r"[^a-z0-9]+", "-", title.lower())
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\1{prefix}-", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None
    links = 'xmlns:xlink="http://www.w3.org/1999/xlink"'
    head = f'<svg {links} {box[0]} role="img" aria-label="{html.escape(alt)}">'
    return head + svg[svg.index(">") + 1 :].rstrip()


def looks(rows: Iterable[str]) -> dict[str, dict[str, str]]:
    """A colour and a marker a method, a dash and a fill a branch of it."""
    methods: dict[str, list[str]] = {}
    for row in rows:
        methods.setdefault(method_of(row), []).append(row)
    return {
        row: {
            "color": COLOURS[index % len(COLOURS)],
            "marker": MARKERS[index % len(MARKERS)],
            "linestyle": _DASHES[branch % len(_DASHES)],
            "fillstyle": _FILLS[branch % len(_FILLS)],
        }
        for index, rows_of_method in enumerate(methods.values())
        for branch, row in enumerate(rows_of_method)
    }


def _curves(axes: Axes, row: str, curves: Sequence[Sequence[Point]], look: Mapping[str, str]) -> None:
    marker = look["marker"] if max(map(len, curves)) <= _FEW else ""
    for first, curve in enumerate(curves):
        bars(axes, curve, **{**look, "marker": marker}, label="_" if first else row)


def bars(axes: Axes, curve: Sequence[Point], **look: Any) -> None:
    """A curve with the bars that its points have."""
    upright = [[_reach(p.low, p.y) for p in curve], [_reach(p.y, p.high) for p in curve]]
    across = [[_reach(p.left, p.x) for p in curve], [_reach(p.x, p.right) for p in curve]]
    axes.errorbar(
        [p.x for p in curve],
        [p.y for p in curve],
        upright if any(map(any, upright)) else None,
        across if any(map(any, across)) else None,
        linewidth=1.5,
        elinewidth=0.9,
        markersize=5,
        capsize=2,
        **look,
    )


def _reach(low: float | None, high: float | None) -> float:
    """The length of a bar; 0 where there is none, or where rounding put its end on the wrong side."""
    return 0.0 if low is None or high is None else max(0.0, high - low)


def _in_words(series: Series) -> str:
    """Every point of a short curve, the ends of a long one."""
    parts = []
    for method, curves in series.items():
        for curve in curves:
            shown = curve if len(curve) <= _FEW else [curve[0], curve[-1]]
            parts.append(f"{method}: " + ", ".join(f"{p.y:.3g} at {p.x:g}" for p in shown))
    return "; ".join(parts) + "."


def series_csv(x_label: str, y_label: str, series: Series) -> str:
    """A row a point, and the ends of its bars; those that no point has are left out."""
    rows = [(name, i, *p) for name, curves in series.items() for i, curve in enumerate(curves) for p in curve]
    heads = ["row", "curve", x_label, y_label, "low", "high", f"low of {x_label}", f"high of {x_label}"]
    kept = [at for at in range(len(heads)) if at in (0, 2, 3) or any(row[at] is not None for row in rows)]
    if all(len(curves) < 2 for curves in series.values()) and 1 in kept:
        kept.remove(1)
    return csv_text([heads[at] for at in kept], [[row[at] for at in kept] for row in rows])
