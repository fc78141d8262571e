"""Replay: a committed life, step by step, from the ledger alone.

Law: what agents and worlds wrote is untrusted text; no control or formatting character of it reaches a terminal.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.run import champion
from orchestrator.state import RunState, config_of
from telemetry.failures import UsageError
from telemetry.ledger import HELD_OUT, Ledger
from telemetry.records import EndReason, Individual, LifeKey
from telemetry.store import Store
from workers.guard import boundary
from workers.registry import find

SPEC = re.compile(r"(champion|g[0-9]{3,}-[0-9]{3,})(?:/([0-9]{1,9}))?")

Draw = Callable[[dict[str, Any]], str]
"""A world's own picture of a recorded state."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One step: what was seen, what was done, and the energy and hidden state it led to."""

    step: int
    observation: str
    action: str
    probability: float
    """Of the action under the whole behaviour policy, exploration included."""
    explored: bool
    energy_before: float
    energy: float
    state: Any
    """The world's hidden state after the step, as decoded JSON."""


@dataclass(frozen=True, slots=True)
class Life:
    """A committed life: the row of the table `lives`, and its steps in order."""

    individual: str
    lineage: str
    life: int
    world: str
    world_seed: int
    adapter: str | None
    end: str
    cause: str
    steps: int
    energy: float
    frames: tuple[Frame, ...]


def find_life(state: RunState, spec: str) -> LifeKey:
    """The life meant by `INDIVIDUAL/LIFE` or `champion/LIFE`; without a number it is life 0.

    Raises UsageError when the run has no such life.
    """
    match = SPEC.fullmatch(spec)
    if match is None:
        raise UsageError(f"life: got {clean(spec)!r}, expected INDIVIDUAL/LIFE such as g002-001/5, or champion/5")
    who, life = match[1], int(match[2] or 0)
    if who == "champion":
        if not state.history:
            raise UsageError("life: there is no champion before the first generation is over; name an individual")
        who = champion(state).id
    if who not in state.everyone:
        raise UsageError(f"life: no individual {who} in this run; `forager lineage` lists them")
    key = LifeKey(state.everyone[who].generation, who, life)
    if state.life(key) is None:
        lived = state.lives[key.generation].count(who) if key.generation in state.lives else 0
        raise UsageError(f"life: {who} has no committed life {life}; it has {lived}, counted from 0")
    return key


def recall(state: RunState, ledger: Ledger, key: LifeKey) -> Life:
    """A committed life with all its steps. Raises UsageError when the ledger does not hold it."""
    attempts = [state.lives[key.generation][key]]
    files = state.vouched(key.generation)
    # Those who lived together have one attempt.
    own = (pc.field("individual") == key.individual) & (pc.field("life") == key.life)
    [rows, steps] = [ledger.recall(name, key.generation, files, attempts).filter(own) for name in ("lives", "steps")]
    if rows.num_rows != 1:
        raise UsageError(f"life: {key.individual}/{key.life} has {rows.num_rows} rows; see `forager verify`")
    return _life(rows.to_pylist()[0], steps)


def recall_held_out(state: RunState, store: Store, individual: Individual) -> list[Life]:
    """Those of its lives in held-out worlds that were kept with all their steps, by world."""
    ledger = Ledger(store, HELD_OUT)
    own = (pc.field("individual") == individual.id) & (
        pc.field("adapter").is_null()
        if individual.genome.adapter is None
        else pc.field("adapter") == individual.genome.adapter
    )
    [rows, steps] = [ledger.recall(name, individual.generation, state.held_out, None) for name in ("lives", "steps")]
    # Where the founder is the champion it has lived them twice.
    lives = {row["life"]: row for row in rows.filter(own).to_pylist()}
    return [_life(row, steps.filter(pc.field("attempt") == row["attempt"])) for row in lives.values()]


def _life(row: dict[str, Any], steps: pa.Table) -> Life:
    fields = ("individual", "lineage", "life", "world", "world_seed", "adapter", "end", "cause", "steps", "energy")
    return Life(**{name: row[name] for name in fields}, frames=tuple(_frame(step) for step in steps.to_pylist()))


def _frame(row: dict[str, Any]) -> Frame:
    return Frame(
        step=row["step"],
        observation=row["observation"],
        action=row["action"],
        probability=row["behaviour_probability"],
        explored=row["explored"],
        energy_before=row["energy_before"],
        energy=row["energy_after"],
        state=json.loads(row["state"]),
    )


def render(life: Life, draw: Draw | None = None) -> Iterator[str]:
    """The life as text, a few lines at a time: who it was, every step, how it ended. `draw` adds pictures."""
    weights = f"adapter {life.adapter[:12]}" if life.adapter else "the untouched model"
    yield clean(f"{life.individual}/{life.life}  lineage {life.lineage}  {life.world}  {weights}")
    for frame in life.frames:
        choice = f"{frame.action} ({frame.probability:.0%}{', explored' if frame.explored else ''})"
        yield clean(f"\nstep {frame.step}  {choice}  energy {frame.energy_before:g} -> {frame.energy:g}")
        yield clean(f"saw: {frame.observation}")
        if draw is not None:
            with boundary(life.world, f"its picture of step {frame.step}"):
                picture = draw(frame.state)
            yield clean(str(picture)).rstrip("\n")
    ending = f"died ({life.cause})" if life.end == EndReason.DIED else life.end
    yield clean(f"\n{ending} after {life.steps} steps with energy {life.energy:g}")


def print_life(store: Store, state: RunState, spec: str, *, as_json: bool = False) -> None:
    """Prints the life meant by `spec`: as text, or as a JSON list with the fields of `Frame`. Raises UsageError."""
    life = recall(state, Ledger(store), find_life(state, spec))
    if as_json:
        print(json.dumps([asdict(frame) for frame in life.frames], indent=2))
        return
    for text in render(life, getattr(find(config_of(state).environment.name), "draw", None)):
        print(text)


def clean(text: str) -> str:
    """The text without control, formatting, surrogate and other invisible characters; line breaks stay."""
    return "".join(one for one in text if one == "\n" or not unicodedata.category(one).startswith("C"))
