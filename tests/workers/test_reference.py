"""Scripted play: counts steps rightly, sees observations only, repeats exactly."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel

from telemetry.failures import UsageError
from telemetry.records import EndReason
from workers.environment import Observation, Outcome
from workers.reference import Played, play, random_policy, reference
from workers.registry import make


class NoDials(BaseModel):
    pass


class Candle:
    """A world without a heuristic: energy burns by one a step, `blow` puts it out, and it never ends a life alive."""

    name: ClassVar[str] = "candle-v1"
    Settings: ClassVar[type[BaseModel]] = NoDials
    rules: str = "Burn."
    horizon: int = 12
    actions: tuple[str, ...] = ("burn", "blow")

    def __init__(self, settings: BaseModel) -> None:
        self.energy = 0

    def reset(self, seed: int) -> Observation:
        self.energy = seed
        return self._observe()

    def step(self, action: str) -> Outcome:
        self.energy = 0 if action == "blow" else self.energy - 1
        if self.energy == 0:
            return Outcome(self._observe(), EndReason.DIED, "out" if action == "blow" else "burnt")
        return Outcome(self._observe())

    def state(self) -> Mapping[str, Any]:
        return {"energy": self.energy}

    def _observe(self) -> Observation:
        return Observation(f"Energy {self.energy}.", self.actions, float(self.energy))


@pytest.fixture
def candle() -> Candle:
    return Candle(NoDials())


def test_a_life_counts_its_decisions_the_last_one_included(candle: Candle) -> None:
    assert play(candle, 5, lambda seen: "burn") == Played(5, EndReason.DIED, "burnt", 0.0)
    assert play(candle, 5, lambda seen: "blow" if seen.energy == 3 else "burn") == Played(3, EndReason.DIED, "out", 0.0)


def test_a_world_that_never_ends_a_life_is_left_at_its_horizon(candle: Candle) -> None:
    assert play(candle, 30, lambda seen: "burn") == Played(12, EndReason.SURVIVED, "", 18.0)


def test_death_at_the_horizon_is_death(candle: Candle) -> None:
    assert play(candle, 12, lambda seen: "burn").end is EndReason.DIED


def test_random_play_is_uniform_over_the_legal_actions() -> None:
    policy = random_policy(3)
    played = Counter(policy(Observation("", ("a", "b", "c"), 1.0)) for _ in range(3000))
    assert set(played) == {"a", "b", "c"}
    assert all(850 < count < 1150 for count in played.values())
    assert policy(Observation("", ("only",), 1.0)) == "only"


def test_random_play_repeats_by_seed_alone() -> None:
    seen = [Observation("", ("a", "b", "c"), 1.0)] * 40
    assert list(map(random_policy(1), seen)) == list(map(random_policy(1), seen))
    assert list(map(random_policy(1), seen)) != list(map(random_policy(2), seen))


@pytest.mark.parametrize("who", ["random", "heuristic"])
def test_reference_lives_one_life_per_seed_whatever_the_company(who: Any) -> None:
    world = make("forage", {})
    lives = reference(world, who, [11, 12, 13])
    assert len(lives) == 3
    assert reference(world, who, [13, 11]) == [lives[2], lives[0]]


def test_reference_needs_a_heuristic_to_play_one(candle: Candle) -> None:
    assert len(reference(candle, "random", [5])) == 1
    with pytest.raises(UsageError, match="'candle-v1', expected one of random"):
        reference(candle, "heuristic", [5])
