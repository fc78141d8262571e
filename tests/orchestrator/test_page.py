"""The report of a real run: what it shows beyond the journal is what the ledger holds."""

import csv
import json
import re
import shutil
import struct
import sys
from pathlib import Path
from typing import Any, get_args
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.report import CURVES, REPLAYS, kaplan_meier, report
from orchestrator.verdict import ranked
from telemetry.ledger import Ledger
from telemetry.report.names import FigureName
from tests.inprocess import forager_here, output, refused
from tests.orchestrator.small_run import state_at


def test_lives_on_the_page_are_those_of_the_ledger(finished: Path) -> None:
    store, state = state_at(finished)
    [told] = re.findall(r'id="replay-data">(.*?)</script>', report(store, state), re.DOTALL)
    lives = [one for one in json.loads(told) if not one["held_out"]]
    champion, *_, worst = (one.individual for one in ranked(state.history[-1].fitness))
    assert [one["who"] for one in lives][::REPLAYS][:2] == [f"champion {champion}", f"least fit {worst}"]
    rows = Ledger(store).recall("lives", 2, state.vouched(2), state.attempts(2)).to_pylist()
    steps = Ledger(store).recall("steps", 2, state.vouched(2), state.attempts(2)).to_pylist()
    for one in lives[:REPLAYS]:
        [row] = [row for row in rows if (row["individual"], row["life"]) == (champion, one["life"])]
        own = [step for step in steps if (step["individual"], step["life"]) == (champion, one["life"])]
        assert one["steps"] == row["steps"] == len(one["frames"])
        assert one["seed"] == str(row["world_seed"])
        assert [frame["did"] for frame in one["frames"]] == [step["action"] for step in own]
        assert all("@" in frame["picture"] or "W" in frame["picture"] for frame in one["frames"])
    assert {one["seed"] for one in lives[:REPLAYS]} == {one["seed"] for one in lives[REPLAYS : 2 * REPLAYS]}


@given(st.lists(st.tuples(st.integers(1, 20), st.booleans()), min_size=1, max_size=40))
def test_without_censoring_the_estimate_is_the_share_that_lives_on(lives: list[tuple[int, bool]]) -> None:
    steps = np.array([step for step, _ in lives])
    times, shares = kaplan_meier(steps, np.ones(len(lives), dtype=bool))
    assert shares == [round(float((steps > time).mean()), 4) for time in times]
    times, shares = kaplan_meier(steps, np.array([died for _, died in lives]))
    assert shares == sorted(shares, reverse=True)
    assert set(times) == {step for step, died in lives if died}


def test_a_censored_life_counts_as_long_as_it_was_seen() -> None:
    """The worked example of every textbook: deaths at 1 and 3, censored at 2 and 4."""
    times, shares = kaplan_meier(np.array([1, 2, 3, 4]), np.array([True, False, True, False]))
    assert (times, shares) == ([1, 3], [0.75, 0.375])


def test_the_command_writes_where_it_is_told(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    assert output("report", finished, "--out", out).strip() == str(out)
    store, state = state_at(finished)
    assert out.read_text() == report(store, state)
    assert out.read_text().count('class="curve"') == min(CURVES, 3)
    refused(forager_here("report", finished, "--out", tmp_path / "no" / "page.html"), 2, "--out", "no such file")


NAMES: tuple[FigureName, ...] = get_args(FigureName)


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_stands_alone(finished: Path, tmp_path: Path, name: FigureName) -> None:
    out = tmp_path / f"{name}.svg"
    assert output("report", finished, "--figure", name, "--out", out).strip() == str(out)
    svg = out.read_text()
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "var(" not in svg
    assert set(re.findall(r"https?://[^\"]*", svg)) == {"http://www.w3.org/2000/svg"}
    classes = {name for one in root.iter() for name in one.get("class", "").split()}
    styled = set(re.findall(r"\.([a-z]\w*)", re.findall(r"<style>(.*?)</style>", svg, re.DOTALL)[0]))
    assert classes <= styled | {"many"}


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_can_be_printed(finished: Path, tmp_path: Path, name: FigureName) -> None:
    pytest.importorskip("resvg_py")
    out = tmp_path / "figure.PNG"
    output("report", finished, "--figure", name, "--out", out)
    data = out.read_bytes()
    assert data.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", data[16:24])
    assert width >= 1760
    assert height >= 800


def test_the_numbers_behind_a_figure_are_those_of_the_run(finished: Path, tmp_path: Path) -> None:
    _, state = state_at(finished)
    numbers = {}
    for name in NAMES:
        out = tmp_path / "numbers"
        output("report", finished, "--figure", name, "--format", "csv", "--out", out)
        numbers[name] = list(csv.DictReader(out.read_text().splitlines()))
    assert [float(row["best"]) for row in numbers["fitness"]] == [
        max(o.value for o in e.fitness) for e in state.history
    ]
    assert {row["individual"] for row in numbers["tree"]} == set(state.everyone)
    assert sum(int(row["lives"]) for row in numbers["ends"]) == sum(map(len, state.lives.values()))
    assert {row["individual"] for row in numbers["behaviour"]} == set(state.everyone)
    shares = [sum(float(row[key]) for key in row if key.startswith("share of ")) for row in numbers["behaviour"]]
    assert shares == pytest.approx([1.0] * len(shares), abs=1e-4)
    assert numbers["survival"][0] == {"generation": "0", "step": "0", "share": "1.0"}
    assert {row["measure"] for row in numbers["drift"]} >= {"exploration", "temperature"}


def test_without_a_file_named_a_figure_goes_into_the_run(finished: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(finished, tmp_path / "run"))
    assert output("report", copy, "--figure", "ends").strip() == str(copy / "ends.svg")
    assert output("verify", copy).strip().endswith("ok: every check passed")


def test_what_cannot_be_drawn_is_said_in_one_line(finished: Path, tmp_path: Path, monkeypatch: Any) -> None:
    refused(forager_here("report", finished, "--format", "png"), 2, "--figure")
    assert forager_here("report", finished, "--figure", "nothing").code == 2
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    out = tmp_path / "tree.png"
    refused(forager_here("report", finished, "--figure", "tree", "--out", out), 2, "pip install", "forager[figures]")
    assert not out.exists()
    copy = Path(shutil.copytree(finished, tmp_path / "run"))
    for path in sorted((copy / "journal").glob("*.json"))[1:]:
        path.unlink()
    refused(forager_here("report", copy, "--figure", "tree", "--format", "csv"), 2, "tree", "nothing to show")


def test_a_run_in_the_folder_of_an_experiment_shows_its_arms(finished: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(finished, tmp_path / "small"))
    found = {"name": "arms", "environment": "forage", "model": "scripted", "fitness_kind": "rmst", "worlds": 6}
    row = {"fitness": {"value": 1.0, "low": 0.5, "high": 1.5}, "by_seed": [1.0], "decisions": 1, "training_tokens": 2}
    row |= {"generations": 3, "difference": None, "p": None, "verdict": "what the others are compared with"}
    beside = tmp_path / "comparison.json"
    beside.write_text(json.dumps({**found, "seeds": [5], "rows": [{**row, "arm": "evolution"}]}))
    store, state = state_at(copy)
    assert "Arms of the experiment" not in report(store, state), "another run of that folder"
    state.created = state.created.model_copy(update={"run": "evolution-5"})
    assert "evolution (this run&#39;s)" in report(store, state)
    beside.write_text("{}")
    assert "Arms of the experiment" not in report(store, state)
