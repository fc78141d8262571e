"""The state of a run is a fold over its journal; nothing else is ever trusted.

Each journal kind has one closed body type here. `fold` refuses what it does not know, so that a run written by
another version is refused instead of half-read.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from orchestrator.fitness import Fitness
from orchestrator.population import lineages
from orchestrator.selection import Selection
from telemetry.failures import StateError
from telemetry.journal import Entry
from telemetry.records import BaseModelCard, Individual, LifeKey, Record
from trainer.job import TrainingResult

FORMAT = 1
"""Version of the journal's bodies; a change that older code cannot read raises it."""


class RunCreated(Record):
    """Genesis: everything the run's results depend on."""

    format: int
    version: str
    """Version of Forager that created the run."""
    run: str
    config: dict[str, Any]
    """The resolved run file."""
    model: BaseModelCard
    founders: tuple[Individual, ...]


class EpochOpened(Record):
    """A driver took over the run."""

    host: str
    pid: int
    opened_at: str
    """UTC time, ISO 8601."""
    version: str


class LivesCommitted(Record):
    """Lives whose rows are now part of the ledger."""

    generation: int
    tables: dict[str, int]
    """Delta version of each table that holds them."""
    lives: tuple[tuple[str, int, str], ...]
    """(individual, life, attempt) of each life."""
    decisions: int
    prompt_tokens: int
    completion_tokens: int
    ends: dict[str, int]
    """Number of lives by end reason, deaths by cause: `died:starved`, `survived`, `censored`."""
    seconds: float
    """Wall time since the rollout phase or the commit before."""


class BirthCommitted(Record):
    """A newborn's training job ended; its adapter, if any, is on the shelf."""

    generation: int
    """The generation that was trained on."""
    result: TrainingResult


class GenerationCommitted(Record):
    """A generation is over: who was how fit, who survives, and who lives next."""

    generation: int
    fitness: tuple[Fitness, ...]
    selection: Selection
    population: tuple[Individual, ...]
    """The next generation, adapters included; empty after the last one."""
    seconds: dict[str, float]
    """Wall time by phase: rollout, training, other."""


class EvaluationRow(Record):
    """Survival of one player on the held-out worlds."""

    who: str
    """`champion`, `founder` (the untouched model), `random`, `heuristic`, or an individual's id."""
    individual: str | None
    adapter: str | None
    lives: int
    mean: float
    """Mean survival in steps, capped at the horizon."""
    low: float
    """Lower end of the 95% bootstrap interval."""
    high: float
    ends: dict[str, int]


class Evaluated(Record):
    """Held-out comparison at the end of a run."""

    rows: tuple[EvaluationRow, ...]


class RunFinished(Record):
    """Nothing is left to do."""

    champion: str
    """Individual of the last generation with the highest fitness."""


BODIES: dict[str, type[Record]] = {
    "run": RunCreated,
    "epoch": EpochOpened,
    "lives": LivesCommitted,
    "birth": BirthCommitted,
    "generation": GenerationCommitted,
    "evaluation": Evaluated,
    "finish": RunFinished,
}


@dataclass
class RunState:
    """What the journal says so far."""

    created: RunCreated
    epochs: int = 0
    owner: EpochOpened | None = None
    generation: int = 0
    """The generation that lives now; equals the configured number when all have lived."""
    population: tuple[Individual, ...] = ()
    tables: dict[str, int] = field(default_factory=dict)
    """Pinned Delta version of each ledger table."""
    lives: dict[LifeKey, str] = field(default_factory=dict)
    """Acknowledged lives of all generations, with the attempt that counts."""
    births: dict[str, TrainingResult] = field(default_factory=dict)
    """Ended training jobs of all generations, by child."""
    history: list[GenerationCommitted] = field(default_factory=list)
    commits: list[LivesCommitted] = field(default_factory=list)
    everyone: dict[str, Individual] = field(default_factory=dict)
    """Every individual that ever was, by id."""
    evaluation: Evaluated | None = None
    finished: RunFinished | None = None

    def attempts(self, generation: int) -> list[str]:
        """Attempts that count in a generation: the filter that readers of the ledger apply."""
        return [attempt for key, attempt in self.lives.items() if key.generation == generation]

    def culled(self) -> tuple[str, ...]:
        """Lineages without a living member."""
        alive = set(lineages(self.population or self._last_population()))
        return tuple(name for name in lineages(self.created.founders) if name not in alive)

    def _last_population(self) -> tuple[Individual, ...]:
        return tuple(one for one in self.everyone.values() if one.generation == len(self.history) - 1)


def fold(entries: Iterable[Entry]) -> RunState:
    """State after all entries. Raises StateError for an entry that is unknown, malformed or out of place."""
    iterator = iter(entries)
    first = next(iterator, None)
    if first is None:
        raise StateError("journal: empty, expected a run; nothing was started here")
    created = body(first)
    if not isinstance(created, RunCreated):
        raise StateError(f"journal: first entry is of kind {first.kind!r}, expected 'run'")
    state = RunState(
        created=created,
        population=created.founders,
        everyone={one.id: one for one in created.founders},
    )
    for entry in iterator:
        apply(state, entry)
    return state


def body(entry: Entry) -> Record:
    """The typed body of an entry. Raises StateError naming the entry."""
    model = BODIES.get(entry.kind)
    if model is None:
        raise StateError(f"journal entry {entry.seq}: unknown kind {entry.kind!r}; a newer version wrote this run")
    format_written = entry.body.get("format", FORMAT)
    if entry.kind == "run" and format_written != FORMAT:
        raise StateError(
            f"journal entry 0: format {format_written} (written by {entry.body.get('version')}), this version reads"
            f" format {FORMAT}; use the version that wrote the run"
        )
    try:
        return model.model_validate_json(json.dumps(entry.body), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StateError(f"journal entry {entry.seq} ({entry.kind}): {where}: {first['msg']}") from error


def apply(state: RunState, entry: Entry) -> None:
    """Advances the state by one entry."""
    event = body(entry)
    if isinstance(event, EpochOpened):
        state.epochs, state.owner = entry.epoch, event
    elif isinstance(event, LivesCommitted):
        _expect(entry, event.generation, state.generation)
        for individual, life, attempt in event.lives:
            key = LifeKey(event.generation, individual, life)
            if state.lives.setdefault(key, attempt) != attempt:
                raise StateError(f"journal entry {entry.seq}: life {life} of {individual} is committed twice")
        state.tables = dict(event.tables)
        state.commits.append(event)
    elif isinstance(event, BirthCommitted):
        _expect(entry, event.generation, state.generation)
        state.births[event.result.individual] = event.result
    elif isinstance(event, GenerationCommitted):
        _expect(entry, event.generation, state.generation)
        state.history.append(event)
        state.generation += 1
        state.population = event.population
        state.everyone |= {one.id: one for one in event.population}
    elif isinstance(event, Evaluated):
        state.evaluation = event
    elif isinstance(event, RunFinished):
        state.finished = event
    else:
        raise StateError(f"journal entry {entry.seq}: a second entry of kind {entry.kind!r}")


def _expect(entry: Entry, got: int, expected: int) -> None:
    if got != expected:
        raise StateError(f"journal entry {entry.seq} ({entry.kind}): generation {got}, expected {expected}")
