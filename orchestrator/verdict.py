"""What a generation came to, as the journal holds it. Nouns alone: whoever only reads a run loads no numerics."""

from collections.abc import Iterable
from typing import NamedTuple

from pydantic import Field

from telemetry.records import Record


class Fitness(Record):
    """How well one individual fared in one generation."""

    individual: str
    value: float | None
    """null, as are the next two, for somebody whose every life was lost to infrastructure: nobody knows."""
    low: float | None
    """Lower end of the bootstrap interval over lives."""
    high: float | None
    """Upper end."""
    lives: int = Field(ge=0)
    censored: int = Field(ge=0)
    """Lives cut short by infrastructure: they count as alive up to where they were lost."""


class Estimate(Record):
    """A number with its 95% interval."""

    value: float
    low: float
    high: float


class Scored(NamedTuple):
    """The fitness of somebody who has one."""

    individual: str
    value: float
    low: float
    high: float


def ranked(fitness: Iterable[Fitness]) -> list[Scored]:
    """Everybody who has a fitness, fittest first; ties go to the lower id."""
    scored = [
        Scored(one.individual, one.value, one.low, one.high)
        for one in fitness
        if one.value is not None and one.low is not None and one.high is not None
    ]
    return sorted(scored, key=lambda one: (-one.value, one.individual))


class Selection(Record):
    """Who breeds, who lives on unchanged, who is culled: individual ids, fittest first, those without fitness last."""

    survivors: tuple[str, ...]
    elites: tuple[str, ...]
    """The fittest of each island; unchanged in the next generation, proven again on fresh worlds."""
    culled: tuple[str, ...]


class Diversity(Record):
    """What is left to select from, of one generation that has lived."""

    entropy: float = Field(ge=0)
    """Mean over individuals of the entropy of their actions, in bits; 0 for those who always do the same."""
    behaviour: float = Field(ge=0)
    """Jensen-Shannon divergence of the individuals' actions, in bits: 0 where everybody does the same as often."""
    strategies: int = Field(ge=0)
    """Distinct strategy texts."""
    adapters: int = Field(ge=0)
    """Distinct weights, the untouched model's included."""
