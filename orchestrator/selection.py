"""Selection: fitness in, survivors out. Pure."""

from collections.abc import Sequence

from orchestrator.config import SelectionConfig
from orchestrator.fitness import Fitness, ranked
from telemetry.records import Record


class Selection(Record):
    """Who breeds, who lives on unchanged, who is culled: individual ids, fittest first, those without fitness last."""

    survivors: tuple[str, ...]
    elites: tuple[str, ...]
    """The first of the survivors; unchanged in the next generation, proven again on fresh worlds."""
    culled: tuple[str, ...]


def select(fitness: Sequence[Fitness], config: SelectionConfig) -> Selection:
    """Truncation selection with elitism: the fittest share survives, ties go to the lower id.

    Those whom infrastructure left without a fitness survive as well, after the others and in nobody's place.
    """
    scored = [one.individual for one in ranked(fitness)]
    unscored = sorted(one.individual for one in fitness if one.value is None)
    keep = min(len(scored), max(1, round(config.survivors * len(scored))))
    return Selection(
        survivors=tuple(scored[:keep] + unscored),
        elites=tuple(scored[:keep][: config.elites]),
        culled=tuple(scored[keep:]),
    )
