"""Single figures of a report as files of their own: SVG that needs nothing else, PNG for print, CSV of the numbers.

Text is as wide as a guess says, because nobody knows the fonts of the machine that will draw it; only the legend,
which is spaced generously, depends on it.
"""

import csv
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import StringIO
from typing import Any

from telemetry.failures import UsageError
from telemetry.report import numbers, palette
from telemetry.report.behaviour import behaviour_chart
from telemetry.report.curves import drift_charts, survival_chart
from telemetry.report.figures import Data, ends_chart, fitness_chart
from telemetry.report.lineages import COLOURS, lineages
from telemetry.report.names import FigureName
from telemetry.report.page import template
from telemetry.report.tree import tree

TOP, LEGEND_ROW, CHARACTER = 50.0, 20.0, 7.6
"""Height of the heading, of a row of the legend, and width of a character of it, in SVG units."""
PRINT_DPI, UNITS_PER_INCH = 300, 75
"""A chart is as wide as a page of text, 440 units, when it is printed: about 15 cm."""
MOST_PIXELS = 8000
"""Width or height of a picture at most."""
NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class _Figure:
    title: str
    chart: Callable[[Data], Any]
    """Its geometry; None or empty where there is nothing to draw yet."""
    rows: Callable[[Data], list[dict[str, Any]]]
    """The numbers behind it."""


FIGURES: Mapping[FigureName, _Figure] = {
    "fitness": _Figure("Fitness by generation", fitness_chart, numbers.fitness),
    "ends": _Figure("How lives ended", ends_chart, numbers.ends),
    "survival": _Figure("Survival", lambda data: survival_chart(data["survival"]), numbers.survival),
    "drift": _Figure("Drift", drift_charts, numbers.drift),
    "tree": _Figure("Family tree", tree, numbers.tree),
    "behaviour": _Figure("Behaviour", behaviour_chart, numbers.behaviour),
}


def as_svg(name: FigureName, data: Data) -> str:
    """The figure as an SVG document in light colours. data: as `page.render` takes it. Raises UsageError when empty."""
    figure = FIGURES[name]
    chart = figure.chart(data) if data["history"] else None
    if not chart:
        raise _nothing(name)
    width, height = _size(name, chart)
    legend, rows = _legend(_keys(name, chart, data), width)
    top = TOP + height + 10
    text = template("figure.svg.j2").render(
        name=name,
        title=figure.title,
        run=data["run"],
        chart=chart,
        top=TOP,
        width=width,
        height=round(top + rows * LEGEND_ROW + 6, 1),
        legend=[{**item, "y": round(top + item["row"] * LEGEND_ROW + 12, 1)} for item in legend],
        paint=palette.on_paper,
        marks=palette.MARKS,
    )
    return NOT_XML.sub("", text).lstrip()


def as_png(svg: str) -> bytes:
    """A picture of an SVG document, for print. Raises UsageError where the library that draws it is missing."""
    try:
        import resvg_py
    except ImportError:
        raise UsageError("--format png: needs resvg-py; install it with `pip install 'forager[figures]'`") from None
    sizes = re.search(r'width="([\d.]+)" height="([\d.]+)"', svg)
    largest = max(map(float, sizes.groups())) if sizes else MOST_PIXELS
    zoom = min(PRINT_DPI / UNITS_PER_INCH, MOST_PIXELS / largest)
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, zoom=zoom))


def as_csv(name: FigureName, data: Data) -> str:
    """The numbers behind the figure, a line each, under their names. Raises UsageError when there are none."""
    rows = FIGURES[name].rows(data) if data["history"] else []
    if not rows:
        raise _nothing(name)
    text = StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _nothing(name: str) -> UsageError:
    return UsageError(f"--figure: got {name}, but the run has nothing to show there yet")


def _size(name: str, chart: Any) -> tuple[float, float]:
    """Of the figure without heading and legend."""
    if name == "drift":
        rows = -(-len(chart) // 3)
        return 3 * (chart[0]["width"] + 40), rows * (chart[0]["height"] + 40)
    frame = chart if "width" in chart else chart["frame"]
    return max(frame["width"], 440.0), frame["height"]


def _keys(name: str, chart: Any, data: Data) -> list[tuple[str, str]]:
    """Colours of the legend and what they stand for."""
    if name == "ends":
        return [(f"e{item['key']}", item["name"]) for item in chart["legend"]]
    if name not in ("fitness", "tree", "behaviour"):
        return []
    rows = lineages(data)
    keys = [(f"c{row['colour']}", row["name"]) for row in rows[:COLOURS]]
    return keys + ([(f"c{COLOURS}", f"{len(rows) - COLOURS} other lineages")] if len(rows) > COLOURS else [])


def _legend(keys: list[tuple[str, str]], width: float) -> tuple[list[dict[str, Any]], int]:
    """Where each entry goes, and the number of rows."""
    items: list[dict[str, Any]] = []
    x, row = 12.0, 0
    for key, name in keys:
        needed = 32 + CHARACTER * len(name)
        if x > 12 and x + needed > width:
            x, row = 12.0, row + 1
        items.append({"key": key, "name": name, "x": round(x, 1), "row": row})
        x += needed
    return items, row + 1 if items else 0
