"""The unit costs that need more than one process: placement of many, actors on Ray, a bucket."""

import asyncio
import os
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import psutil
import pyarrow as pa

from orchestrator.builder import Builder, Model
from orchestrator.cluster import cluster
from orchestrator.config import RunConfig
from orchestrator.population import founders
from orchestrator.rooms import tasks
from orchestrator.run import create
from orchestrator.runfile import load
from telemetry.ledger import Ledger
from telemetry.member import Member
from telemetry.records import EndReason, Individual, LifeSummary
from telemetry.seeds import rng, uniform, world_seed
from telemetry.store import Store, open_store
from tests.faults.s3_proxy import running
from tests.faults.virtual_time import VirtualLoop
from tests.forager import SMOKE
from workers.agent import Report
from workers.config import WorkersConfig
from workers.crew import Bell
from workers.engines.scripted import CARD
from workers.placement import Placement
from workers.pool import WorkerPool
from workers.recorder import LifeTask
from workers.work import Batch, Work, form

LIVES = 512
TRIES = 30
AGENTS = 64
"""Engines and agents of the placement that is timed."""

Tables = tuple[pa.Table, pa.Table]
Figures = dict[str, dict[str, float]]


def settings() -> RunConfig:
    return load(SMOKE, ["metrics.enabled=false", f"population.lives={LIVES}", "workers.lives_per_agent=4096"])


def cpu(work: Callable[[], Any], times: int = 1) -> float:
    """Processor seconds of one of so many calls."""
    begin = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - begin) / times


def people(config: RunConfig) -> list[Individual]:
    return list(founders(config.population, config.reproduction.hyperparameter_mutation, rng(1, "founders")))


def wake() -> Figures:
    """`Placement.begin` while there are lives to begin, and `Work.choose` where there is nothing to choose."""

    def looked(engines: int, agents: int) -> float:
        placement, work = placed(engines, agents)
        return min(cpu(lambda: placement.begin(work), 20) for _ in range(10))

    square, wide, deep = looked(AGENTS, AGENTS), looked(AGENTS, 4 * AGENTS), looked(4 * AGENTS, AGENTS)
    agent, engine = (wide - square) / (3 * AGENTS), (deep - square) / (3 * AGENTS)
    _, work = placed(AGENTS, 1)
    for batch in work.batches:
        batch.waiting.clear()
    return {
        "driver": {
            "wake_seconds": min(asyncio.run(rung(AGENTS)) for _ in range(10)),
            "wake_agent_seconds": max(0.0, agent),
            "wake_engine_seconds": max(0.0, engine),
            "wake_batch_seconds": min(cpu(work.choose, 20) for _ in range(10)) / AGENTS,
        }
    }


async def rung(waiting: int) -> float:
    """Seconds in which one of many that wait for a bell is woken by it."""
    bell = Bell()

    async def wait() -> None:
        while True:
            await bell.listen()

    tasks = [asyncio.create_task(wait()) for _ in range(waiting)]
    await asyncio.sleep(0)
    begin = time.process_time()
    for _ in range(20):
        bell.tap()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    seconds = time.process_time() - begin
    for task in tasks:
        task.cancel()
    return seconds / 20 / waiting


def placed(engines: int, agents: int) -> tuple[Placement, Work]:
    """Engines that stand, each with a batch of 64 lives, and room for all of them."""
    config = settings()
    founder = people(config)[0]
    room = 64 * engines // agents
    groups = [[LifeTask(founder, life, life, f"{number}/{life}") for life in range(64)] for number in range(engines)]
    batches = [Batch((None,), waiting=deque(parties)) for parties in form(groups, False)]
    work = Work(None, Bell(), batches)
    hosts = [Member("agent", number, _never, object()) for number in range(agents)]
    placement = Placement(hosts, room)
    for number in range(engines):
        service = placement.employ(Member("engine", number, _never, object()), work)
        assert service is not None
        service.ready = True
    return placement, work


def idle(attempt: str) -> int:
    """Milliseconds that a life takes."""
    return int(5000 + 10_000 * uniform("idle", attempt))


class _Idler:
    """An agent whose lives take 5 to 15 s and no work, and an engine that takes a moment to load."""

    async def live(self, given: Sequence[LifeTask], *_: Any) -> Report:
        await asyncio.sleep(max(idle(one.attempt) for one in given) / 1000)
        return Report(tuple(_ended(one) for one in given), ())

    async def load(self, _: Any) -> None:
        await asyncio.sleep(0.01)


def _ended(task: LifeTask) -> LifeSummary:
    return LifeSummary(task.key, task.attempt, 10, EndReason.DIED, "starved", 0.0, 10, 10)


def hand_out(engines: int, lives: int, room: int) -> tuple[float, int]:
    """The real pool on a virtual clock with as many agents: its processor seconds, Ray's not in them, and its calls."""
    one, peer = people(settings())[0], _Idler()
    config = WorkersConfig(agents=engines, lives_per_agent=room)
    pool = WorkerPool(
        engines=[Member("engine", number, _never, peer) for number in range(engines)],
        agents=[Member("agent", number, _never, peer) for number in range(engines)],
        sink=peer,
        capacity=1,
        config=config,
        commit_seconds=10.0,
    )
    groups = [[LifeTask(one, life, life, f"{number}/{life}") for life in range(lives)] for number in range(engines)]
    loop = VirtualLoop(lambda: 0.0, lambda: None)
    seconds = cpu(lambda: loop.run_until_complete(pool.try_out(groups)))
    loop.abandon()
    return seconds, pool._placement._begun


def handed_out() -> Figures:
    """What a call to an agent takes of a driver without Ray, of one engine and one agent."""
    seconds, calls = min(hand_out(1, 8 * LIVES, 64) for _ in range(3))
    return {"driver": {"part_seconds": seconds / calls}}


async def _never() -> Any:
    raise AssertionError


def on_ray() -> Figures:
    """Calls between processes, and how large these are."""
    config = settings()
    one = people(config)[0]
    with tempfile.TemporaryDirectory() as scratch, cluster(config.ray) as start, asyncio.Runner() as runner:
        began = psutil.Process().memory_full_info().uss
        pool = runner.run(Builder(config, Model(CARD, None), scratch, None, start).workers())
        seeds = [world_seed(1, 0, life) for life in range(LIVES)]
        runner.run(pool.try_out([tasks(one, seeds[:32])]))
        # Ray's own threads work on while others hold the cores, so the least of several is nearest.
        part = min(cpu(lambda: runner.run(pool.try_out([tasks(one, seeds)]))) for _ in range(5))
        part /= pool._placement._begun
        agent, engine = pool.agents[0].peer, pool.engines[0].peer
        ask = min(cpu(lambda: runner.run(_many(agent.progress, 300))) for _ in range(5)) / 300
        call = min(runner.run(_timed(engine.stats)) for _ in range(200))
        sizes = {name: runner.run(_size(peer)) for name, peer in (("agent", agent), ("engine", engine))}
        sizes["sink"] = runner.run(_size(runner.run(pool._saver.start())[0]))
    return {
        "driver": {"part_seconds": part, "ask_seconds": ask, "gib": began / 2**30},
        "engine": {"call_seconds": call, "gib": sizes["engine"]},
        "agent": {"gib": sizes["agent"]},
        "sink": {"gib": sizes["sink"]},
    }


async def _many(call: Callable[[], Any], times: int) -> None:
    for _ in range(times // 50):
        await asyncio.gather(*(call() for _ in range(50)))


async def _timed(call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    await call()
    return time.perf_counter() - begin


async def _size(peer: Any) -> float:
    _, pid, _ = await peer.handle.ready.remote()
    return float(psutil.Process(pid).memory_full_info().pss / 2**30)


def durable(store: Store) -> float:
    """Shortest seconds in which a small object is put."""
    seconds = []
    for _ in range(TRIES):
        begin = time.perf_counter()
        store.put_if_absent(f"units/{uuid.uuid4().hex}", os.urandom(800))
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def in_bucket(url: str, tables: Tables) -> Figures:
    """Latency of the bucket, and its requests by a flush and by an entry, counted on their way."""
    latency = durable(open_store(f"{url}/{uuid.uuid4().hex}"))
    with running(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        os.environ["AWS_ENDPOINT_URL"] = proxy.url
        place = f"{url}/{uuid.uuid4().hex}"
        ledger, run = Ledger(open_store(place)), create(open_store(f"{place}-run"), settings(), CARD)
        ledger.append(*tables, "first")
        counts = [len(proxy.requests)]
        ledger.append(*tables, "second")
        counts.append(len(proxy.requests))
        run.acknowledge([], [], 1.0)
        counts.append(len(proxy.requests))
    return {
        "store": {
            "object_seconds": latency,
            "flush_requests": float(counts[1] - counts[0]),
            "entry_requests": float(counts[2] - counts[1]),
        }
    }
