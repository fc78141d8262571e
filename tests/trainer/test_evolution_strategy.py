"""Births of an evolution strategy: mirrored noise around an exact centre."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.reproduction import utilities
from telemetry.adapters import LoraWeights
from telemetry.seeds import rng
from tests.trainer.builders import SCRIPTED
from trainer.config import LoraConfig
from trainer.evolution_strategy import perturbed
from trainer.job import Perturbation
from trainer.lowrank import fresh

LORA = LoraConfig(rank=4, alpha=8)
MODULE = "scripted.policy"


def noise(sign: int, sigma: float = 0.1) -> Perturbation:
    return Perturbation.model_validate({"centre": 5, "sigma": sigma, "sign": sign})


def change(weights: LoraWeights) -> np.ndarray:
    a, b = weights.factors[MODULE]
    return (weights.alpha / weights.rank) * b.astype(np.float64) @ a.astype(np.float64)


def child(parents: list[tuple[LoraWeights | None, float]], sign: int = 1, seed: int = 3) -> LoraWeights:
    weights, discarded = perturbed(parents, noise(sign), SCRIPTED, LORA, seed)
    assert discarded == 0
    return weights


def test_a_pair_lies_mirrored_around_the_centre() -> None:
    one, other = child([(None, 1.0)]), child([(None, 1.0)], sign=-1)
    np.testing.assert_allclose(change(one), -change(other), atol=1e-7)
    assert np.abs(change(one)).max() > 0
    assert np.std(one.factors[MODULE][1]) == pytest.approx(0.1, rel=0.2)


def test_the_mean_of_mirrored_children_is_the_exact_centre_of_their_parents() -> None:
    """Generation after generation: nobody has to keep the centre."""
    generation = [child([(None, 1.0)], sign, pair) for pair in range(3) for sign in (1, -1)]
    weights = utilities(6, 1.0)
    centre = sum(weight * change(one) for weight, one in zip(weights, generation, strict=True))
    parents = list(zip(generation, weights, strict=True))
    successors = [child(parents, sign, 10 + pair) for pair in range(3) for sign in (1, -1)]
    np.testing.assert_allclose(sum(map(change, successors)) / 6, centre, atol=1e-6)


def test_pairs_differ_and_equal_births_are_equal() -> None:
    assert not np.array_equal(change(child([(None, 1.0)])), change(child([(None, 1.0)], seed=4)))
    np.testing.assert_array_equal(change(child([(None, 1.0)])), change(child([(None, 1.0)])))


def test_strangers_have_a_centre_too() -> None:
    """Founders of a transplanted run share no projection: their centre is the best one of the rank."""
    draw = np.random.default_rng(0)
    strangers = []
    for _ in range(2):
        start = fresh(SCRIPTED, LORA, draw)
        a, b = start.factors[MODULE]
        strangers.append(LoraWeights(4, 8, {MODULE: (a, b + draw.standard_normal(b.shape).astype(np.float32))}))
    parents = [(one, 0.5) for one in strangers]
    weights, discarded = perturbed(parents, noise(1, sigma=1e-9), SCRIPTED, LORA, 3)
    dense = sum(0.5 * change(one) for one in strangers)
    left = np.sum((dense - change(weights)) ** 2) / np.sum(dense**2)
    assert left == pytest.approx(discarded, abs=1e-5)
    assert 0 < discarded < 0.5
    one, other = (child_of_strangers(parents, seed) for seed in (3, 4))
    np.testing.assert_array_equal(one.factors[MODULE][0], other.factors[MODULE][0], "from now on they share one")


def child_of_strangers(parents: list[tuple[LoraWeights, float]], seed: int) -> LoraWeights:
    return perturbed(parents, noise(1), SCRIPTED, LORA, seed)[0]


@given(st.integers(2, 200), st.floats(0.01, 3))
def test_utilities_add_up_to_one_and_fall_with_rank(count: int, step: float) -> None:
    weights = utilities(count, step)
    assert sum(weights) == pytest.approx(1)
    assert weights == sorted(weights, reverse=True)
    assert all(abs(weight) <= 2 for weight in weights)


def test_a_step_of_one_is_the_mean_of_the_better_half() -> None:
    weights = utilities(8, 1.0)
    assert weights[4:] == pytest.approx([0.0] * 4)
    assert weights[0] > weights[3] > 0


def test_it_climbs_without_a_gradient() -> None:
    """Fitness is how near a weight change comes to one that the projection can reach: most of the way in 60 rounds."""
    start = fresh(SCRIPTED, LORA, rng(5, "centre"))
    a = start.factors[MODULE][0].astype(np.float64)
    target = 2 * np.random.default_rng(1).standard_normal((16, 4)) @ a

    def distance(weights: LoraWeights) -> float:
        return float(np.sum((change(weights) - target) ** 2))

    people: list[LoraWeights | None] = [None] * 32
    shares = [1 / 32] * 32
    for generation in range(60):
        parents = list(zip(people, shares, strict=True))
        successors = [child(parents, sign, 100 * generation + pair) for pair in range(16) for sign in (1, -1)]
        people = sorted(successors, key=distance)
        shares = utilities(32, 1.0)
    centre = child(list(zip(people, shares, strict=True)))
    assert distance(centre) < 0.1 * float(np.sum(target**2))
