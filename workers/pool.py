"""The worker pool: places a generation's lives on agents and engines, replaces the dead, skips what is committed.

The pool decides nothing about evolution. It knows engines, agents and the sink only as objects with async methods,
so it runs the same on a Ray cluster and inside one process. Laws:

    A life counts when a journal entry acknowledges it; until then, whatever it was lost with, it is lived again under
    a new attempt, with the same seed.
    No life waits for a certain engine or agent: what was lost with one goes back to the queue, and any that stands
    takes it. An engine without lives of its own joins the batch that needs it most.
    Lives that were lost repeatedly are lived alone, so that one that ends whatever it runs on spends its own tries
    and nobody else's.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from typing import Any

from telemetry.failures import NoProgressError
from telemetry.member import Member
from telemetry.records import LifeSummary
from telemetry.remote import RemoteLost, ReplyLost, preempted
from workers.agent import Report
from workers.config import WorkersConfig
from workers.crew import Bell, Crew
from workers.engine import EngineFailure, EngineStats
from workers.guard import EnvironmentFailure
from workers.placement import Part, Placement, Service
from workers.recorder import LifeTask
from workers.saver import Saver
from workers.work import Acknowledge, Batch, Lived, Party, Told, Work, form, fresh

PROGRESS_SECONDS = 2.0
"""How long an agent may take to say how far it is."""


@dataclass(frozen=True)
class Pulse:
    """How a pool stands at one moment."""

    alive: int
    """Lives under way."""
    decisions: int
    """Made by the agents that stand now, since they stand."""
    restarts: int
    """Actors replaced so far."""
    retries: int  # parties of lives lost so far
    engines: Mapping[str, EngineStats]
    """Of those that answered."""


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
        together: bool = False,
    ) -> None:
        """`sink` is a Member, or a sink of this process; `run` and `world` are the names that censored lives bear.

        together: the world is shared: lives of the same index are one party, on one engine whatever its capacity.
        """
        self.engines = engines
        self.agents = agents
        # Slept for no time, it is the same sink again.
        self._sink = sink if isinstance(sink, Member) else Member("sink", 0, partial(asyncio.sleep, 0, sink), sink)
        self._saver = Saver(self._sink, restarts=config.restarts, commit_seconds=commit_seconds, run=run, world=world)
        self._capacity = capacity
        self._config = config
        self._world = world
        self._together = together
        self._retries = 0
        self._bell = Bell()
        self._crew = Crew([*engines, *agents], config.restarts, self._bell)
        self._placement = Placement(agents, config.lives_per_agent)

    @property
    def restarts(self) -> int:
        """Actors replaced so far."""
        return sum(member.incarnation for member in (*self.engines, *self.agents, self._sink))

    async def live(
        self, groups: Sequence[Sequence[LifeTask]], acknowledge: Acknowledge, *, begun: bool = False
    ) -> None:
        """Lives every task, streams its rows to the ledger, and acknowledges it exactly once.

        groups: tasks by individual, in the order in which individuals are to be served. begun: others of the
        generation are acknowledged already. What has finished is committed even when this raises: NoProgressError when
        retry or restart budgets are spent or nobody could be lived, EnvironmentFailure when the world is broken,
        StorageError when the store refuses a commit, ClusterLostError.
        """
        work = Work(acknowledge, self._bell, self._batches(form(groups, self._together)), begun=begun)
        while work.queued or (work.spent and work.begun):
            await self._live_and_commit(work)
        if work.spent:
            tries = self._config.life_retries + 1
            raise NoProgressError(f"every life was lost {tries} times to infrastructure; see the logs, then resume")
        if work.finished:
            raise NoProgressError(f"{len(work.finished)} finished lives never reached the ledger; resume the run")

    async def try_out(self, groups: Sequence[Sequence[LifeTask]]) -> tuple[list[LifeSummary], Told]:
        """Lives every task without recording anything: for evaluation. Raises as `live`."""
        work = Work(None, self._bell, self._batches(form(groups, self._together)))
        await self._serve_all(work)
        return [life for lived in work.finished.values() for life in lived.lives], work.told

    async def pulse(self) -> Pulse:
        """How things stand, as told by all agents and engines that answer soon."""
        agents = [agent.peer.progress() for agent in self.agents if agent.peer is not None]
        engines = {engine.name: engine.peer.stats() for engine in self.engines if engine.peer is not None}
        asked = [asyncio.wait_for(one, PROGRESS_SECONDS) for one in (*agents, *engines.values())]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        counts = [answer for answer in answers if isinstance(answer, tuple)]
        told = zip(engines, answers[len(agents) :], strict=True)
        return Pulse(
            alive=sum(alive for alive, _ in counts),
            decisions=sum(decisions for _, decisions in counts),
            restarts=self.restarts,
            retries=self._retries,
            engines={name: stats for name, stats in told if isinstance(stats, EngineStats)},
        )

    async def _live_and_commit(self, work: Work) -> None:
        """Lives every task once with success, and commits all that the sink did not lose."""
        work.all_have_lived(False)
        serving = asyncio.create_task(self._serve_all(work))
        flushing = asyncio.create_task(self._saver.commit_until_all_lived(work))
        try:
            await asyncio.wait({serving, flushing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            serving.cancel()
            work.all_have_lived(True)
            outcomes = await asyncio.gather(serving, flushing, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    def _batches(self, groups: Sequence[Sequence[Party]]) -> list[Batch]:
        """What an engine serves together: never more adapters than it holds, work for every engine.

        Life by life across the individuals of a batch, so that an interrupted generation holds comparable numbers.
        """
        size = max(1, min(self._capacity, -(-len(groups) // len(self.engines))))
        batches = []
        for start in range(0, len(groups), size):
            rows = zip_longest(*groups[start : start + size])
            parties = [party for row in rows for party in row if party is not None]
            adapters = dict.fromkeys(adapter for party in parties for adapter in party.adapters)
            batches.append(Batch(tuple(adapters), waiting=deque(parties)))
        return batches

    async def _serve_all(self, work: Work) -> None:
        # An event is bound to the loop that it was waited for in: here begins a new one.
        self._bell.ring()
        self._placement = Placement(self.agents, self._config.lives_per_agent)
        self._crew.keep_standing()
        try:
            async with asyncio.TaskGroup() as tasks:
                handing_out = tasks.create_task(self._hand_out(work, tasks))
                await asyncio.wait([tasks.create_task(self._serve(engine, work)) for engine in self.engines])
                handing_out.cancel()
        except* Exception as group:  # noqa: BLE001 - the first failure is the one to tell; all are cancelled by now
            raise group.exceptions[0] from None

    async def _hand_out(self, work: Work, tasks: asyncio.TaskGroup) -> None:
        """Begins lives wherever there is room, whenever something has changed: one look, however many engines."""
        while True:
            self._crew.check()
            while (part := self._placement.begin(work)) is not None:
                tasks.create_task(self._live_part(part, work))
            self._placement.dismiss()
            await self._bell.listen()

    async def _serve(self, engine: Member, work: Work) -> None:
        """Takes batches until nothing is queued nor under way anywhere."""
        while work.queued or work.under_way:
            service = self._placement.employ(engine, work)
            if service is None:
                await self._bell.wait()
                continue
            reason, charged = await self._live_batch(service, work)
            self._placement.leave(service)
            if service.batch.queued or not work.under_way:  # else idle engines have no use for it
                self._bell.ring()
            if reason is not None:
                await self._crew.lost(engine, service.incarnation, reason, charged=charged)

    async def _live_batch(self, service: Service, work: Work) -> tuple[Exception | None, bool]:
        """Until nothing is left to begin. Why the engine is to be replaced, if it is, and whether that is charged."""
        try:
            await service.peer.load(list(service.batch.adapters))
        except (RemoteLost, EngineFailure) as error:
            return error, True
        service.ready = True
        self._bell.tap()
        await service.over.wait()
        return self._return_lost(service, work)

    def _return_lost(self, service: Service, work: Work) -> tuple[Exception | None, bool]:
        """Puts the parties that lost their engine back. Returns as `_live_batch`."""
        if not service.lost:
            return None, False
        parties, first = [party for party, _ in service.lost], service.lost[0][1]
        number = sum(len(party.tasks) for party in parties)
        reason = RemoteLost(f"{number} lives lost it: {first.reason}", preempted=preempted(first, service.peer))
        todo = self._retried(parties, reason, work)
        apart = any(map(self._is_suspect, todo))
        work.put_back([replace(party, apart=party.apart or apart) for party in todo])
        # On their own, suspects charge the tries of their lives; the engine only when those are spent.
        return reason, not service.batch.apart or len(todo) < len(parties)

    async def _live_part(self, part: Part, work: Work) -> None:
        """Lives parties on one agent. What was lost goes back to the queue, or to the service if it lost the engine."""
        service, host = part.service, part.host
        try:
            sink, held_by = (None, 0) if work.acknowledge is None else await self._saver.start()
            agent, incarnation = host.agent.peer, host.agent.incarnation
            if agent is None:
                work.put_back(part.parties)
                return
            try:
                report: Report = await agent.live(part.tasks, service.name, service.peer, sink)
            except RemoteLost as error:
                alone = any(party.alone for party in part.parties)
                todo = self._retried(part.parties, error, work)
                await self._crew.lost(host.agent, incarnation, error, charged=not alone or not todo)
                work.put_back([replace(party, alone=self._is_suspect(party)) for party in todo])
            else:
                await self._take(report, part, sink, held_by, work)
        finally:
            self._placement.end(part)
            self._bell.tap()

    async def _take(self, report: Report, part: Part, sink: Any, held_by: int, work: Work) -> None:
        """Sorts what became of each party. Raises EnvironmentFailure for a broken world; sees to a lost sink."""
        if report.finished:
            part.host.agent.progressed()
            part.service.engine.progressed()
        if report.told is not None:
            work.told.append(report.told)
        attempts = {task.key: task.attempt for task in part.tasks}
        lost = {attempts[one.key]: one for one in reversed(report.lost) if one.key in attempts}
        lives: dict[str, list[LifeSummary]] = {}
        for summary in report.finished:
            lives.setdefault(summary.attempt, []).append(summary)
        for party in part.parties:
            if party.attempt not in lost:
                lived = Lived(party, tuple(lives[party.attempt]), held_by)
                if work.acknowledge is None:
                    work.finished[party.attempt] = lived
                else:
                    self._saver.keep(lived, work)
        for one in report.lost:
            if not (one.engine or one.sink or one.doubted):
                raise EnvironmentFailure(one.reason)
        gone = [(party, lost[party.attempt]) for party in part.parties if party.attempt in lost]
        part.service.lost += [(party, one) for party, one in gone if one.engine]
        doubted = [party for party, one in gone if one.doubted]
        self._retries += len(doubted)
        work.put_back([fresh(party) for party in doubted])
        unsaved = [(party, one) for party, one in gone if one.sink]
        if unsaved:
            first = unsaved[0][1]
            error = ReplyLost(first.reason, preempted=preempted(first, sink))
            todo = self._retried([party for party, _ in unsaved], error, work)
            await self._saver.lost(held_by, error, work)
            work.put_back(todo)

    def _is_suspect(self, party: Party) -> bool:
        """True for one that was lost twice, or has its last try before it."""
        return party.tries >= max(1, min(2, self._config.life_retries))

    def _retried(self, parties: Iterable[Party], error: RemoteLost, work: Work) -> list[Party]:
        """The parties as new attempts. Those whose tries are spent are censored, or raise NoProgressError."""
        todo = []
        for party in parties:
            tries = party.tries + (not error.preempted)
            self._retries += 1
            if tries <= self._config.life_retries:
                todo.append(replace(fresh(party), tries=tries))
            elif self._config.when_spent == "censor" and work.acknowledge is not None:
                work.spent.append(fresh(party))
            else:
                raise NoProgressError(
                    f"{party} (world {self._world}, seed {party.tasks[0].world_seed})"
                    f" was lost {tries} times to infrastructure, last: {error}; see the logs"
                )
        return todo
