"""The state of a run is a fold over its journal; nothing else is ever trusted.

Each journal kind has one closed body type here. `fold` refuses what it does not know, so that a run written by
another version is refused instead of half-read.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import Struct
from pydantic import Field, ValidationError

from orchestrator.fitness import Estimate, Fitness
from orchestrator.population import lineages
from orchestrator.selection import Selection
from telemetry.failures import StateError
from telemetry.journal import Entry
from telemetry.records import BaseModelCard, FileRef, Individual, LifeKey, Record
from trainer.job import TrainingResult

FORMAT = 2
"""Version of the journal's bodies; a change that older code cannot read raises it."""
BRANCH = r"^branch-\d+$"


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


class LivesCommitted(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """Lives whose rows are now part of the ledger: nearly all entries of a long journal are of this kind."""

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
    """How one player fared on the held-out worlds, by the run's own fitness."""

    who: str
    """`champion`, `founder` (the untouched model), `random`, `heuristic`, another reference, or an individual's id."""
    individual: str | None
    adapter: str | None
    lives: int
    mean: float
    """Over lives; survival in steps, capped at the horizon, where the fitness is `rmst`."""
    low: float
    """Lower end of the 95% bootstrap interval."""
    high: float
    ends: dict[str, int]
    measures: dict[str, Estimate] = Field(default_factory=dict)
    """What the world itself reports of these lives."""


class Evaluated(Record):
    """Held-out comparison at the end of a run."""

    rows: tuple[EvaluationRow, ...]


class Rewound(Record):
    """The run goes on from an earlier generation; what had come after it stays in the journal as a branch."""

    generation: int
    """The last generation that still counts."""
    branch: str = Field(pattern=BRANCH)
    """Name of what was left behind: `RUN@<branch>` reads it."""


class RunFinished(Record):
    """Nothing is left to do."""

    champion: str
    """Individual of the last generation with the highest fitness."""


Event = Record | LivesCommitted
"""The body of a journal entry."""

BODIES: dict[str, type[Record]] = {
    "run": RunCreated,
    "epoch": EpochOpened,
    "birth": BirthCommitted,
    "generation": GenerationCommitted,
    "evaluation": Evaluated,
    "finish": RunFinished,
    "rewind": Rewound,
}
_LIVES = msgspec.json.Decoder(LivesCommitted)


def dump(event: Event) -> dict[str, Any]:
    """The event as plain JSON values."""
    return event.model_dump(mode="json") if isinstance(event, Record) else msgspec.to_builtins(event)


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
    lives: dict[int, dict[LifeKey, str]] = field(default_factory=dict)
    """Acknowledged lives by generation, with the attempt that counts."""
    files: dict[int, list[FileRef]] = field(default_factory=dict)
    """What the journal vouches for of the ledger, by the generation whose lives it acknowledges."""
    births: dict[str, TrainingResult] = field(default_factory=dict)
    """Ended training jobs of all generations, by child."""
    history: list[GenerationCommitted] = field(default_factory=list)
    commits: list[LivesCommitted] = field(default_factory=list)
    everyone: dict[str, Individual] = field(default_factory=dict)
    """Every individual that ever was, by id."""
    evaluation: Evaluated | None = None
    finished: RunFinished | None = None
    branches: dict[str, int] = field(default_factory=dict)
    """What was left behind by rewinding: name -> last journal entry that belongs to it."""

    def attempts(self, generation: int) -> list[str]:
        """Attempts that count in a generation: the filter that readers of the ledger apply."""
        return list(self.lives.get(generation, {}).values())

    def vouched(self, generation: int) -> list[FileRef]:
        """Ledger files that hold the acknowledged lives of a generation: the only ones that readers look at."""
        return self.files.get(generation, [])

    def life(self, key: LifeKey) -> str | None:
        """The acknowledged attempt at a life, if there is one."""
        return self.lives.get(key.generation, {}).get(key)

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
    everyone = {one.id: one for one in created.founders}
    state = RunState(created=created, population=created.founders, everyone=everyone)
    for entry in iterator:
        apply(state, entry)
    return state


def body(entry: Entry) -> Event:
    """The typed body of an entry. Raises StateError naming the entry."""
    if entry.kind == "lives":
        try:
            return _LIVES.decode(entry.raw_body)
        except msgspec.DecodeError as error:
            raise StateError(f"journal entry {entry.seq} (lives): {error}") from error
    model = BODIES.get(entry.kind)
    if model is None:
        raise StateError(f"journal entry {entry.seq}: unknown kind {entry.kind!r}; a newer version wrote this run")
    if entry.kind == "run":
        _check_format(entry.body)
    try:
        return model.model_validate_json(bytes(entry.raw_body), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StateError(f"journal entry {entry.seq} ({entry.kind}): {where}: {first['msg']}") from error


def _check_format(genesis: dict[str, Any]) -> None:
    written, version = genesis.get("format", FORMAT), genesis.get("version")
    if written != FORMAT:
        what = f"format {written} (written by {version}), this version reads format {FORMAT}"
        raise StateError(f"journal entry 0: {what}; use the version that wrote the run")


def apply(state: RunState, entry: Entry) -> None:
    """Advances the state by one entry."""
    event = body(entry)
    if isinstance(event, LivesCommitted):
        _commit_lives(state, entry, event)
    elif isinstance(event, EpochOpened):
        state.epochs, state.owner = entry.epoch, event
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
    elif isinstance(event, Rewound):
        _rewind(state, entry, event)
    else:
        raise StateError(f"journal entry {entry.seq}: a second entry of kind {entry.kind!r}")


def _commit_lives(state: RunState, entry: Entry, event: LivesCommitted) -> None:
    generation = event.generation
    _expect(entry, generation, state.generation)
    lives = state.lives.setdefault(generation, {})
    for individual, life, attempt in event.lives:
        if lives.setdefault(LifeKey(generation, individual, life), attempt) != attempt:
            raise StateError(f"journal entry {entry.seq}: life {life} of {individual} is committed twice")
    state.tables = dict(event.tables)
    state.files.setdefault(generation, []).extend(entry.refs)
    state.commits.append(event)


def _rewind(state: RunState, entry: Entry, event: Rewound) -> None:
    """Forgets what came after a generation. Ledger versions stay: no later row is of an attempt that counts."""
    if event.generation >= len(state.history) or event.branch in state.branches:
        raise StateError(
            f"journal entry {entry.seq}: rewinds to generation {event.generation} as {event.branch}, but"
            f" {len(state.history)} generations are committed and the branches are {sorted(state.branches)}"
        )
    last = event.generation
    state.branches[event.branch] = entry.seq - 1
    state.generation = last + 1
    state.population = state.history[last].population
    state.history = state.history[: last + 1]
    state.commits = [commit for commit in state.commits if commit.generation <= last]
    state.lives = {generation: lives for generation, lives in state.lives.items() if generation <= last}
    state.files = {generation: files for generation, files in state.files.items() if generation <= last}
    state.everyone = {name: one for name, one in state.everyone.items() if one.generation <= last + 1}
    state.births = {name: result for name, result in state.births.items() if name in state.everyone}
    state.evaluation = state.finished = None


def _expect(entry: Entry, got: int, expected: int) -> None:
    if got != expected:
        raise StateError(f"journal entry {entry.seq} ({entry.kind}): generation {got}, expected {expected}")
