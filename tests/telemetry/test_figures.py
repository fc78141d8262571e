"""Figures: what is drawn stands where the numbers say."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.report.behaviour import behaviour_chart
from telemetry.report.curves import drift_charts, survival_chart
from telemetry.report.figures import TOP, Scale, ends_chart, fitness_chart, ticks
from telemetry.report.lineages import COLOURS, lineages
from telemetry.report.page import render
from telemetry.report.tree import MAX_GENERATIONS, MAX_ROWS, tree
from tests.telemetry.report_data import CURVES, run_data


def test_custom_fitness_is_not_compared_with_survival_times() -> None:
    assert [line["who"] for line in fitness_chart(run_data())["references"]] == ["random", "heuristic", "founder"]
    assert fitness_chart(run_data(fitness_kind="custom"))["references"] == []


def test_bars_fill_each_generation_exactly_and_rare_causes_are_pooled() -> None:
    data = run_data(1)
    data["history"][0]["ends"] = {f"died:cause-{number}": number + 1 for number in range(9)} | {"survived": 10}
    chart = ends_chart(data)
    assert sum(bar["height"] for bar in chart["bars"]) == pytest.approx(chart["y_ticks"][0]["at"] - TOP, abs=0.1)
    assert "generation 0: other causes 6 of 55" in {bar["text"] for bar in chart["bars"]}
    assert [item["name"] for item in chart["legend"]][:2] == ["survived", "cause-8"]


def links(drawn: dict[str, Any]) -> dict[str, int]:
    """Number of curves by kind."""
    found: dict[str, int] = {}
    for group in drawn["links"]:
        for link in group["marks"]:
            found[link["kind"]] = found.get(link["kind"], 0) + link["path"].count("M")
    return found


def test_the_tree_joins_every_child_to_its_parents() -> None:
    data = run_data(3)
    data["lineages"][5]["parents"] = ["g001-001", "g001-000"]
    drawn = tree(data)
    assert drawn["roomy"]
    assert sum(len(group["marks"]) for group in drawn["nodes"]) == 6
    # Culled is the whole second lineage: it has no descendant among those who live.
    assert links(drawn) == {"": 2, " faint": 2, " second faint": 1}
    assert drawn["line"].count("M") == 2
    assert drawn["champion"] is not None


def test_a_large_tree_has_small_marks_and_branches_that_do_not_cross() -> None:
    data = run_data(50, population=64)
    for one in data["lineages"]:
        one["survived"] = int(one["id"][-3:]) % 2 == 0
        if one["generation"]:
            one["parents"] = [f"g{one['generation'] - 1:03d}-{int(one['id'][-3:]) * 7 % 32 * 2:03d}"]
    drawn = tree(data)
    assert not drawn["roomy"]
    assert drawn["width"] <= 1060
    assert drawn["height"] <= 660
    assert drawn["left_out"] == ""
    places = {node["one"]["id"]: node["y"] for group in drawn["nodes"] for node in group["marks"]}
    assert len(places) == 50 * 64
    column = sorted((one for one in data["lineages"] if one["generation"] == 30), key=lambda one: places[one["id"]])
    parents = [places[one["parents"][0]] for one in column]
    assert parents == sorted(parents)


def test_of_a_tree_beyond_all_bounds_a_part_is_drawn_and_named() -> None:
    data = run_data(MAX_GENERATIONS + 5, population=MAX_ROWS + 5)
    data["ancestry"] = [f"g{number:03d}-{MAX_ROWS + 4:03d}" for number in range(MAX_GENERATIONS + 5)]
    drawn = tree(data)
    shown = [node["one"] for group in drawn["nodes"] for node in group["marks"]]
    assert len(shown) == MAX_GENERATIONS * (MAX_ROWS + 1)
    assert {one["generation"] for one in shown} == set(range(5, MAX_GENERATIONS + 5))
    assert set(data["ancestry"][5:]) <= {one["id"] for one in shown}
    assert str(MAX_GENERATIONS) in drawn["left_out"]
    assert str(MAX_ROWS) in drawn["left_out"]


def test_many_lineages_share_a_colour_but_those_that_last_have_one_of_their_own() -> None:
    data = run_data(3, population=20)
    for one in data["lineages"]:
        one["survived"] = one["lineage"] == "line-13"
    rows = lineages(data)
    assert (rows[0]["name"], rows[0]["alive"], rows[0]["number"]) == ("line-13", True, 13)
    assert [row["colour"] for row in rows] == [*range(COLOURS), *[COLOURS] * 12]
    assert [row["name"] for row in lineages(run_data(3, population=4))] == [f"line-{n}" for n in range(4)]


def test_distances_on_the_behaviour_map_mean_the_same_in_every_direction() -> None:
    people = ["g000-000", "g000-001", "g002-000"]
    found = {
        "individuals": people,
        "x": [0.0, 0.4, 0.0],
        "y": [0.0, 0.0, 0.4],
        "actions": ["eat", "a very long action of free text", "rest"],
        "shares": [[1.0, 0.0, 0.0]] * 3,
        "explained": [0.75, 0.25],
        "loadings": [[0.9, -0.4, 0.1], [0.0, 0.0, 1.0]],
        "others": 0.25,
    }
    chart = behaviour_chart(run_data(behaviour=found))
    assert chart is not None
    places = {dot["one"]["id"]: dot for group in chart["dots"] for dot in group["marks"]}
    first, right, above = (places[name] for name in people)
    assert right["x"] - first["x"] == pytest.approx(first["y"] - above["y"], abs=0.2)
    assert above["strength"] > right["strength"]
    assert above["r"] == max(one["r"] for one in places.values())
    assert chart["axes"][0] == {"share": 0.75, "more": "eat", "less": "a very long actio…"}
    assert chart["axes"][1] == {"share": 0.25, "more": "rest", "less": ""}
    assert "25% are of rarer actions" in render(run_data(behaviour=found))
    assert behaviour_chart(run_data()) is None


@given(st.floats(min_value=1e-6, max_value=1e9))
def test_ticks_are_few_even_and_reach_the_top(high: float) -> None:
    marks = ticks(high)
    assert marks[0] == 0
    assert marks[-1] >= high * 0.999
    assert 2 <= len(marks) <= 7
    scale = Scale(0, marks[-1], 100, 0)
    assert [scale(mark) for mark in marks] == sorted((scale(mark) for mark in marks), reverse=True)


def test_points_lie_inside_the_figure() -> None:
    html = render(run_data(40, 3))
    for x, y in re.findall(r'<circle class="fill" cx="([\d.-]+)" cy="([\d.-]+)"', html):
        assert 46 <= float(x) <= 326
        assert 14 <= float(y) <= 266


def test_a_negative_fitness_is_drawn_to_scale() -> None:
    data = run_data(fitness_kind="result")
    for row in data["history"]:
        row |= {"best": -0.5, "low": -0.6, "high": -0.4, "mean": -0.8, "worst": -1.0}
    chart = fitness_chart(data)
    marks = {float(mark["text"]): mark["at"] for mark in chart["y_ticks"]}
    assert min(marks) <= -1.0
    assert marks[min(marks)] > chart["best"][0]["y"] > marks[0.0]


def test_survival_curves_fall_where_lives_end() -> None:
    chart = survival_chart(CURVES)
    assert chart is not None
    first, last = chart["lines"] if chart["lines"][0]["generation"] == 0 else chart["lines"][::-1]
    assert (first["median"], last["median"]) == (2, None)
    assert (first["end"], last["end"]) == (0.0, 0.75)
    assert first["strength"] < last["strength"] == 1
    assert abs(first["label_y"] - last["label_y"]) >= 14
    top, bottom = chart["y_ticks"][-1]["at"], chart["y_ticks"][0]["at"]
    assert [float(height) for height in re.findall(r"V([\d.]+)", first["path"])] == [(top + bottom) / 2, bottom]
    assert survival_chart([]) is survival_chart([{**CURVES[0], "lives": 0}]) is None


def test_drift_shows_the_mean_and_the_range_of_each_generation() -> None:
    data = run_data(3)
    for one in data["lineages"]:
        one["epsilon"] = 0.5 / (1 + one["generation"]) + 0.01 * int(one["id"][-1])
    charts = {chart["title"]: chart for chart in drift_charts(data)}
    assert charts["exploration"]["first"] == pytest.approx(0.505)
    assert charts["exploration"]["high"] == pytest.approx(0.51)
    assert charts["exploration"]["low"] == pytest.approx(0.5 / 3)
    assert "loss, last updates" not in charts, "one generation has losses: that is no drift"
