"""Metrics folded live, event by event, and metrics replayed from the journal are the same metrics."""

import pytest

from orchestrator.observe import MetricsListener
from orchestrator.state import RunState, config_of
from telemetry.catalogue import RUN
from telemetry.metrics import Metrics
from tests.orchestrator.builders import advance, newborn_run, run_config


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], str]:
    """Values as text, so that NaN equals NaN."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): repr(sample.value)
        for family in metrics.registry.collect()
        for sample in family.samples
        if family.name in {one.name.removesuffix("_total") for one in RUN}
    }


def replayed(state: RunState) -> Metrics:
    metrics = Metrics(run=state.created.run)
    MetricsListener(metrics, config_of(state)).replay(state)
    return metrics


def test_a_resume_at_any_event_finds_the_metrics_where_they_stood() -> None:
    config = run_config()
    state = newborn_run(config)
    metrics = replayed(state)
    listener = MetricsListener(metrics, config)
    events = 0
    for _ in advance(state, config, listener):
        events += 1
        assert samples(metrics) == samples(replayed(state))
    assert events == 29, "two commits and five births in each generation but the last, one end each, two at the end"


def test_the_numbers_are_those_of_the_run() -> None:
    config = run_config()
    state = newborn_run(config)
    for _ in advance(state, config):
        pass
    value = replayed(state).registry.get_sample_value
    assert value("forager_steps_total") == sum(commit.decisions for commit in state.commits)
    assert value("forager_training_jobs_total", {"status": "trained"}) == 15
    assert value("forager_generation") == 4
    assert value("forager_fitness_best") == max(one.value for one in state.history[-1].fitness)
    assert value("forager_lineages_culled_total") == len(state.culled()) > 0
    assert value("forager_lineages_alive") == 6 - len(state.culled())
    starved = sum(commit.ends.get("died:starved", 0) for commit in state.commits)
    assert value("forager_lives_total", {"end": "died", "cause": "starved"}) == starved > 0
    labels = {"run": "first-run", "version": "0.1.0", "model": "smollm2-135m-instruct", "environment": "forage"}
    assert value("forager_run_info", labels) == 1


def test_status_and_commit_time_follow_the_events() -> None:
    config = run_config(generations=1)
    state = newborn_run(config)
    metrics = Metrics(run="first-run")
    listener = MetricsListener(metrics, config)
    listener.replay(state)
    taken_over = metrics.registry.get_sample_value("forager_last_commit_timestamp_seconds")
    assert taken_over == pytest.approx(1777888800.0), "the driver's take-over is a commit"
    for _ in advance(state, config, listener):
        assert metrics.health()["last_commit_age_seconds"] is not None
    assert metrics.registry.get_sample_value("forager_last_commit_timestamp_seconds") != taken_over
    assert metrics.health()["status"] == "finished"
