"""A run of many individuals and generations within seconds: real loop, worlds and scripted engine, one short life each.

Births cost next to nothing, because nobody has weights of its own.
"""

import asyncio
import os
from collections.abc import Collection, Sequence
from pathlib import Path

import pyarrow as pa

from orchestrator.generation import Publish, Rooms, run_generation
from orchestrator.run import champion, create
from telemetry.store import open_store
from tests.orchestrator.small_run import DirectWorkers, Levers, small_config
from trainer.job import TrainingJob, TrainingResult
from workers.engines.scripted import CARD
from workers.recorder import LifeRecord, LifeTask, to_tables


class ManyWorkers(DirectWorkers):
    """Lives all lives of a generation in one event loop: starting one takes as long as a short life."""

    def _append(self, tasks: Sequence[LifeTask]):  # type: ignore[no-untyped-def]
        async def live_all() -> list[LifeRecord]:
            return [await self._live_one(task) for task in tasks]

        steps, lives = to_tables(records := asyncio.run(live_all()), run="large", world="forage-v1", engine="one")
        return records, self._ledger.append(steps, lives, os.urandom(8).hex())


class NoTrainers:
    """Every newborn keeps the untouched model."""

    def train(self, jobs: Sequence[TrainingJob], steps: pa.Table, skip: Collection[str], publish: Publish) -> None:
        for job in jobs:
            if job.child.id not in skip:
                publish(TrainingResult(individual=job.child.id, adapter=None, status="trained", examples=1), ())


def large_run(place: Path, generations: int, individuals: int, lives: int = 1, horizon: int = 6) -> None:
    """A finished run at `place`."""
    config = small_config(
        generations=generations,
        environment={"settings": {"horizon": horizon, "start_energy": 5}},
        population={
            "size": individuals,
            "lives": lives,
            "founders": [{"name": name, "strategy": f"Be {name}."} for name in ("bold", "timid", "quick", "idle")],
        },
        fitness={"kind": "rmst", "resamples": 100},
        # Whoever lives on unchanged is not born: every birth is an entry of the journal, and takes its time.
        selection={"survivors": 0.5, "elites": individuals * 3 // 8},
    )
    run = create(open_store(place), config, CARD)
    rooms = Rooms(ManyWorkers(run.store, config, Levers()), NoTrainers())
    while run.population:
        run_generation(run, rooms, config)
    run.finish(champion(run.state).id)
