"""A run that may spend so much and no more: it ends in order, and everybody who recomputes it agrees."""

from pathlib import Path

import pytest

from orchestrator.audit import audit
from orchestrator.inspection import verify
from orchestrator.state import RunState, config_of
from orchestrator.summary import status, summarize
from telemetry.ledger import Ledger
from telemetry.store import open_store
from tests.orchestrator.small_run import small_run


def spent(state: RunState) -> list[int]:
    """Decisions by generation."""
    return [
        sum(one.decisions for one in state.commits if one.generation == number) for number in range(state.generation)
    ]


@pytest.fixture(scope="module")
def unlimited(tmp_path_factory: pytest.TempPathFactory) -> RunState:
    return small_run(tmp_path_factory.mktemp("unlimited"))


@pytest.mark.parametrize("lives", [1, 2])
def test_a_run_ends_before_the_generation_that_would_exceed_its_budget(
    lives: int, unlimited: RunState, tmp_path: Path
) -> None:
    """So many generations fit, and the next one would not."""
    decisions = spent(unlimited)
    limit = sum(decisions[:lives]) + decisions[lives - 1] - 1
    state = small_run(tmp_path, budget={"decisions": limit})
    assert spent(state) == decisions[:lives]
    assert state.finished
    assert state.population == ()
    store = open_store(tmp_path)
    assert verify(store) == []
    assert audit(state, Ledger(store), config_of(state)) == []
    assert status(state)["lives_planned"] == 0
    assert summarize(state, config_of(state)).champion == state.history[-1].champion


def test_training_is_bounded_as_well(unlimited: RunState, tmp_path: Path) -> None:
    state = small_run(tmp_path, budget={"training_tokens": 1})
    assert state.generation == 3, "the small run's trainer counts no tokens"
    assert spent(state) == spent(unlimited)


def test_a_budget_that_is_enough_changes_nothing(unlimited: RunState, tmp_path: Path) -> None:
    state = small_run(tmp_path, budget={"decisions": 10**6, "training_tokens": 10**9})
    assert [one.fitness for one in state.history] == [one.fitness for one in unlimited.history]
