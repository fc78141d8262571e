"""Geometry of the behaviour map; see figures.py. Pure."""

from collections.abc import Sequence
from typing import Any

from telemetry.report.figures import HEIGHT, WIDTH, Data
from telemetry.report.lineages import by_lineage

SIDE, TOP, BOTTOM = 34.0, 12.0, 30.0
"""Margins around the plot."""
TOLD = 2
"""Actions named at each end of an axis."""
LOADS = 0.2
"""Part of an axis's direction, of at most 1, below which an action is not named."""
LONGEST = 18
"""Characters of an action's name."""
RADIUS = (1.6, 4.6)
"""Of the least fit and of the fittest individual."""


def behaviour_chart(data: Data) -> dict[str, Any] | None:
    """Individuals by how they act; None where there is nothing to compare.

    Both axes have one scale, so that distances mean the same in every direction.
    """
    found = data.get("behaviour")
    if not found or len(found["individuals"]) < 2:
        return None
    people = {one["id"]: one for one in data["lineages"]}
    shown = [people[name] for name in found["individuals"]]
    spans = [max(values) - min(values) for values in (found["x"], found["y"])]
    room = (WIDTH - 2 * SIDE - 12, HEIGHT - TOP - BOTTOM - 12)
    unit = min((space / span for space, span in zip(room, spans, strict=True) if span > 0), default=1.0)
    middles = [(max(values) + min(values)) / 2 for values in (found["x"], found["y"])]
    places = {
        one["id"]: (
            round(WIDTH / 2 + (x - middles[0]) * unit, 1),
            round((TOP + HEIGHT - BOTTOM) / 2 - (y - middles[1]) * unit, 1),
        )
        for one, x, y in zip(shown, found["x"], found["y"], strict=True)
    }
    fitness = [one["fitness"] for one in shown if one["fitness"] is not None]
    worst, best = min(fitness, default=0.0), max(fitness, default=0.0)
    last = max(1, *(one["generation"] for one in shown))
    line = [places[name] for name in data["ancestry"] if name in places]
    return {
        "frame": {"left": SIDE, "right": WIDTH - SIDE, "top": TOP, "bottom": HEIGHT - BOTTOM},
        "width": WIDTH,
        "height": HEIGHT,
        "dots": by_lineage(
            data,
            (
                (
                    one["lineage"],
                    {
                        "x": places[one["id"]][0],
                        "y": places[one["id"]][1],
                        "r": _radius(one["fitness"], worst, best),
                        "strength": round(0.15 + 0.75 * one["generation"] / last, 2),
                        "one": one,
                    },
                )
                for one in shown
            ),
        ),
        "line": " ".join(f"{x:g},{y:g}" for x, y in line),
        "champion": line[-1] if line else None,
        "axes": [_axis(found, number) for number in range(2)],
        "others": found["others"],
        "actions": len(found["actions"]),
    }


def _radius(fitness: float | None, worst: float, best: float) -> float:
    share = 0.0 if fitness is None or best == worst else (fitness - worst) / (best - worst)
    return round(RADIUS[0] + share * (RADIUS[1] - RADIUS[0]), 1)


def _axis(found: Data, number: int) -> dict[str, Any]:
    """What an axis means: which actions are done more towards its beginning (less) and its end (more)."""
    pairs = sorted(zip(found["loadings"][number], found["actions"], strict=True), key=lambda pair: (-pair[0], pair[1]))
    return {
        "share": found["explained"][number],
        "more": _names([name for load, name in pairs if load >= LOADS]),
        "less": _names([name for load, name in reversed(pairs) if load <= -LOADS]),
    }


def _names(actions: Sequence[str]) -> str:
    words = (" ".join(action.split()) for action in actions[:TOLD])
    return ", ".join(word if len(word) <= LONGEST else f"{word[: LONGEST - 1]}…" for word in words)
