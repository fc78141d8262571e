"""THE LOOP. It names the stages of one generation and does nothing else; concurrency lives inside the stages."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from orchestrator.config import RunConfig
from orchestrator.experience import experience
from orchestrator.fitness import score
from orchestrator.halving import rungs, standing
from orchestrator.reproduction import reproduce
from orchestrator.run import Run
from orchestrator.selection import select
from telemetry.ledger import Receipt
from telemetry.records import FileRef, Individual, LifeKey, LifeSummary
from telemetry.seeds import rng
from trainer.job import TrainingJob, TrainingResult

Acknowledge = Callable[[Sequence[Receipt], Sequence[LifeSummary], float], None]
Publish = Callable[[TrainingResult, Sequence[FileRef]], None]


class Workers(Protocol):
    """The room where lives are lived."""

    horizon: int

    def live(
        self,
        population: Sequence[Individual],
        lives: int,
        generation: int,
        skip: Collection[LifeKey],
        acknowledge: Acknowledge,
    ) -> None:
        """Lives everybody's first `lives` lives that are not in `skip`; acknowledges each exactly once."""
        ...


class Trainers(Protocol):
    """The room where weights are made."""

    def train(self, jobs: Sequence[TrainingJob], lived: pa.Table, skip: Collection[str], publish: Publish) -> None:
        """Runs every job whose child is not in `skip`; publishes each result exactly once."""
        ...


@dataclass(frozen=True)
class Rooms:
    """What the loop works with."""

    workers: Workers
    trainers: Trainers


def run_generation(run: Run, rooms: Rooms, config: RunConfig) -> None:
    """One turn: lives -> fitness -> selection -> births -> weights -> next generation."""
    population, horizon = run.population, rooms.workers.horizon
    for count in rungs(config):
        rooms.workers.live(population, count, run.generation, run.finished_lives(), run.acknowledge)
        lives = run.table("lives")
        population = standing(lives, population, count, config, horizon=horizon)
    fitness = score(lives, run.population, config.fitness, horizon=horizon, seed=config.seed)
    draw = rng(config.seed, "select", run.generation)
    selection = select(fitness, config.selection, draw, isles=config.population.islands)
    births = reproduce(run.population, selection, config.reproduction, run.next_brood())
    if births.jobs:
        lived = experience(run.table("steps"), lives, config.fitness, horizon=horizon)
        rooms.trainers.train(births.jobs, lived, run.state.births, run.publish)
    run.commit(fitness, selection, births)
