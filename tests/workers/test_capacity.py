"""What the worker pool makes of its engines' time, in peace and with a fault every half minute.

The pool and the agents' batches are real; engines, agents and their processes are simulated on a virtual clock. So this
is about who waits for whom, and not about the cores of the machine that runs the test.
"""

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from telemetry.ledger import Receipt
from telemetry.member import Member
from telemetry.records import EndReason, LifeSummary
from telemetry.remote import RemoteLost
from telemetry.seeds import uniform
from tests.faults.peers import Cluster, Peer
from tests.faults.virtual_time import VirtualLoop
from tests.faults.world import Process, World
from tests.workers.test_pool import groups
from workers.agent import Batcher, LostLife, Report
from workers.config import WorkersConfig
from workers.pool import WorkerPool
from workers.recorder import LifeTask

ENGINES, AGENTS, LIVES = 8, 4, 110
"""LIVES for each of four individuals: generations of some 40 s."""
ROOM = 16
"""Lives that an agent hosts at the same time: enough to keep engines busy, and few to lose."""
SECONDS = 0.08
"""Of an engine's time, for each decision."""
LIVED = 150.0
"""Seconds of a run: one fault of each kind."""
KILLED, HUNG, START = 1.0, 5.0, 4.0
"""Seconds until a killed and a hung process is noticed, and until a replacement stands."""
FAULTS = (("agent", KILLED), ("engine", HUNG), ("node", KILLED), ("engine", KILLED), ("agent", HUNG))


class Engine:
    """Makes decisions one after the other."""

    def __init__(self, work: list[float]) -> None:
        self._busy = asyncio.Lock()
        self._work = work

    async def load(self, adapters: Sequence[str | None]) -> None:
        pass

    async def complete(self, requests: Sequence[Any]) -> list[Any]:
        async with self._busy:
            await asyncio.sleep(SECONDS * len(requests))
        self._work.append(SECONDS * len(requests))
        return list(requests)


class Agent:
    """Lives that ask for a number of decisions that is their own: ten on average, sixty at most."""

    def __init__(self) -> None:
        self._batchers: dict[str, Batcher] = {}

    async def live(self, tasks: Sequence[LifeTask], engine_name: str, engine: Any, sink: Any) -> Report:
        batcher = self._batchers.setdefault(engine_name, Batcher(engine, 4))
        outcomes = await asyncio.gather(*(self._live_one(task, batcher) for task in tasks))
        lost = tuple(one for one in outcomes if isinstance(one, LostLife))
        finished = tuple(one for one in outcomes if isinstance(one, LifeSummary))
        await sink.append([one.attempt for one in finished])
        return Report(finished, lost)

    async def _live_one(self, task: LifeTask, batcher: Batcher) -> LifeSummary | LostLife:
        steps = 0
        try:
            while steps < 60 and (steps == 0 or uniform(task.world_seed, task.individual.id, task.life, steps) < 0.9):
                await batcher.ask(task)  # type: ignore[arg-type]
                steps += 1
        except RemoteLost as error:
            return LostLife(task.key, str(error), engine=True)
        return LifeSummary(task.key, task.attempt, steps, EndReason.DIED, "", 0.0, 0, 0)


class Sink:
    """Takes attempts for rows."""

    def __init__(self) -> None:
        self._held: list[str] = []
        self._versions = itertools.count(1)

    async def append(self, attempts: Sequence[str]) -> None:
        self._held += attempts

    async def flush(self, transaction: str) -> Receipt | None:
        attempts, self._held = self._held, []
        if not attempts:
            return None
        version = next(self._versions)
        return Receipt(versions={"steps": version, "lives": version}, files=(), attempts=tuple(attempts))


class Room:
    """A pool on a virtual clock."""

    def __init__(self) -> None:
        self.loop = VirtualLoop(lambda: 0.0, lambda: None)
        self.work: list[float] = []
        self.struck = 0
        self.rate = 0.0
        """Decisions per second."""
        self.decisions = 0
        self._cluster = Cluster(Process(World(random.Random(0), 0, {}), 0), self.loop)
        self.pool = WorkerPool(
            engines=[self._member("engine", index, partial(Engine, self.work)) for index in range(ENGINES)],
            agents=[self._member("agent", index, Agent) for index in range(AGENTS)],
            sink=Sink(),
            capacity=1,
            config=WorkersConfig(agents=AGENTS, lives_per_agent=ROOM, restarts=3, life_retries=20),
            commit_seconds=0.3,
        )

    def _member(self, role: str, index: int, build: Callable[[], Any]) -> Member:
        async def spawn() -> Peer:
            if member.incarnation:
                await asyncio.sleep(START)
            return await self._cluster.start(member.name, build, 1e6)

        member = Member(role, index, spawn)
        return member

    async def live(self, seconds: float, every: float) -> None:
        """Generation after generation for some time, with a fault every so many seconds; 0: none."""
        await asyncio.gather(*(member.start() for member in (*self.pool.engines, *self.pool.agents)))
        striking = asyncio.create_task(self._strike(every)) if every else None
        while self.loop.time() < seconds:
            await self.pool.live(groups(4, LIVES), self._acknowledge)
        if striking is not None:
            striking.cancel()

    def _acknowledge(self, receipts: Sequence[Receipt], lives: Sequence[LifeSummary], seconds: float) -> None:
        self.decisions += sum(life.steps for life in lives)

    async def _strike(self, every: float) -> None:
        await asyncio.sleep(every / 2)
        for role, noticed in itertools.cycle(FAULTS):
            for member in self._targets(role):
                member.peer._end(noticed, RemoteLost(f"{member.name}: struck"))
                self.struck += 1
            await asyncio.sleep(every)

    def _targets(self, role: str) -> Iterator[Member]:
        """The first that stands; of each role on a lost node."""
        for members in (self.pool.engines, self.pool.agents):
            if role in (members[0].role, "node"):
                yield next(member for member in members if member.peer is not None)


def run(every: float) -> Room:
    """A room after LIVED seconds, with a fault every so many seconds."""
    room = Room()
    try:
        room.loop.run_until_complete(room.live(LIVED, every))
        room.rate = room.decisions / room.loop.time()
    finally:
        room.loop.abandon()
    return room


def test_a_fault_every_half_minute_leaves_nine_tenths_of_the_throughput() -> None:
    calm, struck = run(0), run(30)
    assert calm.rate >= 0.8 * ENGINES / SECONDS, "the engines are not what bounds the run"
    assert struck.struck >= 6
    assert struck.pool.restarts >= 6
    assert struck.rate >= 0.9 * calm.rate
