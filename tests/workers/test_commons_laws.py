"""The commons: the same seed is the same instance, every unit is accounted for, texts are true, figures are right."""

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from time import process_time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.state import fold
from telemetry import models
from telemetry.failures import UsageError
from telemetry.journal import Journal
from telemetry.ledger import Ledger
from telemetry.records import EndReason, Genome, Hyperparameters, Individual
from telemetry.store import open_store
from tests.forager import SMOKE
from tests.inprocess import forager_here
from tests.workers.commons import DIALS, commons, moved, placed, store
from workers.config import ScriptedEngineConfig
from workers.engine import Completion, CompletionRequest, ModelDescription
from workers.engines.scripted import CARD, ScriptedEngine
from workers.environment import Observation, SharedEnvironment
from workers.environments.commons import Commons, greedy
from workers.environments.commons_report import gini, report
from workers.environments.commons_rules import ACTIONS, GOODS, IDLE, growth
from workers.environments.commons_text import VOICES, Other, View, parse, render
from workers.guard import SharedGuard
from workers.life import live_together
from workers.prompt import Codec
from workers.recorder import LifeRecord, LifeTask
from workers.reference import random_policy
from workers.registry import find, make

# --- the same seed is the same world, and the order of moves is no part of it ---


def trace(world: Commons, seed: int, seats: int, draws: Any, *, backwards: bool = False) -> list[Any]:
    """Everything that an instance shows and records under actions that `draws` picks; illegal ones among them."""
    guard = SharedGuard(world)
    living = dict(enumerate(guard.reset(seed, seats)))
    told: list[Any] = list(living.values())
    for turn in range(world.horizon):
        actions = {seat: ACTIONS[draws(turn, seat) % len(ACTIONS)] for seat in living}
        outcome = guard.step(turn, dict(reversed(actions.items())) if backwards else actions)
        told += [outcome.outcomes, outcome.born, [guard.state(turn, seat) for seat in actions]]
        told += [guard.result(seat) for seat in actions]
        living = {seat: one.observation for seat, one in outcome.outcomes.items() if one.end is None}
        living |= {seat: birth.observation for seat, birth in outcome.born.items()}
        if not living:
            break
    return told


dials = st.fixed_dictionaries(
    {
        "horizon": st.integers(1, 12),
        "crowding": st.integers(1, 8),
        "capacity": st.integers(2, 60),
        "regrowth": st.integers(0, 100),
        "hold": st.integers(14, 60),
        "handful": st.integers(1, 20),
        "gift": st.integers(1, 20),
        "loot": st.integers(1, 20),
        "birth": st.integers(1, 8),
        "dowry": st.just(1),
        "room": st.integers(1, 4),
    }
)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**63 - 1), seats=st.integers(1, 20), play=st.integers(0, 2**64), dials=dials)
def test_an_instance_is_a_pure_function_of_seed_and_moves_and_keeps_its_contract(
    seed: int, seats: int, play: int, dials: dict[str, int]
) -> None:
    def draws(turn: int, seat: int) -> int:
        return hash((play, turn, seat))

    used = commons(**dials)
    first = trace(used, seed, seats, draws)
    assert trace(used, seed, seats, draws) == first
    assert trace(commons(**dials), seed, seats, draws, backwards=True) == first


@settings(max_examples=40, deadline=None)
@given(
    places=st.lists(st.tuples(st.integers(0, 3), st.integers(4, 30), st.integers(4, 30)), min_size=1, max_size=4),
    words=st.lists(st.sampled_from(ACTIONS), min_size=4, max_size=4),
    order=st.permutations(range(4)),
)
def test_seats_are_names_only_where_no_lot_is_drawn(places: Any, words: list[str], order: list[int]) -> None:
    """Agents that swap seats swap fates; at most two a patch and plenty for all, so that nothing is left to chance."""
    places = [place for index, place in enumerate(places) if [one[0] for one in places[:index]].count(place[0]) < 2]
    seats = [seat for seat in order if seat < len(places)]

    def fates(arranged: list[int]) -> list[Any]:
        world = placed(*(places[who] for who in arranged), room=9)
        turn = moved(world, *(words[who] for who in arranged))
        born = {birth.parent for birth in turn.born.values()}
        found = {
            who: (store(world, seat), turn.outcomes[seat].end, turn.outcomes[seat].cause, seat in born)
            for seat, who in enumerate(arranged)
        }
        return [found[who] for who in range(len(places))]

    assert fates(seats) == fates(list(range(len(places))))


def instance() -> str:
    """Everything that one played instance shows and hides."""
    world, told = commons(), []
    living = dict(enumerate(world.reset(2**62 + 5, 9)))
    while living:
        words = {seat: seen.legal[(seat * 7 + len(seen.text)) % len(seen.legal)] for seat, seen in living.items()}
        turn = world.step(words)
        told.append(f"{turn} {[world.state(seat) for seat in living]}")
        living = {seat: one.observation for seat, one in turn.outcomes.items() if one.end is None}
        living |= {seat: birth.observation for seat, birth in turn.born.items()}
    return "\n".join(told)


def test_another_process_gives_the_same_instance() -> None:
    elsewhere = subprocess.run(
        [sys.executable, "-c", "from tests.workers.test_commons_laws import instance; print(instance())"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert elsewhere.stdout == f"{instance()}\n"
    assert len(elsewhere.stdout) > 10_000


def test_seeds_make_different_worlds() -> None:
    world, starts = commons(), set()
    for seed in range(50):
        world.reset(seed, 5)
        starts.add(json.dumps(world.state(0)))
    assert len(starts) == 50


# --- the books balance ---


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), play=st.integers(0, 2**32))
def test_every_unit_is_accounted_for(seed: int, play: int) -> None:
    """Units change hands, are gathered from the ground, burnt, or spent on birth; the ground grows by the table."""
    world, grows = commons(start=20, birth=6, dowry=5), growth(DIALS.capacity, DIALS.regrowth)
    living = dict(enumerate(world.reset(seed, 8)))
    before = {seat: world.state(seat) for seat in living}
    ground = world._now.ground[:]
    for turn in range(12):
        policy = random_policy(play + turn)
        actions = {seat: policy(observation) for seat, observation in living.items()}
        where = {seat: world.state(seat)["patch"] for seat in living}
        outcome = world.step(actions)
        now = {seat: world.state(seat) for seat in actions}
        parents = {birth.parent for birth in outcome.born.values()}
        gathered = {seat: now[seat]["gathered"] - before[seat]["gathered"] for seat in actions}
        taken = Counter[int]()
        for seat, units in gathered.items():
            assert units == 0 or actions[seat] == "gather"
            taken[where[seat]] += units
        left = [stock - taken[patch] for patch, stock in enumerate(ground)]
        assert min(left) >= 0
        ground = world.state(min(actions))["ground"][:]
        assert ground == [stock + grows[stock] for stock in left]
        for index, good in enumerate(GOODS):
            income = sum(units for patch, units in taken.items() if patch % 2 == index)
            spent = sum(1 if word in IDLE else 2 for word in actions.values()) + 6 * len(parents)
            change = sum(now[seat][good] for seat in actions) - sum(before[seat][good] for seat in actions)
            # Who dies cannot pay in full: what is missing is at most one turn's cost each.
            unpaid = change - (income - spent)
            dead = sum(one.end is not None for one in outcome.outcomes.values())
            assert 0 <= unpaid <= 2 * dead
        living = {seat: one.observation for seat, one in outcome.outcomes.items() if one.end is None}
        living |= {seat: birth.observation for seat, birth in outcome.born.items()}
        assert all(world.state(seat)["fruit"] == 5 for seat in outcome.born)
        before = {seat: world.state(seat) for seat in living}
        if not living:
            break


# --- what is seen ---


words = st.sampled_from(VOICES)
units = st.integers(0, 1000)
others = st.none() | st.builds(Other, st.booleans(), units, units, st.sampled_from(ACTIONS))
goods = st.sampled_from(GOODS)
views = st.builds(View, words, words, others, units, units, goods, units, units, goods, units, st.booleans())


@settings(deadline=None)
@given(view=views)
def test_text_and_view_say_the_same(view: View) -> None:
    text = render(view)
    assert parse(text) == view
    assert len(text) < 260
    for legal in (ACTIONS, ("left", "right", "rest", "call", "warn")):
        assert Commons.heuristic(Observation(text, legal, 1.0)) in legal
        assert greedy(Observation(text, legal, 1.0)) in legal


@pytest.mark.parametrize(
    "text", ["", "Energy 5.", render(View(*["nothing"] * 2, None, 1, 1, "fruit", 1, 1, "fruit", 1, False)) + " Rob."]
)
def test_a_foreign_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an observation"):
        parse(text)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), seats=st.integers(1, 12))
def test_the_text_tells_what_the_state_holds(seed: int, seats: int) -> None:
    world = commons()
    living = dict(enumerate(world.reset(seed, seats)))
    while living:
        shared = world.state(world._now.teller)
        agents = {one[0]: one for one in shared["agents"]}
        for seat, observation in living.items():
            view, (_, patch, fruit, roots, _, _) = parse(observation.text), agents[seat]
            assert (view.fruit, view.roots, observation.energy) == (fruit, roots, min(fruit, roots))
            assert (view.stock, view.crop) == (shared["ground"][patch], GOODS[patch % 2])
            assert view.crowd == sum(one[1] == patch for one in agents.values())
            beside = [one[2:5] for other, one in agents.items() if other != seat and one[1] == patch]
            assert (view.other is None and len(beside) % 2 == 0) or list(view.other[1:]) in beside  # type: ignore[index]
        outcome = world.step({seat: Commons.heuristic(observation) for seat, observation in living.items()})
        living = {seat: one.observation for seat, one in outcome.outcomes.items() if one.end is None}
        living |= {seat: birth.observation for seat, birth in outcome.born.items()}


def test_only_the_lowest_seat_records_the_map_and_the_others_stay_small() -> None:
    world = placed((0, 1, 9), *[(seat % 50, 20, 20) for seat in range(199)])
    turn = moved(world, *["rest"] * 200)
    assert turn.outcomes[0].end is EndReason.DIED
    states = [json.dumps(world.state(seat)) for seat in range(200)]
    assert ["ground" in state for state in states] == [True, *[False] * 199]
    assert max(map(len, states[1:])) < 120
    assert len(states[0]) < 12_000
    moved(world, *["rest"] * 199)
    assert "ground" in world.state(1)


def test_a_turn_of_two_hundred_costs_no_more_per_agent_than_one_of_ten() -> None:
    def cost(seats: int) -> float:
        """Seconds of processor time per agent and turn of an instance in which nobody dies."""
        guard = SharedGuard(commons(start=1000, hold=1000, birth=1000, horizon=20))
        living = dict(enumerate(guard.reset(1, seats)))
        policies = {seat: random_policy(seat) for seat in range(seats)}
        steps, spent = 0, 0.0
        for turn in range(20):
            actions = {seat: policies[seat](observation) for seat, observation in living.items()}
            start = process_time()
            outcome = guard.step(turn, actions)
            for seat in actions:
                guard.state(turn, seat)
            spent, steps = spent + process_time() - start, steps + len(actions)
            living = {seat: one.observation for seat, one in outcome.outcomes.items()}
        assert steps == 20 * seats
        return spent / steps

    assert min(cost(200) for _ in range(2)) <= 1.5 * min(cost(10) for _ in range(5))


def test_draw_shows_what_the_state_holds() -> None:
    world = placed((0, 11, 9), (0, 8, 8), (3, 7, 7), ground=[40, 0, 21, 1])
    moved(world, "rest", "call", "gather")
    assert Commons.draw(json.loads(json.dumps(world.state(0)))).splitlines() == [
        "turn 1  seat 0 on patch 0  fruit 10  roots 8  rest",
        "  0 fruit  40 #################### 0(10/8 rest) 1(7/7 call)",
        "  1 roots   0 ....................",
        "  2 fruit  26 #############.......",
        "  3 roots   0 .................... 2(5/6 gather)",
    ]
    assert Commons.draw(world.state(2)) == "turn 1  seat 2 on patch 3  fruit 5  roots 6  gather"


# --- figures ---


def outcome_of(instance: int, energy: int, **counts: int) -> dict[str, int]:
    return {"instance": instance, "energy": energy, "descendants": 0, "gifts": 0, "thefts": 0, "trades": 0, **counts}


def test_gini_is_known_where_it_is_known() -> None:
    assert gini([5, 5, 5, 5]) == pytest.approx(0)
    assert gini([0, 0, 0, 8]) == pytest.approx(0.75)
    assert gini([1, 2, 3]) == pytest.approx(2 / 9)
    assert gini([0, 0]) is None


def test_report_counts_per_life_and_resamples_instances() -> None:
    lives = [outcome_of(i, energy=i % 2 * 4 * seat, gifts=3, thefts=i % 2) for i in range(40) for seat in range(2)]
    found = report(lives)
    assert found["gifts"] == (3, 3, 3)
    assert found["descendants"] == (0, 0, 0)
    value, low, high = found["thefts"]
    assert value == 0.5
    # 40 instances, each all or nothing: the standard error is 0.079, where 80 independent lives would give 0.056.
    assert 0.13 < value - low < 0.18
    assert 0.13 < high - value < 0.18
    assert found["energy gini"] == (0.5, 0.5, 0.5)
    assert report(lives) == found


def test_report_says_nothing_of_what_it_cannot_know() -> None:
    assert report([]) == {}
    assert report([outcome_of(1, 5), outcome_of(1, 7)]) == {}
    assert "energy gini" not in report([outcome_of(1, 0), outcome_of(2, 0)])


# --- how the world is found, set and lived in ---


def test_the_world_is_found_and_made() -> None:
    name = "workers.environments.commons:Commons"
    world: object = find(name)
    assert world is Commons
    assert isinstance(make(name, {}), SharedEnvironment)


@pytest.mark.parametrize(
    ("changes", "dial"),
    [
        ({"hold": 10}, "start"),
        ({"burn": 15}, "burn"),
        ({"idle": 3}, "idle"),
        ({"dowry": 11}, "dowry"),
        ({"regrowth": 101}, "regrowth"),
        ({"wolves": 2}, "wolves"),
    ],
)
def test_bad_dials_are_named(changes: dict[str, Any], dial: str) -> None:
    with pytest.raises(UsageError, match=rf"^environment\.settings\.{dial}: got "):
        make("workers.environments.commons:Commons", changes)


def test_lives_of_a_party_are_recorded_with_their_descendants(tmp_path: Path) -> None:
    """The real loop, codec and scripted engine: who is born acts, and is recorded under its parent's individual."""
    engine = ScriptedEngine(ScriptedEngineConfig(), lambda adapter: tmp_path / adapter)

    async def ask(request: CompletionRequest) -> Completion:
        return (await engine.complete([request]))[0]

    async def lived() -> list[LifeRecord]:
        codec = Codec(await engine.describe())
        numbers = Hyperparameters(temperature=1.0, epsilon=0.5, learning_rate=0.001)
        people = [
            Individual(
                id=f"g000-00{seat}",
                generation=0,
                lineage=f"l{seat}",
                genome=Genome(strategy="Live.", adapter=None, hyperparameters=numbers),
            )
            for seat in range(4)
        ]
        tasks = [LifeTask(one, 3, 77, "try") for one in people]
        world = commons(start=20, birth=2, dowry=2, room=5)
        return await live_together(tasks, world, codec, ask, run_seed=1)

    records = asyncio.run(lived())
    assert [record.seat for record in records] == list(range(len(records)))
    born = records[4:]
    assert born
    assert all(record.parent_seat is not None and record.action for record in born)
    for record in records:
        children = [one for one in born if one.parent_seat == record.seat]
        assert json.loads(record.result)["children"] == len(children)
        assert all(one.task.individual == record.task.individual for one in children)
        assert json.loads(record.result)["turns"] == len(record.action)
        assert all("ground" in json.loads(state) for state in record.state) == (record.seat == 0)


def test_a_whole_run_of_the_commons_lives_bears_reports_and_can_be_lived_again(tmp_path: Path) -> None:
    dials = "{horizon: 15, start: 20, birth: 4, dowry: 4}"
    settings = [
        "name=shared",
        "generations=2",
        "population.lives=3",
        "environment.name=workers.environments.commons:Commons",
        f"environment.settings={dials}",
        "fitness={kind: result, field: score}",
        "evaluation.lives=2",
        "ray.executor=inprocess",
    ]
    result = forager_here("run", SMOKE, "--store", tmp_path, *(part for one in settings for part in ("--set", one)))
    assert result.code == 0, result
    assert "descendants" in result.out
    assert "greedy" in result.out
    checked = forager_here("replay", tmp_path / "shared", "--check")
    assert checked.code == 0, checked
    assert "6 instances lived again" in checked.out
    assert forager_here("audit", tmp_path / "shared").code == 0
    store = open_store(tmp_path / "shared")
    state = fold(Journal(store).read())
    lives = Ledger(store).recall("lives", 1, state.vouched(1), state.attempts(1)).to_pylist()
    born = [life for life in lives if life["parent_seat"] is not None]
    assert born
    assert len(lives) == 4 * 3 + len(born)


@pytest.mark.real
def test_prompts_are_short_and_actions_begin_differently_for_the_small_model() -> None:
    tokenizer = models.resolve("smollm2-135m-instruct") / "tokenizer.json"
    codec = Codec(ModelDescription(CARD, str(tokenizer), (), (), (), 512, 1))
    ids = codec.choices(ACTIONS)
    assert [codec.decode([token]) for token in ids] == list(ACTIONS)
    longest = View(VOICES[3], VOICES[3], Other(False, 28, 28, "gather"), 28, 28, "fruit", 38, 40, "fruit", 12, True)
    assert len(codec.prompt(Commons.rules, render(longest))) < 180
