"""The report of a real run: what it shows beyond the journal is what the ledger holds."""

import json
import re
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.fitness import ranked
from orchestrator.report import CURVES, REPLAYS, kaplan_meier, report
from telemetry.ledger import Ledger
from tests.inprocess import forager_here, output, refused
from tests.orchestrator.small_run import state_at


def test_lives_on_the_page_are_those_of_the_ledger(finished: Path) -> None:
    store, state = state_at(finished)
    [told] = re.findall(r'id="replay-data">(.*?)</script>', report(store, state), re.DOTALL)
    lives = json.loads(told)
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
