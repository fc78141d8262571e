"""Replay: the right life, every step in order, and nothing of an agent's text that a terminal would obey."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.replay import clean, find_life, print_life, recall, render
from orchestrator.run import champion
from orchestrator.state import RunState, fold
from telemetry.failures import UsageError
from telemetry.journal import Journal
from telemetry.ledger import Ledger
from telemetry.records import LifeKey
from telemetry.seeds import world_seed
from tests.orchestrator.forgery import forge, replace
from tests.orchestrator.small_run import state_at
from workers.registry import make


@pytest.fixture(scope="module")
def state(finished: Path) -> RunState:
    return state_at(finished)[1]


def test_lives_are_found_by_individual_or_as_the_champions(state: RunState) -> None:
    best = champion(state)
    assert find_life(state, "g001-002/1") == LifeKey(1, "g001-002", 1)
    assert find_life(state, "champion") == LifeKey(2, best.id, 0)
    assert find_life(state, "champion/2") == LifeKey(2, best.id, 2)
    assert find_life(state, "g000-003") == LifeKey(0, "g000-003", 0)


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ("nobody", "life: got 'nobody', expected INDIVIDUAL/LIFE such as g002-001/5, or champion/5"),
        ("champion/-1", "life: got 'champion/-1', expected INDIVIDUAL/LIFE such as g002-001/5, or champion/5"),
        ("g000-000/1/2", "life: got 'g000-000/1/2', expected INDIVIDUAL/LIFE such as g002-001/5, or champion/5"),
        ("\x1b[31m", "life: got '[31m', expected INDIVIDUAL/LIFE such as g002-001/5, or champion/5"),
        ("g009-000/0", "life: no individual g009-000 in this run; `forager lineage` lists them"),
        ("g000-001/3", "life: g000-001 has no committed life 3; it has 3, counted from 0"),
    ],
)
def test_lives_that_are_not_there(state: RunState, spec: str, line: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_life(state, spec)
    assert str(caught.value) == line


def test_there_is_no_champion_before_the_first_generation_is_over(finished: Path) -> None:
    entries = Journal(state_at(finished)[0]).read()
    with pytest.raises(UsageError, match=r"^life: there is no champion before the first generation is over"):
        find_life(fold(entries[:3]), "champion")


def test_frames_are_the_steps_of_that_life_lived_again(finished: Path, state: RunState) -> None:
    """The recorded actions, played in a fresh world of the same seed, meet the recorded observations and states."""
    key = LifeKey(1, "g001-001", 2)
    life = recall(state, Ledger(state_at(finished)[0]), key)
    assert [frame.step for frame in life.frames] == list(range(life.steps))
    assert (life.individual, life.life, life.world_seed) == ("g001-001", 2, world_seed(5, 1, 2))
    world = make("forage", {"horizon": 12, "start_energy": 6})
    observation = world.reset(life.world_seed)
    for frame in life.frames:
        assert (frame.observation, frame.energy_before) == (observation.text, observation.energy)
        outcome = world.step(frame.action)
        assert (frame.energy, frame.state) == (outcome.observation.energy, world.state())
        assert 0 < frame.probability <= 1
        observation = outcome.observation
    assert (life.end, life.cause) == (outcome.end, outcome.cause)


def test_text_shows_every_step_with_and_without_pictures(finished: Path, state: RunState) -> None:
    life = recall(state, Ledger(state_at(finished)[0]), find_life(state, "champion/1"))
    plain = list(render(life))
    assert plain[0].startswith(f"{champion(state).id}/1  lineage {champion(state).lineage}  forage-v1  ")
    assert sum(text.startswith("\nstep ") for text in plain) == life.steps
    assert f"saw: {life.frames[0].observation}" in plain
    assert plain[-1].startswith(
        f"\n{'died (' + life.cause + ')' if life.cause else 'survived'} after {life.steps} steps"
    )
    drawn = list(render(life, lambda recorded: f"map of step {recorded['step']}\n"))
    assert [text for text in drawn if text.startswith("map")] == [f"map of step {n + 1}" for n in range(life.steps)]


def test_printed_text_holds_the_worlds_own_map(
    finished: Path, state: RunState, capsys: pytest.CaptureFixture[str]
) -> None:
    print_life(state_at(finished)[0], state, "champion/0")
    shown = capsys.readouterr().out
    assert "\nstep 0  " in shown
    assert "@" in shown


def test_printed_json_is_one_object_per_step(
    finished: Path, state: RunState, capsys: pytest.CaptureFixture[str]
) -> None:
    print_life(state_at(finished)[0], state, "g002-003/1", as_json=True)
    frames = json.loads(capsys.readouterr().out)
    assert [frame["step"] for frame in frames] == list(range(len(frames)))
    assert set(frames[0]) == {
        "step", "observation", "action", "probability", "explored", "energy_before", "energy", "state",
    }  # fmt: skip


NASTY = "\x1b[2J\x1b]0;pwned\x07\rwolf\u202egnp.\u2066\x9b31m\ud800\x00 end"


def test_control_characters_never_reach_the_terminal(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nasty = NASTY.replace("\ud800", "")
    store = forge(
        finished,
        tmp_path / "forged",
        rows=lambda name, rows: replace(rows, "observation", [nasty] * len(rows)) if name == "steps" else rows,
    )
    print_life(store, fold(Journal(store).read()), "champion/0")
    shown = capsys.readouterr().out
    assert "saw: [2J]0;pwnedwolfgnp.31m end\n" in shown
    assert all(character == "\n" or character.isprintable() for character in shown)


@given(st.text(st.characters()) | st.just(NASTY))
def test_clean_text_is_printable_and_keeps_its_lines(text: str) -> None:
    cleaned = clean(text)
    assert cleaned.count("\n") == text.count("\n")
    assert clean(cleaned) == cleaned
    assert all(one == "\n" or one.isprintable() or one in "\u2028\u2029" or one.isspace() for one in cleaned)
