"""A run as the loop sees it: what the journal says, and the only way to add to it."""

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from time import monotonic

import pyarrow as pa

from orchestrator.budget import next_brood
from orchestrator.config import RunConfig
from orchestrator.diversity import diversity
from orchestrator.events import (
    FORMAT,
    BirthCommitted,
    EpochOpened,
    Evaluated,
    EvaluationRow,
    Event,
    GenerationCommitted,
    Imported,
    LivesCommitted,
    Origin,
    Rewound,
    RunCreated,
    RunFinished,
    dump,
)
from orchestrator.outcomes import keep
from orchestrator.population import founders, in_order
from orchestrator.reproduction import Births, Brood
from orchestrator.state import RunState, apply, fold
from orchestrator.stopwatch import Stopwatch
from orchestrator.verdict import Fitness, Selection
from telemetry import __version__
from telemetry.journal import Journal, Writer
from telemetry.ledger import HELD_OUT, Ledger, Receipt
from telemetry.records import BaseModelCard, EndReason, FileRef, Individual, LifeKey, LifeSummary
from telemetry.seeds import rng
from telemetry.store import Store
from trainer.job import Trained, TrainingResult

Listener = Callable[[Event, RunState], None]
"""Told of every committed event, after it is durable: metrics and progress fold what they are told."""


class Run:
    """One driver's hold on a run. Every change goes through the journal first, then into `state`."""

    def __init__(self, store: Store, writer: Writer, state: RunState, config: RunConfig) -> None:
        self.store = store
        self.state = state
        self.config = config
        self.ledger = Ledger(store)
        self.listeners: list[Listener] = []
        self.watch = Stopwatch()
        """Wall time by phase of the generation that lives now."""
        self.append_seconds = 0.0
        """What the last entry took until it was durable."""
        self._writer = writer
        self._kept: list[FileRef] = []
        self._outcomes: list[pa.Table] = []

    @property
    def epoch(self) -> int:
        """This driver's reign."""
        return self._writer.epoch

    @property
    def population(self) -> tuple[Individual, ...]:
        return self.state.population

    @property
    def generation(self) -> int:
        return self.state.generation

    def next_brood(self) -> Brood:
        """What is to follow the generation that lives now; to be asked once all its lives are committed."""
        return next_brood(self.state, self.generation, self.config)

    def finished_lives(self) -> set[LifeKey]:
        """Committed lives of the generation that lives now."""
        return set(self.state.lives.get(self.generation, ()))

    def acknowledge(self, receipts: Sequence[Receipt], lives: Sequence[LifeSummary], seconds: float) -> None:
        """Makes appended lives part of the run; `receipts` are the appends not vouched for before, oldest first."""
        ends: dict[str, int] = {}
        for life in lives:
            label = f"{life.end}:{life.cause}" if life.end is EndReason.DIED else str(life.end)
            ends[label] = ends.get(label, 0) + 1
        ordered = sorted(lives, key=lambda life: (life.key.individual, life.key.life))
        tables = dict(receipts[-1].versions) if receipts else self.state.tables
        files = [file for receipt in receipts for file in receipt.files]
        self._commit(
            LivesCommitted(
                generation=self.generation,
                tables=tables,
                lives=tuple((life.key.individual, life.key.life, life.attempt) for life in ordered),
                decisions=sum(life.steps for life in lives),
                prompt_tokens=sum(life.prompt_tokens for life in lives),
                completion_tokens=sum(life.completion_tokens for life in lives),
                ends=ends,
                seconds=round(seconds, 3),
            ),
            "lives",
            [*files, *self.ledger.between(self.state.tables, tables, files)],
        )

    def table(self, name: str, columns: Sequence[str] | None = None, *, ordered: bool = True) -> pa.Table:
        """Committed rows of the generation that lives now, as `Ledger.recall` gives them."""
        generation = self.generation
        vouched, attempts = self.state.vouched(generation), self.state.attempts(generation)
        return self.ledger.recall(name, generation, vouched, attempts, columns, ordered=ordered)

    def publish(self, result: TrainingResult, refs: Sequence[FileRef]) -> None:
        """Records how a newborn's training job ended."""
        self.publish_all([(result, tuple(refs))])

    def publish_all(self, results: Sequence[Trained]) -> None:
        """Records how training jobs ended, in fewer waits for the disk than one by one."""
        born = [(BirthCommitted(generation=self.generation, result=result), refs) for result, refs in results]
        self._commit_all(born, "birth")

    @property
    def last_fitness(self) -> tuple[Fitness, ...]:
        """Of the generation before; empty in the first one."""
        return self.state.history[-1].fitness if self.state.history else ()

    def commit(self, fitness: Sequence[Fitness], suspects: Sequence[str], selection: Selection, births: Births) -> None:
        """Ends the generation that lives now: elites and newborns are the next population."""
        newborns = tuple(job.child.with_adapter(self.state.births[job.child.id].adapter) for job in births.jobs)
        self._commit(
            GenerationCommitted(
                generation=self.generation,
                fitness=tuple(fitness),
                suspects=tuple(suspects),
                selection=selection,
                population=in_order(births.elites + newborns),
                diversity=diversity(self.table("steps", ["individual", "action"], ordered=False), self.population),
                seconds={phase: round(seconds, 3) for phase, seconds in self.watch.take().items()},
            ),
            "generation",
        )

    def keep(self, steps: pa.Table, lives: pa.Table) -> None:
        """Writes held-out lives where nobody learns from them; the entry of the evaluation vouches for them."""
        self._kept += Ledger(self.store, HELD_OUT).keep(steps, lives)

    def tell(self, outcomes: pa.Table) -> None:
        """Takes what became of a player's held-out lives; the entry of the evaluation vouches for all of them."""
        self._outcomes.append(outcomes)

    def evaluated(self, rows: Sequence[EvaluationRow]) -> None:
        """Records the held-out comparison."""
        told = [keep(self.store, self._outcomes)] if self._outcomes else []
        self._commit(Evaluated(rows=tuple(rows)), "evaluation", [*self._kept, *told])

    def rewind(self, generation: int) -> None:
        """Goes on from right after a committed generation; what came later stays readable as a branch."""
        self._commit(Rewound(generation=generation, branch=f"branch-{len(self.state.branches) + 1}"), "rewind")

    def finish(self, champion: str) -> None:
        """Records that nothing is left to do."""
        self._commit(RunFinished(champion=champion), "finish")

    def _commit(self, event: Event, kind: str, refs: Sequence[FileRef] = ()) -> None:
        self._commit_all([(event, refs)], kind)

    def _commit_all(self, events: Sequence[tuple[Event, Sequence[FileRef]]], kind: str) -> None:
        began = monotonic()
        entries = self._writer.append_all(kind, [(dump(event), tuple(refs)) for event, refs in events])
        self.append_seconds = monotonic() - began
        for entry, (event, _) in zip(entries, events, strict=True):
            apply(self.state, entry)
            for listener in self.listeners:
                listener(event, self.state)


def create(store: Store, config: RunConfig, card: BaseModelCard) -> Run:
    """Starts a new run in an empty place. Raises UsageError when a run is there already."""
    found(store, config, card)
    return _take_over(store, Journal(store), config)


def found(
    store: Store,
    config: RunConfig,
    card: BaseModelCard,
    adapters: Mapping[str, str | None] | None = None,
    origin: Origin | None = None,
    refs: Sequence[FileRef] = (),
    imported: Sequence[Imported] = (),
) -> None:
    """Writes the first entry of a run.

    adapters: of founders by id, for those of a transplanted run, whose `origin` it is, or of one that begins with what
    was `imported`; `refs` vouches for them. Raises UsageError when a run is there already.
    """
    people = founders(config.population, config.reproduction.hyperparameter_mutation, rng(config.seed, "founders"))
    genesis = RunCreated(
        format=FORMAT,
        version=__version__,
        run=config.name,
        config=config.model_dump(mode="json"),
        model=card,
        founders=tuple(one.with_adapter((adapters or {}).get(one.id)) for one in people),
        origin=origin,
        imported=tuple(imported),
    )
    Journal(store).create(genesis.model_dump(mode="json", exclude=None if imported else {"imported"}), refs)


def reopen(store: Store, config: RunConfig) -> Run:
    """Takes over an existing run with (the operational parts of) `config`."""
    return _take_over(store, Journal(store), config)


def _take_over(store: Store, journal: Journal, config: RunConfig) -> Run:
    opened = EpochOpened(
        host=socket.gethostname(),
        pid=os.getpid(),
        opened_at=datetime.now(UTC).isoformat(timespec="seconds"),
        version=__version__,
    )
    writer = journal.open_epoch(opened.model_dump(mode="json"))
    state = fold(writer.history)
    Ledger(store).repair(state.tables)
    return Run(store, writer, state, config)


def champion(state: RunState) -> Individual:
    """The fittest individual of the last committed generation."""
    return state.everyone[state.history[-1].champion]
