"""Metrics of runs of any number of lineages, told of more causes, players and engines than have a series."""

from prometheus_client import CollectorRegistry, Histogram

from orchestrator.events import Evaluated, EvaluationRow, GenerationCommitted, LivesCommitted
from orchestrator.observe import MetricsListener
from orchestrator.state import RunState
from orchestrator.verdict import Diversity, Fitness, Selection
from telemetry.catalogue import MAX_CAUSES, MAX_PLAYERS
from telemetry.foreign import read
from telemetry.metrics import Metrics
from tests.orchestrator.builders import newborn_run, run_config
from trainer.job import TrainingResult
from workers.engine import EngineStats

ENGINES = 64


def crowded(lineages: int) -> Metrics:
    """Metrics as they are served after the first generation of as many individuals as lineages."""
    config = run_config(generations=2, budget={"decisions": 10**9, "training_tokens": 10**9})
    state = newborn_run(config)
    _populate(state, lineages)
    metrics = Metrics(run=config.name)
    MetricsListener(metrics, config).replay(state)
    own = read(_library(), "lib:")
    engines = {f"engine-{number}.0": EngineStats(answered=9, own=own) for number in range(ENGINES)}
    metrics.engines({name: stats.numbers() for name, stats in engines.items()})
    metrics.foreign.heard({name: stats.own for name, stats in engines.items()})
    metrics.live(9, 99)
    metrics.committed(1.0, 0.01)
    return metrics


def _populate(state: RunState, lineages: int) -> None:
    """Puts a generation that half of the lineages do not outlive into the state, past its journal."""
    one, half = state.population[0], lineages // 2
    people = tuple(
        one.model_copy(update={"id": f"g000-{place:03d}", "lineage": f"only-{place}"}) for place in range(lineages)
    )
    bred = tuple(
        parent.model_copy(update={"id": parent.id.replace("g000", "g001"), "generation": 1, "parents": (parent.id,)})
        for parent in people[:half] * 2
    )
    ids = tuple(one.id for one in people)
    state.everyone = {one.id: one for one in people + bred}
    state.population, state.generation = bred, 1
    ends = {f"died:cause-{number}": 1 for number in range(2 * MAX_CAUSES)} | {"survived": 1, "censored": 1}
    state.commits.append(LivesCommitted(0, {}, (), 9 * lineages, 99 * lineages, 9 * lineages, ends, 1.0))
    state.births = {
        child.id: TrainingResult(individual=child.id, adapter=None, status=status, loss_first=2.0, loss_last=1.0)
        for child, status in zip(bred, ("trained", "failed"), strict=False)
    }
    fitness = (
        Fitness.model_construct(individual=who, value=1.0, low=0.5, high=1.5, lives=1, censored=0) for who in ids
    )
    event = GenerationCommitted(
        generation=0,
        fitness=tuple(fitness),
        suspects=ids[:half],
        selection=Selection(survivors=ids[:half], elites=(), culled=ids[half:]),
        population=bred,
        diversity=Diversity(entropy=1.0, behaviour=0.5, strategies=1, adapters=1),
        seconds={"rollout": 1.0},
    )
    state.history.append(event)
    players = ("champion", "champion-exploring", "founder", *map(str, range(2 * MAX_PLAYERS)))
    row = EvaluationRow(who="", individual=None, adapter=None, lives=1, mean=1.0, low=1.0, high=1.0, ends={})
    state.evaluation = Evaluated(rows=tuple(row.model_copy(update={"who": who}) for who in players))


def _library() -> CollectorRegistry:
    """About as large as a serving library's."""
    registry = CollectorRegistry()
    for number in range(20):
        Histogram(f"lib:seconds_{number}", "Of something.", registry=registry, buckets=range(20))
    return registry
