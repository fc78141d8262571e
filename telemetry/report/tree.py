"""Geometry of the family tree; see figures.py. Pure.

A small tree has the fittest on top. In a large one descendants stay next to each other, so that branches of first
parents never cross, and the fitter are drawn larger.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from telemetry.report.figures import Data
from telemetry.report.lineages import by_lineage

MAX_GENERATIONS = 120
"""Generations drawn; of more, the newest are."""
MAX_ROWS = 128
"""Individuals drawn of a generation; of more, the fittest are, and the champion's ancestors."""
ROOMY = (10, 24)
"""Generations and individuals per generation up to which there is room for numbers."""
PLOT = (1000.0, 620.0)
"""Width and height that a large tree should take; a still larger one is scrolled through."""
LEAST = (20.0, 9.0)
"""Smallest width of a column and height of a row."""
LEFT, TOP = 24.0, 36.0

Place = tuple[float, float]


def tree(data: Data) -> dict[str, Any]:
    """The family tree: a column per generation."""
    line = set(data["ancestry"])
    columns, left_out = _columns(data["lineages"], line)
    largest = max(map(len, columns.values()))
    roomy = len(columns) <= ROOMY[0] and largest <= ROOMY[1]
    across = min(128.0, max(LEAST[0], PLOT[0] / len(columns)))
    down = 28.0 if roomy else min(28.0, max(LEAST[1], PLOT[1] / largest))
    first = min(columns)
    places: dict[str, Place] = {}
    for generation, column in sorted(columns.items()):
        for row, one in enumerate(_fittest_first(column) if roomy else _beside_kin(column, places)):
            places[one["id"]] = (round(LEFT + (generation - first) * across, 1), round(TOP + row * down, 1))
    drawn = [one for _, column in sorted(columns.items()) for one in column]
    living = _living(drawn)
    sizes = dict.fromkeys(places, 5.0) if roomy else _sizes(columns, down)
    return {
        "width": round(2 * LEFT + (len(columns) - 1) * across + (46 if roomy else 0), 1),
        "height": round(TOP + largest * down, 1),
        "roomy": roomy,
        "generations": [
            {"x": round(LEFT + (number - first) * across, 1), "number": number}
            for number in sorted(columns)
            if (number - first) % max(1, round(30 / across)) == 0
        ],
        "links": by_lineage(data, _links(drawn, places, living, 46.0 if roomy else 0.0)),
        "nodes": by_lineage(
            data, ((one["lineage"], _node(one, places[one["id"]], sizes[one["id"]], living)) for one in drawn)
        ),
        "line": " ".join(
            _curve(places[parent], places[child], 46.0 if roomy else 0.0)
            for parent, child in zip(data["ancestry"], data["ancestry"][1:], strict=False)
            if parent in places and child in places
        ),
        "champion": places.get(data["champion"] or ""),
        "left_out": left_out,
    }


def _columns(people: Sequence[Data], line: set[str]) -> tuple[dict[int, list[Data]], str]:
    """Individuals to draw by generation, and in words who is not."""
    columns: defaultdict[int, list[Data]] = defaultdict(list)
    for one in people:
        columns[one["generation"]].append(one)
    words = []
    if len(columns) > MAX_GENERATIONS:
        words.append(f"the newest {MAX_GENERATIONS} generations")
        columns = defaultdict(list, {number: columns[number] for number in sorted(columns)[-MAX_GENERATIONS:]})
    if max(map(len, columns.values())) > MAX_ROWS:
        words.append(f"the fittest {MAX_ROWS} individuals of each generation, and the champion's ancestors,")
        for number, column in columns.items():
            chosen = _fittest_first(column)
            columns[number] = chosen[:MAX_ROWS] + [one for one in chosen[MAX_ROWS:] if one["id"] in line]
    return dict(columns), " and ".join(words)


def _fittest_first(column: Iterable[Data]) -> list[Data]:
    return sorted(column, key=lambda one: (-(one["fitness"] or 0.0), one["id"]))


def _beside_kin(column: Iterable[Data], places: dict[str, Place]) -> list[Data]:
    """In order of their first parents, founders and those whose parents are not drawn by lineage."""

    def key(one: Data) -> tuple[float, str, float, str]:
        above = places[one["parents"][0]][1] if one["parents"] and one["parents"][0] in places else 0.0
        return (above, one["lineage"], -(one["fitness"] or 0.0), one["id"])

    return sorted(column, key=key)


def _living(drawn: Sequence[Data]) -> set[str]:
    """Who is alive at the end, or has a descendant that is."""
    last = max(one["generation"] for one in drawn)
    living: set[str] = set()
    for one in reversed(drawn):
        if one["id"] in living or (one["generation"] == last and one["survived"] is not False):
            living.add(one["id"])
            living.update(one["parents"])
    return living


def _sizes(columns: dict[int, list[Data]], down: float) -> dict[str, float]:
    """Radius by rank within the generation."""
    most, sizes = min(5.0, down * 0.45), {}
    for column in columns.values():
        for rank, one in enumerate(_fittest_first(column)):
            sizes[one["id"]] = round(most * (1 - 0.6 * rank / max(1, len(column) - 1)), 1)
    return sizes


def _node(one: Data, place: Place, size: float, living: set[str]) -> dict[str, Any]:
    return {
        "x": place[0],
        "y": place[1],
        "r": size,
        "one": one,
        "state": " culled" * (one["survived"] is False) + " faint" * (one["id"] not in living),
    }


def _links(
    drawn: Iterable[Data], places: dict[str, Place], living: set[str], text: float
) -> Iterable[tuple[str, dict[str, str]]]:
    """Paths by lineage of the children, all of one kind in one path."""
    paths: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for one in drawn:
        for rank, parent in enumerate(one["parents"]):
            if parent in places:
                kind = " second" * (rank > 0) + " faint" * (one["id"] not in living)
                paths[one["lineage"], kind].append(_curve(places[parent], places[one["id"]], text))
    for (name, kind), curves in paths.items():
        yield name, {"kind": kind, "path": " ".join(curves)}


def _curve(start: Place, end: Place, text: float) -> str:
    """From a parent, past the number beside it, to a child."""
    middle = round((start[0] + text + end[0]) / 2, 1)
    return f"M{start[0] + text:g},{start[1]:g}C{middle:g},{start[1]:g} {middle:g},{end[1]:g} {end[0]:g},{end[1]:g}"
