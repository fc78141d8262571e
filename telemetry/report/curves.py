"""Geometry of the report's survival curves and small multiples; see figures.py. Pure."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from telemetry.report.figures import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Data, Scale, points, ticks

SMALL = (220.0, 110.0)
"""Of a small multiple, in SVG units."""


def survival_chart(curves: Sequence[Data]) -> dict[str, Any] | None:
    """Kaplan-Meier curves of generations, the later the stronger; None without lives."""
    drawn = [curve for curve in curves if curve["lives"]]
    if not drawn:
        return None
    longest = max(curve["longest"] for curve in drawn)
    marks = [mark for mark in ticks(longest) if mark <= longest]
    x, y = Scale(0, longest, LEFT, WIDTH - RIGHT), Scale(0, 1, HEIGHT - BOTTOM, TOP)
    lines = []
    for place, curve in enumerate(drawn):
        share, path = 1.0, f"M{x(0):g},{y(1):g}"
        for time, after in zip(curve["times"], curve["shares"], strict=True):
            path += f" H{x(time):g} V{y(after):g}"
            share = after
        lines.append(
            {
                "path": f"{path} H{x(curve['longest']):g}",
                "strength": round(0.25 + 0.75 * (place + 1) / len(drawn), 2),
                "generation": curve["generation"],
                "end": share,
                "y": y(share),
                "median": _median(curve),
            }
        )
    return {
        "frame": {"left": LEFT, "right": WIDTH - RIGHT, "width": WIDTH, "height": HEIGHT + 4},
        "lines": _labelled(lines),
        "x_ticks": [{"at": x(mark), "text": f"{mark:g}"} for mark in marks],
        "y_ticks": [{"at": y(share), "text": f"{share:.0%}"} for share in (0, 0.25, 0.5, 0.75, 1)],
    }


def drift_charts(data: Data) -> list[dict[str, Any]]:
    """How hyperparameters, losses and diversity moved: mean and range over the individuals of each generation."""
    charts = (_small(title, values) for title, values in drift_values(data).items())
    return [chart for chart in charts if chart is not None]


def drift_values(data: Data) -> dict[str, dict[int, list[float]]]:
    """What drifts: by measure and generation, the values of individuals, jobs or the generation itself."""
    people: dict[int, list[Data]] = {}
    for one in data["lineages"]:
        people.setdefault(one["generation"], []).append(one)
    found = {
        title: {generation: [one.get(key, 0.0) for one in some] for generation, some in people.items()}
        for title, key in (
            ("exploration", "epsilon"),
            ("temperature", "temperature"),
            ("learning rate", "learning_rate"),
        )
    }
    losses: dict[int, list[float]] = {}
    for job in data["training"]:
        if job["loss_last"] is not None:
            losses.setdefault(job["generation"], []).append(job["loss_last"])
    found["loss, last updates"] = losses
    for title, key in (("entropy of actions, bits", "entropy"), ("divergence of individuals, bits", "behaviour")):
        found[title] = {row["generation"]: [row["diversity"][key]] for row in data["history"]}
    return found


def _small(title: str, values: Mapping[int, Sequence[float]]) -> dict[str, Any] | None:
    """One line with a band behind it; None for fewer than two generations."""
    if len(values) < 2:
        return None
    generations = sorted(values)
    low, high = min(map(min, values.values())), max(map(max, values.values()))
    x, y = Scale(generations[0], generations[-1], 4, SMALL[0] - 4), Scale(low, high, SMALL[1] - 6, 6)
    upper = [(x(number), y(max(values[number]))) for number in generations]
    lower = [(x(number), y(min(values[number]))) for number in generations]
    means = {number: fmean(values[number]) for number in generations}
    return {
        "title": title,
        "width": SMALL[0],
        "height": SMALL[1],
        "line": points([(x(number), y(means[number])) for number in generations]),
        "band": points(upper + lower[::-1]),
        "first": means[generations[0]],
        "last": means[generations[-1]],
        "low": low,
        "high": high,
    }


def _median(curve: Data) -> int | None:
    """Time by which half have died; None if fewer did."""
    return next((time for time, share in zip(curve["times"], curve["shares"], strict=True) if share <= 0.5), None)


def _labelled(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Labels at the ends of the lines, moved apart, up from the bottom: many curves end there."""
    highest = HEIGHT - BOTTOM + 14
    for line in sorted(lines, key=lambda one: (-one["y"], one["generation"])):
        line["label_y"] = highest = min(line["y"], highest - 14)
    return lines
