"""Successive halving inside a generation: who need not live all of it. Pure.

Law: a comparison after the n-th life looks at the first n lives of everybody and at nothing else, so it comes out the
same whenever it is made again, however much more has been lived by then.
"""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from orchestrator.config import FitnessConfig, RunConfig
from orchestrator.fitness import life_values
from orchestrator.population import islands, position
from telemetry.records import EndReason, Individual

FEWEST = 8
"""Lives below which nothing is compared: the quantiles of so few differences are not known well."""

Floats = NDArray[np.float64]


def rungs(config: RunConfig) -> tuple[int, ...]:
    """Numbers of lives after which somebody may be done; the last one is all of them."""
    lives, halving = config.population.lives, config.selection.halving
    if halving is None:
        return (lives,)
    count, found = max(FEWEST, round(halving.first * lives)), []
    while count < lives:
        found.append(count)
        count *= 2
    return (*found, lives)


def standing(
    lives: pa.Table, population: Sequence[Individual], count: int, config: RunConfig, *, horizon: int
) -> tuple[Individual, ...]:
    """Those who may still be among the survivors, judged by everybody's first `count` lives (schema LIVES).

    Raises UsageError when a custom fitness misbehaves.
    """
    halving, steps = config.selection.halving, len(rungs(config)) - 1
    if halving is None or count >= config.population.lives or len(population) < 2:
        return tuple(population)
    values = np.stack([_values(lives, one, count, config.fitness, horizon) for one in population])
    comparisons = config.population.size * (config.population.size - 1) * steps
    worse = clearly_worse(values, (1 - halving.confidence) / comparisons)
    # Everybody competes at home only: the best of a poor island survives there.
    parts = islands(config.population.size, config.population.islands)
    homes = np.array([next(number for number, part in enumerate(parts) if position(one) in part) for one in population])
    better = (worse & (homes[:, None] == homes)).sum(axis=1)
    keep = [max(1, round(config.selection.survivors * len(parts[home]))) for home in homes]
    return tuple(one for one, count, most in zip(population, better, keep, strict=True) if count < most)


def expected_lives(
    lives: pa.Table, population: Sequence[Individual], config: RunConfig, *, horizon: int
) -> dict[str, int]:
    """How many lives everybody was to live, by what is known of these lives."""
    expected: dict[str, int] = {}
    left = tuple(population)
    for count in rungs(config):
        expected |= {one.id: count for one in left}
        left = standing(lives, left, count, config, horizon=horizon)
    return expected


def clearly_worse(values: Floats, level: float) -> NDArray[np.bool_]:
    """[individuals, individuals]: the first is worse than the second, at so small a probability of being wrong.

    values: [individuals, lives], life by life in the same worlds; NaN where nobody knows. One-sided t interval of the
    mean difference; fewer than FEWEST differences say nothing.
    """
    difference = values[:, None, :] - values[None, :, :]
    known = np.isfinite(difference)
    number = known.sum(axis=2)
    enough = number >= FEWEST
    size = np.where(enough, number, FEWEST)
    mean = np.where(known, difference, 0.0).sum(axis=2) / size
    spread = np.where(known, difference - mean[:, :, None], 0.0) ** 2
    error = np.sqrt(spread.sum(axis=2) / (size - 1) / size)
    worse: NDArray[np.bool_] = enough & (mean + student_quantile(1 - level, size - 1) * error < 0)
    return worse


def student_quantile(probability: float, freedom: NDArray[np.int64]) -> Floats:
    """Quantiles of Student's t from seven degrees of freedom on (expansion 26.7.5 of Abramowitz & Stegun)."""
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    nu = freedom.astype(np.float64)
    return np.asarray(z + sum(term / nu**power for power, term in enumerate(terms, 1)))


def _values(lives: pa.Table, one: Individual, count: int, config: FitnessConfig, horizon: int) -> Floats:
    """[count]: what each of somebody's first lives was worth, NaN where infrastructure cut it short."""
    first = pc.and_(pc.is_null(lives["parent_seat"]), pc.less(lives["life"], count))
    own = lives.filter(pc.and_(first, pc.equal(lives["individual"], one.id)))
    own = own.filter(pc.not_equal(own["end"], EndReason.CENSORED.value)).sort_by("life")
    values = np.full(count, np.nan)
    if own.num_rows:
        values[own["life"].to_numpy()] = life_values(own, config, horizon)
    return values
