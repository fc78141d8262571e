"""Games of TextArena as a world: played by the real library."""

import random
import subprocess
import sys

import numpy as np
import pytest

from telemetry.failures import UsageError
from telemetry.records import EndReason
from workers.conformance import check_determinism, check_separation, life
from workers.environments.textarena_world import TextArena
from workers.guard import EnvironmentFailure, Guard
from workers.reference import reference
from workers.registry import make, maker

pytest.importorskip("textarena")
NAME = "workers.environments.textarena_world:TextArena"
CHOICES = ("FrozenLake-v0-random", "2048-v0-ultra-easy", "Bandit-v0", "Blackjack-v0", "Secretary-v0", "Sokoban-v0")
FREE = ("GuessTheNumber-v0", "Mastermind-v0", "LightsOut-v0", "Minesweeper-v0-small")


def arena(**dials: object) -> TextArena:
    world = make(NAME, dials)
    assert isinstance(world, TextArena)
    return world


@pytest.mark.parametrize("game", CHOICES[:3])
def test_lives_are_determined_and_apart(game: str) -> None:
    build = maker(NAME, {"id": game, "horizon": 12})
    verdicts = [*check_determinism(build), *check_separation(build)]
    assert {one.level for one in verdicts} == {"ok"}, verdicts


@pytest.mark.parametrize("game", CHOICES + FREE)
def test_games_that_work_offline_keep_the_contract(game: str) -> None:
    assert len(list(life(arena(id=game, horizon=8), 1))) > 3


def test_a_life_leaves_the_global_generators_and_the_terminal_alone(capsys: pytest.CaptureFixture[str]) -> None:
    random.seed(3)
    np.random.seed(3)
    list(life(arena(), 1))
    found = random.random(), float(np.random.random())
    random.seed(3)
    np.random.seed(3)
    assert found == (random.random(), float(np.random.random()))
    assert capsys.readouterr() == ("", "")


def test_who_sees_the_way_over_the_ice_lives_longer() -> None:
    world = arena()
    steps = {who: sum(one.steps for one in reference(world, who, range(10))) for who in ("random", "heuristic")}
    assert steps["heuristic"] > 1.5 * steps["random"]


def test_a_game_won_is_a_meal_and_the_next_one_begins() -> None:
    world = arena(meal=6, upkeep=1)
    guard, seen = Guard(world), world.reset(1)
    for step in range(world.horizon):
        before, won = seen.energy, world.result()["score"]
        outcome = guard.step(step, world.references["heuristic"](seen))
        gain = 6 if world.result()["score"] > won else 0
        assert outcome.observation.energy == min(20, before + gain - 1)
        seen = outcome.observation
        if outcome.end is not None:
            break
    assert world.result()["score"] > 2


def test_a_hole_or_a_refused_move_can_be_death() -> None:
    lost = reference(arena(fatal_loss=True), "random", range(20))
    assert "lost" in {one.cause for one in lost}
    world = arena(id="GuessTheNumber-v0", fatal_invalid=True)
    world.reset(1)
    outcome = world.step("a word")
    assert (outcome.end, outcome.cause, outcome.observation.energy) == (EndReason.DIED, "invalid", 0.0)


def test_free_text_is_put_into_brackets() -> None:
    world = arena(id="GuessTheNumber-v0", prompt=True, history=1)
    seen = world.reset(1)
    assert (seen.legal, seen.max_tokens) == ((), 12)
    assert "guess" in seen.text.lower()
    first = world.step("10").observation.text
    world.reset(1)
    assert world.step("[10]").observation.text == first


def test_texts_are_bounded_and_only_so_much_history_is_shown() -> None:
    world = arena(id="Blackjack-v0", history=50, max_chars=200)
    guard = Guard(world)
    guard.reset(1)
    assert all(len(guard.step(step, "stand").observation.text) < 220 for step in range(9))


def test_what_cannot_be_played_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EnvironmentFailure, match="TextArena has no game 'Chess-v9'"):
        Guard(arena(id="Chess-v9")).reset(1)
    monkeypatch.setattr("workers.environments.extras.find_spec", lambda package: None)
    with pytest.raises(UsageError, match=r"pip install 'forager\[textarena\]'"):
        make(NAME, {})


def test_the_command_line_does_not_import_textarena() -> None:
    code = "import sys, orchestrator.cli, workers.environments.textarena_world; print('textarena' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
