"""Strategies as genes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.strategy import MOST_CHARACTERS, MOST_SENTENCES, mutate_strategy, sentences
from tests.orchestrator.test_reproduction import births

FOUNDING = ["Eat berries. Rest at night.", "Walk far; never stop!", "Flee the wolf."]


def test_sentences_are_told_apart() -> None:
    assert sentences("Eat berries. Rest;  never  stop! Why? ok") == [
        "Eat berries.",
        "Rest;",
        "never  stop!",
        "Why?",
        "ok",
    ]
    assert sentences("  ") == []


@given(st.integers(0, 999), st.sampled_from(FOUNDING))
def test_one_sentence_is_replaced_joined_or_dropped(seed: int, text: str) -> None:
    mutant = mutate_strategy(text, FOUNDING, np.random.default_rng(seed))
    before, after = sentences(text), sentences(mutant)
    assert mutant != text
    assert len(set(before) ^ set(after)) <= 2
    assert 1 <= len(after) <= MOST_SENTENCES
    assert set(after) <= {one for strategy in FOUNDING for one in sentences(strategy)}


def test_every_kind_of_change_happens() -> None:
    sizes = {len(sentences(mutate_strategy(FOUNDING[0], FOUNDING, np.random.default_rng(seed)))) for seed in range(50)}
    assert sizes == {1, 2, 3}


def test_what_cannot_change_stays() -> None:
    draw = np.random.default_rng(0)
    assert mutate_strategy("Only this.", ["Only this."], draw) == "Only this."
    long = "x" * MOST_CHARACTERS
    assert mutate_strategy(long, [long, "y" * MOST_CHARACTERS], draw) == "y" * MOST_CHARACTERS


def test_children_mutate_as_often_as_they_should_and_else_not_at_all() -> None:
    still = [job.child.genome for job in births(size=60, mutate_strategy=False).jobs]
    moved = [job.child.genome for job in births(size=60, mutate_strategy=False, strategy_mutation=0.5).jobs]
    changed = [one.strategy != other.strategy for one, other in zip(still, moved, strict=True)]
    assert 0.25 < np.mean(changed) < 0.75
    assert all(one.hyperparameters == other.hyperparameters for one, other in zip(still, moved, strict=True))
