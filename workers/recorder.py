"""Lives to Arrow: every life fills its own columns, and finished lives are turned into ledger batches together."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from operator import attrgetter
from time import monotonic
from typing import Any

import numpy as np
import pyarrow as pa
from msgspec import Struct

from telemetry.records import EndReason, Individual, LifeKey, LifeSummary
from telemetry.tables import LIVES, STEPS
from workers.action import Decision
from workers.engine import CompletionRequest
from workers.environment import Observation


class LifeTask(Struct, frozen=True, gc=False):
    """One life to be lived: who, in which world, and which try at it this is."""

    individual: Individual
    life: int
    world_seed: int
    attempt: str
    """Unique name of this try; the journal acknowledges exactly one per life. Lives of one instance share it."""
    heldout: bool = False
    """Lived in the world of held-out evaluation."""
    told: bool = False
    """Its rows come back with the report."""

    @property
    def key(self) -> LifeKey:
        return LifeKey(self.individual.generation, self.individual.id, self.life)


@dataclass(slots=True)
class LifeRecord:
    """The columns of one life's steps that differ from step to step, and how the life ended."""

    task: LifeTask
    seat: int = 0
    """Place in the instance; 0 in a world for one."""
    born: int = 0
    """Turn of the instance at which it began to live."""
    parent_seat: int | None = None
    """Whose descendant it is; None for those who were there at the beginning."""
    observation: list[str] = field(default_factory=list)
    legal: list[tuple[str, ...]] = field(default_factory=list)
    choice_ids: list[tuple[int, ...]] = field(default_factory=list)
    prompt_ids: list[Sequence[int]] = field(default_factory=list)
    completion_ids: list[tuple[int, ...]] = field(default_factory=list)
    completion_logprobs: list[tuple[float, ...]] = field(default_factory=list)
    action: list[str] = field(default_factory=list)
    parse: list[str] = field(default_factory=list)
    behaviour_probability: list[float] = field(default_factory=list)
    explored: list[bool] = field(default_factory=list)
    sampling_seed: list[int] = field(default_factory=list)
    energy_before: list[float] = field(default_factory=list)
    energy_after: list[float] = field(default_factory=list)
    state: list[str] = field(default_factory=list)
    end: EndReason = EndReason.CENSORED
    cause: str = ""
    result: str = ""
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    started: float = field(default_factory=monotonic)
    seconds: float = 0.0
    sources: set[str] = field(default_factory=set)
    """Those without trust who answered for the engine."""

    def add(
        self,
        observation: Observation,
        request: CompletionRequest,
        decision: Decision,
        seed: int,
        energy: float,
        state: str,
    ) -> None:
        """Appends one step: what was seen, what was done, and the energy and hidden state it led to."""
        self.observation.append(observation.text)
        self.legal.append(observation.legal)
        self.choice_ids.append(request.choices)
        self.prompt_ids.append(request.prompt_ids)
        self.completion_ids.append(decision.token_ids)
        self.completion_logprobs.append(decision.logprobs)
        self.action.append(decision.action)
        self.parse.append(decision.parse)
        self.behaviour_probability.append(decision.behaviour_probability)
        self.explored.append(decision.explored)
        self.sampling_seed.append(seed)
        self.energy_before.append(observation.energy)
        self.energy_after.append(energy)
        self.state.append(state)

    def close(self, end: EndReason, cause: str, result: str = "") -> None:
        """Marks the life as ended; `result` is the world's word on it, as JSON."""
        self.end, self.cause, self.result, self.seconds = end, cause, result, monotonic() - self.started

    def summary(self) -> LifeSummary:
        """What the driver is told."""
        return LifeSummary(
            key=self.task.key,
            attempt=self.task.attempt,
            steps=len(self.action),
            end=self.end,
            cause=self.cause,
            energy=self.energy_after[-1] if self.energy_after else 0.0,
            prompt_tokens=sum(map(len, self.prompt_ids)),
            completion_tokens=sum(map(len, self.completion_ids)),
            founder=self.parent_seat is None,
            result=self.result,
        )


_PER_STEP = (
    "observation",
    "legal",
    "choice_ids",
    "prompt_ids",
    "completion_ids",
    "completion_logprobs",
    "action",
    "parse",
    "behaviour_probability",
    "explored",
    "sampling_seed",
    "energy_before",
    "energy_after",
    "state",
)


def to_tables(records: Sequence[LifeRecord], *, run: str, world: str, engine: str) -> tuple[pa.Table, pa.Table]:
    """(steps, lives) tables of finished lives, with the ledger's schemas.

    Whoever answered without trust stands behind the name of the engine.
    """
    return _steps(records, run, engine), _lives(records, run, world)


def id_lists(lists: Sequence[Sequence[int]]) -> pa.ListArray:
    """Lists of token ids as Arrow has them; far faster than it is itself where the ids are arrays."""
    flat = b"".join([ids if isinstance(ids, array) else array("i", ids) for ids in lists])
    ends = np.cumsum([0, *map(len, lists)], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(np.frombuffer(flat, np.int32)))


def _steps(records: Sequence[LifeRecord], run: str, engine: str) -> pa.Table:
    counts = [len(record.action) for record in records]
    total = sum(counts)
    columns: dict[str, Any] = {name: list(chain.from_iterable(map(attrgetter(name), records))) for name in _PER_STEP}
    columns["prompt_ids"] = id_lists(columns["prompt_ids"])
    columns["run"] = pa.repeat(run, total)
    names = [" ".join((engine, *sorted(record.sources))) for record in records]
    columns["step"] = [step for count in counts for step in range(count)]
    whose = np.repeat(np.arange(len(records)), np.asarray(counts, dtype=np.int64))
    for name, values in (_per_life(records) | {"engine": names}).items():
        columns[name] = _array(values, STEPS.field(name).type).take(whose)
    return pa.table({name: _array(columns[name], STEPS.field(name).type) for name in STEPS.names}, schema=STEPS)


def _lives(records: Sequence[LifeRecord], run: str, world: str) -> pa.Table:
    summaries = [record.summary() for record in records]
    columns: dict[str, Any] = {
        "run": [run] * len(records),
        "world": [world] * len(records),
        "world_seed": [record.task.world_seed for record in records],
        "steps": [summary.steps for summary in summaries],
        "end": [str(summary.end) for summary in summaries],
        "cause": [summary.cause for summary in summaries],
        "energy": [summary.energy for summary in summaries],
        "prompt_tokens": [summary.prompt_tokens for summary in summaries],
        "completion_tokens": [summary.completion_tokens for summary in summaries],
        "started_at": [record.started_at for record in records],
        "seconds": [record.seconds for record in records],
        "seat": [record.seat for record in records],
        "born": [record.born for record in records],
        "parent_seat": [record.parent_seat for record in records],
        "result": [record.result for record in records],
    }
    columns |= {name: values for name, values in _per_life(records).items() if name in LIVES.names}
    return pa.table({name: _array(columns[name], LIVES.field(name).type) for name in LIVES.names}, schema=LIVES)


def _per_life(records: Sequence[LifeRecord]) -> dict[str, list[Any]]:
    individuals = [record.task.individual for record in records]
    return {
        "generation": [one.generation for one in individuals],
        "individual": [one.id for one in individuals],
        "lineage": [one.lineage for one in individuals],
        "life": [record.task.life for record in records],
        "attempt": [record.task.attempt for record in records],
        "temperature": [one.genome.hyperparameters.temperature for one in individuals],
        "epsilon": [one.genome.hyperparameters.epsilon for one in individuals],
        "adapter": [one.genome.adapter for one in individuals],
    }


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    return values if isinstance(values, pa.Array) else pa.array(values, type=kind)
