"""Fitness: committed lives in, one number with an interval per individual out. Pure, and never from agent text."""

import json
import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from importlib import import_module

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from orchestrator.config import CustomFitnessConfig, EnergyConfig, FitnessConfig, ResultConfig, RmstConfig
from orchestrator.verdict import Fitness, ranked
from telemetry.failures import NoProgressError, UsageError
from telemetry.records import EndReason, Individual
from telemetry.seeds import rng
from workers.guard import blame

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_CACHED = 1 << 16
"""Numbers of eight bytes that a core keeps at hand."""


def restricted_mean_survival(times: Floats, died: Bools, horizon: float) -> float:
    """Area under the Kaplan-Meier curve from 0 to `horizon`, in steps (Royston & Parmar 2013).

    times, died: [lives]; a life that did not die is right-censored at its time. Equals the mean of
    `min(time, horizon)` when nothing is censored before the horizon.
    """
    return float(_rmst(np.minimum(times, horizon)[None, :], died[None, :], horizon)[0])


def _rmst(times: Floats, died: Bools, horizon: float) -> Floats:
    """RMST of each row of [rows, lives]; times already capped at the horizon."""
    if not (~died & (times < horizon)).any():
        return np.asarray(times.mean(axis=1))
    # Deaths before censorings at equal times: the convention of the Kaplan-Meier estimator.
    order = np.lexsort((~died, times), axis=1)
    times, died = np.take_along_axis(times, order, 1), np.take_along_axis(died, order, 1)
    rows, lives = times.shape
    at_risk = np.arange(lives, 0, -1)
    survival = np.cumprod(1 - died / at_risk, axis=1)
    before = np.concatenate([np.ones((rows, 1)), survival], axis=1)
    edges = np.concatenate([np.zeros((rows, 1)), times, np.full((rows, 1), horizon)], axis=1)
    return np.asarray((before * np.diff(edges, axis=1)).sum(axis=1))


def bootstrap_interval(
    statistic: Callable[[NDArray[np.int64]], Floats],
    lives: int,
    *,
    resamples: int,
    confidence: float,
    generator: np.random.Generator,
) -> tuple[float, float]:
    """Percentile bootstrap interval (Efron 1979).

    statistic: maps resampled indices [resamples, lives] to [resamples].
    """
    # In parts that fit a cache: the same draws in half the time.
    rows = max(1, _CACHED // max(1, lives))
    parts = [min(rows, resamples - begun) for begun in range(0, resamples, rows)]
    samples = np.concatenate([statistic(generator.integers(0, lives, size=(part, lives))) for part in parts])
    tail = (1 - confidence) / 2
    low, high = np.quantile(samples, [tail, 1 - tail])
    return float(low), float(high)


def life_values(own: pa.Table, config: FitnessConfig, horizon: int) -> Floats:
    """What each life is worth under a fitness, in the order of the rows; none of them is censored.

    Raises UsageError when a custom function misbehaves or the world's result lacks the number.
    """
    if isinstance(config, CustomFitnessConfig):
        return _custom(config.function, own)
    if isinstance(config, ResultConfig):
        return np.asarray([_member(text, config.field) for text in own["result"].to_pylist()], dtype=np.float64)
    if isinstance(config, EnergyConfig):
        died = own["end"].to_numpy(zero_copy_only=False) == EndReason.DIED.value
        return np.asarray(np.where(died, 0.0, own["energy"].to_numpy()), dtype=np.float64)
    return np.asarray(np.minimum(own["steps"].to_numpy(), horizon), dtype=np.float64)


def _member(result: str, field: str) -> float:
    value = json.loads(result).get(field) if result else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UsageError(f"fitness.field: got {value!r} for {field!r} in a life's result, expected a finite number")
    return float(value)


def score(
    lives: pa.Table, population: Sequence[Individual], config: FitnessConfig, *, horizon: int, seed: int
) -> tuple[Fitness, ...]:
    """Fitness of every individual, in the population's order.

    lives: committed rows of the generation, schema LIVES. Raises UsageError when a custom function misbehaves, and
    NoProgressError when nobody can be scored.
    """
    # Descendants are what a life achieved; were they lives of their own here, breeding would dilute a fitness.
    founders = lives.filter(pc.is_null(lives["parent_seat"]))
    founders = founders.sort_by([("individual", "ascending"), ("life", "ascending")])
    names: list[str] = founders["individual"].to_pylist()

    def own(individual: str) -> pa.Table:
        begin = bisect_left(names, individual)
        return founders.slice(begin, bisect_right(names, individual) - begin)

    fitness = tuple(_score_one(own(one.id), one.id, config, horizon, seed) for one in population)
    if population and not ranked(fitness):
        raise NoProgressError(
            f"generation {population[0].generation}: every life was lost to infrastructure, so nobody can be scored;"
            " resume the run with --at-generation from the one before"
        )
    return fitness


def _score_one(own: pa.Table, individual: str, config: FitnessConfig, horizon: int, seed: int) -> Fitness:
    total, censored = own.num_rows, pc.equal(own["end"], EndReason.CENSORED.value)
    lost = pc.sum(censored).as_py() or 0
    if lost:
        # Only survival times have a meaning when cut short, and even these none before the first step.
        unknown = pc.and_(censored, pc.equal(own["steps"], 0)) if isinstance(config, RmstConfig) else censored
        own = own.filter(pc.invert(unknown))
    if total and not own.num_rows:
        return Fitness(individual=individual, value=None, low=None, high=None, lives=total, censored=lost)
    end = own["end"].to_numpy(zero_copy_only=False)
    values, died = life_values(own, config, horizon), np.asarray(end == EndReason.DIED.value)
    cut_short = isinstance(config, RmstConfig) and bool((~died & (values < horizon)).any())

    def statistic(index: NDArray[np.int64]) -> Floats:
        if cut_short:
            return _rmst(values[index], died[index], horizon)
        return np.asarray(values[index].mean(axis=1))

    everyone = np.arange(own.num_rows)[None, :]
    low, high = bootstrap_interval(
        statistic,
        own.num_rows,
        resamples=config.resamples,
        confidence=config.confidence,
        generator=rng(seed, "bootstrap", individual),
    )
    return Fitness(
        individual=individual,
        value=float(statistic(everyone)[0]),
        low=low,
        high=high,
        lives=total,
        censored=lost,
    )


def load_function(path: str) -> Callable[[pa.Table], Sequence[float]]:
    """The function behind `module:function`. Raises UsageError when it cannot be imported."""
    module, _, name = path.partition(":")
    try:
        function = getattr(import_module(module), name)
    except (Exception, SystemExit) as error:
        raise UsageError(f"fitness.function: {path!r} cannot be loaded: {blame(error)}") from error
    if not callable(function):
        raise UsageError(f"fitness.function: got {type(function).__name__} at {path!r}, expected a function")
    return function  # type: ignore[no-any-return]


def _custom(path: str, lives: pa.Table) -> Floats:
    function = load_function(path)
    try:
        values = np.asarray(function(lives), dtype=np.float64)
    except (Exception, SystemExit) as error:  # foreign code may raise anything; what it raised is the message
        raise UsageError(f"fitness.function: {path!r} raised {blame(error)}") from error
    if values.shape != (lives.num_rows,) or not np.isfinite(values).all():
        raise UsageError(
            f"fitness.function: {path!r} returned shape {values.shape}, expected {lives.num_rows} finite numbers,"
            " one per life"
        )
    return values
