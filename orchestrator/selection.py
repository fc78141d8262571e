"""Selection: fitness in, survivors out. Pure."""

from collections.abc import Sequence

from orchestrator.config import SelectionConfig
from orchestrator.fitness import Fitness
from telemetry.records import Record


class Selection(Record):
    """Who breeds, who lives on unchanged, who is culled: individual ids, fittest first."""

    survivors: tuple[str, ...]
    elites: tuple[str, ...]
    """The first of the survivors; unchanged in the next generation, proven again on fresh worlds."""
    culled: tuple[str, ...]


def select(fitness: Sequence[Fitness], config: SelectionConfig) -> Selection:
    """Truncation selection with elitism: the fittest share survives, ties go to the lower id."""
    ranked = [one.individual for one in sorted(fitness, key=lambda one: (-one.value, one.individual))]
    keep = max(1, round(config.survivors * len(ranked)))
    return Selection(survivors=tuple(ranked[:keep]), elites=tuple(ranked[: config.elites]), culled=tuple(ranked[keep:]))
