"""Lineages as figures show them: which has a colour of its own, and marks by lineage, to pick one out. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

COLOURS = 8
"""Lineages with a colour of their own; all others share one more."""
LISTED = 16
"""Lineages that a legend shows at once."""

Data = Mapping[str, Any]


def lineages(data: Data) -> list[dict[str, Any]]:
    """Every lineage: number (in order of the founders), name, individuals, last generation, alive, colour.

    Those that lasted come first, and have the colours; few lineages stay in order.
    """
    found: dict[str, dict[str, Any]] = {}
    final = max((one["generation"] for one in data["lineages"]), default=0)
    for one in data["lineages"]:
        row = found.setdefault(
            one["lineage"],
            {"number": len(found), "name": one["lineage"], "individuals": 0, "last": 0, "alive": False},
        )
        row["individuals"] += 1
        row["last"] = max(row["last"], one["generation"])
        row["alive"] = row["alive"] or (one["generation"] == final and one["survived"] is not False)
    rows = list(found.values())
    if len(rows) > COLOURS:
        rows.sort(key=lambda row: (not row["alive"], -row["last"], -row["individuals"], row["number"]))
    return [{**row, "colour": min(place, COLOURS)} for place, row in enumerate(rows)]


def by_lineage(data: Data, marks: Iterable[tuple[str, Any]]) -> list[dict[str, Any]]:
    """Marks of a figure, each given with the name of its lineage, in groups: number, colour, marks.

    The lineages without a colour come first, so that they are drawn below the others.
    """
    groups: defaultdict[str, list[Any]] = defaultdict(list)
    for name, mark in marks:
        groups[name].append(mark)
    return [
        {"number": row["number"], "colour": row["colour"], "marks": groups[row["name"]]}
        for row in reversed(lineages(data))
        if row["name"] in groups
    ]
