"""What many lives' forecasts are worth: skill, rank correlation and a long-short portfolio, with intervals.

Law: a return is evidence once. Lives share articles, so the forecasts of one article are averaged over the lives that
read it before anything else is computed; and articles of the same days share what moved the market, so intervals
resample blocks of days, not articles and not lives.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from telemetry.seeds import rng

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

RESAMPLES = 2000


@dataclass(frozen=True, slots=True, eq=False)
class Forecasts:
    """Every article that was read, once. Place `i` of every array belongs together."""

    block: Codes
    """Number of the block of days that the article is of, counted from 0 in order of time."""
    days: list[int]
    """First day of each block, counted from 1970-01-01."""
    forecast: Floats
    """Mean of the forecasts, in standard deviations of the training returns."""
    saved: Floats
    """By how much the forecasts' squared errors are smaller than that of forecasting zero, on average."""
    base: Floats
    """Squared error of forecasting zero."""
    actual: Floats
    """Return in standard deviations, less the training mean."""
    fraction: Floats
    """The same as a fraction."""


def collect(results: Sequence[Mapping[str, Any]]) -> Forecasts:
    """The articles that the lives read, with the average of what was said about each; the unread ones say nothing."""
    read: dict[int, list[float]] = {}
    about: dict[int, tuple[int, float, float, float]] = {}
    for result in results:
        for place in range(result["read"]):
            article, actual = result["articles"][place], result["actual"][place]
            first = result["days"][place] // result["return_days"] * result["return_days"]
            about[article] = first, actual, result["winsor"], actual * result["deviation"]
            read.setdefault(article, []).append(result["predicted"][place])
    order = sorted(about, key=lambda article: (about[article][0], article))
    days = sorted({about[article][0] for article in order})
    number = {day: index for index, day in enumerate(days)}
    counted = [min(max(about[article][1], -about[article][2]), about[article][2]) for article in order]
    said = [np.array(read[article]) for article in order]
    return Forecasts(
        block=np.array([number[about[article][0]] for article in order], dtype=np.int64),
        days=days,
        forecast=np.array([words.mean() for words in said]),
        saved=np.array([(words * (2 * actual - words)).mean() for words, actual in zip(said, counted, strict=True)]),
        base=np.square(counted),
        actual=np.array([about[article][1] for article in order]),
        fraction=np.array([about[article][3] for article in order]),
    )


def report(results: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, float, float]]:
    """Name -> (value, low, high) with 95% percentile bootstrap intervals (Efron 1979) over blocks of days.

    `squared error skill`: 1 less the mean squared error over that of forecasting zero.
    `rank correlation`: Spearman's, of forecasts and returns; 0 where all forecasts are equal.
    `rank correlation t`: its t-statistic with n - 2 degrees of freedom.
    `long-short bp`: mean return per block of days of the portfolio of `curve`, in hundredths of a percent.
    `long-short t`: its t-statistic over blocks.
    Empty with fewer than 3 articles or 2 blocks of days.
    """
    found = collect(results)
    if len(found.block) < 3 or len(found.days) < 2:
        return {}
    statistics = _Statistics(found)
    values = statistics.of(np.ones(len(found.days)))
    draws = rng(0, "news report", len(found.days))
    chances = np.full(len(found.days), 1 / len(found.days))
    samples = [statistics.of(draws.multinomial(len(found.days), chances).astype(np.float64)) for _ in range(RESAMPLES)]
    lows, highs = np.quantile(np.array([list(sample.values()) for sample in samples]), [0.025, 0.975], axis=0)
    return {name: (values[name], float(low), float(high)) for name, low, high in zip(values, lows, highs, strict=True)}


def curve(results: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Cumulative return of the long-short portfolio: `day` as ISO dates, `return` as the sum of fractions so far.

    Each block of days, every article read is held in proportion to its forecast, short where that is below zero,
    with positions that add up to one; a block without any forecast but zero earns nothing. Returns are in excess of
    the training mean, without costs, and not reinvested.
    """
    found = collect(results)
    total = np.cumsum(_earned(found)) if found.days else np.zeros(0)
    days = [(date(1970, 1, 1) + timedelta(days=day)).isoformat() for day in found.days]
    return {"day": days, "return": total.tolist()}


def _earned(found: Forecasts) -> Floats:
    """Return of the portfolio in each block."""
    blocks = len(found.days)
    earned = np.bincount(found.block, found.forecast * found.fraction, blocks)
    held = np.bincount(found.block, np.abs(found.forecast), blocks)
    return np.divide(earned, held, out=np.zeros(blocks), where=held > 0)


class _Statistics:
    """Every statistic as a function of how often each block counts."""

    def __init__(self, found: Forecasts) -> None:
        self._found = found
        self._earned = _earned(found)
        self._forecast_order = np.unique(found.forecast, return_inverse=True)[1]
        self._actual_order = np.unique(found.actual, return_inverse=True)[1]

    def of(self, times: Floats) -> dict[str, float]:
        """times: [blocks], how often each block counts."""
        weights = times[self._found.block]
        total = float(weights.sum())
        base = float(weights @ self._found.base)
        skill = float(weights @ self._found.saved) / base if base else 0.0
        rank = _correlation(_midranks(self._forecast_order, weights), _midranks(self._actual_order, weights), weights)
        mean = float(times @ self._earned / times.sum())
        spread = math.sqrt(float(times @ (self._earned - mean) ** 2) / (times.sum() - 1))
        return {
            "squared error skill": skill,
            "rank correlation": rank,
            "rank correlation t": rank * math.sqrt(max(total - 2, 0) / max(1 - rank**2, 1e-12)),
            "long-short bp": 10_000 * mean,
            "long-short t": mean / spread * math.sqrt(times.sum()) if spread else 0.0,
        }


def _midranks(order: Codes, weights: Floats) -> Floats:
    """Average rank of each place among ties, where place `i` stands for `weights[i]` equal ones."""
    sizes = np.bincount(order, weights)
    return np.asarray((np.cumsum(sizes) - (sizes - 1) / 2)[order])


def _correlation(one: Floats, other: Floats, weights: Floats) -> float:
    total = weights.sum()
    one, other = one - weights @ one / total, other - weights @ other / total
    spread = math.sqrt(float(weights @ one**2) * float(weights @ other**2))
    return min(1.0, max(-1.0, float(weights @ (one * other)) / spread)) if spread else 0.0
