"""The real pool, agents and scripted engines on a virtual clock: what a scale model has to foresee."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from telemetry.ledger import Receipt
from telemetry.member import Member
from telemetry.records import Genome, Hyperparameters, Individual, LifeSummary
from telemetry.seeds import world_seed
from tests.faults.virtual_time import VirtualLoop
from workers.agent import AgentHost
from workers.config import EnvironmentConfig, ScriptedEngineConfig, WorkersConfig
from workers.engines.scripted import ScriptedEngine, description
from workers.pool import WorkerPool
from workers.recorder import LifeTask


@dataclass(frozen=True)
class Shape:
    """Of a generation and of the actors that live it."""

    individuals: int
    lives: int
    engines: int
    agents: int
    room: int
    capacity: int
    seconds: float
    """Per decision."""
    flush_seconds: float = 0.5


class Engine(ScriptedEngine):
    """Takes a moment to load, as every engine does that is another process: until then all have been given a batch."""

    async def load(self, adapters: Sequence[str | None]) -> None:
        await asyncio.sleep(0.01)
        await super().load(adapters)


@dataclass(eq=False)
class Sink:
    """Takes rows, and writes for as long as it is told."""

    seconds: float
    held: list[str] = field(default_factory=list)

    async def append(self, steps: Any, lives: Any) -> None:
        self.held += lives["attempt"].to_pylist()

    async def flush(self, transaction: str) -> Receipt | None:
        held, self.held = self.held, []
        if not held:
            return None
        await asyncio.sleep(self.seconds)
        return Receipt({}, (), tuple(sorted(held)))


def really_live(shape: Shape) -> tuple[float, NDArray[np.int32]]:
    """Virtual seconds until all lives are acknowledged, and their lengths: [individuals, lives]."""
    loop = VirtualLoop(lambda: 0.0, lambda: None)
    config = WorkersConfig(agents=shape.agents, lives_per_agent=shape.room)
    engine = ScriptedEngineConfig(count=shape.engines, capacity=shape.capacity, seconds=shape.seconds)
    build = partial(
        AgentHost,
        run="shape",
        run_seed=1,
        environment=EnvironmentConfig(),
        heldout={},
        description=description(shape.capacity),
        request_batch=config.request_batch,
    )
    pool = WorkerPool(
        engines=[_member("engine", number, Engine(engine, Path)) for number in range(shape.engines)],
        agents=[_member("agent", number, build()) for number in range(shape.agents)],
        sink=Sink(shape.flush_seconds),
        capacity=shape.capacity,
        config=config,
        commit_seconds=10.0,
    )
    lived: list[LifeSummary] = []
    numbers = Hyperparameters(temperature=1.0, epsilon=0.5, learning_rate=0.1)
    people = [
        Individual(
            id=f"g000-{number:03d}",
            generation=0,
            lineage="one",
            genome=Genome(strategy="Explore widely.", hyperparameters=numbers),
        )
        for number in range(shape.individuals)
    ]
    groups = [
        [LifeTask(one, life, world_seed(1, 0, life), f"{one.id}/{life}") for life in range(shape.lives)]
        for one in people
    ]
    loop.run_until_complete(pool.live(groups, lambda _, lives, __: lived.extend(lives)))
    seconds = loop.time()
    loop.abandon()
    steps = {(life.key.individual, life.key.life): life.steps for life in lived}
    return seconds, np.array([[steps[one.id, life] for life in range(shape.lives)] for one in people], dtype=np.int32)


def _member(role: str, number: int, peer: Any) -> Member:
    async def spawn() -> Any:
        return peer

    return Member(role, number, spawn, peer)
