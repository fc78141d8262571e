"""The market world in tests: made, played and traced."""

import json
from collections.abc import Callable
from hashlib import sha256
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from workers.environment import Policy
from workers.environments.market import Market
from workers.environments.market_data import Series
from workers.environments.market_settings import MarketSettings
from workers.guard import Guard

ACTIONS = Market.actions
seeds = st.integers(0, 2**63 - 1)
plays = st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=50)
check = settings(max_examples=25, deadline=None)
check_few = settings(max_examples=12, deadline=None)


def market(series: tuple[Series, ...] | None = None, **dials: Any) -> Market:
    return Market(MarketSettings.model_validate(dials), series)


def live(world: Market, seed: int, policy: Policy) -> tuple[int, str, dict[str, Any]]:
    """Steps, cause of death and result of a life, played through the guard."""
    guard = Guard(world)
    observation = guard.reset(seed)
    for step in range(world.horizon):
        outcome = guard.step(step, policy(observation))
        observation = outcome.observation
        if outcome.end:
            return step + 1, outcome.cause, json.loads(json.dumps(world.result()))
    raise AssertionError("a life ends at the horizon at the latest")


def trace(world: Market, seed: int, actions: list[str]) -> list[Any]:
    seen: list[Any] = [world.reset(seed), world.state()]
    for action in actions:
        outcome = world.step(action)
        seen += [outcome, world.state(), world.result()]
        if outcome.end:
            break
    return seen


def changed(series: Series, change: Callable[[int, float], float]) -> tuple[Series]:
    return (Series(series.name, series.dates, tuple(change(day, close) for day, close in enumerate(series.closes))),)


def digest() -> str:
    """Of what forty lives show, hide and amount to."""
    worlds = [market(split=split) for split in ("train", "heldout")]
    traces = [trace(world, seed, list(ACTIONS) * 20) for world in worlds for seed in range(20)]
    return sha256(repr(traces).encode()).hexdigest()
