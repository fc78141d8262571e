"""The behaviour map counts what was committed, and stands still when nothing has changed."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.behaviour import MOST_ACTIONS, behaviour, principal, project
from telemetry.ledger import Ledger
from tests.orchestrator.small_run import Levers, small_run, state_at


def counted(rows: list[tuple[str, str | None, int]]) -> pa.Table:
    individuals, actions, numbers = zip(*rows, strict=True)
    return pa.table({"individual": individuals, "action": pa.array(actions, pa.string()), "number": numbers})


def test_shares_are_those_of_acknowledged_steps(tmp_path: Path) -> None:
    """Rows that nobody acknowledged lie in the same files."""
    small_run(tmp_path / "run", Levers(zombies=True))
    store, state = state_at(tmp_path / "run")
    found = behaviour(store, state)
    assert found is not None
    assert sorted(found["individuals"]) == sorted(state.everyone)
    counts: dict[str, Counter[str]] = {}
    for number in state.lives:
        steps = Ledger(store).recall("steps", number, state.vouched(number), state.attempts(number))
        for row in steps.select(["individual", "action"]).to_pylist():
            counts.setdefault(row["individual"], Counter())[row["action"]] += 1
    for name, shares in zip(found["individuals"], found["shares"], strict=True):
        total = counts[name].total()
        expected = [counts[name][action] / total for action in found["actions"]]
        assert shares == pytest.approx(expected, abs=1e-6)
    assert found["others"] == 0


def test_nobody_has_acted_in_a_run_that_has_just_begun(tmp_path: Path) -> None:
    small_run(tmp_path / "run")
    store, state = state_at(tmp_path / "run")
    state.lives, state.files = {}, {}
    assert behaviour(store, state) is None


def test_rare_actions_are_no_coordinates_but_count() -> None:
    found = project(counted([("a", "eat", 6), ("a", "", 2), ("a", None, 2), ("b", "eat", 1), ("b", None, 9)]))
    assert found.actions == ["eat", ""]
    assert found.shares == [[0.6, 0.2], [0.1, 0.0]]
    assert found.others == 0.55
    assert MOST_ACTIONS < 100


def test_the_axis_of_most_difference_comes_first_and_points_to_what_loads_most() -> None:
    found = project(counted([("a", "eat", 9), ("a", "rest", 1), ("b", "eat", 1), ("b", "rest", 9)]))
    assert found.explained == [1.0, 0.0]
    assert sorted(np.abs(found.loadings[0]).tolist()) == pytest.approx([0.7071, 0.7071])
    assert max(found.loadings[0], key=abs) > 0
    assert abs(found.x[0] - found.x[1]) == pytest.approx(0.8 * np.sqrt(2), abs=1e-3)


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 2**16))
def test_the_same_values_in_another_sign_or_place_give_the_same_picture(rows: int, columns: int, seed: int) -> None:
    values = np.random.default_rng(seed).random((rows, columns))
    places, loadings, explained = principal(values)
    again, same, _ = principal(values + 3.0)
    assert places == pytest.approx(again, abs=1e-9)
    assert loadings == pytest.approx(same, abs=1e-6)
    assert 0 <= explained.sum() <= 1 + 1e-9
    for direction in loadings:
        assert direction[np.abs(direction.round(6)).argmax()] >= 0


def test_who_all_act_alike_stand_in_one_place() -> None:
    places, loadings, explained = principal(np.full((3, 4), 0.25))
    assert not places.any()
    assert not loadings.any()
    assert not explained.any()
