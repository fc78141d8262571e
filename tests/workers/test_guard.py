"""What the guard writes down of a world's state: JSON as the standard library writes it, and nothing else."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.environment import Observation, Outcome
from workers.environments.forage_settings import ForageSettings
from workers.guard import EnvironmentFailure, Guard

plain = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(st.characters()) | st.integers().map(str)
states = st.recursive(plain, lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner))
floats = st.recursive(st.floats(allow_nan=False, allow_infinity=False), lambda inner: st.lists(inner))


@dataclass
class Pair:
    left: int = 1


class Shows:
    """A world whose hidden state is whatever it is given."""

    name = "shows-v1"
    Settings = ForageSettings
    rules, horizon, actions = "Go.", 3, ("go",)

    def __init__(self, state: object) -> None:
        self._state = state

    def reset(self, seed: int) -> Observation:
        return Observation("here", ("go",), 1.0)

    def step(self, action: str) -> Outcome:
        return Outcome(self.reset(0))

    def state(self) -> object:
        return self._state


def written(state: object) -> str:
    return Guard(Shows(state)).state(0)


@given(states)
def test_a_state_is_written_as_the_standard_library_does(state: object) -> None:
    assert written(state) == json.dumps(state, separators=(",", ":"), allow_nan=False)


@given(floats)
def test_numbers_are_the_same_numbers(state: object) -> None:
    assert json.loads(written(state)) == state


@pytest.mark.parametrize("number", [np.float64(0.5), {1: 2}, (1, 2), 2**80, "\ud800"])
def test_what_only_the_standard_library_writes_is_written(number: object) -> None:
    assert written(number) == json.dumps(number, separators=(",", ":"))


@pytest.mark.parametrize("state", [nan, [inf], {"a": {"b": -inf}}, {1}, b"x", object(), Pair(), datetime.now(UTC)])
def test_what_is_no_json_is_refused(state: object) -> None:
    with pytest.raises(EnvironmentFailure, match="shows-v1: state after step 0"):
        written(state)
