"""Somebody whose every life was lost to infrastructure: shown as what it is, everywhere that fitness is shown."""

from math import isfinite

import pytest

from orchestrator.config import RunConfig
from orchestrator.console import print_lineage, print_summary
from orchestrator.lineage import lineage_rows
from orchestrator.lines import describe
from orchestrator.observe import MetricsListener
from orchestrator.state import RunState
from orchestrator.summary import summarize
from orchestrator.verdict import Fitness
from telemetry.metrics import Metrics
from telemetry.report.page import render
from tests.orchestrator.builders import finished_run


@pytest.fixture
def run() -> tuple[RunState, RunConfig, str]:
    """A run whose first survivor of the last generation could not be scored."""
    state, config = finished_run()
    event = state.history[-1]
    who = event.selection.survivors[-1]
    unknown = Fitness(individual=who, value=None, low=None, high=None, lives=32, censored=32)
    fitness = tuple(unknown if one.individual == who else one for one in event.fitness)
    state.history[-1] = event.model_copy(update={"fitness": fitness})
    return state, config, who


def test_numbers_are_taken_over_those_who_have_one(run: tuple[RunState, RunConfig, str]) -> None:
    state, config, who = run
    row = summarize(state, config).history[-1]
    assert row.individual != who
    assert row.worst <= row.mean <= row.best
    assert all(map(isfinite, (row.low, row.high, row.median)))


def test_it_is_shown_without_a_number(run: tuple[RunState, RunConfig, str], capsys: pytest.CaptureFixture[str]) -> None:
    state, config, who = run
    [row] = [row for row in lineage_rows(state) if row.id == who]
    assert (row.fitness, row.survived) == (None, True)
    print_lineage([row])
    assert "not scored" in capsys.readouterr().out
    print_summary(summarize(state, config), "report.html")
    assert describe(state.history[-1], state)
    page = render(summarize(state, config).model_dump(mode="json"))
    assert who in page
    assert "None" not in page


def test_metrics_stay_numbers(run: tuple[RunState, RunConfig, str]) -> None:
    state, config, _ = run
    metrics = Metrics("run")
    MetricsListener(metrics, config).replay(state)
    for name in ("best", "mean", "median", "worst"):
        assert isfinite(metrics.registry.get_sample_value(f"forager_fitness_{name}") or 0.0)
