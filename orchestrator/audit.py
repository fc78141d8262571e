"""Audit: every decision of a run made again from its records, and compared with the journal exactly.

Law: nothing is tolerated and nothing is repaired. Fitness follows from the ledger, selection from the fitness, and
births from the selection, all by the same pure functions that the loop calls; the journal must say the same.
"""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.budget import next_brood
from orchestrator.config import RunConfig
from orchestrator.diversity import action_shares, diversity
from orchestrator.events import GenerationCommitted
from orchestrator.findings import Finding, error
from orchestrator.population import founders, in_order
from orchestrator.reproduction import reproduce
from orchestrator.selection import select
from orchestrator.state import RunState
from orchestrator.trial import expected_lives, fitness_of, suspects
from orchestrator.verdict import Fitness
from telemetry.ledger import Ledger
from telemetry.records import Individual, Record
from telemetry.seeds import rng, world_seed
from workers.life import STRIDE
from workers.registry import make


def audit(state: RunState, ledger: Ledger, config: RunConfig) -> list[Finding]:
    """Every place where the journal says something else than the records. Holds one generation's lives at a time.

    Raises UsageError when the world or a custom fitness function cannot be loaded.
    """
    horizon = make(config.environment.name, config.environment.settings).horizon
    expected = founders(config.population, config.reproduction.hyperparameter_mutation, rng(config.seed, "founders"))
    found = state.created.founders
    if state.created.origin is not None or state.created.imported:
        # Where their weights come from is for others to prove.
        found = tuple(one.with_adapter(None) for one in found)
    findings = list(_compare_all("founders", found, expected))
    population, before = state.created.founders, tuple[Fitness, ...]()
    for event in state.history:
        number = event.generation
        lives = ledger.recall("lives", number, state.vouched(number), state.attempts(number))
        findings += _worlds(event, lives, config)
        findings += _fitness(event, lives, population, before, config, horizon)
        columns = ["individual", "action"]
        steps = ledger.recall("steps", number, state.vouched(number), state.attempts(number), columns)
        draw, isles = rng(config.seed, "select", number), config.population.islands
        selection = select(event.fitness, config.selection, draw, isles=isles, acted=action_shares(steps))
        findings += _compare(f"{_name(event)}: selection", event.selection, selection)
        findings += _births(event, population, state, config)
        findings += _compare(f"{_name(event)}: diversity", event.diversity, diversity(steps, population))
        population, before = event.population, event.fitness
    return findings + list(_champion(state))


def _name(event: GenerationCommitted) -> str:
    return f"generation {event.generation}"


def _compare(where: str, journal: Record, expected: Record) -> Iterator[Finding]:
    """One finding for every field in which two records of one type differ."""
    for name in type(journal).model_fields:
        got, wanted = getattr(journal, name), getattr(expected, name)
        if got != wanted:
            yield error(where, f"{name}: the journal has {got!r}, expected {wanted!r}")


def _compare_all(where: str, journal: Sequence[Record], expected: Sequence[Record]) -> Iterator[Finding]:
    if len(journal) != len(expected):
        yield error(where, f"the journal has {len(journal)}, expected {len(expected)}")
    for got, wanted in zip(journal, expected, strict=False):
        who = getattr(wanted, "id", None) or getattr(wanted, "individual", "")
        yield from _compare(f"{where}: {who}", got, wanted)


def _worlds(event: GenerationCommitted, lives: pa.Table, config: RunConfig) -> Iterator[Finding]:
    """Everybody must have faced the seeds of the generation; descendants those of whom they descend from."""
    most = config.population.lives * (2 if event.suspects else 1)
    seeds = [world_seed(config.seed, event.generation, life) for life in range(most)]
    for who, life, seed in zip(
        *(lives[name].to_pylist() for name in ("individual", "life", "world_seed")), strict=True
    ):
        first = life % STRIDE
        if first >= len(seeds) or seed != seeds[first]:
            wanted = seeds[first] if first < len(seeds) else f"lives 0 to {len(seeds) - 1}"
            yield error(f"{_name(event)}: {who}", f"life {life} was lived in world {seed}, expected {wanted}")


def _fitness(
    event: GenerationCommitted,
    lives: pa.Table,
    population: Sequence[Individual],
    before: Sequence[Fitness],
    config: RunConfig,
    horizon: int,
) -> Iterator[Finding]:
    first = lives.filter(pc.is_null(lives["parent_seat"]))
    counts = {row["values"]: row["counts"] for row in pc.value_counts(first["individual"]).to_pylist()}
    again = suspects(lives, [one for one in population if counts.get(one.id)], before, config, horizon=horizon)
    if again != event.suspects:
        yield error(_name(event), f"suspects: the journal has {event.suspects!r}, expected {again!r}")
    wanted = expected_lives(lives, population, again, config, horizon=horizon)
    for who, number in wanted.items():
        if counts.get(who, 0) != number:
            yield error(f"{_name(event)}: {who}", f"the ledger has {counts.get(who, 0)} lives, expected {number}")
    scored = [
        one for one in population if counts.get(one.id) and (one.id not in again or counts[one.id] == wanted[one.id])
    ]
    expected = fitness_of(lives, scored, again, config, horizon=horizon)
    known = {one.individual for one in expected}
    journal = [one for one in event.fitness if one.individual in known]
    yield from _compare_all(f"{_name(event)}: fitness", journal, expected)


def _births(
    event: GenerationCommitted, population: Sequence[Individual], state: RunState, config: RunConfig
) -> Iterator[Finding]:
    """The next population must be the planned one, with the adapters that training published."""
    brood = next_brood(state, event.generation, config)
    births = reproduce(population, event.selection, config.reproduction, brood)
    expected = list(births.elites)
    for job in births.jobs:
        result = state.births.get(job.child.id)
        if result is None:
            yield error(f"{_name(event)}: {job.child.id}", "was born without a training result in the journal")
            continue
        if result.status == "failed" and result.adapter != job.parents[0].adapter:
            yield error(
                f"{_name(event)}: {job.child.id}",
                f"its training failed and left adapter {result.adapter}, expected {job.parents[0].adapter}",
            )
        expected.append(job.child.with_adapter(result.adapter))
    yield from _compare_all(f"{_name(event)}: births", event.population, in_order(expected))


def _champion(state: RunState) -> Iterator[Finding]:
    if state.finished and state.history:
        best = state.history[-1].champion
        if state.finished.champion != best:
            yield error("finish", f"champion: the journal has {state.finished.champion!r}, expected {best!r}")
