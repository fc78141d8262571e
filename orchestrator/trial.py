"""From a population to its fitness: who lives how often, and who lives again because it looks too good.

Law: a fitness far above everything the generation before was capable of is more often luck, or a hole in the world,
than progress. Whoever has one lives as often again, in fresh worlds, and only those lives count.
"""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.config import RunConfig
from orchestrator.fitness import score
from orchestrator.halving import expected_lives as lives_of_rungs
from orchestrator.halving import rungs, standing
from orchestrator.run import Run
from orchestrator.verdict import Fitness, ranked
from telemetry.ledger import Receipt
from telemetry.records import Individual, LifeKey, LifeSummary
from workers.life import STRIDE

Acknowledge = Callable[[Sequence[Receipt], Sequence[LifeSummary], float], None]


class Workers(Protocol):
    """The room where lives are lived."""

    horizon: int

    def live(
        self,
        population: Sequence[Individual],
        lives: int,
        generation: int,
        skip: Collection[LifeKey],
        acknowledge: Acknowledge,
    ) -> None:
        """Lives everybody's first `lives` lives that are not in `skip`; acknowledges each exactly once."""
        ...


class Trial(NamedTuple):
    """What a generation came to."""

    lives: pa.Table
    """All committed lives, schema LIVES."""
    fitness: tuple[Fitness, ...]
    suspects: tuple[str, ...]
    """Whose fitness was measured again, fittest first."""


def hold(run: Run, workers: Workers, config: RunConfig) -> Trial:
    """Has the generation lived, as often as it takes to know everybody's fitness."""
    population, horizon = run.population, workers.horizon
    for count in rungs(config):
        workers.live(population, count, run.generation, run.finished_lives(), run.acknowledge)
        lives = run.table("lives")
        population = standing(lives, population, count, config, horizon=horizon)
    again = suspects(lives, run.population, run.last_fitness, config, horizon=horizon)
    if again:
        doubted = [one for one in run.population if one.id in again]
        workers.live(doubted, 2 * config.population.lives, run.generation, run.finished_lives(), run.acknowledge)
        lives = run.table("lives")
    return Trial(lives, fitness_of(lives, run.population, again, config, horizon=horizon), again)


def suspects(
    lives: pa.Table, population: Sequence[Individual], before: Sequence[Fitness], config: RunConfig, *, horizon: int
) -> tuple[str, ...]:
    """Those whose first lives went far better than those of the fittest of the generation before, fittest first."""
    if config.selection.recheck is None or not before:
        return ()
    first = lives.filter(pc.less(_index(lives), config.population.lives))
    best = ranked(before)[0]
    bar = best.high + config.selection.recheck * (best.high - best.low)
    scored = score(first, population, config.fitness, horizon=horizon, seed=config.seed)
    return tuple(one.individual for one in ranked(scored) if one.low > bar)


def fitness_of(
    lives: pa.Table, population: Sequence[Individual], again: Sequence[str], config: RunConfig, *, horizon: int
) -> tuple[Fitness, ...]:
    """Everybody's fitness; of those who lived again, by their later lives alone."""
    first = pc.less(_index(lives), config.population.lives)
    doubted = pc.is_in(lives["individual"], value_set=pa.array(again, pa.string()))
    counted = lives.filter(pc.xor(first, doubted))
    return score(counted, population, config.fitness, horizon=horizon, seed=config.seed)


def expected_lives(
    lives: pa.Table, population: Sequence[Individual], again: Sequence[str], config: RunConfig, *, horizon: int
) -> dict[str, int]:
    """How many lives everybody was to live, by what is known of these lives."""
    once = lives_of_rungs(lives, population, config, horizon=horizon)
    return {who: 2 * config.population.lives if who in again else count for who, count in once.items()}


def _index(lives: pa.Table) -> pa.ChunkedArray:
    """[lives]: which of its individual's lives each is; a descendant's is its ancestor's."""
    life = lives["life"]
    return pc.subtract(life, pc.multiply(pc.divide(life, STRIDE), STRIDE))
