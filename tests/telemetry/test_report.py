"""The report is one well-formed file that shows the run's numbers and takes no text for anything but text."""

import json
import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.report.curves import drift_charts, survival_chart
from telemetry.report.figures import MAX_GENERATIONS, TOP, Scale, ends_chart, fitness_chart, ticks, tree
from telemetry.report.page import SCRIPT, render

VOID = {"meta", "link", "input"}
HOSTILE = "</title><script>alert(1)</script><img src=http://evil.invalid onerror=x>\"'&{{ 7 * 7 }}\u202e"


def person(generation: int, index: int, **changes: Any) -> dict[str, Any]:
    value = 10.0 + generation - index
    return {
        "id": f"g{generation:03d}-{index:03d}",
        "generation": generation,
        "lineage": f"line-{index}",
        "parents": [f"g{generation - 1:03d}-{index:03d}"] if generation else [],
        "origin": "born" if generation else "founder",
        "fitness": value,
        "low": value - 2,
        "high": value + 2,
        "survived": index == 0,
        "elite": index == 0,
        "adapter": "0123456789ab" if generation else None,
        "strategy": "Eat when hungry.",
        "temperature": 1.0,
        "epsilon": 0.5,
        "learning_rate": 1e-3,
    } | changes


def generation_row(generation: int, **changes: Any) -> dict[str, Any]:
    return {
        "generation": generation,
        "individual": f"g{generation:03d}-000",
        "lineage": "line-0",
        "best": 10.0 + generation,
        "low": 8.0 + generation,
        "high": 12.0 + generation,
        "mean": 9.5 + generation,
        "median": 9.5 + generation,
        "worst": 9.0 + generation,
        "alive": ["line-0", "line-1"],
        "culled": [],
        "lives": 20,
        "decisions": 200,
        "ends": {"survived": 5, "died:starved": 12, "died:wolf": 2, "censored": 1},
        "seconds": {"rollout": 10.0, "total": 12.0},
        "diversity": {"entropy": 1.25, "behaviour": 0.5, "strategies": 3, "adapters": 4},
    } | changes


def evaluation_row(who: str, mean: float) -> dict[str, Any]:
    return {
        "who": who,
        "individual": "g000-000" if who == "founder" else None,
        "adapter": None,
        "lives": 64,
        "mean": mean,
        "low": mean - 1,
        "high": mean + 1,
        "ends": {"survived": 4, "died:starved": 60},
        "measures": {},
    }


def run_data(generations: int = 3, population: int = 2, **changes: Any) -> dict[str, Any]:
    """A finished run in the shape that `render` documents."""
    return {
        "run": "first-run",
        "version": "0.1.0",
        "finished": True,
        "seed": 7,
        "model": "tiny",
        "model_sha256": "ab" * 32,
        "environment": "forage",
        "fitness_kind": "rmst",
        "generation": generations,
        "generations": generations,
        "population": population,
        "lives_each": 10,
        "drivers": 1,
        "history": [generation_row(number) for number in range(generations)],
        "training": [
            {
                "generation": 1,
                "individual": "g001-001",
                "lineage": "line-1",
                "parents": ["g000-001"],
                "status": "trained",
                "reason": "",
                "examples": 192,
                "tokens": 73_000,
                "seconds": 29.0,
                "loss_first": 1.71,
                "loss_last": 0.94,
                "adapter": "0123456789ab",
            }
        ],
        "evaluation": [
            evaluation_row(who, mean)
            for who, mean in (("random", 9.4), ("heuristic", 33.8), ("founder", 12.0), ("champion", 18.0))
        ],
        "champion": f"g{generations - 1:03d}-000" if generations else None,
        "ancestry": [f"g{number:03d}-000" for number in range(generations)],
        "ratios": {"founder": 1.5, "random": 1.91, "heuristic": 0.53},
        "totals": {
            "lives": 60,
            "censored": 3,
            "decisions": 600,
            "prompt_tokens": 6000,
            "completion_tokens": 600,
            "rollout_seconds": 30.0,
            "training_seconds": 29.0,
            "training_tokens": 73_000,
            "trained": 1,
            "failed": 0,
        },
        "lineages": [person(generation, index) for generation in range(generations) for index in range(population)],
    } | changes


class Page(HTMLParser):
    """Checks that tags nest, and collects what stands in them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(html)
        self.close()
        assert not self.open, "every tag is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_numbers_of_the_run_are_on_the_page() -> None:
    page = Page(render(run_data()))
    for text in ("first-run", "18.0 steps", "1.50 times", "heuristic 33.8", "g002-000", "[17.0, 19.0]", "1.71 → 0.94"):
        assert text in page.words, text


def replay(who: str = "champion g002-000", **changes: Any) -> dict[str, Any]:
    frame = {"saw": "Food north 1.", "did": "north", "p": 0.5, "explored": False, "before": 9, "energy": 8}
    life = {
        "who": who,
        "life": 0,
        "seed": "5",
        "end": "starved",
        "steps": 2,
        "frames": [{**frame, "picture": ".@."}] * 2,
    }
    return life | changes


CURVES = [
    {"generation": 0, "lives": 4, "times": [2, 5], "shares": [0.5, 0.0], "longest": 5},
    {"generation": 2, "lives": 4, "times": [3], "shares": [0.75], "longest": 60},
]


def test_the_page_needs_no_network_and_runs_no_script_but_its_own() -> None:
    page = Page(html := render(run_data(survival=CURVES, replays=[replay()])))
    assert not {"iframe", "img", "object", "embed"} & {tag for tag, _ in page.tags}
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert scripts == [SCRIPT]
    assert f"script-src 'sha256-{b64encode(sha256(SCRIPT.encode()).digest()).decode()}'" in html
    assert not re.search(r"innerHTML|insertAdjacent|document\.write|eval\(|fetch|XMLHttp|import", SCRIPT)
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "action"):
            assert attributes.get(name) in (None, "data:,")
        assert not any(name.startswith("on") for name in attributes)


def test_every_figure_has_a_title_and_every_table_its_headers() -> None:
    page = Page(render(run_data()))
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    figures = [attributes for tag, attributes in page.tags if tag == "svg" and attributes.get("role") == "img"]
    assert len(figures) == 8
    for attributes in figures:
        assert attributes.get("aria-label") or set(str(attributes["aria-labelledby"]).split()) <= ids
    tables = sum(tag == "table" for tag, _ in page.tags)
    assert tables == sum(tag == "thead" for tag, _ in page.tags) == 4
    assert all(attributes.get("scope") in ("col", "row") for tag, attributes in page.tags if tag == "th")


def test_what_agents_and_plugins_wrote_stays_text() -> None:
    data = run_data(run=HOSTILE, model=HOSTILE, environment=HOSTILE)
    data["lineages"][0]["strategy"] = HOSTILE
    data["lineages"][0]["lineage"] = HOSTILE
    data["history"][0]["ends"] = {f"died:{HOSTILE}": 20}
    data["training"][0] |= {"status": "failed", "reason": HOSTILE}
    data["evaluation"][0]["ends"] = {f"died:{HOSTILE}": 64}
    page = Page(render(data))
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert page.words.count("<script>alert(1)</script>") >= 7
    frame = {"saw": HOSTILE, "did": HOSTILE, "p": 1.0, "explored": True, "before": 1, "energy": 0, "picture": HOSTILE}
    html = render({**data, "replays": [replay(HOSTILE, end=HOSTILE, frames=[frame])]})
    assert html.count("<script") == 2
    assert "<img" not in html
    [told] = re.findall(r'id="replay-data">(.*?)</script>', html, re.DOTALL)
    assert json.loads(told)[0]["frames"] == [frame]
    assert "{{ 7 * 7 }}" in page.words


@pytest.mark.parametrize("generations", [0, 1, 2])
def test_a_run_that_has_hardly_begun_has_a_report(generations: int) -> None:
    data = run_data(generations, evaluation=[], ratios={}, training=[], finished=False)
    data["lineages"] += [person(generations, index, fitness=None, survived=None, elite=None) for index in range(2)]
    page = Page(render(data))
    assert "not finished" in page.words
    assert ("No generation has finished yet" in page.words) == (generations == 0)


def test_a_long_run_is_drawn_in_bounded_size_and_says_so() -> None:
    data = run_data(generations=2000, population=2)
    html = render(data)
    page = Page(html)
    assert "Every 17th generation is drawn" in page.words
    assert "The tree is too large to draw" in page.words
    assert "The newest 1000 are listed" in page.words
    assert len(html) < 2_000_000
    assert len(fitness_chart(data)["best"]) <= MAX_GENERATIONS


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


def test_the_tree_joins_every_child_to_its_parents() -> None:
    data = run_data(3)
    data["lineages"][5]["parents"] = ["g001-001", "g001-000"]
    drawn = tree(data)
    assert drawn is not None
    assert len(drawn["nodes"]) == 6
    assert len(drawn["links"]) == 5
    assert sum(not link["first"] for link in drawn["links"]) == 1


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
    for x, y in re.findall(r'<circle class="dot[^"]*" cx="([\d.-]+)" cy="([\d.-]+)"', html):
        assert 46 <= float(x) <= 326
        assert 14 <= float(y) <= 266


def test_what_the_world_reports_is_shown_beside_its_players() -> None:
    data = run_data()
    assert "What the world itself reports" not in render(data)
    data["evaluation"][-1]["measures"] = {"sharpe": {"value": -0.123, "low": -0.4, "high": 0.2}}
    page = render(data)
    assert "sharpe" in page
    assert '-0.123 <span class="soft">[-0.400, 0.200]</span>' in page


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
