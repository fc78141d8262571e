"""Scripted play without any model: how random and sensible players fare in a world.

Law: policies see observations only, and every life is a pure function of its world seed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from telemetry.failures import UsageError
from telemetry.records import EndReason
from telemetry.seeds import rng
from workers.environment import Environment, Observation, Policy, SharedEnvironment, is_shared
from workers.guard import Guard, SharedGuard, boundary

LETTERS = "abcdefghijklmnopqrstuvwxyz "


@dataclass(frozen=True, slots=True)
class Played:
    """How a scripted life went."""

    steps: int
    """Survival time: number of decisions lived through."""
    end: EndReason
    cause: str
    """Cause of death, empty for a life that survived."""
    energy: float
    """Energy at the end."""
    result: str = ""
    """What the world has to say of it, as JSON."""


def play(environment: Environment, seed: int, policy: Policy) -> Played:
    """Lives one life to its end, or to the horizon of a world that does not end it itself.

    Raises EnvironmentFailure when the world breaks, or the policy, which may be the world's own.
    """
    world = Guard(environment)
    observation = world.reset(seed)
    for step in range(world.horizon):
        with boundary(world.name, f"its policy at step {step}"):
            action = policy(observation)
        world.pay(step, 0, 0)
        outcome = world.step(step, action)
        observation = outcome.observation
        if outcome.end is not None:
            return Played(step + 1, outcome.end, outcome.cause, observation.energy, world.result())
    return Played(world.horizon, EndReason.SURVIVED, "", observation.energy, world.result())


def play_together(environment: SharedEnvironment, seed: int, policies: Sequence[Policy]) -> list[Played]:
    """Lives one instance of a shared world to its end: a policy per seat, descendants play as their parents do.

    Returns what became of the first seats, without descendants. Raises as `play`.
    """
    world = SharedGuard(environment)
    players = list(policies)
    seen: dict[int, Observation] = dict(enumerate(world.reset(seed, len(players))))
    steps = [0] * len(players)
    over: dict[int, Played] = {}
    for turn in range(world.horizon):
        if not seen:
            break
        with boundary(world.name, f"its policy at turn {turn}"):
            actions = {seat: players[seat](seen[seat]) for seat in sorted(seen)}
        for seat in actions:
            world.pay(seat, turn, 0, 0)
        moved = world.step(turn, actions)
        last, seen = seen, {}
        for seat in last:
            outcome, steps[seat] = moved.outcomes[seat], steps[seat] + 1
            if outcome.end is None:
                seen[seat] = outcome.observation
            else:
                energy = outcome.observation.energy
                over[seat] = Played(steps[seat], outcome.end, outcome.cause, energy, world.result(seat))
        for seat in sorted(moved.born):
            players.append(players[moved.born[seat].parent])
            steps.append(0)
            seen[seat] = moved.born[seat].observation
    for seat, observation in seen.items():
        over[seat] = Played(steps[seat], EndReason.SURVIVED, "", observation.energy, world.result(seat))
    return [over[seat] for seat in range(len(policies))]


def random_policy(seed: int) -> Policy:
    """Uniform choice among the legal actions; the n-th call of two policies with one seed draws alike.

    Where any text may be said, it says one to eight random letters.
    """
    draws = rng(seed, "random policy")

    def choose(observation: Observation) -> str:
        if observation.legal:
            return observation.legal[int(draws.integers(len(observation.legal)))]
        return "".join(LETTERS[index] for index in draws.integers(len(LETTERS), size=draws.integers(1, 9)))

    return choose


def references(world: object) -> dict[str, Policy | None]:
    """Scripted players of a world by name; None stands for random play, which draws by the seed of each life."""
    found: dict[str, Policy | None] = {"random": None}
    heuristic: Policy | None = getattr(world, "heuristic", None)
    if heuristic is not None:
        found["heuristic"] = heuristic
    own: Mapping[str, Policy] = getattr(world, "references", {})
    return found | dict(own)


def reference(environment: Any, who: str, seeds: Iterable[int], *, seats: int = 1) -> list[Played]:
    """Scripted lives, in the order of the world seeds; of a shared world, `seats` lives per seed, all of one player.

    Raises UsageError when the world has no such player.
    """
    known = references(environment)
    if who not in known:
        raise UsageError(f"reference: got {who!r} in world {environment.name!r}, expected one of {', '.join(known)}")
    policy = known[who]
    if not is_shared(environment):
        return [play(environment, seed, policy or random_policy(seed)) for seed in seeds]
    played = []
    for seed in seeds:
        players = [policy or random_policy(seed * seats + seat) for seat in range(seats)]
        played += play_together(environment, seed, players)
    return played
