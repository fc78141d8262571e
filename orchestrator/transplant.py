"""A run's living lineages on another base model: fresh adapters, learned from everything the ledger holds.

Records are text and know no model, so what lineages have lived through can be told again in any model's tokens. The
founders of the new run keep the strategies and hyperparameters of the heirs, and their line of ancestors is noted.
"""

from collections.abc import Iterator, Sequence
from itertools import cycle

from orchestrator.address import driven_at
from orchestrator.builder import find_model
from orchestrator.config import RunConfig
from orchestrator.credentials import prepare
from orchestrator.events import Origin
from orchestrator.lineage import ancestry
from orchestrator.population import founders
from orchestrator.run import found
from orchestrator.runfile import assign, validate
from orchestrator.state import RunState, config_of
from orchestrator.teaching import Chapter, check, job, learn, told
from orchestrator.verdict import ranked
from telemetry.failures import UsageError
from telemetry.ledger import Ledger
from telemetry.records import Individual
from telemetry.seeds import rng
from telemetry.store import Store
from trainer.job import TrainingResult
from workers.registry import make


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
    check(config)
    prepare(config.ray)
    model = find_model(config)
    people = founders(config.population, config.reproduction.hyperparameter_mutation, rng(config.seed, "founders"))
    lines = {heir.lineage: ancestry(heir.id, state) for heir in heirs(state)}
    teachers = sorted({one for event in state.history for one in event.selection.survivors})
    lived = told(_chapters(source, state, config, teachers), model)
    # A population larger than there are heirs repeats them in turn.
    jobs = [job(one, line, teachers, config) for one, line in zip(people, cycle(lines.values()), strict=False)]
    results, refs = learn(jobs, lived, config, model, store)
    origin = Origin(run=state.created.run, model=state.created.model, generations=len(state.history), ancestry=lines)
    found(store, written, model.card, {one.individual: one.adapter for one in results}, origin, refs)
    return results


def _chapters(source: Store, state: RunState, config: RunConfig, teachers: Sequence[str]) -> Iterator[Chapter]:
    """Everything that survivors ever lived through."""
    world = make(config.environment.name, config.environment.settings)
    ledger, old = Ledger(source), config_of(state)
    strategies = {one: state.everyone[one].genome.strategy for one in teachers}
    for event in state.history:
        number = event.generation
        steps, lives = (
            ledger.recall(name, number, state.vouched(number), state.attempts(number)) for name in ("steps", "lives")
        )
        yield Chapter(steps, lives, strategies, world, old.fitness)
