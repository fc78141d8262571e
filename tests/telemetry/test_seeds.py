"""Addressed randomness: what it is made of never changes, or no run could be repeated."""

import numpy as np
import pytest

from telemetry.seeds import HELD_OUT, Stem, address, held_out_world_seed, rng, seed63, uniform, world_seed


@pytest.mark.parametrize("key", [(1,), (1, "select", 3), ("world", 2**62, "x"), (0, "", -1)])
def test_a_generator_is_numpys_philox_keyed_by_the_address(key: tuple[int | str, ...]) -> None:
    ours, theirs = rng(*key), np.random.Generator(np.random.Philox(key=address(*key)))
    assert ours.bit_generator.state["state"]["key"].tolist() == theirs.bit_generator.state["state"]["key"].tolist()
    assert ours.random(9).tolist() == theirs.random(9).tolist()
    assert ours.permutation(50).tolist() == theirs.permutation(50).tolist()


def test_addresses_are_what_they_have_always_been() -> None:
    assert address(1, "select", 3) == 0xFEEAAF6E6F5C57F5C59B10D85AE54D96
    assert rng(1, "select", 3).integers(1 << 30) == 990803750
    assert uniform("pause", "agent-0.0") == 0.9990683932922032


def test_the_type_of_a_part_is_part_of_the_address() -> None:
    assert address(1, 2) != address("1", "2") != address("1", 2)
    assert address("a", "b") != address("ab")


def test_no_life_that_is_learned_from_has_a_held_out_seed() -> None:
    learned = {world_seed(run, generation, life) for run in range(5) for generation in range(5) for life in range(40)}
    held_out = {held_out_world_seed(index) for index in range(1000)}
    assert all(not seed & HELD_OUT for seed in learned)
    assert all(seed & HELD_OUT for seed in held_out)
    assert len(learned) == 1000
    assert len(held_out) == 1000


@pytest.mark.parametrize("key", [(1, "x"), (2**63, "select", "x", -5), ("", "x"), (True, 1, "")])
def test_a_stem_gives_what_the_whole_address_gives(key: tuple[int | str, ...]) -> None:
    stem = Stem(*key[:-1])
    for _ in range(2):
        assert stem.seed63(key[-1]) == seed63(*key)
        assert stem.uniform(key[-1]) == uniform(*key)
