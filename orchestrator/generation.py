"""THE LOOP. It names the stages of one generation and does nothing else; concurrency lives inside the stages."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from orchestrator.config import RunConfig
from orchestrator.diversity import action_shares
from orchestrator.experience import lessons
from orchestrator.reproduction import reproduce
from orchestrator.run import Run
from orchestrator.selection import select
from orchestrator.trial import Workers, hold
from telemetry.records import FileRef
from telemetry.seeds import rng
from trainer.job import TrainingJob, TrainingResult, untouched

Publish = Callable[[TrainingResult, Sequence[FileRef]], None]


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
    trial = hold(run, rooms.workers, config)
    draw = rng(config.seed, "select", run.generation)
    acted = (
        action_shares(run.table("steps", ["individual", "action"])) if config.selection.method == "clearing" else None
    )
    selection = select(trial.fitness, config.selection, draw, isles=config.population.islands, acted=acted)
    births = reproduce(run.population, selection, config.reproduction, run.next_brood())
    plain = [result for job in births.jobs if (result := untouched(job, config.trainer))]
    run.publish_all([(result, ()) for result in plain if result.individual not in run.state.births])
    if len(plain) < len(births.jobs):
        lived = lessons(run.table, trial.lives, births.jobs, config, horizon=rooms.workers.horizon)
        rooms.trainers.train(births.jobs, lived, run.state.births, run.publish)
    run.commit(trial.fitness, trial.suspects, selection, births)
