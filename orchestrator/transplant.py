"""A run's living lineages on another base model: fresh adapters, learned from everything the ledger holds.

Records are text and know no model, so what lineages have lived through can be told again in any model's tokens. The
founders of the new run keep the strategies and hyperparameters of the heirs, and their line of ancestors is noted.
"""

import asyncio
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import pyarrow as pa

from orchestrator.address import driven_at
from orchestrator.cluster import cluster
from orchestrator.config import RunConfig
from orchestrator.credentials import prepare
from orchestrator.driver import log_directory
from orchestrator.events import Origin
from orchestrator.experience import experience
from orchestrator.lineage import ancestry
from orchestrator.population import founders
from orchestrator.rooms import Builder, Model, find_model
from orchestrator.run import found
from orchestrator.runfile import assign, validate
from orchestrator.state import RunState, config_of
from orchestrator.verdict import ranked
from telemetry.failures import StateError, UsageError
from telemetry.ledger import Ledger
from telemetry.records import FileRef, Individual
from telemetry.seeds import rng, seed63
from telemetry.store import Store
from trainer.config_operators import GaussianMutation, LinearCrossover
from trainer.job import Parent, TrainingJob, TrainingResult
from workers.engines import chat, scripted
from workers.prompt import Codec
from workers.registry import make
from workers.retell import retell


def plan(state: RunState, base: str, name: str, overrides: Sequence[str]) -> RunConfig:
    """The run file of the transplanted run: one founder for every living lineage, the fittest of each.

    Raises UsageError for a run without a finished generation, or overrides that make no run file.
    """
    if not state.history:
        raise UsageError("the run has no finished generation yet; wait for one")
    config = config_of(state)
    document = config.model_dump(mode="json")
    document |= {"name": name, "model": base}
    document["population"]["founders"] = [
        {
            "name": heir.lineage,
            "strategy": heir.genome.strategy,
            **heir.genome.hyperparameters.model_dump(),
        }
        for heir in heirs(state)
    ]
    for override in overrides:
        assign(document, override)
    return validate(document, "transplant")


def heirs(state: RunState) -> list[Individual]:
    """The fittest of every lineage that is alive after the last finished generation, fittest first."""
    last = state.history[-1]
    survivors = [one.individual for one in ranked(last.fitness) if one.individual in last.selection.survivors]
    found: dict[str, Individual] = {}
    for one in survivors:
        found.setdefault(state.everyone[one].lineage, state.everyone[one])
    return list(found.values())


def transplant(
    source: Store, state: RunState, written: RunConfig, store: Store, address: str | None = None
) -> list[TrainingResult]:
    """Founds a run with `written` in an empty `store`, its founders trained on what is in the ledger of `source`.

    address: of the cluster to train on, if it is not to be the run file's.

    Raises StateError when a lineage could not be trained, so that no run is founded, and whatever ends a run.
    """
    config = driven_at(written, address)
    if not config.trainer.enabled:
        raise UsageError("trainer.enabled: got false, expected true; weights of another model can only be learned")
    if config.trainer.objective.kind == "es":
        raise UsageError("trainer.objective.kind: got es, expected one that learns from records, such as sft")
    prepare(config.ray)
    model = find_model(config)
    people = founders(config.population, config.reproduction.hyperparameter_mutation, rng(config.seed, "founders"))
    lived = _told(source, state, config, model)
    lines = {heir.lineage: ancestry(heir.id, state) for heir in heirs(state)}
    teachers = sorted({one for event in state.history for one in event.selection.survivors})
    # A population larger than there are heirs repeats them in turn.
    jobs = [_job(one, line, teachers, config) for one, line in zip(people, cycle(lines.values()), strict=False)]
    results: list[TrainingResult] = []
    refs: list[FileRef] = []

    def publish(result: TrainingResult, files: Sequence[FileRef]) -> None:
        if result.status == "failed":
            raise StateError(f"{result.individual} could not be trained on {config.model}: {result.reason}")
        results.append(result)
        refs.extend(files)

    with cluster(config.ray, config.trainer.jobs * config.trainer.gpus_per_job) as start, asyncio.Runner() as runner:
        builder = Builder(config, model, str(store), log_directory(store, config), start)
        runner.run(builder.trainers().train(jobs, lived, publish))
    origin = Origin(run=state.created.run, model=state.created.model, generations=len(state.history), ancestry=lines)
    found(store, written, model.card, {one.individual: one.adapter for one in results}, origin, refs)
    return sorted(results, key=lambda one: one.individual)


def _told(source: Store, state: RunState, config: RunConfig, model: Model) -> pa.Table:
    """Everything that survivors ever lived through, in the tokens of the new model (schema EXPERIENCE)."""
    world = make(config.environment.name, config.environment.settings)
    codec, end = _codec(config, model)
    ledger, old = Ledger(source), config_of(state)
    tables = []
    for event in state.history:
        number = event.generation
        steps, lives = (
            ledger.recall(name, number, state.vouched(number), state.attempts(number)) for name in ("steps", "lives")
        )
        own = {one: state.everyone[one].genome.strategy for one in set(steps["individual"].to_pylist())}
        told = retell(steps, own, world, codec, end)
        tables.append(experience(told, lives, old.fitness, horizon=world.horizon))
    return pa.concat_tables(tables)


def _codec(config: RunConfig, model: Model) -> tuple[Codec, tuple[int, ...]]:
    if model.directory is None:
        return Codec(scripted.description(1)), ()
    directory = Path(model.directory)
    return Codec(chat.description(directory, model.card, context=1, capacity=1)), chat.end_of(directory)


def _job(one: Individual, line: tuple[str, ...], teachers: Sequence[str], config: RunConfig) -> TrainingJob:
    """A founder's birth: from nothing, on the records of its own line and of all other survivors."""
    others = [individual for individual in teachers if individual not in line]
    use = [*line, *(others if config.reproduction.learn_from == "survivors" else [])]
    return TrainingJob(
        child=one,
        parents=tuple(Parent(individual=who, adapter=None, weight=float(who == use[0])) for who in use),
        crossover=LinearCrossover(),
        mutation=GaussianMutation(strength=0.0),
        seed=seed63(config.seed, "transplant", one.id),
    )
