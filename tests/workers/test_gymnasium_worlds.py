"""Gymnasium's toy texts as survival worlds: what is told, what an episode is worth, how lives end."""

import json
import subprocess
import sys
from collections import Counter
from statistics import mean
from typing import Any

import pytest

from telemetry.failures import UsageError
from telemetry.records import EndReason
from workers.conformance import check_contract, check_determinism, check_ends, check_separation, fingerprint
from workers.environment import Environment, Outcome
from workers.environments.episodes import plain, way
from workers.reference import reference
from workers.registry import make, maker

WORLD = "workers.environments.gymnasium_world:Gymnasium"
LAKE = {"random_map": 5, "approach": 1.0, "options": {"is_slippery": False}}
TOYS: list[dict[str, Any]] = [
    {"options": {"map_name": "8x8"}},
    LAKE,
    {"id": "CliffWalking-v1"},
    {"id": "Taxi-v4"},
    {"id": "Blackjack-v1"},
]

pytest.importorskip("gymnasium", reason="needs forager[gymnasium]")


def world(**settings: Any) -> Any:
    return make(WORLD, settings)


def say(place: Any, *words: str) -> Outcome:
    return [place.step(word) for word in words][-1]


@pytest.mark.parametrize("settings", TOYS, ids=str)
def test_the_conformance_suite_finds_nothing(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.conformance.SEEDS", range(6))
    build = maker(WORLD, settings)
    assert isinstance(build(), Environment)
    for check in (check_contract, check_determinism, check_separation, check_ends):
        assert [one.level for one in check(build)] == ["ok"], check.__name__


@pytest.mark.parametrize("settings", [LAKE, {"id": "CliffWalking-v1"}, {"id": "Taxi-v4"}], ids=str)
def test_the_heuristic_lives_at_least_three_times_as_long_as_random_play(settings: dict[str, Any]) -> None:
    random, skilled = (reference(world(**settings), who, range(40)) for who in ("random", "heuristic"))
    assert mean(life.steps for life in skilled) >= 3 * mean(life.steps for life in random)
    assert Counter(life.end for life in skilled)[EndReason.SURVIVED] > 20


def test_equal_seeds_are_equal_lives_in_another_process() -> None:
    code = (
        "from workers.conformance import fingerprint; from workers.registry import maker;"
        f"print(fingerprint(maker({WORLD!r}, {LAKE!r})))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == fingerprint(maker(WORLD, LAKE))


def test_a_lake_tells_what_lies_around_and_where_the_goal_is() -> None:
    place = world(options={"is_slippery": False})  # SFFF FHFH FFFH HFFG
    assert place.reset(0).text == "Energy 20. Left edge, down ice, right ice, up edge. Goal right 3 down 3."
    text = say(place, "down").observation.text
    assert text == "Energy 19. Left edge, down ice, right hole, up ice. Goal right 3 down 2."
    assert place.rules == "Cross the ice to the goal; holes kill. Say left, down, right or up."
    outcome = say(place, "right")
    assert (outcome.end, outcome.cause, outcome.observation.energy) == (EndReason.DIED, "fell", 0)


def test_a_goal_is_a_meal_and_the_next_episode_begins() -> None:
    place = world(options={"is_slippery": False}, start_energy=10.0, reward_scale=20.0)
    place.reset(0)
    outcome = say(place, "down", "down", "right", "right", "down", "right")
    assert (outcome.end, outcome.observation.energy) == (None, 10 - 6 + 20)
    assert "Goal right 3 down 3" in outcome.observation.text
    assert place.state()["episode"] == 1
    once = world(options={"is_slippery": False}, again=False)
    once.reset(0)
    assert say(once, "down", "down", "right", "right", "down", "right").end is EndReason.SURVIVED


def test_a_life_ends_exhausted_or_at_the_horizon_and_then_is_over() -> None:
    place = world(start_energy=2.5)
    place.reset(0)
    outcome = say(place, "left", "left", "left")
    assert (outcome.end, outcome.cause, outcome.observation.energy) == (EndReason.DIED, "exhausted", 0)
    with pytest.raises(RuntimeError, match="the life has ended"):
        place.step("left")
    place = world(horizon=2, options={"is_slippery": False})
    place.reset(0)
    assert (say(place, "left", "left").end, place.horizon) == (EndReason.SURVIVED, 2)
    place.reset(0)
    with pytest.raises(ValueError, match="'swim' is not one of left, down, right, up"):
        place.step("swim")


def test_coming_nearer_pays_and_wandering_costs() -> None:
    place = world(**LAKE | {"start_energy": 20.0})
    place.reset(0)
    assert say(place, "left").observation.energy == 19  # an edge
    energy, text = 19.0, ""
    for word, back in (("right", "left"), ("down", "up")):
        if f"{word} ice" in place.reset(0).text.lower():
            assert say(place, word).observation.energy == 20
            energy, text = say(place, back).observation.energy, place.state()["screen"]
    assert energy == 18
    assert "[S]" in text


def test_random_lakes_differ_by_life_and_fixed_ones_do_not() -> None:
    place = world(**LAKE)
    screens = {place.reset(seed).text + place.state()["screen"] for seed in range(10)}
    assert len(screens) == 10
    fixed = world(options={"map_name": "8x8"})
    assert len({fixed.reset(seed).text for seed in range(10)}) == 1


def test_a_cliff_kills_and_its_goal_feeds() -> None:
    place = world(id="CliffWalking-v1")
    assert place.reset(0).text == "Energy 18. Left edge, down edge, right cliff, up path. Goal right 11."
    outcome = say(place, "up", *["right"] * 11, "down")
    assert (outcome.end, outcome.observation.energy) == (None, 18 - 13 + 16)
    outcome = say(place, "right")
    assert (outcome.end, outcome.cause, outcome.observation.energy) == (EndReason.DIED, "fell", 0)


def test_a_taxi_is_paid_for_delivering() -> None:
    place = world(id="Taxi-v4")
    seen, earned = place.reset(5), 0.0
    for _ in range(30):
        before, word = seen.energy, place.references["heuristic"](seen)
        assert "Take" in seen.text or "Drop" in seen.text
        seen = place.step(word).observation
        earned = max(earned, seen.energy - before)
    assert earned >= 16
    place.reset(5)
    assert place.step("drop").observation.energy == 24 - 10


def test_any_other_environment_needs_words_and_is_told_in_numbers() -> None:
    cart = world(id="CartPole-v1", actions=["left", "right"], fatal_end=1.0, cause="toppled", upkeep=0.0)
    assert cart.reset(0).text.startswith("Energy 12. Observation ")
    assert len(cart.reset(0).text.split()) == 2 + 1 + 4
    life = reference(cart, "random", [0])[0]
    assert (life.end, life.cause) == (EndReason.DIED, "toppled")
    assert "heuristic" not in cart.references


def test_rendered_text_marks_what_is_highlighted() -> None:
    assert "[S]FFF\nFHFH" in world(text="ansi").reset(0).text


def test_helpers() -> None:
    assert [way(0, 0), way(2, -3), way(-1, 0)] == ["here", "up 3 right 2", "left 1"]
    assert json.dumps(plain({"a": (1, None, 2.5), "b": object})) == json.dumps({"a": [1, None, 2.5], "b": str(object)})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"id": "CartPole-v1"}, r"settings\.actions: got 0 words, expected 2"),
        ({"id": "Pendulum-v1"}, r"settings\.id: got actions Box"),
        ({"id": "Blackjack-v1", "text": "ansi"}, r"settings\.text: got ansi"),
        ({"id": "Taxi-v4", "random_map": 4}, r"settings\.random_map: got 4"),
        ({"upkeep": -1.0}, r"settings\.upkeep: got -1"),
        ({"swim": 1}, r"settings\.swim: got 1"),
        ({"id": 3}, r"settings\.id: got 3"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make(WORLD, settings)


def test_an_unknown_environment_is_named() -> None:
    with pytest.raises(Exception, match="Nowhere"):
        make(WORLD, {"id": "Nowhere-v1"})


def test_a_missing_library_is_one_line_and_nobody_imports_it_unasked() -> None:
    code = """
import sys, importlib.util
import orchestrator.cli
from workers.environments import crafter_world, gymnasium_world, minigrid_world
assert not {"gymnasium", "minigrid", "crafter", "pygame"} & set(sys.modules)
from workers import registry
from telemetry.failures import UsageError
real = importlib.util.find_spec
import workers.environments.extras as extras
extras.find_spec = lambda name: None if name in ("gymnasium", "minigrid", "crafter") else real(name)
for world in ("gymnasium_world:Gymnasium", "minigrid_world:Minigrid", "crafter_world:Crafter"):
    try:
        registry.make("workers.environments." + world, {})
    except UsageError as error:
        print(error)
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    lines = printed.strip().splitlines()
    for line, extra in zip(lines, ("gymnasium", "minigrid", "crafter"), strict=True):
        assert f"pip install 'forager[{extra}]'" in line
