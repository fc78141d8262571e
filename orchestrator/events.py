"""What a run's journal says: one closed body type per kind of entry.

What is not known is refused, so that a run written by another version is refused instead of half-read.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal

import msgspec
from msgspec import Struct
from pydantic import Field, ValidationError

from orchestrator.verdict import Diversity, Estimate, Fitness, Selection, ranked
from telemetry.failures import StateError
from telemetry.journal import Entry
from telemetry.records import BaseModelCard, Individual, Record
from trainer.job import TrainingResult

FORMAT = 3
"""Version of the journal's bodies; a change that older code cannot read raises it."""
BRANCH = r"^branch-\d+$"


class Origin(Record):
    """Where the founders of a transplanted run come from."""

    run: str
    model: BaseModelCard
    """The base model of that run."""
    generations: int
    """That had been lived there."""
    ancestry: dict[str, tuple[str, ...]]
    """Lineage -> ids in that run, from its founder there to the individual whose place its founder here takes."""


class Imported(Record):
    """Something of others that founders began with."""

    kind: Literal["adapter", "telemetry"]
    name: str
    """Of the directory that the adapter came in, or of the run that the telemetry is from."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the adapter's weights as they came; of telemetry the run's digest."""
    founders: tuple[str, ...]
    """Ids of those who began with it."""


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
    origin: Origin | None = None
    """null for a run whose founders are untouched, or imported."""
    imported: tuple[Imported, ...] = ()
    """Written only where there is some, so that earlier versions read all other runs."""


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
    suspects: tuple[str, ...] = ()
    """Whose fitness was too good to be believed and was measured again."""
    selection: Selection
    population: tuple[Individual, ...]
    """The next generation, adapters included; empty after the last one."""
    diversity: Diversity
    """How alike those who lived it played."""
    seconds: dict[str, float]
    """Wall time by phase: rollout, training, other."""

    @property
    def champion(self) -> str:
        """The fittest individual, whoever was drawn to survive."""
        return ranked(self.fitness)[0].individual


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
    values: tuple[float, ...] = ()
    """Fitness by held-out world, in an order that is the same for everyone: for comparisons in pairs."""


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


def ends_of(commits: Iterable[LivesCommitted]) -> dict[str, int]:
    """Number of lives by `died:<cause>`, `survived`, `censored`: survivors first, then by number."""
    counts: Counter[str] = Counter()
    for commit in commits:
        counts.update(commit.ends)
    return dict(sorted(counts.items(), key=lambda item: (item[0] != "survived", -item[1], item[0])))


def dump(event: Event) -> dict[str, Any]:
    """The event as plain JSON values."""
    return event.model_dump(mode="json") if isinstance(event, Record) else msgspec.to_builtins(event)


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
