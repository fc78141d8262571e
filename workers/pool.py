"""The worker pool: places a generation's lives on agents and engines, replaces the dead, skips what is committed.

The pool decides nothing about evolution. It knows engines and agents only as objects with async methods, so it
runs the same on a Ray cluster and inside one process.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from time import monotonic
from typing import Any
from uuid import uuid4

from telemetry.failures import NoProgressError, StorageError
from telemetry.ledger import Receipt
from telemetry.records import LifeKey, LifeSummary
from telemetry.remote import RemoteLost
from workers.agent import LostLife, Report
from workers.config import WorkersConfig
from workers.engine import EngineFailure
from workers.life import EnvironmentFailure
from workers.recorder import LifeTask

CHUNK = 16
"""Lives per call to an agent: small enough for steady reports, large enough that calls cost nothing."""

Spawn = Callable[[], Awaitable[Any]]
Acknowledge = Callable[[Sequence[Receipt], Sequence[LifeSummary], float], None]
"""Commits lives and the appends, oldest first, made since the acknowledgement before; the wall time between them."""


@dataclass
class Member:
    """A replaceable engine or agent. Each incarnation has a name of its own."""

    role: str
    index: int
    spawn: Spawn
    peer: Any = None
    incarnation: int = 0
    failures: int = 0
    """Replacements since the last life that came back."""

    @property
    def name(self) -> str:
        return f"{self.role}-{self.index}.{self.incarnation}"

    async def start(self) -> None:
        """Starts the first incarnation."""
        self.peer = await self.spawn()

    async def replace(self, budget: int, reason: str) -> None:
        """Kills what is left of the peer and starts a new one. Raises NoProgressError when the budget is spent."""
        self.failures += 1
        if self.failures > budget:
            raise NoProgressError(f"{self.name}: replaced {budget} times without progress; last failure: {reason}")
        if hasattr(self.peer, "kill"):
            self.peer.kill()
        self.incarnation += 1
        self.peer = await self.spawn()


@dataclass
class _Work:
    """Bookkeeping of one call's lives: still to be lived, under way, or waiting for their commit."""

    acknowledge: Acknowledge | None
    """Commits finished lives; None when nothing is to be recorded."""
    tries: dict[LifeKey, int] = field(default_factory=dict)
    finished: dict[str, LifeSummary] = field(default_factory=dict)
    """Finished lives by attempt. With `acknowledge`, those that the journal does not know yet."""
    written: list[Receipt] = field(default_factory=list)
    """Appends that no acknowledgement has named yet."""
    in_ledger: set[str] = field(default_factory=set)
    """Attempts whose rows are written: a row may get there before its agent's report gets here."""
    last_commit: float = field(default_factory=monotonic)
    all_lived: asyncio.Event = field(default_factory=asyncio.Event)


class WorkerPool:
    """Lives on `engines` and `agents`, through one telemetry sink."""

    def __init__(
        self,
        *,
        engines: Sequence[Member],
        agents: Sequence[Member],
        sink: Any,
        capacity: int,
        config: WorkersConfig,
        commit_seconds: float,
    ) -> None:
        self.engines = engines
        self.agents = agents
        self.restarts = 0
        """Actors replaced so far."""
        self._sink = sink
        self._capacity = capacity
        self._config = config
        self._commit_seconds = commit_seconds
        self._slots = {agent.index: asyncio.Semaphore(max(1, config.lives_per_agent // CHUNK)) for agent in agents}

    async def live(self, groups: Sequence[Sequence[LifeTask]], acknowledge: Acknowledge) -> None:
        """Lives every task, streams its rows to the ledger, and acknowledges it exactly once.

        groups: tasks by individual, in the order in which individuals are to be served. What has finished is
        committed even when this raises: NoProgressError when restart budgets are spent, EnvironmentFailure when
        the world is broken, StorageError when the store refuses a commit.
        """
        work = _Work(acknowledge)
        serving = asyncio.create_task(self._serve_all(groups, work))
        flushing = asyncio.create_task(self._flush_until_all_lived(work))
        try:
            await asyncio.wait({serving, flushing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            serving.cancel()
            work.all_lived.set()
            outcomes = await asyncio.gather(serving, flushing, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
        if work.finished:
            raise NoProgressError(f"{len(work.finished)} finished lives never reached the ledger; resume the run")

    async def try_out(self, groups: Sequence[Sequence[LifeTask]]) -> list[LifeSummary]:
        """Lives every task without recording anything: for evaluation. Raises as `live`."""
        work = _Work(None)
        await self._serve_all(groups, work)
        return list(work.finished.values())

    async def _serve_all(self, groups: Sequence[Sequence[LifeTask]], work: _Work) -> None:
        queue = asyncio.Queue[list[LifeTask]]()
        for batch in self._batches([group for group in groups if group]):
            queue.put_nowait(batch)
        try:
            async with asyncio.TaskGroup() as tasks:
                for engine in self.engines:
                    tasks.create_task(self._serve(engine, queue, work))
        except* Exception as group:  # noqa: BLE001 - the first failure is the one to tell; all are cancelled by now
            raise group.exceptions[0] from None

    def _batches(self, groups: Sequence[Sequence[LifeTask]]) -> Iterator[list[LifeTask]]:
        """Tasks an engine serves together: never more adapters than it holds, work for every engine.

        Life by life across the individuals of a batch, so that an interrupted generation holds comparable
        numbers of all of them.
        """
        size = max(1, min(self._capacity, -(-len(groups) // len(self.engines))))
        for start in range(0, len(groups), size):
            rows = zip_longest(*groups[start : start + size])
            yield [task for row in rows for task in row if task is not None]

    async def _serve(self, engine: Member, queue: asyncio.Queue[list[LifeTask]], work: _Work) -> None:
        """Takes batches until none is left; lives whose engine fails are tried again on its replacement."""
        while not queue.empty():
            todo = queue.get_nowait()
            while todo:
                failure = ""
                try:
                    await engine.peer.load(list(dict.fromkeys(task.individual.genome.adapter for task in todo)))
                    todo = await self._live_batch(engine, todo, work)
                    failure = f"{len(todo)} lives lost their engine" if todo else ""
                except (RemoteLost, EngineFailure) as error:
                    failure = str(error)
                if failure:
                    self.restarts += 1
                    await engine.replace(self._config.restarts, failure)
                todo = [self._retry(task, work) for task in todo]

    def _retry(self, task: LifeTask, work: _Work) -> LifeTask:
        tries = work.tries[task.key] = work.tries.get(task.key, 0) + 1
        if tries > self._config.life_retries:
            raise NoProgressError(
                f"life {task.life} of {task.individual.id} was lost {tries} times to infrastructure; see the logs"
            )
        return replace(task, attempt=uuid4().hex)

    async def _live_batch(self, engine: Member, tasks: Sequence[LifeTask], work: _Work) -> list[LifeTask]:
        """Lives the tasks on all agents; returns those that were lost."""
        chunks = [tasks[start : start + CHUNK] for start in range(0, len(tasks), CHUNK)]
        lost = await asyncio.gather(
            *(
                self._live_chunk(self.agents[index % len(self.agents)], engine, chunk, work)
                for index, chunk in enumerate(chunks)
            )
        )
        return [task for chunk in lost for task in chunk]

    async def _live_chunk(
        self, agent: Member, engine: Member, chunk: Sequence[LifeTask], work: _Work
    ) -> list[LifeTask]:
        async with self._slots[agent.index]:
            todo = list(chunk)
            while True:
                incarnation = agent.incarnation
                try:
                    report: Report = await agent.peer.live(todo, engine.name, engine.peer, work.acknowledge is not None)
                except RemoteLost as error:
                    if incarnation == agent.incarnation:
                        self.restarts += 1
                        await agent.replace(self._config.restarts, str(error))
                    todo = [self._retry(task, work) for task in todo]
                    continue
                work.finished |= {summary.attempt: summary for summary in report.finished}
                if report.finished:
                    agent.failures = engine.failures = 0
                return _still_to_live(todo, report.lost)

    async def _flush_until_all_lived(self, work: _Work) -> None:
        last = False
        while not last:
            with suppress(TimeoutError):
                await asyncio.wait_for(work.all_lived.wait(), self._commit_seconds)
            # Asked before the flush: lives that end while it runs need one more.
            last = work.all_lived.is_set()
            await self._flush(work)

    async def _flush(self, work: _Work) -> None:
        """Commits what the sink holds: rows first, then the journal entry that makes them part of the run."""
        if work.acknowledge is None or not work.finished:
            return
        try:
            receipt: Receipt | None = await self._sink.flush(uuid4().hex)
        except RemoteLost as error:
            raise StorageError(f"telemetry sink lost with {len(work.finished)} finished lives: {error}") from error
        if receipt is not None:
            work.written.append(receipt)
            work.in_ledger |= set(receipt.attempts)
        lives = [work.finished.pop(attempt) for attempt in list(work.finished) if attempt in work.in_ledger]
        if lives:
            work.acknowledge(work.written, lives, monotonic() - work.last_commit)
            work.written = []
            work.last_commit = monotonic()

    async def progress(self) -> tuple[int, int]:
        """(lives under way, decisions so far) over all agents that answer."""
        answers = await asyncio.gather(*(agent.peer.progress() for agent in self.agents), return_exceptions=True)
        counts = [answer for answer in answers if isinstance(answer, tuple)]
        return sum(alive for alive, _ in counts), sum(decisions for _, decisions in counts)


def _still_to_live(tasks: Sequence[LifeTask], lost: Sequence[LostLife]) -> list[LifeTask]:
    for one in lost:
        if not one.engine:
            raise EnvironmentFailure(one.reason)
    keys = {one.key for one in lost}
    return [task for task in tasks if task.key in keys]
