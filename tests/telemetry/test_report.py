"""The report is one well-formed file that shows the run's numbers and takes no text for anything but text."""

import json
import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser

import pytest

from telemetry.report.figures import MAX_GENERATIONS, fitness_chart
from telemetry.report.page import LINEAGES, REFRESH, REPLAY, render, render_comparison
from telemetry.report.palette import DARK, LIGHT
from tests.telemetry.report_data import CURVES, person, replay, run_data

VOID = {"meta", "link", "input"}
HOSTILE = "</title><script>alert(1)</script><img src=http://evil.invalid onerror=x>\"'&{{ 7 * 7 }}\u202e"


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


def scripts_of(html: str) -> list[str]:
    return re.findall(r"<script>(.*?)</script>", html, re.DOTALL)


def test_the_page_needs_no_network_and_runs_no_script_but_its_own() -> None:
    page = Page(html := render(run_data(survival=CURVES, replays=[replay()])))
    assert not {"iframe", "img", "object", "embed"} & {tag for tag, _ in page.tags}
    assert scripts_of(html) == [REPLAY, LINEAGES]
    [allowed] = re.findall(r"script-src (.*?);", html)
    assert allowed.split() == [
        f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" for script in (REPLAY, LINEAGES)
    ]
    assert "connect-src" not in html
    for script in (REPLAY, LINEAGES):
        assert not re.search(r"innerHTML|insertAdjacent|document\.write|eval\(|fetch|XMLHttp|import", script)
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "action"):
            assert attributes.get(name) in (None, "data:,")
        assert not any(name.startswith("on") for name in attributes)


def test_only_a_served_page_asks_and_nobody_but_who_served_it() -> None:
    html = render(run_data(), version="5")
    assert scripts_of(html) == [LINEAGES, REFRESH]
    assert "connect-src 'self'\"" in html
    assert '<html lang="en" data-version="5">' in html
    assert re.findall(r'fetch\("(.*?)"', REFRESH) == ["/version"]
    assert not re.search(r"innerHTML|insertAdjacent|document\.write|eval\(|XMLHttp|import", REFRESH)


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
    assert "img" not in {tag for tag, _ in page.tags}
    assert scripts_of(render(data)) == [LINEAGES]
    assert page.words.count("<script>alert(1)</script>") >= 7
    frame = {"saw": HOSTILE, "did": HOSTILE, "p": 1.0, "explored": True, "before": 1, "energy": 0, "picture": HOSTILE}
    html = render({**data, "replays": [replay(HOSTILE, end=HOSTILE, frames=[frame])]})
    assert html.count("<script") == 3
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
    assert "only the newest 120 generations are drawn" in page.words
    assert "The newest 1000 are listed" in page.words
    assert len(html) < 2_000_000
    assert len(fitness_chart(data)["best"]) <= MAX_GENERATIONS


def test_what_the_world_reports_is_shown_beside_its_players() -> None:
    data = run_data()
    assert "What the world itself reports" not in render(data)
    data["evaluation"][-1]["measures"] = {"sharpe": {"value": -0.123, "low": -0.4, "high": 0.2}}
    page = render(data)
    assert "sharpe" in page
    assert '-0.123 <span class="soft">[-0.400, 0.200]</span>' in page


def test_a_lineage_can_be_picked_out_by_a_button_of_its_own() -> None:
    page = Page(render(run_data(3, population=20)))
    buttons = [attributes for tag, attributes in page.tags if tag == "button"]
    assert {one["aria-pressed"] for one in buttons} == {"false"}
    assert {one["data-lineage"] for one in buttons} == {str(number) for number in range(20)}
    groups = {one["data-lineage"] for tag, one in page.tags if tag == "g" and "data-lineage" in one}
    assert groups == {one["data-lineage"] for one in buttons}
    assert "4 more lineages" in page.words


@pytest.mark.parametrize("colours", [LIGHT, DARK])
def test_text_stands_out_from_what_is_behind_it(colours: dict[str, str]) -> None:
    for text in ("ink", "soft", "accent"):
        for behind in ("paper", "card"):
            pair = sorted((_luminance(colours[text]), _luminance(colours[behind])))
            assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, (text, behind)


def _luminance(colour: str) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_run_of_an_experiment_shows_its_arms() -> None:
    estimate = {"value": 10.0, "low": 8.0, "high": 12.0}
    row = {"fitness": estimate, "by_seed": [9.0, 11.0], "decisions": 5, "training_tokens": 7, "generations": 3}
    rows = [
        {**row, "arm": "evolution", "difference": None, "p": None, "verdict": "what the others are compared with"},
        {**row, "arm": "rules-only", "difference": estimate, "p": 0.01, "verdict": "evolution is better"},
    ]
    experiment = {"name": HOSTILE, "seeds": [1, 2], "worlds": 64, "fitness_kind": "rmst", "rows": rows}
    page = Page(render(run_data(experiment={**experiment, "own": "rules-only"})))
    assert "rules-only (this run's)" in page.words
    assert "2 runs per arm, 64 held-out worlds" in page.words
    assert "Arms of the experiment" not in render(run_data())
    alone = Page(render_comparison({**experiment, "environment": "forage", "model": "tiny"}))
    assert "(this run's)" not in alone.words
    assert "evolution is better" in alone.words
