"""MiniGrid as a survival world: what is told of the grid, and what kills in it."""

from statistics import mean
from typing import Any

import pytest

from telemetry.failures import UsageError
from telemetry.records import EndReason
from workers.conformance import check_contract, check_determinism, check_ends, check_separation
from workers.reference import reference
from workers.registry import make, maker

WORLD = "workers.environments.minigrid_world:Minigrid"
DOOR = {"id": "MiniGrid-DoorKey-5x5-v0", "hands": True, "start_energy": 30.0}

pytest.importorskip("minigrid", reason="needs forager[minigrid]")


def world(**settings: Any) -> Any:
    return make(WORLD, settings)


@pytest.mark.parametrize("settings", [{}, {"id": "MiniGrid-Dynamic-Obstacles-6x6-v0"}], ids=str)
def test_the_conformance_suite_finds_nothing(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.conformance.SEEDS", range(4))
    build = maker(WORLD, settings | {"horizon": 20})
    for check in (check_contract, check_determinism, check_separation, check_ends):
        assert [one.level for one in check(build)] == ["ok"], check.__name__


@pytest.mark.parametrize(
    ("settings", "cause"),
    [({}, "burned"), ({"id": "MiniGrid-Dynamic-Obstacles-6x6-v0"}, "struck")],
    ids=str,
)
def test_the_heuristic_lives_three_times_as_long_as_random_play(settings: dict[str, Any], cause: str) -> None:
    random, skilled = (reference(world(**settings), who, range(20)) for who in ("random", "heuristic"))
    assert mean(life.steps for life in skilled) >= 3 * mean(life.steps for life in random)
    assert {life.cause for life in random} <= {cause, "exhausted"}
    assert cause in {life.cause for life in random}


def test_a_door_is_opened_with_a_key_from_the_text_alone() -> None:
    lives = reference(world(**DOOR), "heuristic", range(10))
    assert [life.end for life in lives] == [EndReason.SURVIVED] * 10
    assert mean(life.steps for life in reference(world(**DOOR), "random", range(10))) <= 30


def test_the_view_is_told_from_where_the_agent_stands() -> None:
    place = world()
    assert place.reset(3).text == (
        "Energy 20. Avoid the lava and get to the green goal square. Left wall, ahead left wall, ahead free,"
        " ahead right free, right free. Goal right 3 ahead 3."
    )
    turned = place.step("right").observation.text
    assert turned.endswith("Left free, ahead left free, ahead free, ahead right wall, right wall. Goal left 3 ahead 3.")
    assert place.step("right").observation.text.endswith("Goal left 3 behind 3.")  # out of view, and still told
    assert "WGVV" not in place.state()["screen"]
    assert place.draw(place.state()).startswith("step 2  energy 18.0  episode 0\nWG")


def test_the_way_told_is_the_way_walked() -> None:
    """Follow the told way in an empty room: the distance shrinks by one with each step ahead, and the goal feeds."""
    place = world(id="MiniGrid-Empty-Random-6x6-v0", approach=1.0, horizon=200)
    for seed in range(10):
        seen, episode = place.reset(seed), 0
        while not episode:
            near = " ahead " in seen.text.rpartition("Goal")[2]
            word = "forward" if near else "right"
            energy, seen = seen.energy, place.step(word).observation
            episode = place.state()["episode"]
            if not episode:
                assert seen.energy == pytest.approx(energy if near else energy - 1)
        assert seen.energy > energy + 10 or seen.energy == 40


def test_lava_burns() -> None:
    place = world()
    for seed in range(20):
        seen = place.reset(seed)
        while "ahead free" in seen.text:
            seen = place.step("forward").observation
        if "ahead lava" in seen.text:
            break
    outcome = place.step("forward")
    assert (outcome.end, outcome.cause, outcome.observation.energy) == (EndReason.DIED, "burned", 0)


def test_things_and_what_is_carried_are_told() -> None:
    place = world(**DOOR)
    seen = place.reset(3)
    assert "ahead left locked door" in seen.text
    assert "right yellow key" in seen.text
    place.step("right")
    assert "Carrying yellow key." in place.step("take").observation.text
    assert "ahead yellow key" in place.step("drop").observation.text


def test_hands_are_offered_where_asked_for() -> None:
    assert world().actions == ("left", "right", "forward")
    assert world(hands=True).actions == ("left", "right", "forward", "take", "drop", "open")
    with pytest.raises(UsageError, match=r"settings\.hands: got 1"):
        world(hands=1)
