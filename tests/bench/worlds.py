"""Steps per second of every built-in world on one core, resets included, without a model and without its player.

The player is random and its time is not counted; of a shared world every agent's step counts.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from random import Random
from statistics import median
from typing import Any

from telemetry.failures import UsageError
from workers.environment import Observation, is_shared
from workers.registry import make

WORLDS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "forage": ("forage", {}),
    "forage, unseen maps": ("forage", {"maps": "unseen"}),
    "commons, 10 agents": ("commons", {}),
    "market": ("market", {}),
    "news": ("news", {"data": "synthetic"}),
    "bills": ("bills", {}),
}
SEATS = 10
ROUNDS = 5
SECONDS = 1.0
"""Of stepping in a round."""

Player = Callable[[Observation], str]


def main() -> None:
    results: dict[str, float | None] = {}
    for label, (name, settings) in WORLDS.items():
        try:
            world = make(name, settings)
        except UsageError:
            # Its data comes in packages of its own.
            results[label] = None
        else:
            results[label] = median(rate(world, round * 10_000) for round in range(ROUNDS))
    print(json.dumps(results))


def rate(world: Any, seed: int) -> float:
    """Steps per second over some seconds of lives from a seed on."""
    steps, seconds = 0, 0.0
    player = random_player(world, Random(seed))
    live = live_together if is_shared(world) else live_alone
    while seconds < SECONDS:
        for lived, spent in live(world, seed, player):
            steps, seconds = steps + lived, seconds + spent
        seed += 1
    return steps / seconds


def random_player(world: Any, draws: Random) -> Player:
    """Plays any legal action; free text as the world's own random player says it."""
    speaks = getattr(world, "references", {}).get("random")

    def play(seen: Observation) -> str:
        return draws.choice(seen.legal) if seen.legal else speaks(seen)

    return play


def live_alone(world: Any, seed: int, player: Player) -> Iterator[tuple[int, float]]:
    """(steps, seconds) of the parts of a life."""
    began = time.perf_counter()
    seen = world.reset(seed)
    yield 0, time.perf_counter() - began
    for _ in range(world.horizon):
        action = player(seen)
        began = time.perf_counter()
        outcome = world.step(action)
        yield 1, time.perf_counter() - began
        if outcome.end is not None:
            return
        seen = outcome.observation


def live_together(world: Any, seed: int, player: Player) -> Iterator[tuple[int, float]]:
    """As `live_alone`, of an instance; a turn is a step of everybody who lives."""
    began = time.perf_counter()
    seen = dict(enumerate(world.reset(seed, SEATS)))
    yield 0, time.perf_counter() - began
    for _ in range(world.horizon):
        actions = {seat: player(one) for seat, one in seen.items()}
        began = time.perf_counter()
        turn = world.step(actions)
        yield len(actions), time.perf_counter() - began
        seen = {seat: one.observation for seat, one in turn.outcomes.items() if one.end is None}
        seen |= {seat: birth.observation for seat, birth in turn.born.items()}
        if not seen:
            return


if __name__ == "__main__":
    main()
