"""Instances of the commons in hand-made situations."""

from typing import Any

from workers.environment import Policy, Turn
from workers.environments.commons import Commons
from workers.environments.commons_settings import CommonsSettings
from workers.environments.commons_text import View, parse

DIALS = CommonsSettings()


def commons(**dials: Any) -> Commons:
    return Commons(CommonsSettings(**dials))


def placed(*places: tuple[int, int, int], ground: list[int] | None = None, seed: int = 0, **dials: Any) -> Commons:
    """A world whose seats stand at `(patch, fruit, roots)`."""
    world = commons(**dials)
    world.reset(seed, len(places))
    for agent, (patch, *store) in zip(world._now.agents, places, strict=True):
        agent.patch, agent.store, agent.meets = patch, store, None
    world._now.ground = ground or [20] * len(world._now.ground)
    world._come_together()
    return world


def always(action: str) -> Policy:
    return lambda observation: action


def moved(world: Commons, *words: str) -> Turn:
    """A turn in which the living seats do so, in order."""
    seats = [agent.seat for agent in world._now.living]
    return world.step(dict(zip(seats, words, strict=True)))


def store(world: Commons, seat: int) -> tuple[int, int]:
    state = world.state(seat)
    return state["fruit"], state["roots"]


def seen(world: Commons, turn: Turn, seat: int) -> View:
    return parse(turn.outcomes[seat].observation.text)
