"""Founders that learn before they live: from the records of other runs, told again in the words of their own model.

Records are text and know no model, so what anybody lived through in the same world can be told again in any model's
tokens. Law: only those whom selection let breed are learned from, and whatever cannot be learned founds no run.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.builder import Builder, Model
from orchestrator.cluster import cluster
from orchestrator.config import FitnessConfig, RunConfig
from orchestrator.driver import log_directory, terminable
from orchestrator.experience import experience
from orchestrator.needs import trainer_gpus
from telemetry.failures import StateError, UsageError
from telemetry.records import FileRef, Individual
from telemetry.seeds import seed63
from telemetry.store import Store
from trainer.config_operators import GaussianMutation, LinearCrossover
from trainer.job import Parent, TrainingJob, TrainingResult
from workers.engines import chat, scripted
from workers.prompt import Codec
from workers.retell import retell

Learned = tuple[list[TrainingResult], list[FileRef]]
"""How the jobs ended, by child, and what they published."""


@dataclass(frozen=True, eq=False)
class Chapter:
    """What some individuals lived through, in one generation of one run."""

    steps: pa.Table
    """Schema STEPS."""
    lives: pa.Table
    """Schema LIVES."""
    strategies: Mapping[str, str]
    """Of those who are to be learned from, by individual."""
    world: Any
    """In which it was lived."""
    fitness: FitnessConfig
    """What a life is worth."""


def check(config: RunConfig) -> None:
    """Raises UsageError for a configuration whose founders cannot learn from records."""
    if not config.trainer.enabled:
        raise UsageError("trainer.enabled: got false, expected true; weights of another model can only be learned")
    if config.trainer.objective.kind == "es":
        raise UsageError("trainer.objective.kind: got es, expected one that learns from records, such as sft")


def told(chapters: Iterable[Chapter], model: Model) -> pa.Table:
    """Chapters in the tokens of a model (schema EXPERIENCE); those whom nobody is to learn from are left out."""
    codec, end = _codec(model)
    tables = []
    for one in chapters:
        teachers = pa.array(sorted(one.strategies), pa.string())
        steps = one.steps.filter(pc.is_in(one.steps["individual"], value_set=teachers))
        lives = one.lives.filter(pc.is_in(one.lives["individual"], value_set=teachers))
        again = retell(steps, one.strategies, one.world, codec, end)
        tables.append(experience(again, lives, one.fitness, horizon=one.world.horizon))
    return pa.concat_tables(tables)


def job(one: Individual, line: Sequence[str], teachers: Sequence[str], config: RunConfig) -> TrainingJob:
    """A founder's birth: from nothing, on the records of its own line, if there is one, and of all other teachers."""
    others = [individual for individual in teachers if individual not in line]
    use = [*line, *(others if config.reproduction.learn_from == "survivors" or not line else [])]
    return TrainingJob(
        child=one,
        parents=tuple(Parent(individual=who, adapter=None, weight=float(who == use[0])) for who in use),
        crossover=LinearCrossover(),
        mutation=GaussianMutation(strength=0.0),
        seed=seed63(config.seed, "transplant", one.id),
    )


def learn(jobs: Sequence[TrainingJob], lived: pa.Table, config: RunConfig, model: Model, store: Store) -> Learned:
    """Trains founders on what was lived; their adapters are on the shelf of `store`.

    Raises StateError when one of them could not be trained.
    """
    results: list[TrainingResult] = []
    refs: list[FileRef] = []

    def publish(result: TrainingResult, files: Sequence[FileRef]) -> None:
        if result.status == "failed":
            raise StateError(f"{result.individual} could not be trained on {config.model}: {result.reason}")
        results.append(result)
        refs.extend(files)

    with cluster(config.ray, trainer_gpus(config)) as start, terminable(), asyncio.Runner() as runner:
        builder = Builder(config, model, str(store), log_directory(store, config), start)
        runner.run(builder.trainers().train(jobs, lived, publish))
    return sorted(results, key=lambda one: one.individual), refs


def _codec(model: Model) -> tuple[Codec, tuple[int, ...]]:
    if model.directory is None:
        return Codec(scripted.description(1)), ()
    directory = Path(model.directory)
    return Codec(chat.description(directory, model.card, context=1, capacity=1)), chat.end_of(directory)
