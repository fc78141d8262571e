"""The family tree of a run: every individual that ever was, with its parents and its fate. Pure."""

from typing import Literal

from orchestrator.state import RunState
from telemetry.records import Individual, Record

SHORT = 12
"""Characters of a content id that people are shown."""


class LineageRow(Record):
    """One individual's place in the family tree; its fields are the keys of `forager lineage --json`."""

    id: str
    generation: int
    lineage: str
    parents: tuple[str, ...]
    """Ids in the generation before; the first one carries the lineage."""
    origin: Literal["founder", "elite", "born"]
    """`elite`: lives on with its parent's genome unchanged."""
    fitness: float | None
    """null while its generation lives, as are the next four; null also when infrastructure lost its every life."""
    low: float | None
    high: float | None
    survived: bool | None
    """Selected to breed."""
    elite: bool | None
    """Selected to live on unchanged."""
    adapter: str | None
    strategy: str
    objective: str
    """Which of the trainer's alternatives its weights were learned by; empty for the main one."""
    temperature: float
    epsilon: float
    learning_rate: float
    novelty: float


def lineage_rows(state: RunState) -> tuple[LineageRow, ...]:
    """Every individual that ever was, in order of birth."""
    scored = {one.individual: one for event in state.history for one in event.fitness}
    survivors = {one for event in state.history for one in event.selection.survivors}
    elites = {one for event in state.history for one in event.selection.elites}
    return tuple(
        LineageRow(
            id=one.id,
            generation=one.generation,
            lineage=one.lineage,
            parents=one.parents,
            origin=_origin(one, state),
            fitness=scored[one.id].value if one.id in scored else None,
            low=scored[one.id].low if one.id in scored else None,
            high=scored[one.id].high if one.id in scored else None,
            survived=one.id in survivors if one.id in scored else None,
            elite=one.id in elites if one.id in scored else None,
            adapter=short(one.genome.adapter),
            strategy=one.genome.strategy,
            objective=one.genome.objective,
            **one.genome.hyperparameters.model_dump(),
        )
        for one in state.everyone.values()
    )


def ancestry(individual: str, state: RunState) -> tuple[str, ...]:
    """Ids from the founder to an individual, along first parents."""
    line = [individual]
    while parents := state.everyone[line[-1]].parents:
        line.append(parents[0])
    return tuple(reversed(line))


def short(adapter: str | None) -> str | None:
    """What people are shown of a content id."""
    return adapter[:SHORT] if adapter else None


def _origin(one: Individual, state: RunState) -> Literal["founder", "elite", "born"]:
    if not one.parents:
        return "founder"
    return "born" if one.id in state.births else "elite"
