"""Crafter as a survival world: the land is Crafter's own, lives are the same everywhere, deaths have their cause."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from telemetry.failures import UsageError
from telemetry.records import EndReason
from workers.conformance import check_contract, life
from workers.environment import Observation
from workers.reference import random_policy, reference
from workers.registry import make, maker

WORLD = "workers.environments.crafter_world:Crafter"
SMALL = {"area": 24, "food": 2, "drink": 2, "horizon": 120}

crafter = pytest.importorskip("crafter", reason="needs forager[crafter]")


def world(**settings: Any) -> Any:
    return make(WORLD, SMALL | settings)


@pytest.fixture(scope="module")
def still() -> Any:
    """A world whose creatures and ground a test sets itself."""
    return world()


def meadow(place: Any) -> Any:
    """Begins a life on grass alone, nobody near. Returns Crafter's environment."""
    place.reset(1)
    env = place._env
    for creature in env.ground.objects:
        if creature is not env.player:
            env.ground.remove(creature)
    env.ground._mat_map[:] = env.ground._mat_ids["grass"]
    env._balance_chunk = lambda chunk, objs: None
    return env


def test_the_land_is_that_of_crafter_itself_first_and_again() -> None:
    place = world()
    stock = crafter.Env(area=(24, 24), seed=7)
    stock.reset()
    for _ in range(2):
        place.reset(7)
        mine = place._env.ground
        assert np.array_equal(mine._mat_map, stock._world._mat_map)
        assert [(type(one), *one.pos) for one in mine.objects] == [
            (type(one), *one.pos) for one in stock._world.objects
        ]
        place.step("east")  # what is kept must not change


def test_equal_seeds_are_equal_lives_here_and_in_another_process() -> None:
    code = (
        "from workers.conformance import life; from workers.registry import maker;"
        f"junk = [bytearray(99) for _ in range(12345)]; print(*life(maker({WORLD!r}, {SMALL!r})(), 5), sep=chr(10))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    first, second = ("\n".join(life(world(), 5)) for _ in range(2))
    assert first == second == printed.removesuffix("\n")


def test_the_contract_holds_and_random_play_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.conformance.SEEDS", range(4))
    assert [one.level for one in check_contract(maker(WORLD, SMALL))] == ["ok"]
    lives = reference(world(horizon=1000), "random", range(4))
    assert {one.end for one in lives} == {EndReason.DIED}


def test_a_meadow_is_told(still: Any) -> None:
    env = meadow(still)
    x, y = env.player.pos
    env.ground[x + 2, y - 1] = "water"
    env.player.inventory["wood"] = 2
    text = still._observe().text
    assert text == "Health 9, food 2, drink 2, energy 9. Carrying wood 2. Near: water east 2 north 1. Facing grass."
    assert still._observe().energy == 9


def test_actions_are_legal_when_they_would_do_something(still: Any) -> None:
    env = meadow(still)
    assert still._observe().legal == ("rest", "west", "east", "north", "south", "act")
    env.player.inventory |= {"wood": 2, "energy": 5}
    assert still._observe().legal == ("rest", "west", "east", "north", "south", "act", "sleep", "table")
    assert "Facing table" in still.step("table").observation.text
    env.player.inventory["wood"] = 2
    assert {"pick", "club"} <= set(still._observe().legal)
    assert "Carrying wood 1, wood pickaxe 1" in still.step("pick").observation.text
    assert still.step("sleep").observation.legal == ("sleep",)
    assert "Asleep." in still._observe().text
    assert still.result()["achievements"] == ["make_wood_pickaxe", "place_table"]


def test_eating_and_drinking_work(still: Any) -> None:
    env = meadow(still)
    x, y = env.player.pos
    env.ground[x, y + 1] = "water"
    assert "Facing water" in still._observe().text
    assert "drink 3" in still.step("act").observation.text


@pytest.mark.parametrize(("need", "cause"), [("food", "starved"), ("drink", "thirst"), ("energy", "exhausted")])
def test_what_is_lacking_kills(still: Any, need: str, cause: str) -> None:
    env = meadow(still)
    env.player.health, env.player.inventory[need], env.player._recover = 1, 0, -14
    assert still.step("rest").end is None
    outcome = still.step("rest")
    assert (outcome.end, outcome.cause, outcome.observation.energy) == (EndReason.DIED, cause, 0)
    with pytest.raises(RuntimeError, match="the life has ended"):
        still.step("rest")


def test_lava_zombies_and_arrows_kill(still: Any) -> None:
    env = meadow(still)
    x, y = env.player.pos
    env.ground[x + 1, y] = "lava"
    assert still.step("east").cause == "lava"

    env = meadow(still)
    env.player.health = 2
    env.ground.add(crafter.objects.Zombie(env.ground, (x + 1, y), env.player))
    assert "Near: zombie east 1" in still._observe().text
    assert still.step("rest").cause == "zombie"

    env = meadow(still)
    env.player.health = 2
    env.ground.add(crafter.objects.Arrow(env.ground, (x + 1, y), (-1, 0)))
    assert still.step("rest").cause == "arrow"


def test_a_decision_may_take_several_steps_until_health_is_lost() -> None:
    place = world(repeat=5)
    env = meadow(place)
    before = tuple(env.player.pos)
    place.step("east")
    assert tuple(env.player.pos) == (before[0] + 5, before[1])
    env.player.health, env.player.inventory["food"], env.player._recover = 5, 0, -14
    place.step("west")
    assert tuple(env.player.pos) == (before[0] + 3, before[1])


def test_the_heuristic_drinks_when_thirsty_and_plays_from_the_text(still: Any) -> None:
    thirsty = "Health 9, food 5, drink 2, energy 9. Near: water east 2 north 1. Facing grass."
    assert still.heuristic(Observation(thirsty, still.actions, 9.0)) == "east"
    assert still.heuristic(Observation(thirsty.replace("grass", "water"), still.actions, 9.0)) == "act"
    seen = still.reset(3)
    policy = random_policy(1)
    for _ in range(50):
        assert still.heuristic(seen) in seen.legal
        seen = still.step(policy(seen)).observation


def test_bad_dials_are_named() -> None:
    with pytest.raises(UsageError, match=r"settings\.area: got 8"):
        world(area=8)
    with pytest.raises(ValueError, match="'fly' is not one of rest"):
        world().step("fly")
