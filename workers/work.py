"""What the worker pool has still to do: parties of lives, the batches that engines take, and what waits for its commit.

Law: a party is in one place at a time - it waits in a batch, is under way on an agent, waits for its commit, or is
done - and goes back to waiting from any of them, as a new attempt, when what held it is lost.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic
from uuid import uuid4

import pyarrow as pa
from msgspec import structs

from telemetry.ledger import Receipt
from telemetry.records import LifeSummary
from workers.crew import Bell
from workers.recorder import LifeTask

Acknowledge = Callable[[Sequence[Receipt], Sequence[LifeSummary], float], None]
"""Commits lives and the appends, oldest first, made since the acknowledgement before; the wall time between them."""

Told = list[tuple[pa.Table, pa.Table]]
"""(steps, lives) of finished lives that were to be told."""


@dataclass(frozen=True, slots=True)
class Party:
    """Lives that share one instance of the world: lived, lost, recorded and committed together or not at all.

    In a world that nobody shares, every life is a party of its own.
    """

    tasks: tuple[LifeTask, ...]
    """All of one attempt."""
    tries: int = 0
    """How often it was lost."""
    alone: bool = False
    """Nothing else may run on its agent."""
    apart: bool = False
    """No other weights may be on its engine."""

    @property
    def attempt(self) -> str:
        return self.tasks[0].attempt

    @property
    def adapters(self) -> tuple[str | None, ...]:
        return tuple(dict.fromkeys(task.individual.genome.adapter for task in self.tasks))

    def __str__(self) -> str:
        first, others = self.tasks[0], len(self.tasks) - 1
        return f"life {first.life} of {first.individual.id}" + (f" and {others} others" if others else "")


@dataclass(eq=False)
class Batch:
    """Parties that an engine lives without loading other weights; several engines may be at it."""

    adapters: tuple[str | None, ...]
    apart: bool = False
    waiting: deque[Party] = field(default_factory=deque)
    alone: deque[Party] = field(default_factory=deque)
    """Those that wait for an agent of their own."""
    engines: int = 0
    """At work on it."""
    under_way: int = 0
    """Parties."""

    @property
    def queued(self) -> int:
        return len(self.waiting) + len(self.alone)

    @property
    def share(self) -> int:
        """Parties that are due to each of its engines."""
        return -(-(self.queued + self.under_way) // max(1, self.engines))

    def takes(self, party: Party) -> bool:
        """True for one that may be lived beside these. Apart, lives of the same one adapter may; instances may not."""
        if party.apart:
            return self.apart and self.adapters == party.adapters and len(self.adapters) == 1
        return not self.apart and {*party.adapters} <= {*self.adapters}


@dataclass(frozen=True, slots=True)
class Lived:
    """A party that came to its end, whose rows are with an incarnation of the sink."""

    party: Party
    lives: tuple[LifeSummary, ...]
    held_by: int


@dataclass
class Work:
    """One call's lives on their way from a task to a journal entry."""

    acknowledge: Acknowledge | None
    """Commits finished lives; None when nothing is to be recorded."""
    bell: Bell
    """Rung whenever something here waits that did not."""
    batches: list[Batch]
    """In the order in which they are to be served."""
    finished: dict[str, Lived] = field(default_factory=dict)
    """By attempt. With `acknowledge`, those that the journal does not know yet."""
    spent: list[Party] = field(default_factory=list)
    """Parties without tries left: to be recorded as censored, once somebody has lived."""
    begun: bool = False
    """The journal knows of a life of this generation; a generation of which nobody lived must not become one."""
    written: list[Receipt] = field(default_factory=list)
    """Appends that no acknowledgement has named yet."""
    in_ledger: set[str] = field(default_factory=set)
    """Attempts whose rows are written: a row may get there before its agent's report gets here."""
    told: Told = field(default_factory=list)
    last_commit: float = field(default_factory=monotonic)
    all_lived: bool = False
    commit_due: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when all have lived, or many wait for their commit."""

    def all_have_lived(self, yes: bool) -> None:
        """Whether anybody is left who may yet live; when nobody is, the last commit is due."""
        self.all_lived = yes
        if yes:
            self.commit_due.set()
        else:
            self.commit_due.clear()

    @property
    def queued(self) -> bool:
        """Some party waits to be lived."""
        return any(batch.queued for batch in self.batches)

    @property
    def under_way(self) -> bool:
        """Some engine is at work, so that parties may yet come back."""
        return any(batch.engines for batch in self.batches)

    def choose(self) -> Batch | None:
        """What an idle engine is to do: the first batch that nobody is at, or else the one that needs it most."""
        queued = [batch for batch in self.batches if batch.queued]
        free = (batch for batch in queued if not batch.engines)
        shared = [batch for batch in queued if batch.engines and not batch.apart]
        return next(free, None) or max(shared, key=lambda batch: batch.queued / batch.engines, default=None)

    def put_back(self, parties: Sequence[Party]) -> None:
        """Parties to be lived before all others of their batches; what fits no batch there is gets one, the first."""
        for party in reversed(parties):
            self._home(party).appendleft(party)
        self.bell.ring()

    def _home(self, party: Party) -> deque[Party]:
        batch = next((batch for batch in self.batches if batch.takes(party)), None)
        if batch is None:
            batch = Batch(party.adapters, party.apart)
            self.batches.insert(0, batch)
        return batch.alone if party.alone else batch.waiting


def form(groups: Iterable[Sequence[LifeTask]], together: bool) -> list[list[Party]]:
    """Parties in groups that need the same weights: one per life, or `together` one for all lives of the same index."""
    if not together:
        return [[Party((task,)) for task in group] for group in groups if group]
    lives: dict[int, list[LifeTask]] = {}
    for task in (task for group in groups for task in group):
        lives.setdefault(task.life, []).append(task)
    parties = [_party(tasks, tasks[0].attempt) for _, tasks in sorted(lives.items())]
    return [parties] if parties else []


def fresh(party: Party) -> Party:
    """Another attempt at the same lives."""
    return replace(party, tasks=_party(party.tasks, uuid4().hex).tasks)


def _party(tasks: Sequence[LifeTask], attempt: str) -> Party:
    return Party(tuple(structs.replace(task, attempt=attempt) for task in tasks))
