"""Every number that metrics, report, watch, status and lineage show is the one that the ledger's rows come to."""

import asyncio
import json
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any
from unittest.mock import patch

import pytest
from prometheus_client.parser import text_string_to_metric_families
from rich.text import Text
from textual.pilot import Pilot
from textual.widgets import DataTable, Static

from orchestrator.following import TICKER
from orchestrator.observe import MetricsListener
from orchestrator.places import open_run
from orchestrator.plain import ends_text
from orchestrator.report import kaplan_meier, report
from orchestrator.watch import Watch
from telemetry.catalogue import RUN
from telemetry.exporter import serve
from telemetry.failures import ForagerError
from telemetry.metrics import Metrics
from telemetry.numerals import interval, number
from telemetry.report.page import render
from telemetry.seeds import held_out_world_seed
from telemetry.store import open_store
from tests.forager import IN_PROCESS, SMOKE
from tests.inprocess import output
from tests.orchestrator.small_run import Levers, small_run
from tests.orchestrator.test_watch import settled
from tests.system.expected import Samples, expected_metrics, expected_summary
from tests.system.truth import Truth
from tests.telemetry.test_metrics import HOST, fetch

DRIVEN = ("generations=3", "population.lives=8", "evaluation.lives=8", "selection.recheck=0", "budget.decisions=100000")
"""As the driver runs it: with held-out worlds and a budget."""
SMALL: Mapping[str, Any] = {
    "seed": 1,
    "selection": {"recheck": 0.0, "survivors": 0.5},
    "budget": {"training_tokens": 9},
}
"""With a suspect, lineages that end, births that fail, many commits, and rows that nobody acknowledged."""


@pytest.fixture(scope="module", params=["driven", "small"])
def truth(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Truth:
    place = tmp_path_factory.mktemp("runs")
    if request.param == "small":
        small_run(place / "small", Levers(lives_per_commit=5, zombies=True), **SMALL)
        return Truth(place / "small")
    settings = [part for one in DRIVEN for part in ("--set", one)]
    output("run", SMOKE, "--store", place, *IN_PROCESS, *settings)
    return Truth(place / "smoke")


def test_the_runs_are_worth_it(truth: Truth) -> None:
    assert len(truth.generations) == 3
    assert truth.told["lives"] == truth.lives.num_rows
    assert truth.told["decisions"] == truth.steps.num_rows
    assert sum(truth.rows_of_culled.values()) > 0, "what is culled stays in the ledger, and in every total"
    assert output("audit", truth.place).startswith("ok")
    if not truth.evaluation:
        assert any(one.suspects for one in truth.generations)
        assert {birth["status"] for birth in truth.births} == {"trained", "failed"}


def test_metrics(truth: Truth) -> None:
    _, state = open_run(str(truth.place))
    metrics = Metrics(run=state.created.run)
    MetricsListener(metrics, truth.config).replay(state)
    with serve(metrics, HOST, 0) as port:
        _, text = fetch(port, "/metrics")
    shown: dict[str, Samples] = {one.name: {} for one in RUN}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in shown:
                shown[sample.name][tuple(sorted(sample.labels.items()))] = sample.value
    expected = expected_metrics(truth)
    assert set(expected) == set(shown), "every metric of the run is compared with something"
    for name, samples in expected.items():
        assert shown[name] == pytest.approx(samples, rel=1e-12, nan_ok=True), name


def test_status_and_lineage(truth: Truth) -> None:
    expected = expected_summary(truth)
    history = expected["history"]
    for left_out in ("history", "training", "evaluation", "ancestry"):
        del expected[left_out]
    assert json.loads(output("lineage", truth.place, "--json")) == expected.pop("lineages")
    culled = [name for row in history for name in row["culled"]]
    founded = list(dict.fromkeys(one.lineage for one in truth.generations[0].population))
    expected |= {
        "lives_committed": 0,
        "lives_planned": 0,
        "lineages_alive": [name for name in founded if name not in culled],
        "lineages_culled": [name for name in founded if name in culled],
        "last_generation": history[-1],
    }
    assert json.loads(output("status", truth.place, "--json")) == expected


def test_champion_and_founder_are_shown_in_the_same_held_out_worlds(truth: Truth) -> None:
    store, state = open_run(str(truth.place))
    [shown] = re.findall(r'id="replay-data">(.*?)</script>', report(store, state), re.DOTALL)
    lives = [one for one in json.loads(shown) if one["held_out"]]
    rows = {row.who: row for row in state.evaluation.rows} if state.evaluation else {}
    assert len(lives) == (2 * truth.config.evaluation.kept if rows else 0)
    for one in lives:
        row = rows[one["who"].partition(" ")[0]]
        assert one["who"].endswith(f" {row.individual}")
        assert one["seed"] == str(held_out_world_seed(one["life"]))
        assert one["steps"] == row.values[one["life"]] == len(one["frames"])
    kept = {(one["who"].partition(" ")[0], one["life"]) for one in lives}
    assert kept == {(who, life) for who in ("champion", "founder") if rows for life in range(len(lives) // 2)}


def test_held_out_rows(truth: Truth) -> None:
    for row in truth.evaluation:
        again = json.loads(output("evaluate", truth.place, "--who", row["who"], "--lives", str(row["lives"]), "--json"))
        assert again == row


class Page(HTMLParser):
    """Tables of a page by the name of their region: cells as plain text, the header's first."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.text = ""
        self._rows: list[list[str]] = []
        self._in_cell = False
        self.feed(text)
        self.tables = {
            name: [[" ".join(cell.split()) for cell in row] for row in rows] for name, rows in self.tables.items()
        }

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if named.get("role") == "region" and (name := named.get("aria-label")):
            self._rows = self.tables.setdefault(name, [])
        if tag == "tr":
            self._rows.append([])
        if tag in ("th", "td"):
            self._rows[-1].append("")
            self._in_cell = True
        if tag == "br":
            self.handle_data(" ")

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag not in ("th", "td")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._in_cell:
            self._rows[-1][-1] += data

    def columns(self, name: str, *wanted: str) -> list[tuple[str, ...]]:
        """These columns of a table."""
        header, *rows = self.tables[name]
        return [tuple(row[header.index(column)] for column in wanted) for row in rows]


def in_words(row: Mapping[str, Any], value: str = "best") -> str:
    return f"{number(row[value])} [{number(row['low'])}, {number(row['high'])}]"


def test_report(truth: Truth) -> None:
    store, state = open_run(str(truth.place))
    with patch("orchestrator.report.render", wraps=render) as rendering:
        page = Page(report(store, state))
    data, expected = rendering.call_args.args[0], expected_summary(truth)
    assert {name: data[name] for name in expected} == expected
    for curve, one in zip(data["survival"], truth.generations, strict=True):
        own = truth.lives.filter(truth.lives["generation"].to_numpy() == one.number)
        steps, died = own["steps"].to_numpy(), own["end"].to_numpy(zero_copy_only=False) == "died"
        assert (curve["times"], curve["shares"]) == kaplan_meier(steps, died)
        assert (curve["lives"], curve["longest"]) == (one.told["lives"], max(steps))
    history, totals = expected["history"], expected["totals"]
    columns = ("generation", "best", "mean", "median", "worst", "culled lineages", "entropy, difference", "lives")
    assert page.columns("Generations", *columns) == [
        (
            str(row["generation"]),
            in_words(row),
            *(number(row[name]) for name in ("mean", "median", "worst")),
            ", ".join(row["culled"]) or "none",
            f"{row['diversity']['entropy']:.2f}, {row['diversity']['behaviour']:.2f}",
            str(row["lives"]),
        )
        for row in history
    ]
    ended = [cell for (cell,) in page.columns("Generations", "how they ended")]
    assert [sorted(cell.split(", ")) for cell in ended] == [
        sorted(f"{end.removeprefix('died:')} {count}" for end, count in row["ends"].items()) for row in history
    ]
    assert page.columns("Individuals", "individual", "lineage", "fitness", "interval") == [
        (one["id"], one["lineage"], number(one["fitness"]), f"[{number(one['low'])}, {number(one['high'])}]")
        for one in expected["lineages"]
    ]
    assert [
        (child, tokens, outcome.partition(":")[0])
        for child, tokens, outcome in page.columns("Training jobs", "child", "tokens", "outcome")
    ] == [(job["individual"], f"{job['tokens']:,}", job["status"]) for job in expected["training"]]
    if truth.evaluation:
        assert page.columns("Held-out worlds", "mean", "interval", "lives") == [
            (number(row["mean"]), f"[{number(row['low'])}, {number(row['high'])}]", str(row["lives"]))
            for row in truth.evaluation
        ]
    for words in (
        f"{totals['lives']:,}",
        f"{totals['decisions']:,} decisions, {totals['censored']} lives censored",
        f"{totals['trained']} jobs trained, {totals['failed']} failed",
        f"{totals['prompt_tokens']:,} prompt, {totals['completion_tokens']:,} completion",
        f"{totals['rollout_seconds'].expected:,.0f} s living",
    ):
        assert words in page.text


def test_watch(truth: Truth) -> None:
    async def use() -> None:
        async with Watch(open_store(truth.place)).run_test(size=(180, 50)) as pilot:
            await settled(pilot)
            await compare(pilot, truth)

    asyncio.run(use())


async def compare(pilot: Pilot[ForagerError], truth: Truth) -> None:
    """The screen, turned back generation by generation."""

    def said(where: str) -> str:
        return str(pilot.app.screen.query_one(where, Static).content)

    history, told = [one.row() for one in truth.generations], truth.told
    assert f"generation {len(history) - 1} ({len(history)} of {truth.config.generations})" in said("#heading")
    assert said("#totals").startswith(f"{told['lives']:,} lives  {told['decisions']:,} decisions")
    assert said("#totals").endswith(ends_text(truth.ends))
    for row, line in zip(history, said("#generations").splitlines(), strict=True):
        assert line.split()[0] == str(row["generation"])
        assert f"  {interval(row['best'], row['low'], row['high'])}  mean {number(row['mean'])}  " in line
        assert line.endswith(f"{row['individual']} {row['lineage']}")
    lived = {f"{row['individual']}/{row['life']}": row for row in truth.lives.to_pylist()}
    ended = said("#ended").splitlines()[1:]
    assert len(ended) == min(TICKER, len(lived))
    for line in ended:
        name, fate = line.split(" ", 1)
        end = f"died ({lived[name]['cause']})" if lived[name]["end"] == "died" else lived[name]["end"]
        assert fate == f"{end} at {lived[name]['steps']}"
    people = {one["id"]: one for one in truth.individuals()}
    table: DataTable[Text] = pilot.app.screen.query_one("#people", DataTable)
    for one in reversed(truth.generations):
        rows = [[str(cell) for cell in table.get_row_at(row)] for row in range(table.row_count)]
        assert [row[:6] for row in rows] == [
            [
                scored.individual,
                people[scored.individual]["lineage"],
                " x ".join(people[scored.individual]["parents"]),
                str(sum(name.startswith(f"{scored.individual}/") for name in lived)),
                interval(scored.value, scored.low, scored.high),
                "survived" if people[scored.individual]["survived"] else "culled",
            ]
            for scored in one.order
        ]
        await pilot.press("left")
