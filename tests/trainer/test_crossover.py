"""Crossover against dense arithmetic, over random shapes, ranks and signs, and against PEFT where it does the same."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from peft.utils import merge_utils

from telemetry.adapters import LoraWeights
from trainer.config import LoraConfig
from trainer.config_operators import (
    CrossoverConfig,
    DareCrossover,
    LinearCrossover,
    SubspaceCrossover,
    TiesCrossover,
)
from trainer.crossover import crossover
from trainer.lowrank import leading

Dense = NDArray[np.float64]
Shapes = dict[str, tuple[int, int]]

SHAPES = {"layers.0.q_proj": (12, 8), "layers.0.v_proj": (4, 8), "layers.1.q_proj": (8, 20)}
EVERY = [LinearCrossover(), TiesCrossover(density=0.5), DareCrossover(drop=0.3), SubspaceCrossover()]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=seed))


def drawn(seed: int, rank: int, alpha: int, size: float = 1.0, shapes: Shapes = SHAPES) -> LoraWeights:
    draw = rng(seed)
    factors = {}
    for module, (out, into) in shapes.items():
        a, b = draw.standard_normal((rank, into)), draw.standard_normal((out, rank))
        factors[module] = ((size * a).astype(np.float32), (size * b).astype(np.float32))
    return LoraWeights(rank, alpha, factors)


def dense(weights: LoraWeights, module: str) -> Dense:
    a, b = weights.factors[module]
    return weights.alpha / weights.rank * b.astype(np.float64) @ a.astype(np.float64)


def best(exact: Dense, rank: int) -> Dense:
    u, s, vt = np.linalg.svd(exact, full_matrices=False)
    nearest: Dense = u[:, :rank] * s[:rank] @ vt[:rank]
    return nearest


def trimmed(change: Dense, density: float) -> Dense:
    order = np.argsort(-np.abs(change), axis=None, kind="stable")
    kept = order[: max(1, int(density * change.size))]
    result = np.zeros(change.size)
    result[kept] = change.ravel()[kept]
    return result.reshape(change.shape)


def ties(changes: list[Dense], weights: list[float], density: float) -> Dense:
    """The paper's three steps, entry by entry."""
    cut = [trimmed(change, density) for change in changes]
    result = np.zeros_like(changes[0])
    for index in np.ndindex(*result.shape):
        values = [(weight * change[index], abs(weight)) for change, weight in zip(cut, weights, strict=True)]
        sign = 1 if sum(value for value, _ in values) >= 0 else -1
        agree = [(value, weight) for value, weight in values if value * sign > 0]
        if agree:
            result[index] = sum(value for value, _ in agree) / sum(weight for _, weight in agree)
    return result


def subspace(changes: list[Dense], weights: list[float], rank: int) -> Dense:
    first = round(rank * abs(weights[0]) / (abs(weights[0]) + abs(weights[1])))
    parts = zip(changes, weights, (first, rank - first), strict=True)
    return sum((np.sign(weight) * best(change, count) for change, weight, count in parts), np.zeros_like(changes[0]))


signed = st.floats(0.1, 2).flatmap(lambda size: st.sampled_from([size, -size])).map(lambda weight: round(weight, 3))
some_parents = st.lists(
    st.tuples(st.integers(0, 99), st.integers(1, 5), st.integers(1, 9), signed), min_size=1, max_size=3
)
some_shapes = st.dictionaries(
    st.sampled_from(["a.q_proj", "b.k_proj", "c.v_proj"]), st.tuples(st.integers(1, 24), st.integers(1, 24)), min_size=1
)


@settings(deadline=None)
@given(parents=some_parents, shapes=some_shapes, extra=st.integers(0, 3), alpha=st.integers(1, 32), base=st.booleans())
def test_the_sum_is_exact_when_the_rank_suffices(parents, shapes, extra, alpha, base) -> None:
    known = [(drawn(seed, rank, scale, shapes=shapes), weight) for seed, rank, scale, weight in parents]
    total = sum(rank for _, rank, _, _ in parents)
    everyone = [*known, *([(None, 1.0)] if base else [])]
    child, discarded = crossover(everyone, LinearCrossover(), LoraConfig(rank=total + extra, alpha=alpha), rng())
    assert discarded == pytest.approx(0, abs=1e-9)
    assert (child.rank, child.alpha) == (total + extra, alpha)
    for module in shapes:
        exact = sum(weight * dense(one, module) for one, weight in known)
        size = max(np.linalg.norm(weight * dense(one, module)) for one, weight in known)
        assert np.linalg.norm(dense(child, module) - exact) <= 1e-5 * size


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 99),
    ranks=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    weights=st.tuples(signed, signed),
    shapes=some_shapes,
    rank=st.integers(1, 14),
    share=st.floats(0.2, 1).map(lambda value: round(value, 2)),
)
def test_every_operator_is_the_best_of_its_rank_and_tells_what_it_lost(
    seed, ranks, weights, shapes, rank, share
) -> None:
    known = [(drawn(seed + number, ranks[number], 5, shapes=shapes), weights[number]) for number in (0, 1)]
    lora = LoraConfig(rank=rank, alpha=rank)
    for config in (LinearCrossover(), TiesCrossover(density=share), SubspaceCrossover()):
        child, discarded = crossover(known, config, lora, rng())
        kept = lost = 0.0
        for module in shapes:
            changes = [dense(one, module) for one, _ in known]
            exact = exactly(config, changes, list(weights), rank)
            nearest, size = best(exact, rank), max(np.linalg.norm(change) for change in changes)
            gap = np.linalg.norm(dense(child, module) - exact) - np.linalg.norm(nearest - exact)
            assert abs(gap) <= 1e-5 * size, config.kind
            kept += float(np.sum(nearest**2))
            lost += float(np.sum((nearest - exact) ** 2))
        assert discarded == pytest.approx(lost / (kept + lost) if kept else 0.0, abs=1e-5), config.kind


def exactly(config: CrossoverConfig, changes: list[Dense], weights: list[float], rank: int) -> Dense:
    if isinstance(config, TiesCrossover):
        return ties(changes, weights, config.density)
    if isinstance(config, SubspaceCrossover):
        return subspace(changes, weights, rank)
    return sum((weight * change for change, weight in zip(changes, weights, strict=True)), np.zeros_like(changes[0]))


def test_ties_is_pefts_when_parents_weigh_the_same() -> None:
    known = [drawn(1, 3, 3), drawn(2, 2, 4)]
    child, _ = crossover([(one, 1.0) for one in known], TiesCrossover(density=0.4), LoraConfig(rank=8, alpha=8), rng())
    for module in SHAPES:
        changes = [torch.from_numpy(dense(one, module)) for one in known]
        theirs = merge_utils.ties(changes, torch.ones(2, dtype=torch.float64), density=0.4).numpy()
        assert np.linalg.norm(dense(child, module) - best(theirs, 8)) <= 1e-5 * np.linalg.norm(theirs)


def test_dare_keeps_its_share_and_the_expectation() -> None:
    shapes = {"layers.0.q_proj": (40, 30)}
    known = drawn(1, 3, 3, shapes=shapes)
    config, lora = DareCrossover(drop=0.6), LoraConfig(rank=30, alpha=30)
    change, children = dense(known, "layers.0.q_proj"), []
    for seed in range(60):
        child, discarded = crossover([(known, 0.5)], config, lora, rng(seed))
        assert discarded == pytest.approx(0, abs=1e-9)
        children.append(dense(child, "layers.0.q_proj"))
        alive = np.abs(children[-1]) > 1e-4 * np.abs(change).max()
        assert np.mean(alive) == pytest.approx(0.4, abs=0.06)
        np.testing.assert_allclose(children[-1][alive], (0.5 / 0.4 * change)[alive], atol=1e-4 * np.abs(change).max())
    error = np.linalg.norm(np.mean(children, axis=0) - 0.5 * change) / np.linalg.norm(0.5 * change)
    assert error < 2 * (0.6 / 0.4 / 60) ** 0.5


@pytest.mark.parametrize("spectrum", [1.0, 0.9])
def test_a_large_change_without_small_factors_is_truncated_almost_optimally(spectrum: float) -> None:
    """A flat spectrum is the hardest case: nothing tells the strongest components from the next."""
    draw = rng(3)
    u, v = (np.linalg.qr(draw.standard_normal((size, 200)))[0] for size in (300, 260))
    exact = u * spectrum ** np.arange(200) @ v.T
    found = leading(exact, 16, rng(4))
    error = np.linalg.norm(exact - found.u * found.s @ found.vt)
    assert error <= 1.002 * np.linalg.norm(exact - best(exact, 16))


def test_the_mean_of_products_is_not_the_product_of_means() -> None:
    one, other = drawn(1, 2, 2), drawn(2, 2, 2)
    child, _ = crossover([(one, 0.5), (other, 0.5)], LinearCrossover(), LoraConfig(rank=4, alpha=4), rng())
    module = "layers.0.q_proj"
    (a1, b1), (a2, b2) = one.factors[module], other.factors[module]
    naive = (b1 + b2) / 2 @ (a1 + a2) / 2
    assert np.linalg.norm(dense(child, module) - naive) > 0.1 * np.linalg.norm(naive)


@pytest.mark.parametrize("config", EVERY, ids=lambda config: config.kind)
def test_a_single_parent_of_equal_shape_passes_unchanged(config: CrossoverConfig) -> None:
    only = drawn(3, 4, 8)
    parents = [(None, 0.5), (only, 1.0), (drawn(4, 4, 8), 0.0)]
    child, discarded = crossover(parents, config, LoraConfig(rank=4, alpha=8), rng())
    assert child is only
    assert discarded == 0


@pytest.mark.parametrize("config", EVERY, ids=lambda config: config.kind)
def test_every_direction_of_a_child_can_learn(config: CrossoverConfig) -> None:
    """Where both factors are zero, no gradient ever flows."""
    child, _ = crossover([(drawn(5, 1, 1, 1e-6), 0.5)], config, LoraConfig(rank=6, alpha=6), rng())
    for module, (a, _) in child.factors.items():
        norms = np.linalg.norm(a, axis=1)
        assert (norms > 0.1).all(), module


@pytest.mark.parametrize("config", EVERY, ids=lambda config: config.kind)
def test_parents_may_touch_different_modules_and_change_nothing(config: CrossoverConfig) -> None:
    one = drawn(6, 2, 2, shapes={"a.q_proj": (5, 7)})
    other = drawn(7, 3, 3, shapes={"b.v_proj": (6, 4)})
    still = LoraWeights(2, 2, {"a.q_proj": (np.ones((2, 7), np.float32), np.zeros((5, 2), np.float32))})
    child, _ = crossover([(one, 0.6), (other, 0.4), (still, 0.3)], config, LoraConfig(rank=7, alpha=7), rng())
    assert sorted(child.factors) == ["a.q_proj", "b.v_proj"]
    nothing, discarded = crossover([(still, 0.7)], config, LoraConfig(rank=3, alpha=3), rng())
    assert not nothing.factors["a.q_proj"][1].any()
    assert discarded == 0


@pytest.mark.parametrize("config", EVERY, ids=lambda config: config.kind)
def test_a_child_depends_on_parents_and_generator_only(config: CrossoverConfig) -> None:
    known = [(drawn(1, 3, 3), 0.7), (drawn(2, 3, 3), 0.3)]
    turned = [(LoraWeights(3, 3, dict(reversed(one.factors.items()))), weight) for one, weight in known]
    lora = LoraConfig(rank=3, alpha=3)
    one, other = crossover(known, config, lora, rng(1))[0], crossover(turned, config, lora, rng(1))[0]
    for module in SHAPES:
        np.testing.assert_array_equal(one.factors[module][1], other.factors[module][1])


def test_crossover_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        crossover([(None, 1.0)], LinearCrossover(), LoraConfig(), rng())
