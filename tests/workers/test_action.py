"""Draws from the behaviour policy: frequencies are the probabilities that are recorded."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.records import Hyperparameters
from workers.action import Decision, choose
from workers.engine import Completion

LEGAL = ("eat", "rest", "walk")
ODDS = (0.7, 0.2, 0.1)
CHI_SQUARE = 13.8
"""Two degrees of freedom exceed it once in a thousand times."""


def draw(seed: int, taken: tuple[int, ...] = (0, 0, 0), **changes: float) -> Decision:
    numbers = Hyperparameters.model_validate({"temperature": 1.0, "epsilon": 0.0, "learning_rate": 0.1} | changes)
    answer = Completion((), (), tuple(map(math.log, ODDS)))
    return choose(answer, LEGAL, (1, 2, 3), numbers, taken=dict(zip(LEGAL, taken, strict=True)), seed=seed)


@pytest.mark.parametrize(
    ("taken", "changes"),
    [
        ((0, 0, 0), {}),
        ((0, 0, 0), {"epsilon": 0.3}),
        ((9, 0, 2), {"novelty": 1.0}),
        ((9, 0, 2), {"novelty": 0.5, "epsilon": 0.2, "temperature": 2.0}),
    ],
)
def test_actions_are_drawn_as_often_as_their_recorded_probability_says(
    taken: tuple[int, ...], changes: dict[str, float]
) -> None:
    decisions = [draw(seed, taken, **changes) for seed in range(4000)]
    probability = {one.action: one.behaviour_probability for one in decisions}
    assert math.fsum(probability.values()) == pytest.approx(1)
    counts = Counter(one.action for one in decisions)
    expected = {action: 4000 * probability[action] for action in LEGAL}
    assert sum((counts[action] - one) ** 2 / one for action, one in expected.items()) < CHI_SQUARE


def test_novelty_divides_by_how_often_an_action_was_taken_and_leaves_the_models_own_probability_alone() -> None:
    weights = np.array(ODDS) / np.array([1 + 9, 1 + 0, 1 + 2]) ** 1.5
    for seed in range(50):
        one = draw(seed, (9, 0, 2), novelty=1.5)
        index = LEGAL.index(one.action)
        assert one.behaviour_probability == pytest.approx(weights[index] / weights.sum())
        assert math.exp(one.logprobs[0]) == pytest.approx(ODDS[index])
        assert not one.explored


@given(st.integers(0, 10**6), st.integers(0, 50))
def test_without_a_history_to_differ_from_novelty_changes_no_draw(seed: int, times: int) -> None:
    plain, novel = draw(seed), draw(seed, (times, times, times), novelty=2.0)
    assert novel.action == plain.action
    assert novel.behaviour_probability == pytest.approx(plain.behaviour_probability)
