"""Scripted play without any model: how long random and sensible lives last in a world.

Law: policies see observations only, and every life is a pure function of its world seed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from telemetry.failures import UsageError
from telemetry.records import EndReason
from telemetry.seeds import rng
from workers.environment import Environment, Guard, Observation, Policy, boundary


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


def play(environment: Environment, seed: int, policy: Policy) -> Played:
    """Lives one life to its end, or to the horizon of a world that does not end it itself.

    Raises EnvironmentFailure when the world breaks, or the policy, which may be the world's own.
    """
    world = Guard(environment)
    observation = world.reset(seed)
    for step in range(world.horizon):
        with boundary(world.name, f"its policy at step {step}"):
            action = policy(observation)
        outcome = world.step(step, action)
        observation = outcome.observation
        if outcome.end is not None:
            return Played(step + 1, outcome.end, outcome.cause, observation.energy)
    return Played(world.horizon, EndReason.SURVIVED, "", observation.energy)


def random_policy(seed: int) -> Policy:
    """Uniform choice among the legal actions; the n-th call of two policies with one seed draws alike."""
    draws = rng(seed, "random policy")

    def choose(observation: Observation) -> str:
        return observation.legal[int(draws.integers(len(observation.legal)))]

    return choose


def reference(environment: Environment, who: Literal["random", "heuristic"], seeds: Iterable[int]) -> list[Played]:
    """One scripted life per world seed, in order.

    Raises UsageError when `who` is `heuristic` and the world offers none.
    """
    if who == "random":
        return [play(environment, seed, random_policy(seed)) for seed in seeds]
    heuristic: Policy | None = getattr(environment, "heuristic", None)
    if heuristic is None:
        raise UsageError(
            f"reference: got world {environment.name!r} without a heuristic, expected one that has it; use 'random'"
        )
    return [play(environment, seed, heuristic) for seed in seeds]
