"""Crossover and mutation against dense arithmetic."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from telemetry.adapters import LoraWeights
from telemetry.failures import UsageError
from telemetry.records import BaseModelCard
from trainer.config import LoraConfig
from trainer.merge import crossover, fresh, mutate

SHAPES = {"layers.0.q_proj": (12, 8), "layers.0.v_proj": (4, 8), "layers.1.q_proj": (8, 20)}
CARD = BaseModelCard(id="tiny", sha256="0" * 64, modules=SHAPES)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=seed))


def drawn(seed: int, rank: int, alpha: int, size: float = 1.0) -> LoraWeights:
    draw = rng(seed)
    factors = {}
    for module, (out, into) in SHAPES.items():
        a, b = draw.standard_normal((rank, into)), draw.standard_normal((out, rank))
        factors[module] = ((size * a).astype(np.float32), (size * b).astype(np.float32))
    return LoraWeights(rank, alpha, factors)


def dense(weights: LoraWeights | None, module: str) -> NDArray[np.float64]:
    if weights is None:
        return np.zeros(SHAPES[module])
    a, b = weights.factors[module]
    return weights.alpha / weights.rank * b.astype(np.float64) @ a.astype(np.float64)


parents = st.lists(
    st.tuples(st.integers(0, 99), st.integers(1, 5), st.integers(1, 9), st.floats(-2, 2).map(lambda w: round(w, 3))),
    min_size=1,
    max_size=3,
)


@settings(deadline=None)
@given(parents=parents, extra=st.integers(0, 3), alpha=st.integers(1, 32), with_base=st.booleans())
def test_crossover_is_exact_when_the_rank_suffices(parents, extra, alpha, with_base) -> None:
    known = [(drawn(seed, rank, scale), weight) for seed, rank, scale, weight in parents]
    total = sum(rank for _, rank, _, _ in parents)
    child, discarded = crossover(
        [*known, *([(None, 1.0)] if with_base else [])], LoraConfig(rank=total + extra, alpha=alpha), rng()
    )
    assert discarded == pytest.approx(0, abs=1e-9)
    assert (child.rank, child.alpha) == (total + extra, alpha)
    for module in SHAPES:
        exact = sum(weight * dense(one, module) for one, weight in known)
        assert np.linalg.norm(dense(child, module) - exact) <= 1e-5 * max(np.linalg.norm(exact), 1e-3)


@settings(deadline=None)
@given(seed=st.integers(0, 99), rank=st.integers(1, 5))
def test_truncation_is_the_best_of_its_rank_and_tells_what_it_lost(seed, rank) -> None:
    known = [(drawn(seed, 3, 3), 0.7), (drawn(seed + 100, 4, 8), -0.4)]
    child, discarded = crossover(known, LoraConfig(rank=rank, alpha=rank), rng())
    kept = lost = 0.0
    for module in SHAPES:
        exact = sum(weight * dense(one, module) for one, weight in known)
        u, s, vt = np.linalg.svd(exact, full_matrices=False)
        best = u[:, :rank] * s[:rank] @ vt[:rank]
        assert np.linalg.norm(dense(child, module) - best) <= 1e-5 * np.linalg.norm(exact)
        kept, lost = kept + float(np.sum(s[:rank] ** 2)), lost + float(np.sum(s[rank:] ** 2))
    assert discarded == pytest.approx(lost / (kept + lost), abs=1e-6)


def test_the_mean_of_products_is_not_the_product_of_means() -> None:
    one, other = drawn(1, 2, 2), drawn(2, 2, 2)
    child, _ = crossover([(one, 0.5), (other, 0.5)], LoraConfig(rank=4, alpha=4), rng())
    module = "layers.0.q_proj"
    (a1, b1), (a2, b2) = one.factors[module], other.factors[module]
    naive = (b1 + b2) / 2 @ (a1 + a2) / 2
    assert np.linalg.norm(dense(child, module) - naive) > 0.1 * np.linalg.norm(naive)


def test_a_single_parent_of_equal_shape_passes_unchanged() -> None:
    only = drawn(3, 4, 8)
    child, discarded = crossover([(None, 0.5), (only, 1.0), (drawn(4, 4, 8), 0.0)], LoraConfig(rank=4, alpha=8), rng())
    assert child is only
    assert discarded == 0


def test_every_direction_of_a_child_can_learn() -> None:
    """Where both factors are zero, no gradient ever flows."""
    child, _ = crossover([(drawn(5, 1, 1, 1e-6), 0.5)], LoraConfig(rank=6, alpha=6), rng())
    for module, (a, _) in child.factors.items():
        norms = np.linalg.norm(a, axis=1)
        assert (norms > 0.1).all(), module


def test_crossover_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        crossover([(None, 1.0)], LoraConfig(), rng())


def test_mutation_is_relative_and_revives_zero_factors() -> None:
    start = fresh(CARD, LoraConfig(rank=64, alpha=64, modules=("q_proj", "v_proj")), rng())
    mutant = mutate(start, 0.1, rng(1))
    for module, (a, b) in mutant.factors.items():
        before = start.factors[module]
        assert (a - before[0]).std() == pytest.approx(0.1 * before[0].std(), rel=0.2)
        assert b.std() == pytest.approx(0.1 * max(b.shape) ** -0.5, rel=0.2)


def test_mutation_depends_on_the_generator_only() -> None:
    start = drawn(6, 3, 3)
    shuffled = LoraWeights(3, 3, dict(reversed(start.factors.items())))
    one, other, third = mutate(start, 0.5, rng(1)), mutate(shuffled, 0.5, rng(1)), mutate(start, 0.5, rng(2))
    for module in SHAPES:
        np.testing.assert_array_equal(one.factors[module][1], other.factors[module][1])
        assert not np.array_equal(one.factors[module][1], third.factors[module][1])
    assert mutate(start, 0.0, rng()) is start


def test_fresh_changes_nothing_and_starts_like_peft() -> None:
    start = fresh(CARD, LoraConfig(rank=32, alpha=16, modules=("q_proj",)), rng())
    assert sorted(start.factors) == ["layers.0.q_proj", "layers.1.q_proj"]
    for module, (a, b) in start.factors.items():
        bound = SHAPES[module][1] ** -0.5
        assert np.abs(a).max() <= bound
        assert a.std() == pytest.approx(bound / 3**0.5, rel=0.15)
        assert not b.any()
        assert a.dtype == b.dtype == np.float32


def test_modules_that_the_model_lacks_are_named() -> None:
    with pytest.raises(UsageError, match=r"trainer\.lora\.modules: got c_attn, expected some of q_proj, v_proj"):
        fresh(CARD, LoraConfig(modules=("c_attn",)), rng())
