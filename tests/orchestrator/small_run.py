"""A small real run without actors: real loop, worlds, scripted engine, ledger, adapter shelf and journal.

Only the scheduling is simpler than in the product, and it has levers: how many lives go into one commit, in which
order lives are lived, and whether rows that nobody acknowledges are appended in between.
"""

import asyncio
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from orchestrator.config import RunConfig
from orchestrator.digest import hash_table
from orchestrator.generation import Publish, Rooms, run_generation
from orchestrator.run import Run, champion, create
from orchestrator.state import RunState, fold
from orchestrator.trial import Acknowledge
from telemetry.adapters import Shelf, save
from telemetry.journal import Journal
from telemetry.ledger import Ledger
from telemetry.records import Individual, LifeKey
from telemetry.seeds import rng, world_seed
from telemetry.store import Store, open_store
from trainer.config_operators import GaussianMutation
from trainer.job import TrainingJob, TrainingResult
from trainer.lowrank import fresh
from trainer.mutation import mutate
from workers.config import ScriptedEngineConfig
from workers.engine import Completion, CompletionRequest
from workers.engines.scripted import CARD, ScriptedEngine
from workers.life import live
from workers.prompt import Codec
from workers.recorder import LifeRecord, LifeTask, to_tables
from workers.registry import maker


class Interrupted(Exception):
    """The run was stopped on purpose, as by a crash."""


@dataclass
class Levers:
    """How the same lives are scheduled, and what else happens. None of it may change what comes out."""

    lives_per_commit: int = 1000
    backwards: bool = False
    zombies: bool = False
    """Every life is also lived by a worker whose rows are appended and never acknowledged."""
    commits_left: int = 1_000_000
    """Commits of lives before the run is interrupted."""


def small_config(**changes: object) -> RunConfig:
    """Three generations of four individuals in a world of twelve steps; any key can be changed."""
    document: dict[str, object] = {
        "name": "small",
        "seed": 5,
        "generations": 3,
        "environment": {"settings": {"horizon": 12, "start_energy": 6}},
        "population": {
            "size": 4,
            "lives": 3,
            "founders": [
                {"name": "bold", "strategy": "Walk far.", "epsilon": 0.6},
                {"name": "timid", "strategy": "Stay near.", "epsilon": 0.4},
            ],
        },
        "engine": {"kind": "scripted"},
        "trainer": {"objective": {"kind": "scripted"}},
        "fitness": {"kind": "rmst", "resamples": 200},
        "reproduction": {"crossover": 0.5},
    }
    return RunConfig.model_validate(document | changes)


class DirectWorkers:
    """Lives one life after another in this process."""

    def __init__(self, store: Store, config: RunConfig, levers: Levers) -> None:
        self._make = maker(config.environment.name, config.environment.settings)
        self.horizon = self._make().horizon
        self._ledger, self._config, self._levers = Ledger(store), config, levers
        self._engine = ScriptedEngine(ScriptedEngineConfig(), Shelf(store).path)

    def live(
        self,
        population: Sequence[Individual],
        lives: int,
        generation: int,
        skip: Collection[LifeKey],
        acknowledge: Acknowledge,
    ) -> None:
        seeds = [world_seed(self._config.seed, generation, life) for life in range(lives)]
        tasks = [
            task
            for one in population
            for life, seed in enumerate(seeds)
            if (task := LifeTask(one, life, seed, os.urandom(8).hex())).key not in skip
        ]
        if self._levers.backwards:
            tasks.reverse()
        asyncio.run(self._engine.load([one.genome.adapter for one in population]))
        for start in range(0, len(tasks), self._levers.lives_per_commit):
            self._commit(tasks[start : start + self._levers.lives_per_commit], acknowledge)

    def _commit(self, tasks: Sequence[LifeTask], acknowledge: Acknowledge) -> None:
        if self._levers.zombies:
            self._append([LifeTask(one.individual, one.life, one.world_seed, os.urandom(8).hex()) for one in tasks])
        if self._levers.commits_left == 0:
            raise Interrupted
        self._levers.commits_left -= 1
        records, receipt = self._append(tasks)
        acknowledge([receipt], [record.summary() for record in records], 0.1)

    def _append(self, tasks: Sequence[LifeTask]):  # type: ignore[no-untyped-def]
        records = [asyncio.run(self._live_one(task)) for task in tasks]
        steps, lives = to_tables(records, run=self._config.name, world="forage-v1", engine=os.urandom(4).hex())
        return records, self._ledger.append(steps, lives, os.urandom(8).hex())

    async def _live_one(self, task: LifeTask) -> LifeRecord:
        codec = Codec(await self._engine.describe())
        return await live(task, self._make(), codec, self._ask, self._config.seed)

    async def _ask(self, request: CompletionRequest) -> Completion:
        return (await self._engine.complete([request]))[0]


class DirectTrainers:
    """Draws every newborn's weights from a hash of the records; the last job of a generation fails."""

    def __init__(self, store: Store, config: RunConfig) -> None:
        self._shelf, self._config = Shelf(store), config

    def train(self, jobs: Sequence[TrainingJob], steps: pa.Table, skip: Collection[str], publish: Publish) -> None:
        seen = hash_table(steps).hex()
        for job in jobs:
            if job.child.id not in skip:
                self._train_one(job, seen, steps.num_rows, publish, fails=job is jobs[-1])

    def _train_one(self, job: TrainingJob, seen: str, rows: int, publish: Publish, *, fails: bool) -> None:
        if fails:
            kept = job.parents[0].adapter
            publish(TrainingResult(individual=job.child.id, adapter=kept, status="failed", reason="on purpose"), ())
            return
        draw = rng(job.seed, seen)
        weights = mutate(fresh(CARD, self._config.trainer.lora, draw), GaussianMutation(strength=1.0), draw)
        adapter, refs = self._shelf.publish_files(save(weights, CARD))
        publish(TrainingResult(individual=job.child.id, adapter=adapter, status="trained", examples=rows), refs)


def drive(run: Run, levers: Levers | None = None) -> RunState:
    """Turns the loop until the run is finished. Raises Interrupted where the levers say so."""
    rooms = Rooms(DirectWorkers(run.store, run.config, levers or Levers()), DirectTrainers(run.store, run.config))
    while run.population:
        run_generation(run, rooms, run.config)
    run.finish(champion(run.state).id)
    return run.state


def small_run(place: Path, levers: Levers | None = None, **changes: object) -> RunState:
    """A finished run at `place`."""
    return drive(create(open_store(place), small_config(**changes), CARD), levers)


def state_at(place: Path) -> tuple[Store, RunState]:
    """Store and state of the run at `place`, read anew."""
    store = open_store(place)
    return store, fold(Journal(store).read())
