"""Geometry of the report's figures: plain numbers in, coordinates out; the template turns them into SVG. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Any

from telemetry.report.lineages import by_lineage

WIDTH, HEIGHT = 440.0, 300.0
"""Of the charts, in SVG units; small, so that their text stays readable on a phone."""
LEFT, RIGHT, TOP, BOTTOM = 46.0, 114.0, 14.0, 34.0
"""Margins around a chart's plot; the right one holds the names of reference lines."""
MAX_GENERATIONS = 120
"""Generations drawn; of more, every n-th is."""
MAX_DOTS = 6000
"""Individuals drawn as dots; of more, none is."""
MANY_DOTS = 500
"""Individuals above which dots are drawn small."""
MAX_CAUSES = 6
"""Causes of death with a colour of their own; the rest is drawn as `other causes`."""
REFERENCES = ("random", "heuristic", "founder")

Data = Mapping[str, Any]


@dataclass(frozen=True)
class Scale:
    """Linear map of values onto coordinates."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        span = self.high - self.low
        share = (value - self.low) / span if span else 0.5
        return round(self.start + share * (self.stop - self.start), 2)


def ticks(high: float, low: float = 0.0, count: int = 5) -> list[float]:
    """Round numbers from at most `low` to at least `high`, about `count` (steps of 1, 2 or 5 times a power of ten)."""
    rough = max(high - low, 1e-9) / count
    power = 10.0 ** floor(log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return [index * step for index in range(floor(low / step + 1e-9), ceil(high / step - 1e-9) + 1)]


def every_nth(history: Sequence[Data]) -> tuple[list[Data], int]:
    """Generations to draw, and the stride between them."""
    stride = max(1, ceil(len(history) / MAX_GENERATIONS))
    return list(history[::stride]), stride


def fitness_chart(data: Data) -> dict[str, Any]:
    """Best with its interval, mean, individuals and reference lines, by generation."""
    drawn, stride = every_nth(data["history"])
    shown = {row["generation"] for row in drawn}
    people = [one for one in data["lineages"] if one["fitness"] is not None and one["generation"] in shown]
    references = [row for row in data["evaluation"] if row["who"] in REFERENCES and data["fitness_kind"] == "rmst"]
    highest = max([row["high"] for row in drawn] + [row["mean"] for row in references])
    lowest = min([0.0] + [row["worst"] for row in drawn] + [row["low"] for row in drawn])
    marks = ticks(max(highest, 0.0), lowest)
    y = Scale(min(marks[0], lowest), max(marks[-1], highest), HEIGHT - BOTTOM, TOP)
    last = max(drawn[-1]["generation"], 1)
    x = Scale(0, last, LEFT + 12, WIDTH - RIGHT - 12) if len(drawn) > 1 else Scale(0, 0, LEFT, WIDTH - RIGHT)
    edge = 0.0 if len(drawn) > 1 else 10.0
    upper = [(x(row["generation"]) + side, y(row["high"])) for row in drawn for side in _sides(edge)]
    lower = [(x(row["generation"]) + side, y(row["low"])) for row in drawn for side in _sides(edge)]
    return {
        "frame": _frame(WIDTH - RIGHT),
        "stride": stride,
        "y_ticks": [{"at": y(mark), "text": f"{mark:g}"} for mark in marks],
        "x_ticks": _x_ticks(drawn, x),
        "band": points(upper + lower[::-1]),
        "best": [{"x": x(row["generation"]), "y": y(row["best"]), "row": row} for row in drawn],
        "best_line": points([(x(row["generation"]), y(row["best"])) for row in drawn]),
        "mean_line": points([(x(row["generation"]), y(row["mean"])) for row in drawn]),
        "dots": by_lineage(
            data,
            (
                (one["lineage"], {"x": x(one["generation"]), "y": y(one["fitness"]), "one": one})
                for one in (people if len(people) <= MAX_DOTS else [])
            ),
        ),
        "many": len(people) > MANY_DOTS,
        "dots_left_out": len(people) > MAX_DOTS,
        "references": _spread([{"y": y(row["mean"]), "who": row["who"], "mean": row["mean"]} for row in references]),
    }


def ends_chart(data: Data) -> dict[str, Any]:
    """How lives ended, as shares of each generation's lives, stacked: survivors at the bottom, then causes."""
    drawn, stride = every_nth(data["history"])
    totals: Counter[str] = Counter()
    for row in data["history"]:
        totals.update({end: number for end, number in row["ends"].items() if end.startswith("died")})
    causes = [end for end, _ in sorted(totals.items(), key=lambda item: (-item[1], item[0]))[:MAX_CAUSES]]
    keys = ["survived", *causes, "other causes", "censored"]
    y = Scale(0, 1, HEIGHT - BOTTOM, TOP)
    slot = (WIDTH - LEFT - 12) / len(drawn)
    bars = []
    for index, row in enumerate(drawn):
        counts: Counter[str] = Counter()
        for end, number in row["ends"].items():
            counts[end if end in keys else "other causes"] += number
        below, total = 0, max(sum(counts.values()), 1)
        for key in keys:
            bottom, top = y(below / total), y((below + counts[key]) / total)
            below += counts[key]
            if counts[key]:
                bars.append(
                    {
                        "x": round(LEFT + (index + 0.14) * slot, 2),
                        "y": top,
                        "width": round(slot * 0.72, 2),
                        "height": round(bottom - top, 2),
                        "key": keys.index(key),
                        "text": f"generation {row['generation']}: {_name(key)} {counts[key]} of {total}",
                    }
                )
    used = {bar["key"] for bar in bars}
    x = Scale(0, 1, LEFT + slot / 2, LEFT + slot * 1.5)
    return {
        "frame": _frame(WIDTH - 12),
        "stride": stride,
        "bars": bars,
        "legend": [{"key": index, "name": _name(key)} for index, key in enumerate(keys) if index in used],
        "y_ticks": [{"at": y(share), "text": f"{share:.0%}"} for share in (0, 0.25, 0.5, 0.75, 1)],
        "x_ticks": _x_ticks(drawn, x, by_position=True),
    }


def interval_bars(rows: Sequence[Data], width: float = 160.0) -> list[dict[str, float]]:
    """Low, mean and high of each row on one common scale of `width` units."""
    lowest = min([row["low"] for row in rows] + [0.0])
    x = Scale(lowest, max([row["high"] for row in rows] + [lowest + 1e-9]), 4, width - 4)
    return [{key: x(row[key]) for key in ("low", "mean", "high")} for row in rows]


def _frame(right: float) -> dict[str, float]:
    return {"left": LEFT, "right": right, "width": WIDTH, "height": HEIGHT + 4}


def _name(end: str) -> str:
    return end.removeprefix("died:")


def _sides(edge: float) -> tuple[float, ...]:
    return (-edge, edge) if edge else (0.0,)


def points(places: Sequence[tuple[float, float]]) -> str:
    """As SVG takes them."""
    return " ".join(f"{x:g},{y:g}" for x, y in places)


def _x_ticks(drawn: Sequence[Data], x: Scale, *, by_position: bool = False) -> list[dict[str, Any]]:
    step = max(1, ceil(len(drawn) / 10))
    return [
        {"at": x(index if by_position else row["generation"]), "text": str(row["generation"])}
        for index, row in enumerate(drawn)
        if index % step == 0
    ]


def _spread(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Moves the labels of neighbouring lines apart, top to bottom."""
    lowest = TOP - 10
    for line in sorted(lines, key=lambda line: line["y"]):
        line["label_y"] = lowest = max(line["y"], lowest + 14)
    return lines
