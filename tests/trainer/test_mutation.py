"""Mutation: what each kind changes, what it leaves alone, and that nothing stays dead."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.adapters import LoraWeights
from telemetry.failures import UsageError
from telemetry.records import BaseModelCard
from tests.trainer.test_crossover import SHAPES, dense, drawn, rng
from trainer.config import LoraConfig
from trainer.config_operators import GaussianMutation, MaskingMutation, MutationConfig, SpectralMutation
from trainer.lowrank import fresh
from trainer.mutation import mutate

CARD = BaseModelCard(id="tiny", sha256="0" * 64, modules=SHAPES)
EVERY = [GaussianMutation(strength=0.3), SpectralMutation(), MaskingMutation(rate=1.0)]


def test_noise_is_relative_and_revives_zero_factors() -> None:
    start = fresh(CARD, LoraConfig(rank=64, alpha=64, modules=("q_proj", "v_proj")), rng())
    mutant = mutate(start, GaussianMutation(strength=0.1), rng(1))
    for module, (a, b) in mutant.factors.items():
        before = start.factors[module]
        assert (a - before[0]).std() == pytest.approx(0.1 * before[0].std(), rel=0.2)
        assert b.std() == pytest.approx(0.1 * max(b.shape) ** -0.5, rel=0.2)


def test_noise_touches_its_share_of_the_modules() -> None:
    start = drawn(1, 2, 2, shapes={f"layers.{number}.q_proj": (3, 4) for number in range(400)})
    mutant = mutate(start, GaussianMutation(share=0.3), rng())
    touched = [not np.array_equal(mutant.factors[module][0], a) for module, (a, _) in start.factors.items()]
    assert np.mean(touched) == pytest.approx(0.3, abs=0.07)


@pytest.mark.parametrize("config", EVERY, ids=lambda config: config.kind)
def test_a_module_that_changes_nothing_comes_alive(config: MutationConfig) -> None:
    start = fresh(CARD, LoraConfig(rank=3, alpha=3, modules=("q_proj", "v_proj")), rng())
    for module, (_, b) in mutate(start, config, rng(1)).factors.items():
        assert b.any(), module


@settings(deadline=None)
@given(seed=st.integers(0, 99), rank=st.integers(1, 6), alpha=st.integers(1, 9), strength=st.floats(0.001, 1))
def test_a_spectral_mutant_keeps_both_subspaces(seed: int, rank: int, alpha: int, strength: float) -> None:
    start = drawn(seed, rank, alpha)
    mutant = mutate(start, SpectralMutation(strength=strength), rng(seed))
    for module in SHAPES:
        before, after = dense(start, module), dense(mutant, module)
        (u, s, vt), turned = np.linalg.svd(before, full_matrices=False), np.linalg.svd(after, compute_uv=False)
        alive = s > 1e-6 * s[0]
        u, vt = u[:, alive], vt[alive]
        size = np.linalg.norm(after)
        assert np.linalg.norm(u @ (u.T @ after @ vt.T) @ vt - after) <= 1e-5 * size
        assert np.abs(np.log(turned[alive] / s[alive])).max() <= 6 * strength
    assert any(not np.array_equal(start.factors[module][1], mutant.factors[module][1]) for module in SHAPES)


def test_a_spectral_mutation_is_small_when_its_strength_is() -> None:
    start = drawn(1, 4, 4)
    for strength in (0.001, 0.01, 0.1):
        mutant = mutate(start, SpectralMutation(strength=strength), rng(2))
        for module in SHAPES:
            before = dense(start, module)
            moved = np.linalg.norm(dense(mutant, module) - before) / np.linalg.norm(before)
            assert 0.1 * strength < moved < 6 * strength


@settings(deadline=None)
@given(seed=st.integers(0, 99), rank=st.integers(1, 6), share=st.floats(0.01, 0.99))
def test_masking_drops_components_and_changes_no_other(seed: int, rank: int, share: float) -> None:
    start = drawn(seed, rank, 5, shapes={"a.q_proj": (14, 11)})
    mutant = mutate(start, MaskingMutation(rate=1.0, share=share), rng(seed))
    before, after = (np.linalg.svd(dense(one, "a.q_proj"), compute_uv=False) for one in (start, mutant))
    stay = max(1, rank - int(np.ceil(share * rank)))
    assert np.sum(after > 1e-5 * before[0]) == stay
    for value in after[:stay]:
        assert np.abs(before - value).min() <= 1e-5 * before[0]
    lost = dense(start, "a.q_proj") - dense(mutant, "a.q_proj")
    assert np.linalg.norm(lost.T @ dense(mutant, "a.q_proj")) <= 1e-4 * before[0] ** 2


@pytest.mark.parametrize("config", EVERY, ids=lambda config: config.kind)
def test_a_mutant_depends_on_parent_and_generator_only(config: MutationConfig) -> None:
    start = drawn(6, 3, 3)
    shuffled = LoraWeights(3, 3, dict(reversed(start.factors.items())))
    one, other, third = mutate(start, config, rng(1)), mutate(shuffled, config, rng(1)), mutate(start, config, rng(2))
    for module in SHAPES:
        np.testing.assert_array_equal(one.factors[module][1], other.factors[module][1])
    assert any(not np.array_equal(one.factors[module][1], third.factors[module][1]) for module in SHAPES)


def test_chance_and_strength_may_leave_it_alone() -> None:
    start = drawn(6, 3, 3)
    assert mutate(start, GaussianMutation(strength=0.0), rng()) is start
    mutated = [mutate(start, MaskingMutation(rate=0.25), rng(seed)) is not start for seed in range(400)]
    assert np.mean(mutated) == pytest.approx(0.25, abs=0.07)


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
