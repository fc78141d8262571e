"""The foraging world: honest, reproducible, deadly to careless play and kind to sensible play."""

import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from statistics import mean
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.failures import UsageError
from telemetry.records import EndReason
from telemetry.seeds import held_out_world_seed, world_seed
from workers.environment import Environment, Observation, Policy
from workers.environments.forage import Forage
from workers.environments.forage_land import (
    DIRECTIONS,
    THICKET,
    Land,
    draw,
    lay_out,
    lay_out_unseen,
    offset,
    towards,
)
from workers.environments.forage_settings import ForageSettings
from workers.environments.forage_text import View, parse, render
from workers.reference import Played, play, random_policy
from workers.registry import find, make

SEEDS = range(500)
ACTIONS = Forage.actions
action_lists = st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=60)


def forage(**settings: Any) -> Forage:
    return Forage(ForageSettings(**settings))


def eats(seed: int) -> Policy:
    draws = random.Random(seed)
    return lambda observation: "eat" if parse(observation.text).here == "berries" else draws.choice(ACTIONS)


def eats_and_walks(seed: int) -> Policy:
    draws = random.Random(seed)

    def choose(observation: Observation) -> str:
        view = parse(observation.text)
        if view.here == "berries":
            return "eat"
        return towards(view.food)[0] if view.food else draws.choice(tuple(DIRECTIONS))

    return choose


def always(action: str) -> Callable[[int], Policy]:
    return lambda seed: lambda observation: action


PLAYERS: dict[str, Callable[[int], Policy]] = {
    "random": random_policy,
    "eats": eats,
    "eats and walks": eats_and_walks,
    "heuristic": lambda seed: Forage.heuristic,
    **{action: always(action) for action in ACTIONS},
}


@cache
def lives(player: str) -> tuple[Played, ...]:
    world = forage()
    return tuple(play(world, seed, PLAYERS[player](seed)) for seed in SEEDS)


def mean_life(player: str) -> float:
    return mean(life.steps for life in lives(player))


# --- how long lives last ---


def test_random_play_dies_early_and_the_heuristic_lives_at_least_four_times_as_long() -> None:
    assert mean_life("random") < forage().horizon / 4
    assert mean_life("heuristic") >= 4 * mean_life("random")


@pytest.mark.parametrize("action", ACTIONS)
def test_playing_one_action_always_is_no_way_to_live(action: str) -> None:
    assert mean_life(action) <= 1.3 * mean_life("random")


def test_every_skill_adds_life() -> None:
    assert mean_life("eats") >= 1.2 * mean_life("random")
    assert mean_life("eats and walks") >= 2 * mean_life("eats")
    assert mean_life("eats and walks") >= 0.6 * mean_life("heuristic")
    assert mean_life("heuristic") >= 1.1 * mean_life("eats and walks")


def test_random_play_dies_of_hunger_mostly_and_of_wolf_and_cold_visibly() -> None:
    causes = Counter(life.cause for life in lives("random") if life.end is EndReason.DIED)
    share = {cause: count / len(lives("random")) for cause, count in causes.items()}
    assert set(share) <= {"starved", "frozen", "exhausted", "predator"}
    assert share["starved"] > 0.5
    assert share["predator"] > 0.05
    assert share["frozen"] > 0.05


# --- the same seed is the same world ---


def trace(world: Forage, seed: int, actions: list[str]) -> list[Any]:
    seen: list[Any] = [world.reset(seed), world.state()]
    for action in actions:
        outcome = world.step(action)
        seen += [outcome, world.state()]
        if outcome.end:
            break
    return seen


@given(seed=st.integers(0, 2**63 - 1), actions=action_lists)
def test_a_life_is_a_pure_function_of_seed_and_actions(seed: int, actions: list[str]) -> None:
    used = forage()
    trace(used, seed ^ 1, actions)
    assert trace(used, seed, actions) == trace(forage(), seed, actions)


def test_seeds_make_different_worlds() -> None:
    world, starts = forage(), set()
    for index in range(50):
        for seed in (world_seed(7, 0, index), held_out_world_seed(index)):
            world.reset(seed)
            starts.add(json.dumps(world.state()))
    assert len(starts) == 100


@given(seed=st.integers(0, 2**32), one=action_lists, other=action_lists)
def test_actions_do_not_change_the_weather(seed: int, one: list[str], other: list[str]) -> None:
    def sky(actions: list[str]) -> list[str]:
        return [state["weather"] for state in trace(forage(), seed, actions)[1::2]]

    assert all(left == right for left, right in zip(sky(one), sky(other), strict=False))


# --- what is observed is true, and what is in sight is observed ---


def check_view(world: Forage, observation: Observation) -> None:
    state, view = world.state(), parse(observation.text)
    size, agent = len(state["terrain"]), tuple(state["agent"])
    sight = 2 if state["weather"] == "rain" else 3

    def steps(cell: list[int]) -> int:
        return sum(min(abs(a - b), size - abs(a - b)) for a, b in zip(agent, cell, strict=False))

    ripe = [bush for bush in state["bushes"] if bush[2] == 0 and 0 < steps(bush) <= sight]
    assert (view.food is not None) == bool(ripe)
    if view.food:
        target = [(agent[0] + view.food[0]) % size, (agent[1] + view.food[1]) % size]
        assert [*target, 0] in ripe
        assert steps(target) == min(map(steps, ripe))
    assert (view.wolf is not None) == (steps(state["wolf"]) <= sight)
    if view.wolf:
        assert [(agent[0] + view.wolf[0]) % size, (agent[1] + view.wolf[1]) % size] == state["wolf"]
    bush = next((bush for bush in state["bushes"] if tuple(bush[:2]) == agent), None)
    ground = {".": "plain", "^": "thicket", "~": "marsh"}[state["terrain"][agent[1]][agent[0]]]
    assert view.here == (ground if bush is None else "bare bush" if bush[2] else "berries")
    assert (view.weather, view.energy) == (state["weather"], state["energy"])
    assert observation.energy == state["energy"]
    assert observation.legal == world.actions


@given(seed=st.integers(0, 2**32), actions=action_lists)
def test_the_text_tells_what_the_state_holds(seed: int, actions: list[str]) -> None:
    world = forage(start_energy=20)
    check_view(world, world.reset(seed))
    for action in actions:
        outcome = world.step(action)
        check_view(world, outcome.observation)
        if outcome.end:
            break


ways = st.none() | st.tuples(st.integers(-32, 32), st.integers(-32, 32))


@given(
    weather=st.sampled_from(["clear", "rain", "frost"]),
    energy=st.integers(0, 1000),
    wolf=ways,
    food=ways,
    here=st.sampled_from(["berries", "bare bush", "thicket", "marsh", "plain"]),
)
def test_text_and_view_say_the_same(weather: str, energy: int, wolf: Any, food: Any, here: str) -> None:
    view = View(weather, energy, wolf, food, here)
    assert parse(render(view)) == view
    assert Forage.heuristic(Observation(render(view), ACTIONS, float(energy))) in ACTIONS


def test_a_foreign_text_is_refused() -> None:
    with pytest.raises(ValueError, match="not an observation"):
        parse("Energy 5.")


# --- the rules ---


@dataclass(frozen=True)
class Step:
    action: str
    before: Any
    after: Any
    end: EndReason | None
    cause: str


def random_steps(world: Forage, lives: int) -> list[Step]:
    steps = []
    for seed in range(lives):
        world.reset(seed)
        policy, end = random_policy(seed), None
        observation = world.reset(seed)
        while end is None:
            action, before = policy(observation), world.state()
            outcome = world.step(action)
            observation, end = outcome.observation, outcome.end
            steps.append(Step(action, before, world.state(), end, outcome.cause))
    return steps


def test_energy_pays_for_metabolism_frost_marsh_and_bites_and_is_earned_by_berries() -> None:
    bites = 0
    for step in random_steps(forage(start_energy=20, horizon=100), 100):
        x, y = step.after["agent"]
        ate = step.action == "eat" and [x, y, 0] in step.before["bushes"]
        energy = min(20, step.before["energy"] + 8 * ate) - 1
        energy -= step.before["weather"] == "frost" and step.action != "rest"
        energy -= step.action in DIRECTIONS and step.after["terrain"][y][x] == "~"
        bitten = energy > 0 and step.after["energy"] != max(0, energy)
        assert step.after["energy"] == max(0, energy - 10 * bitten)
        assert (step.end is EndReason.DIED) == (step.after["energy"] == 0)
        assert (step.cause == "predator") == (bitten and step.after["energy"] == 0)
        assert bool(step.cause) == (step.end is EndReason.DIED)
        bites += bitten
    assert bites > 20


def test_the_wolf_keeps_out_of_thickets_and_moves_one_cell_or_returns_to_its_den() -> None:
    den = None
    for step in random_steps(forage(predator_speed=1.0), 100):
        x, y = step.after["wolf"]
        assert step.after["terrain"][y][x] != THICKET
        moved = sum(map(abs, offset(10, tuple(step.before["wolf"]), (x, y))))
        if step.before["step"] == 0:
            den = step.before["wolf"]
        assert moved <= 1 or [x, y] == den


def test_an_eaten_bush_is_bare_until_it_has_regrown() -> None:
    world = forage(predator=False, weather=False, max_energy=1000, start_energy=1000, regrow_steps=7, horizon=200)
    observation = world.reset(1)
    while parse(observation.text).here != "berries":
        observation = world.step(Forage.heuristic(observation)).observation
    heres = [parse(world.step("eat").observation.text).here for _ in range(8)]
    assert heres == ["bare bush"] * 6 + ["berries", "bare bush"]


def test_moves_go_where_they_say_and_around_the_edge() -> None:
    world = forage(predator=False, weather=False, max_energy=1000, start_energy=1000)
    world.reset(3)
    for action, (dx, dy) in DIRECTIONS.items():
        x, y = world.state()["agent"]
        for _ in range(10):
            world.step(action)
            assert world.state()["agent"] == [(x + dx) % 10, (y + dy) % 10]
            x, y = world.state()["agent"]


def test_a_life_ends_at_the_horizon_and_then_takes_no_step() -> None:
    world = forage(horizon=5)
    world.reset(0)
    ends = [world.step("rest").end for _ in range(5)]
    assert ends == [None] * 4 + [EndReason.SURVIVED]
    with pytest.raises(RuntimeError, match="reset"):
        world.step("rest")


def test_a_word_that_is_no_action_is_refused_and_changes_nothing() -> None:
    world = forage()
    before = world.state()
    with pytest.raises(ValueError, match="'sleep' is not one of north"):
        world.step("sleep")
    assert world.state() == before


def test_dials_switch_weather_and_wolf_off() -> None:
    steps = random_steps(forage(weather=False, predator=False), 20)
    assert {step.after["weather"] for step in steps} == {"clear"}
    assert {step.after["wolf"] for step in steps} == {None}
    assert {step.cause for step in steps} <= {"", "starved", "exhausted"}


# --- the land and its picture ---


@given(
    seed=st.integers(0, 2**32),
    size=st.integers(5, 20),
    sight=st.integers(1, 64),
    maps=st.sampled_from(["train", "unseen"]),
)
def test_the_land_has_room_for_everything(seed: int, size: int, sight: int, maps: str) -> None:
    world = forage(size=size, sight=sight, bushes=size * size // 4, maps=maps)
    world.reset(seed)
    state = world.state()
    bushes = {(x, y) for x, y, _ in state["bushes"]}
    assert [len(row) for row in state["terrain"]] == [size] * size
    assert len(bushes) == size * size // 4
    assert all(state["terrain"][y][x] == "." for x, y in bushes | {tuple(state["agent"])})
    assert tuple(state["agent"]) not in bushes
    assert state["wolf"] != state["agent"]


@pytest.mark.parametrize("family", [lay_out, lay_out_unseen])
def test_a_wolf_begins_out_of_sight(family: Callable[..., Land]) -> None:
    for seed in range(100):
        land = family(10, 16, 3, np.random.default_rng(seed))
        assert sum(map(abs, offset(10, land.start, land.den))) > 3


def test_draw_shows_what_the_state_holds() -> None:
    state = {
        "step": 4,
        "energy": 9,
        "weather": "rain",
        "agent": [0, 0],
        "wolf": [2, 1],
        "bushes": [[1, 0, 0], [1, 2, 3]],
        "terrain": ["..^", "~..", "..."],
    }
    assert draw(state).splitlines() == ["step 4  energy 9  rain", "@o^", "~.W", ".,."]
    assert draw({**state, "wolf": [0, 0]}).splitlines()[1] == "Xo^"
    assert draw({**state, "wolf": None}).splitlines()[2] == "~.."


def test_state_survives_json_and_stays_small() -> None:
    world = forage()
    world.reset(0)
    text = json.dumps(world.state())
    assert json.loads(text) == world.state()
    assert len(text) < 600
    assert Forage.draw(json.loads(text)).count("\n") == 10


# --- how the world is found and set ---


def test_the_world_is_registered() -> None:
    world: object = find("forage")
    assert world is Forage
    assert isinstance(make("forage", {}), Environment)
    assert Forage.name == "forage-v1"


@pytest.mark.parametrize(
    ("settings", "dial"),
    [
        ({"maps": "held"}, "maps"),
        ({"size": 4}, "size"),
        ({"bushes": 26}, "bushes"),
        ({"max_energy": 5}, "start_energy"),
        ({"predator_speed": 1.5}, "predator_speed"),
        ({"wolves": 2}, "wolves"),
    ],
)
def test_bad_dials_are_named(settings: dict[str, Any], dial: str) -> None:
    with pytest.raises(UsageError, match=rf"^environment\.settings\.{dial}: got "):
        make("forage", settings)


@pytest.mark.real
def test_prompts_are_short_and_actions_are_single_tokens_of_the_small_model() -> None:
    from tokenizers import Tokenizer

    from telemetry import models

    tokenizer = Tokenizer.from_file(str(models.resolve("smollm2-135m-instruct") / "tokenizer.json"))

    def tokens(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    begin = tokens("<|im_start|>assistant\n")
    answers = [tokens(f"<|im_start|>assistant\n{action}")[len(begin) :] for action in ACTIONS]
    assert [len(answer) for answer in answers] == [1] * 6
    assert len({answer[0] for answer in answers}) == 6
    assert len(tokens(Forage.rules)) <= 25
    assert len(tokens(render(View("frost", 20, (-2, 1), (1, 2), "bare bush")))) <= 40
