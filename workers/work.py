"""Bookkeeping of the worker pool: what is still to be lived, what waits for its commit, who may use an agent when."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from time import monotonic
from uuid import uuid4

from telemetry.ledger import Receipt
from telemetry.records import LifeKey, LifeSummary
from workers.recorder import LifeTask

Acknowledge = Callable[[Sequence[Receipt], Sequence[LifeSummary], float], None]
"""Commits lives and the appends, oldest first, made since the acknowledgement before; the wall time between them."""


@dataclass
class Work:
    """One call's lives on their way from a task to a journal entry."""

    acknowledge: Acknowledge | None
    """Commits finished lives; None when nothing is to be recorded."""
    tries: dict[LifeKey, int] = field(default_factory=dict)
    """How often a life was lost."""
    finished: dict[str, tuple[LifeTask, LifeSummary, int]] = field(default_factory=dict)
    """Finished lives by attempt, with the incarnation of the sink that got their rows. With `acknowledge`, those that
    the journal does not know yet."""
    again: list[LifeTask] = field(default_factory=list)
    """Lives that finished and whose rows were lost with their sink: to be lived again after the others."""
    spent: list[LifeTask] = field(default_factory=list)
    """Lives without tries left: to be recorded as censored."""
    written: list[Receipt] = field(default_factory=list)
    """Appends that no acknowledgement has named yet."""
    in_ledger: set[str] = field(default_factory=set)
    """Attempts whose rows are written: a row may get there before its agent's report gets here."""
    last_commit: float = field(default_factory=monotonic)
    all_lived: asyncio.Event = field(default_factory=asyncio.Event)

    def take_again(self) -> list[list[LifeTask]]:
        """What has to be lived again, by individual."""
        groups: dict[str, list[LifeTask]] = {}
        for task in self.again:
            groups.setdefault(task.individual.id, []).append(task)
        self.again = []
        return list(groups.values())


class Slots:
    """Room for batches of lives on one agent: several side by side, or one alone."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = asyncio.Semaphore(count)
        # Two that want to be alone would each hold what the other waits for.
        self._one_alone = asyncio.Lock()

    @asynccontextmanager
    async def taken(self, alone: bool) -> AsyncIterator[None]:
        """Room for one batch; `alone`, all the room there is."""
        held = 0
        try:
            async with self._one_alone if alone else nullcontext():
                while held < (self._count if alone else 1):
                    await self._free.acquire()
                    held += 1
            yield
        finally:
            for _ in range(held):
                self._free.release()


def fresh(task: LifeTask) -> LifeTask:
    """Another attempt at the same life."""
    return replace(task, attempt=uuid4().hex)
