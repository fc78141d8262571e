"""The rooms of a run: where lives are lived, and where weights are made."""

import asyncio
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any

import pyarrow as pa
from msgspec.structs import replace

from orchestrator.config import RunConfig
from orchestrator.generation import Publish
from orchestrator.stopwatch import Stopwatch
from orchestrator.trial import Acknowledge
from telemetry.records import Individual, LifeKey, LifeSummary
from telemetry.seeds import world_seed
from trainer.job import TrainingJob
from trainer.launch import TrainerPool
from workers.pool import Pulse, WorkerPool
from workers.recorder import LifeTask
from workers.registry import make
from workers.work import Told

Tick = Callable[[Pulse], None]
"""Told how the pool stands."""
TICK_SECONDS = 1.0
"""Between two tellings, at least."""


class WorkersRoom:
    """Where lives are lived."""

    def __init__(self, runner: asyncio.Runner, pool: WorkerPool, config: RunConfig, watch: Stopwatch) -> None:
        self.pool = pool
        self.horizon = make(config.environment.name, config.environment.settings).horizon
        self.tick: Tick | None = None
        self._ticked = 0.0
        self._runner = runner
        self._config = config
        self._watch = watch

    def live(
        self,
        population: Sequence[Individual],
        lives: int,
        generation: int,
        skip: Collection[LifeKey],
        acknowledge: Acknowledge,
    ) -> None:
        """Lives everybody's first `lives` lives that are not in `skip`; acknowledges each exactly once."""
        seeds = [world_seed(self._config.seed, generation, life) for life in range(lives)]
        groups = [[task for task in tasks(one, seeds) if task.key not in skip] for one in population]
        with self._watch.phase("rollout"):
            self._runner.run(self._ticking(self.pool.live(groups, acknowledge, begun=bool(skip))))

    def try_out(
        self, individuals: Sequence[Individual], seeds: Sequence[int], told: Mapping[str, int]
    ) -> tuple[list[LifeSummary], Told]:
        """One unrecorded life of every individual in every held-out world; in a shared world, all of them together.

        told: by id, of how many lives every step is wanted as well.
        """
        groups = [
            [replace(task, heldout=True, told=task.life < told.get(one.id, 0)) for task in tasks(one, seeds)]
            for one in individuals
        ]
        tried: tuple[list[LifeSummary], Told] = self._runner.run(self._ticking(self.pool.try_out(groups)))
        return tried

    async def _ticking(self, work: Any) -> Any:
        ticker = asyncio.create_task(self._tick_steadily())
        try:
            done = await work
        finally:
            ticker.cancel()
            with suppress(asyncio.CancelledError):
                await ticker
        if monotonic() - self._ticked >= TICK_SECONDS:
            await self._tick()
        return done

    async def _tick_steadily(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            await self._tick()

    async def _tick(self) -> None:
        if self.tick is not None:
            self.tick(await self.pool.pulse())
            self._ticked = monotonic()


def tasks(individual: Individual, seeds: Sequence[int]) -> list[LifeTask]:
    """One life of the individual in every world, by position."""
    return [LifeTask(individual, life, seed, os.urandom(16).hex()) for life, seed in enumerate(seeds)]


class TrainersRoom:
    """Where weights are made."""

    def __init__(self, runner: asyncio.Runner, pool: TrainerPool, watch: Stopwatch) -> None:
        self._runner = runner
        self._pool = pool
        self._watch = watch

    def train(self, jobs: Sequence[TrainingJob], lived: pa.Table, skip: Collection[str], publish: Publish) -> None:
        """Runs every job whose child is not in `skip`; publishes each result exactly once."""
        todo = [job for job in jobs if job.child.id not in skip]
        with self._watch.phase("training"):
            self._runner.run(self._pool.train(todo, lived, publish))
