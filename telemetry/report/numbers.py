"""The numbers behind each figure as rows of plain values; every row of a figure has the same keys. Pure."""

from collections.abc import Mapping
from typing import Any

from telemetry.report.curves import drift_values

Data = Mapping[str, Any]
Rows = list[dict[str, Any]]

PERSON = ("generation", "lineage", "fitness", "low", "high")


def fitness(data: Data) -> Rows:
    """By generation: the fittest, its interval, and the population."""
    keys = ("generation", "individual", "lineage", "best", "low", "high", "mean", "median", "worst")
    return [{key: row[key] for key in keys} for row in data["history"]]


def ends(data: Data) -> Rows:
    """By generation and end, the number of lives."""
    return [
        {"generation": row["generation"], "end": end, "lives": number}
        for row in data["history"]
        for end, number in row["ends"].items()
    ]


def survival(data: Data) -> Rows:
    """By generation, the share that lives on after each step at which somebody died, from 0 to the longest life."""
    rows = []
    for curve in data["survival"]:
        corners = [(0, 1.0), *zip(curve["times"], curve["shares"], strict=True)]
        if curve["longest"] > corners[-1][0]:
            corners.append((curve["longest"], corners[-1][1]))
        rows += [{"generation": curve["generation"], "step": step, "share": share} for step, share in corners]
    return rows


def drift(data: Data) -> Rows:
    """By measure and generation: mean and range over individuals."""
    return [
        {
            "measure": title,
            "generation": generation,
            "mean": sum(values) / len(values),
            "low": min(values),
            "high": max(values),
        }
        for title, found in drift_values(data).items()
        for generation, values in sorted(found.items())
    ]


def tree(data: Data) -> Rows:
    """Individuals with their parents; `champion_line` for the champion and its ancestors by first parents."""
    line = set(data["ancestry"])
    rows = []
    for one in data["lineages"]:
        parents = [*one["parents"], None, None][:2]
        rows.append(
            {
                "individual": one["id"],
                **{key: one[key] for key in PERSON},
                "origin": one["origin"],
                "parent": parents[0],
                "second_parent": parents[1],
                "survived": one["survived"],
                "champion_line": one["id"] in line,
            }
        )
    return rows


def behaviour(data: Data) -> Rows:
    """Individuals with their place on the map, and the share of each action that is a coordinate."""
    found = data["behaviour"]
    if not found:
        return []
    people = {one["id"]: one for one in data["lineages"]}
    return [
        {
            "individual": name,
            **{key: people[name][key] for key in PERSON},
            "x": x,
            "y": y,
            **{f"share of {action}": share for action, share in zip(found["actions"], shares, strict=True)},
        }
        for name, x, y, shares in zip(found["individuals"], found["x"], found["y"], found["shares"], strict=True)
    ]
