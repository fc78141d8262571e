"""Forager's worlds behind Gymnasium's interface, judged by Gymnasium's own checker."""

import pytest

from telemetry.config import Config
from telemetry.failures import UsageError
from workers.environment import Observation, Outcome
from workers.reference import play
from workers.registry import make

gymnasium = pytest.importorskip("gymnasium", reason="needs forager[gymnasium]")

from gymnasium.utils.env_checker import check_env  # noqa: E402

from workers.environments.as_gymnasium import ForagerEnv, register  # noqa: E402


@pytest.mark.parametrize("world", ["workers.environments.forage:Forage", "workers.environments.bills:Bills"])
def test_gymnasium_finds_nothing_to_complain_of(world: str) -> None:
    check_env(ForagerEnv(world), skip_render_check=True)


def test_a_registered_world_is_the_same_life_as_without_gymnasium() -> None:
    name = register("workers.environments.forage:Forage", {"bushes": 24})
    assert name == "forager/forage-v1"
    env = gymnasium.make(name)
    world = make("workers.environments.forage:Forage", {"bushes": 24})
    for seed in range(10):
        expected = play(world, seed, world.heuristic)
        text, info = env.reset(seed=seed)
        seen = world.reset(seed)
        assert text == seen.text
        energy, steps, over = info["energy"], 0, False
        while not over:
            action = world.heuristic(seen)
            assert info["actions"][world.actions.index(action)] == 1
            text, reward, died, survived, info = env.step(world.actions.index(action))
            seen = world.step(action).observation
            energy, steps, over = energy + reward, steps + 1, died or survived
            assert (text, energy) == (seen.text, seen.energy)
        assert (steps, info["cause"], energy) == (expected.steps, expected.cause, expected.energy)
        assert died == bool(expected.cause)


class Gate:
    """Knocking is legal at first, then only entering."""

    name = "gate-v1"
    Settings = Config
    rules, horizon, actions = "Enter.", 3, ("knock", "enter")

    def __init__(self, settings: Config) -> None:
        self.legal = ("knock",)

    def reset(self, seed: int) -> Observation:
        self.legal = ("knock",)
        return self.observe()

    def step(self, action: str) -> Outcome:
        assert action in self.legal
        self.legal = ("enter",)
        return Outcome(self.observe())

    def observe(self) -> Observation:
        return Observation("A gate. \N{BLACK HEART SUIT}", self.legal, 1.0)

    def state(self) -> dict[str, str]:
        return {}


def test_illegal_actions_count_as_the_first_legal_one_and_are_named() -> None:
    env = ForagerEnv(f"{__name__}:Gate")
    text, info = env.reset(seed=1)
    assert (text, info["legal"], info["actions"].tolist()) == ("A gate. ?", ("knock",), [1, 0])
    assert [env.step(1)[4]["illegal"], env.step(1)[4]["illegal"]] == [True, False]
    *_, died, survived, info = env.step(0)
    assert (died, survived, info["illegal"]) == (False, True, True)


def test_shared_worlds_are_refused() -> None:
    with pytest.raises(UsageError, match="several agents share"):
        ForagerEnv("workers.environments.commons:Commons")
