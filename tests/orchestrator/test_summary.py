"""The summary says what the journal says, at every moment of a run."""

import json

import pytest

from orchestrator.lineage import lineage_rows
from orchestrator.summary import status, summarize
from telemetry.report.page import render
from tests.orchestrator.builders import advance, finished_run, newborn_run, run_config


def test_a_finished_run() -> None:
    state, config = finished_run()
    summary = summarize(state, config)
    assert summary.finished
    assert [row.generation for row in summary.history] == [0, 1, 2, 3]
    assert all(row.worst <= row.median <= row.best for row in summary.history)
    assert all(row.worst <= row.mean <= row.best for row in summary.history)
    assert all(row.lives == 192 == sum(row.ends.values()) for row in summary.history)
    assert summary.champion == summary.history[-1].individual
    assert summary.ratios["founder"] == pytest.approx(25.9 / 12.1)
    assert summary.totals.lives == sum(map(len, state.lives.values())) == 768
    assert summary.totals.trained == len(summary.training) == 15


def test_the_ancestry_leads_from_a_founder_to_the_champion() -> None:
    state, config = finished_run()
    ancestry = summarize(state, config).ancestry
    assert ancestry[0] in {one.id for one in state.created.founders}
    assert [state.everyone[one].generation for one in ancestry] == [0, 1, 2, 3]
    assert len({state.everyone[one].lineage for one in ancestry}) == 1


def test_every_lineage_is_either_alive_or_was_culled_once() -> None:
    state, config = finished_run()
    history = summarize(state, config).history
    culled = [name for row in history for name in row.culled]
    assert sorted(culled) == sorted(state.culled())
    assert sorted([*culled, *history[-1].alive]) == sorted(one.lineage for one in state.created.founders)


def test_rows_of_the_family_tree() -> None:
    state, _ = finished_run()
    rows = lineage_rows(state)
    assert [row.id for row in rows] == sorted(state.everyone)
    assert [row.origin for row in rows[:7]] == ["founder"] * 6 + ["elite"]
    assert rows[6].adapter is None, "the first elite is a founder, unchanged"
    assert all(row.adapter and len(row.adapter) == 12 for row in rows[7:12])
    assert sum(bool(row.survived) for row in rows) == 4 * 3
    assert sum(bool(row.elite) for row in rows) == 4


def test_a_summary_can_be_made_and_rendered_after_every_event() -> None:
    config = run_config(generations=2)
    state = newborn_run(config)
    assert "No generation has finished yet" in render(summarize(state, config).model_dump(mode="json"))
    for _ in advance(state, config):
        summary = summarize(state, config)
        data = json.loads(json.dumps(summary.model_dump(mode="json"), allow_nan=False))
        assert config.name in render(data)
        assert summary.totals.lives == sum(len(commit.lives) for commit in state.commits)
        told = json.loads(json.dumps(status(state), allow_nan=False))
        assert told["generation"] == state.generation
        assert told["finished"] == (state.finished is not None)


def test_status_counts_the_lives_of_the_generation_that_lives_now() -> None:
    config = run_config()
    state = newborn_run(config)
    events = advance(state, config)
    next(events)
    told = status(state)
    assert (told["lives_committed"], told["lives_planned"]) == (96, 192)
    assert told["last_generation"] is None
    assert told["lineages_alive"] == ["bold", "scout", "timid", "bold-2", "scout-2", "timid-2"]


def test_ratios_leave_out_who_never_survived_a_step() -> None:
    state, config = finished_run()
    assert state.evaluation is not None
    rows = tuple(row.model_copy(update={"mean": 0.0} if row.who == "random" else {}) for row in state.evaluation.rows)
    state.evaluation = state.evaluation.model_copy(update={"rows": rows})
    assert set(summarize(state, config).ratios) == {"founder", "heuristic"}
