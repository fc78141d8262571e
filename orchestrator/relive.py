"""Lives lived again from telemetry alone: the recorded actions, taken in a fresh world, must lead to what was recorded.

Law: nothing is asked of a model; the world gets the seed and the actions from the ledger, and gives the rest again.
Lives of one attempt were lived together, so an instance of a shared world is lived again as a whole.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.config import RunConfig
from orchestrator.findings import Finding, error
from orchestrator.replay import find_life
from orchestrator.state import RunState, config_of
from telemetry.ledger import Ledger
from telemetry.records import EndReason, LifeKey
from telemetry.store import Store
from workers.environment import Observation, Outcome, is_shared
from workers.guard import EnvironmentFailure, Guard, SharedGuard
from workers.registry import maker

LIFE = ["individual", "life", "attempt", "world_seed", "end", "cause", "seat", "born", "parent_seat", "result"]
STEP = ["individual", "life", "attempt", "step", "observation", "legal", "prompt_ids", "completion_ids", "action"]
STEP += ["energy_before", "energy_after", "state"]

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Recorded:
    """A committed life as the ledger has it."""

    life: Row
    steps: list[Row]

    @property
    def name(self) -> str:
        return f"{self.life['individual']}/{self.life['life']}"

    @property
    def last_turn(self) -> int:
        """First turn of the instance without it."""
        return int(self.life["born"]) + len(self.steps)


def relive_all(store: Store, state: RunState, spec: str) -> tuple[list[Finding], int]:
    """What differs, and how many instances were lived again: that of the life `spec`, or all if it is empty."""
    only = find_life(state, spec) if spec else None
    found = list(relive(state, Ledger(store), config_of(state), only))
    return [one for one in found if one is not None], len(found)


def relive(state: RunState, ledger: Ledger, config: RunConfig, only: LifeKey | None = None) -> Iterator[Finding | None]:
    """One None for every instance that was lived again alike, else what differs. `only`: that life and its company.

    Holds one generation's rows at a time. Raises UsageError when the world cannot be loaded, StateError for a
    damaged ledger.
    """
    build = maker(config.environment.name, config.environment.settings)
    for generation in [only.generation] if only else sorted(state.lives):
        attempts = [state.lives[generation][only]] if only else state.attempts(generation)
        for instance in instances(state, ledger, generation, attempts):
            lived = [one for one in instance if one.life["end"] != EndReason.CENSORED]
            if lived:
                yield next(_differences(build, lived), None)


def instances(state: RunState, ledger: Ledger, generation: int, attempts: Sequence[str]) -> Iterator[list[Recorded]]:
    """Committed lives by instance, each by seat."""
    files = state.vouched(generation)
    [lives, steps] = [
        ledger.recall(name, generation, files, attempts, columns)
        for name, columns in (("lives", LIFE), ("steps", STEP))
    ]
    rows = {
        key: list(found) for key, found in groupby(_rows(steps, ["attempt", "individual", "life", "step"]), key=_name)
    }
    for _, found in groupby(_rows(lives, ["attempt", "seat"]), key=lambda row: row["attempt"]):
        yield [Recorded(life, rows.get(_name(life), [])) for life in found]


def _rows(table: pa.Table, order: Sequence[str]) -> Iterator[Row]:
    table = table.take(pc.sort_indices(table, [(name, "ascending") for name in order]))
    for batch in table.to_batches(max_chunksize=4096):
        yield from batch.to_pylist()


def _name(row: Row) -> tuple[str, str, int]:
    return row["attempt"], row["individual"], row["life"]


def _differences(build: Callable[[], Any], instance: Sequence[Recorded]) -> Iterator[Finding]:
    try:
        world = build()
        yield from _together(SharedGuard(world), instance) if is_shared(world) else _alone(Guard(world), instance)
    except EnvironmentFailure as failure:
        yield error(instance[0].name, str(failure))


def _alone(world: Guard, instance: Sequence[Recorded]) -> Iterator[Finding]:
    [one] = instance
    seen = world.reset(one.life["world_seed"])
    outcome: Outcome | None = None
    for number, row in enumerate(one.steps):
        yield from _compare_seen(one, row, seen)
        world.pay(number, len(row["prompt_ids"]), len(row["completion_ids"]))
        outcome = world.step(number, row["action"])
        seen = outcome.observation
        yield from _compare_reached(one, row, seen, world.state(number))
    yield from _compare_end(one, outcome, world.result())


def _together(world: SharedGuard, instance: Sequence[Recorded]) -> Iterator[Finding]:
    founders = sum(one.life["parent_seat"] is None for one in instance)
    seen = dict(enumerate(world.reset(instance[0].life["world_seed"], founders)))
    for turn in range(max(one.last_turn for one in instance)):
        living = {one.life["seat"]: one for one in instance if one.life["born"] <= turn < one.last_turn}
        if set(living) != set(seen):
            yield error(
                f"{instance[0].name}, turn {turn}", f"seats {sorted(seen)} live, recorded were {sorted(living)}"
            )
            return
        rows = {seat: one.steps[turn - one.life["born"]] for seat, one in sorted(living.items())}
        for seat, row in rows.items():
            yield from _compare_seen(living[seat], row, seen[seat])
            world.pay(seat, turn, len(row["prompt_ids"]), len(row["completion_ids"]))
        moved = world.step(turn, {seat: row["action"] for seat, row in rows.items()})
        for seat, row in rows.items():
            outcome, one = moved.outcomes[seat], living[seat]
            yield from _compare_reached(one, row, outcome.observation, world.state(turn, seat))
            if one.last_turn == turn + 1:
                yield from _compare_end(one, outcome, world.result(seat))
        seen = {seat: outcome.observation for seat, outcome in moved.outcomes.items() if outcome.end is None}
        seen |= {seat: birth.observation for seat, birth in moved.born.items()}


def _compare_seen(one: Recorded, row: Row, seen: Observation) -> Iterator[Finding]:
    yield from _compare(one, row, "observation", seen.text)
    yield from _compare(one, row, "legal", list(seen.legal))
    yield from _compare(one, row, "energy_before", float(np.float32(seen.energy)))


def _compare_reached(one: Recorded, row: Row, seen: Observation, state: str) -> Iterator[Finding]:
    yield from _compare(one, row, "state", state)
    yield from _compare(one, row, "energy_after", float(np.float32(seen.energy)))


def _compare_end(one: Recorded, outcome: Outcome | None, result: str) -> Iterator[Finding]:
    end = outcome.end if outcome and outcome.end else EndReason.SURVIVED
    found = {"end": str(end), "cause": outcome.cause if outcome else "", "result": result}
    for name, value in found.items():
        yield from _compare(one, one.life, name, value)


def _compare(one: Recorded, row: Row, name: str, found: object) -> Iterator[Finding]:
    if row[name] != found and not (name in ("state", "result") and _same_json(row[name], str(found))):
        where = f"{one.name}, step {row['step']}" if "step" in row else one.name
        yield error(where, f"{name}: lived again it is {found!r}, recorded was {row[name]!r}")


def _same_json(recorded: str, found: str) -> bool:
    """True for two spellings of the same value: how floats are written has changed before."""
    return bool(recorded and found) and json.loads(recorded) == json.loads(found)
