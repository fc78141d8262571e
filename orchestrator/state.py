"""The state of a run is a fold over its journal; nothing else is ever trusted."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from orchestrator.config import RunConfig
from orchestrator.events import (
    BirthCommitted,
    EpochOpened,
    Evaluated,
    GenerationCommitted,
    LivesCommitted,
    Rewound,
    RunCreated,
    RunFinished,
    body,
)
from orchestrator.population import lineages
from telemetry.failures import StateError
from telemetry.journal import Entry
from telemetry.records import FileRef, Individual, LifeKey
from trainer.job import TrainingResult


class Lives(Mapping[LifeKey, str]):
    """Acknowledged lives of one generation: key -> the attempt that counts.

    Kept by individual, without an object for each key: there are hundreds of thousands, and a resume reads them all.
    """

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.attempts: defaultdict[str, dict[int, str]] = defaultdict(dict)
        """Individual -> life -> attempt."""

    def __getitem__(self, key: LifeKey) -> str:
        if key.generation != self.generation or key.individual not in self.attempts:
            raise KeyError(key)
        return self.attempts[key.individual][key.life]

    def __iter__(self) -> Iterator[LifeKey]:
        for individual, lives in self.attempts.items():
            for life in lives:
                yield LifeKey(self.generation, individual, life)

    def __len__(self) -> int:
        return sum(map(len, self.attempts.values()))

    def count(self, individual: str) -> int:
        """Acknowledged lives of one individual."""
        return len(self.attempts.get(individual, ()))


@dataclass
class RunState:
    """What the journal says so far."""

    created: RunCreated
    epochs: int = 0
    owner: EpochOpened | None = None
    generation: int = 0
    """The generation that lives now; equals the configured number when all have lived."""
    population: tuple[Individual, ...] = ()
    stored_bytes: int = 0
    """Of all objects that the journal has vouched for, branches included."""
    tables: dict[str, int] = field(default_factory=dict)
    """Pinned Delta version of each ledger table."""
    lives: dict[int, Lives] = field(default_factory=dict)
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
    held_out: tuple[FileRef, ...] = ()
    """Files with those of its lives that were kept."""
    finished: RunFinished | None = None
    branches: dict[str, int] = field(default_factory=dict)
    """What was left behind by rewinding: name -> last journal entry that belongs to it."""

    def attempts(self, generation: int) -> list[str]:
        """Attempts that count in a generation: the filter that readers of the ledger apply."""
        return list(self.lives.get(generation, Lives(generation)).values())

    def vouched(self, generation: int) -> list[FileRef]:
        """Ledger files that hold the acknowledged lives of a generation: the only ones that readers look at."""
        return self.files.get(generation, [])

    def life(self, key: LifeKey) -> str | None:
        """The acknowledged attempt at a life, if there is one."""
        return self.lives.get(key.generation, Lives(key.generation)).get(key)

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
    size = sum(ref.size for ref in first.refs)
    state = RunState(created=created, population=created.founders, everyone=everyone, stored_bytes=size)
    for entry in iterator:
        apply(state, entry)
    return state


def apply(state: RunState, entry: Entry) -> None:
    """Advances the state by one entry."""
    event = body(entry)
    state.stored_bytes += sum(ref.size for ref in entry.refs)
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
        state.evaluation, state.held_out = event, entry.refs
    elif isinstance(event, RunFinished):
        state.finished = event
    elif isinstance(event, Rewound):
        _rewind(state, entry, event)
    else:
        raise StateError(f"journal entry {entry.seq}: a second entry of kind {entry.kind!r}")


def _commit_lives(state: RunState, entry: Entry, event: LivesCommitted) -> None:
    generation = event.generation
    _expect(entry, generation, state.generation)
    if generation not in state.lives:
        state.lives[generation] = Lives(generation)
    lives = state.lives[generation].attempts
    for individual, life, attempt in event.lives:
        if lives[individual].setdefault(life, attempt) != attempt:
            raise StateError(f"journal entry {entry.seq}: life {life} of {individual} is committed twice")
    state.tables = event.tables
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
    state.evaluation, state.held_out, state.finished = None, (), None


def _expect(entry: Entry, got: int, expected: int) -> None:
    if got != expected:
        raise StateError(f"journal entry {entry.seq} ({entry.kind}): generation {got}, expected {expected}")


def config_of(state: RunState) -> RunConfig:
    """The configuration the run was created with. Raises StateError for one that this version does not read."""
    try:
        return RunConfig.model_validate(state.created.config)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StateError(f"journal entry 0 (run): config.{where}: {first['msg']}") from error
