"""The worker pool: places a generation's lives on agents and engines, replaces the dead, skips what is committed.

The pool decides nothing about evolution. It knows engines, agents and the sink only as objects with async methods,
so it runs the same on a Ray cluster and inside one process. Law: a life counts when a journal entry acknowledges it;
until then, whatever it was lost with, it is lived again under a new attempt, with the same seed. Lives that were lost
repeatedly are lived alone, so that one that ends whatever it runs on spends its own tries and nobody else's.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import groupby, zip_longest
from typing import Any

from telemetry.failures import NoProgressError
from telemetry.member import Member
from telemetry.records import LifeSummary
from telemetry.remote import RemoteLost, ReplyLost
from workers.agent import LostLife, Report
from workers.config import WorkersConfig
from workers.engine import EngineFailure
from workers.life import EnvironmentFailure
from workers.recorder import LifeTask
from workers.saver import Saver
from workers.work import Acknowledge, Slots, Work, fresh

CHUNK = 16
"""Lives per call to an agent, at most: small enough for steady reports, large enough that calls cost nothing."""
PROGRESS_SECONDS = 2.0
"""How long an agent may take to say how far it is."""


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
        run: str = "",
        world: str = "",
    ) -> None:
        """`sink` is a Member, or a sink of this process; `run` and `world` are the names that censored lives bear."""
        self.engines = engines
        self.agents = agents
        self._sink = sink if isinstance(sink, Member) else Member("sink", 0, _always(sink), sink)
        self._saver = Saver(self._sink, restarts=config.restarts, commit_seconds=commit_seconds, run=run, world=world)
        self._capacity = capacity
        self._config = config
        self._world = world
        self._slots = {agent.index: Slots(max(1, config.lives_per_agent // CHUNK)) for agent in agents}

    @property
    def restarts(self) -> int:
        """Actors replaced so far."""
        return sum(member.incarnation for member in (*self.engines, *self.agents, self._sink))

    async def live(self, groups: Sequence[Sequence[LifeTask]], acknowledge: Acknowledge) -> None:
        """Lives every task, streams its rows to the ledger, and acknowledges it exactly once.

        groups: tasks by individual, in the order in which individuals are to be served. What has finished is
        committed even when this raises: NoProgressError when retry or restart budgets are spent, EnvironmentFailure
        when the world is broken, StorageError when the store refuses a commit, ClusterLostError.
        """
        work = Work(acknowledge)
        while groups:
            await self._live_and_commit(groups, work)
            groups = work.take_again()
        if work.finished:
            raise NoProgressError(f"{len(work.finished)} finished lives never reached the ledger; resume the run")

    async def try_out(self, groups: Sequence[Sequence[LifeTask]]) -> list[LifeSummary]:
        """Lives every task without recording anything: for evaluation. Raises as `live`."""
        work = Work(None)
        await self._serve_all(groups, work)
        return [summary for _, summary, _ in work.finished.values()]

    async def progress(self) -> tuple[int, int]:
        """(lives under way, decisions so far) over all agents that answer soon."""
        peers = [agent.peer for agent in self.agents if agent.peer is not None]
        asked = [asyncio.wait_for(peer.progress(), PROGRESS_SECONDS) for peer in peers]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        counts = [answer for answer in answers if isinstance(answer, tuple)]
        return sum(alive for alive, _ in counts), sum(decisions for _, decisions in counts)

    async def _live_and_commit(self, groups: Sequence[Sequence[LifeTask]], work: Work) -> None:
        """Lives every task once with success, and commits all that the sink did not lose."""
        work.all_lived.clear()
        serving = asyncio.create_task(self._serve_all(groups, work))
        flushing = asyncio.create_task(self._saver.commit_until_all_lived(work))
        try:
            await asyncio.wait({serving, flushing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            serving.cancel()
            work.all_lived.set()
            outcomes = await asyncio.gather(serving, flushing, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    async def _serve_all(self, groups: Sequence[Sequence[LifeTask]], work: Work) -> None:
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

    async def _serve(self, engine: Member, queue: asyncio.Queue[list[LifeTask]], work: Work) -> None:
        """Takes batches until none is left; lives whose engine fails are tried again on its replacement."""
        while not queue.empty():
            batches = deque([queue.get_nowait()])
            while batches:
                batch = batches.popleft()
                peer = await engine.start(self._config.restarts)
                try:
                    await peer.load(list(dict.fromkeys(task.individual.genome.adapter for task in batch)))
                except (RemoteLost, EngineFailure) as error:
                    await engine.lost(engine.incarnation, error, self._config.restarts)
                    batches.appendleft(batch)
                    continue
                alone = any(self._is_suspect(task, work) for task in batch)
                lost = await self._live_batch(engine, batch, work)
                if not lost:
                    continue
                first = lost[0][1]
                reason = RemoteLost(f"{len(lost)} lives lost it: {first.reason}", preempted=first.preempted)
                todo = self._retried([task for task, _ in lost], reason, work)
                # On their own, suspects charge the tries of their lives; the engine only when those are spent.
                charged = not alone or len(todo) < len(lost)
                await engine.lost(engine.incarnation, reason, self._config.restarts, charged=charged)
                batches += self._engine_batches(todo, work)

    def _engine_batches(self, tasks: Sequence[LifeTask], work: Work) -> list[list[LifeTask]]:
        """Tasks that lost their engine: together, or by adapter once any of them is suspect."""
        if not any(self._is_suspect(task, work) for task in tasks):
            return [list(tasks)] if tasks else []
        ordered = sorted(tasks, key=_adapter)
        return [list(same) for _, same in groupby(ordered, key=_adapter)]

    async def _live_batch(
        self, engine: Member, tasks: Sequence[LifeTask], work: Work
    ) -> list[tuple[LifeTask, LostLife]]:
        """Lives the tasks on all agents; returns those that lost their engine."""
        # Every agent gets its share: while the engine answers one, the others decide what to ask next.
        size = max(1, min(CHUNK, -(-len(tasks) // len(self.agents))))
        chunks = [tasks[start : start + size] for start in range(0, len(tasks), size)]
        lost = await asyncio.gather(
            *(
                self._live_chunk(self.agents[index % len(self.agents)], engine, chunk, work)
                for index, chunk in enumerate(chunks)
            )
        )
        return [one for chunk in lost for one in chunk]

    async def _live_chunk(
        self, agent: Member, engine: Member, chunk: Sequence[LifeTask], work: Work
    ) -> list[tuple[LifeTask, LostLife]]:
        """Lives the tasks on one agent and its replacements; returns those that lost their engine."""
        lost: list[tuple[LifeTask, LostLife]] = []
        parts = deque([list(chunk)])
        while parts:
            part = parts.popleft()
            alone = len(part) == 1 and self._is_suspect(part[0], work)
            async with self._slots[agent.index].taken(alone):
                sink, held_by = (None, 0) if work.acknowledge is None else await self._saver.start()
                peer, incarnation = await agent.start(self._config.restarts), agent.incarnation
                try:
                    report: Report = await peer.live(part, engine.name, engine.peer, sink)
                except RemoteLost as error:
                    todo = self._retried(part, error, work)
                    charged = not alone or not todo
                    await agent.lost(incarnation, error, self._config.restarts, charged=charged)
                    suspect = any(self._is_suspect(task, work) for task in todo)
                    parts.extend([[task] for task in todo] if suspect else [todo] if todo else [])
                    continue
            if report.finished:
                agent.progressed()
                engine.progressed()
            tasks = {task.key: task for task in part}
            for summary in report.finished:
                if sink is None:
                    work.finished[summary.attempt] = (tasks[summary.key], summary, held_by)
                else:
                    self._saver.keep(tasks[summary.key], summary, held_by, work)
            lost += await self._sort_lost([(tasks[one.key], one) for one in report.lost], held_by, work)
        return lost

    async def _sort_lost(
        self, lost: Sequence[tuple[LifeTask, LostLife]], held_by: int, work: Work
    ) -> list[tuple[LifeTask, LostLife]]:
        """Those that lost their engine. Raises EnvironmentFailure for a broken world; sees to a lost sink."""
        for _, one in lost:
            if not (one.engine or one.sink):
                raise EnvironmentFailure(one.reason)
        unsaved = [(task, one) for task, one in lost if one.sink]
        if unsaved:
            error = ReplyLost(unsaved[0][1].reason, preempted=unsaved[0][1].preempted)
            work.again += self._retried([task for task, _ in unsaved], error, work)
            await self._saver.lost(held_by, error, work)
        return [(task, one) for task, one in lost if one.engine]

    def _is_suspect(self, task: LifeTask, work: Work) -> bool:
        """True for a life that was lost twice, or has its last try before it."""
        return work.tries.get(task.key, 0) >= max(1, min(2, self._config.life_retries))

    def _retried(self, tasks: Sequence[LifeTask], error: RemoteLost, work: Work) -> list[LifeTask]:
        """The tasks as new attempts. Those whose tries are spent are censored, or raise NoProgressError."""
        todo = []
        for task in tasks:
            tries = work.tries.get(task.key, 0) + (not error.preempted)
            work.tries[task.key] = tries
            if tries <= self._config.life_retries:
                todo.append(fresh(task))
            elif self._config.when_spent == "censor" and work.acknowledge is not None:
                work.spent.append(fresh(task))
            else:
                raise NoProgressError(
                    f"life {task.life} of {task.individual.id} (world {self._world}, seed {task.world_seed})"
                    f" was lost {tries} times to infrastructure, last: {error}; see the logs"
                )
        return todo


def _adapter(task: LifeTask) -> str:
    return task.individual.genome.adapter or ""


def _always(peer: Any) -> Callable[[], Awaitable[Any]]:
    async def spawn() -> Any:
        return peer

    return spawn
