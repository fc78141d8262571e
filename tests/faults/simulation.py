"""Drivers of a simulation: the real loop on a virtual clock, begun, struck down and taken over by the next."""

import asyncio
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from typing import Any
from unittest.mock import patch

import orchestrator.run
import telemetry.journal
import telemetry.sink
import workers.placement
from orchestrator.config import RunConfig
from orchestrator.generation import Rooms, run_generation
from orchestrator.rooms import TrainersRoom, WorkersRoom
from orchestrator.run import champion, create, reopen
from telemetry.failures import FencedError, NoProgressError, Stopped, StorageError, UsageError
from telemetry.member import Member
from telemetry.sink import TelemetrySink
from tests.faults.memory import Handle, MemoryLedger
from tests.faults.oracle import Oracle
from tests.faults.peers import CAPACITY, CARD, DESCRIPTION, Cluster, ToyEngine, ToyTrainer
from tests.faults.virtual_time import Deadlock, VirtualLoop
from tests.faults.world import Crash, Process, Violation, World
from trainer.launch import TrainerPool
from workers.agent import AgentHost, Report
from workers.environment import is_shared
from workers.pool import WorkerPool
from workers.recorder import LifeTask
from workers.registry import find

MOST_TURNS = 50_000
"""Turns of the loop that no driver of a toy run can need."""
FIRST_TURNS = 3
"""Turns until every coroutine handed to the loop has begun."""
CHUNK = 2
"""Lives per call to an agent."""
AHEAD = 8
"""Rows that the sink writes without being asked."""


def toy_config(
    *, shared: bool = False, engines: int = 1, jobs: int = 1, commit_seconds: float = 1.0, **workers: Any
) -> RunConfig:
    """Two generations of three individuals with two lives each; the parameters decide how, never what."""
    return RunConfig.model_validate(
        {
            "name": "toy",
            "generations": 2,
            "environment": {"name": f"tests.faults.peers:{'SharedToy' if shared else 'Toy'}"},
            "population": {
                "size": 3,
                "lives": 2,
                "founders": [{"name": "one", "strategy": "Guess."}, {"name": "two", "strategy": "Guess again."}],
            },
            "engine": {"kind": "scripted", "count": engines},
            "workers": {"request_batch": 4, "call_timeout": 10.0, "live_timeout": 60.0, **workers},
            "fitness": {"kind": "rmst", "resamples": 100},
            # No fault may keep a child from being trained, or its run would rightly come to other results.
            "trainer": {"objective": {"kind": "scripted"}, "jobs": jobs, "retries": 100, "timeout": 20.0},
            "ledger": {"commit_seconds": commit_seconds},
        }
    )


@cache
def configs(shared: bool) -> list[RunConfig]:
    """Deployments that must all come to the same results, the last one only if it censors no life."""
    make = partial(toy_config, shared=shared)
    return [
        make(),
        make(engines=2, agents=2, jobs=2, restarts=1),
        make(agents=2, lives_per_agent=3, commit_seconds=0.2, restarts=1, life_retries=1),
        make(engines=3, jobs=3, commit_seconds=5.0, restarts=0),
        make(agents=2, life_retries=1, when_spent="censor"),
    ]


class Runner:
    """Runs coroutines on the virtual loop, as `asyncio.Runner` does on a real one, and strikes between its turns."""

    def __init__(self, loop: VirtualLoop, process: Process) -> None:
        self._loop = loop
        self._process = process
        self._main: asyncio.Task[Any] | None = None
        self._begun = 0
        loop.turn = self._turn

    def run(self, work: Any) -> Any:
        self._begun = self._loop.turns
        self._main = self._loop.create_task(work)
        try:
            return self._loop.run_until_complete(self._main)
        except asyncio.CancelledError:
            raise Stopped(signal.SIGTERM) from None

    def _turn(self) -> None:
        world = self._process.world
        self._process.check()
        if world.violation:
            raise Violation(world.violation)
        if self._loop.errors or self._loop.turns > MOST_TURNS:
            world.fail("; ".join(self._loop.errors) or "the driver is busy for ever")
        if self._loop.turns < self._begun + FIRST_TURNS:
            return
        fault = world.strike(f"driver {self._process.number}", "crash at await", "signal")
        if fault == "signal":
            self._main.cancel()
        elif fault:
            self._process.die()


class Simulation:
    """Drivers, one after the other and now and then one within the other, on one world."""

    def __init__(self, world: World, oracle: Oracle, shared: bool) -> None:
        """`shared`: all individuals live together, in the shared toy world."""
        self.drivers = 0
        self.ends: Counter[str] = Counter()
        """How drivers ended."""
        self._world = world
        self._oracle = oracle
        self._shared = shared
        self._standing = 0
        world.take_over = self._take_over

    def drive(self) -> None:
        """One driver from its start to its end. Raises Violation."""
        world = self._world
        self.drivers += 1
        process = Process(world, self.drivers)
        faults = world.faults.total()
        loop = VirtualLoop(lambda: self._append(process), lambda: None)
        outer, world.time = world.time, loop.time
        world.note(f"driver {process.number} starts")
        try:
            end = self._end_of(process, loop)
        finally:
            process.dead = True
            begun = loop.abandon()
            world.time = outer
        world.note(f"driver {process.number} ends: {end}")
        world.late += [work for work in begun if world.strike(f"driver {process.number}", "late append")]
        self.ends[end.partition(":")[0]] += 1
        self._oracle.check(world)
        if world.faults.total() == faults and not self._oracle.finished:
            world.fail(f"driver {process.number} met no fault and did not finish the run ({end})")

    def _append(self, process: Process) -> float:
        """Seconds that an append takes; now and then the driver does not live to see its end."""
        if self._world.strike(f"driver {process.number}", "crash during append"):
            process.dead = True
        return 5 * self._world.delay()

    def _end_of(self, process: Process, loop: VirtualLoop) -> str:
        """How the driver ended, in a word and its message."""
        world = self._world
        try:
            turn_the_loop(process, loop, world.dice.choice(configs(self._shared)))
        except Crash:
            return "crash"
        except Deadlock:
            world.fail(f"driver {process.number} waits for ever")
        except (Stopped, StorageError, NoProgressError) as error:
            return f"{type(error).__name__}: {error}"
        except (FencedError, UsageError) as error:
            if not process.superseded:
                world.fail(f"driver {process.number} gave way to nobody: {error}")
            # Their messages name processes, which are others in each run of a seed.
            return type(error).__name__
        except Exception as error:  # noqa: BLE001 - whatever else a driver ends with is a finding
            world.fail(f"driver {process.number} ended with {type(error).__name__}: {error}")
        return "finished"

    def _take_over(self, process: Process) -> None:
        """Another driver runs to its end while this one stands still in the middle of a call."""
        if self._standing:
            return
        process.superseded = True
        self._standing += 1
        running = asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        try:
            self.drive()
        finally:
            asyncio._set_running_loop(running)
            self._standing -= 1
        self._world.note(f"driver {process.number} goes on")


def turn_the_loop(process: Process, loop: VirtualLoop, config: RunConfig) -> None:
    """What a driver does, as `orchestrator.driver` has it, without cluster, display and evaluation."""
    world = process.world
    store = Handle(world, process)
    run = reopen(store, config) if world.objects else create(store, config, CARD)
    if run.state.history and world.strike("the operator", "rewind"):
        run.rewind(world.dice.randrange(len(run.state.history)))
    runner = Runner(loop, process)
    cluster = Cluster(process, loop)
    cluster.shared = is_shared(find(config.environment.name))
    pool = runner.run(build_workers(cluster, config))
    trainers = TrainerPool(
        config.trainer, lambda index: cluster.start(f"trainer-{index}", ToyTrainer, config.trainer.timeout)
    )
    rooms = Rooms(WorkersRoom(runner, pool, config, run.watch), TrainersRoom(runner, trainers, run.watch))
    while run.generation < config.generations:
        run_generation(run, rooms, config)
    if run.state.finished is None:
        run.finish(champion(run.state).id)


class Host(AgentHost):
    """An agent host that knows which lives need not be lived any more."""

    def __init__(self, *, cluster: Cluster, **options: Any) -> None:
        super().__init__(**options)
        self._cluster = cluster

    async def live(self, tasks: Sequence[LifeTask], *args: Any) -> Report:
        for key in (task.key for task in tasks):
            process = self._cluster.process
            if not process.superseded and (key.generation, key.individual, key.life) in process.world.lived:
                process.world.fail(f"{key} is committed and was to be lived again")
        return await super().live(tasks, *args)


async def build_workers(cluster: Cluster, config: RunConfig) -> WorkerPool:
    """The worker pool on toy engines, as `orchestrator.builder` builds it."""
    workers = config.workers

    def member(role: str, index: int, build: Callable[[], Any], timeout: float) -> Member:
        return Member(role, index, partial(cluster.start, f"{role}-{index}", build, timeout))

    def engine() -> ToyEngine:
        return ToyEngine(cluster)

    engines = [member("engine", index, engine, workers.call_timeout) for index in range(config.engine.count)]
    await asyncio.gather(*(engine.start(workers.restarts) for engine in engines))
    host = partial(
        Host,
        cluster=cluster,
        run=config.name,
        run_seed=config.seed,
        environment=config.environment,
        heldout={},
        description=DESCRIPTION,
        request_batch=workers.request_batch,
    )
    return WorkerPool(
        engines=engines,
        agents=[member("agent", index, host, workers.live_timeout) for index in range(workers.agents)],
        sink=member("sink", 0, lambda: TelemetrySink(Handle(cluster.world)), workers.call_timeout),
        capacity=CAPACITY,
        config=workers,
        commit_seconds=config.ledger.commit_seconds,
        together=cluster.shared,
    )


@contextmanager
def patched() -> Iterator[None]:
    """The edges of the code under test, led into the simulated world."""
    with ExitStack() as stack:
        for module, name, value in (
            (orchestrator.run, "Ledger", MemoryLedger),
            (telemetry.sink, "Ledger", MemoryLedger),
            (telemetry.sink, "join_store", lambda store: store),
            (telemetry.sink, "AHEAD", AHEAD),
            (telemetry.journal, "ThreadPoolExecutor", Inline),
            (workers.placement, "CHUNK", CHUNK),
        ):
            stack.enter_context(patch.object(module, name, value))
        yield


class Inline:
    """A pool of no threads."""

    def __init__(self, size: int) -> None:
        pass

    def __enter__(self) -> "Inline":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def map(self, function: Any, items: Any) -> Any:
        return map(function, items)
