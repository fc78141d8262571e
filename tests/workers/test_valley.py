"""The trail of escape-the-valley: played by the real game."""

import logging
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from telemetry.failures import UsageError
from telemetry.models import resolve
from telemetry.records import EndReason
from workers.conformance import life
from workers.environments.valley import LETTERS, WINTER, WORK, Valley
from workers.guard import Guard
from workers.reference import play, random_policy, reference
from workers.registry import make

pytest.importorskip("escape_the_valley")
NAME = "workers.environments.valley:Valley"
ROOT = Path(__file__).parents[2]


def valley(**dials: object) -> Valley:
    world = make(NAME, dials)
    assert isinstance(world, Valley)
    return world


def test_a_skilled_leader_lives_twice_as_long_as_random_play() -> None:
    world = valley()
    steps = {who: sum(one.steps for one in reference(world, who, range(12))) / 12 for who in ("random", "heuristic")}
    assert steps["heuristic"] > 2 * steps["random"]


def test_standing_still_is_death_with_and_without_winter() -> None:
    for dials, causes in (({}, {WINTER}), ({"winter": 0, "horizon": 400}, {"starvation", "dehydration"})):
        world = valley(**dials)
        for seed in range(4):
            died = play(world, seed, lambda seen: next(one for one in ("rest", "travel", "A") if one in seen.legal))
            assert died.end is EndReason.DIED
            assert died.energy == 0
            assert died.cause in causes


def test_every_move_that_is_offered_changes_the_journey() -> None:
    world = valley(winter=0, horizon=300)
    said = set()
    for seed in range(8):
        guard, policy = Guard(world), random_policy(seed)
        seen, before = guard.reset(seed), ""
        for step in range(world.horizon):
            word = policy(seen)
            outcome = guard.step(step, word)
            after = re.sub(r'"step":\d+', "", guard.state(step))
            assert after != before
            said.add(word)
            seen, before = outcome.observation, after
            if outcome.end is not None:
                break
    assert said >= {"travel", "rest", "hunt", "fix", "save", "A", "B", "C"}


def test_a_copied_engine_plays_as_one_of_its_own() -> None:
    from escape_the_valley.gm import GMConfig
    from escape_the_valley.step_engine import StepEngine
    from escape_the_valley.worldgen import create_new_run

    from workers.environments.valley_settings import ValleySettings
    from workers.environments.valley_trail import Trail, _outfit

    settings = ValleySettings()
    trail = Trail(5, settings)
    engine = StepEngine(_outfit(create_new_run(seed=5), settings), GMConfig(enabled=False), autosave=False)
    policy = random.Random(5)
    for _ in range(40):
        moves = trail.moves()
        word = policy.choice(sorted(moves))
        engine.step(moves[word])
        trail.move(word)
        assert trail.run.supplies == engine.state.supplies
        assert trail.run.party == engine.state.party
        assert trail.run.distance_traveled == engine.state.distance_traveled


def test_the_game_leaves_the_global_generator_and_the_log_alone(caplog: pytest.LogCaptureFixture) -> None:
    random.seed(1)
    expected = random.Random(1).random()
    with caplog.at_level(logging.DEBUG):
        for seed in range(3):
            list(life(valley(), seed))
    assert random.random() == expected
    assert not [record for record in caplog.records if record.name.startswith("escape_the_valley")]


def test_the_end_of_the_trail_is_survival() -> None:
    world = valley(horizon=1000, food=200, water=200, health=100, parts=10, winter=0)
    ends = [play(world, seed, lambda seen: seen.legal[0]) for seed in range(12)]
    arrived = [one for one in ends if '"arrived":true' in one.result]
    assert arrived
    assert all(one.end is EndReason.SURVIVED and one.energy > 0 and one.steps < 1000 for one in arrived)


def test_a_recorded_state_can_be_drawn() -> None:
    world = valley()
    world.reset(3)
    world.step("travel")
    drawn = Valley.draw(world.state())
    assert "winter 17 behind" in drawn
    assert "wagon 80" in drawn


def test_without_the_game_the_world_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.environments.extras.find_spec", lambda package: None)
    with pytest.raises(UsageError, match=r"escape_the_valley is not installed; pip install 'forager\[valley\]'"):
        make(NAME, {})


def test_the_command_line_does_not_import_the_game() -> None:
    code = "import sys, orchestrator.cli, workers.environments.valley; print('escape_the_valley' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_the_founding_strategies_are_documented_and_short() -> None:
    run = yaml.safe_load((ROOT / "deploy" / "runs" / "valley.yaml").read_text())
    strategies = re.findall(r"^\| \w+ \| ([A-Z].+?\.) \|", (ROOT / "docs" / "worlds" / "valley.md").read_text(), re.M)
    assert {founder["strategy"] for founder in run["population"]["founders"]} < set(strategies)
    assert len(strategies) >= 8
    assert max(len(text.split()) for text in strategies) <= 12


@pytest.mark.real
def test_prompts_are_short_and_words_differ_in_their_first_token() -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(resolve("smollm2-135m-instruct") / "tokenizer.json"))

    def tokens(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    assert len({tokens(word)[0] for word in WORK + LETTERS}) == len(WORK + LETTERS)
    texts: list[str] = []
    for seed in range(10):
        policy = random_policy(seed)
        play(valley(winter=0), seed, lambda seen, policy=policy: texts.append(seen.text) or policy(seen))  # type: ignore[misc]
    assert max(len(tokens(text)) for text in texts) <= 90
