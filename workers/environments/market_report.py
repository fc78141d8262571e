"""What many lives in the market amount to, with intervals.

Law: lives are never cut. Lives born in the same year met the same market, so years are drawn first and then lives of
them (two-stage cluster bootstrap, Davison and Hinkley 1997, section 3.8): intervals do not shrink because one good year
was lived through many times.
"""

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from telemetry.seeds import rng
from workers.environments.market_account import DAYS_PER_YEAR

RESAMPLES = 2000
CONFIDENCE = 0.95

_Rows = npt.NDArray[np.float64]


def report(results: Sequence[Mapping[str, Any]]) -> Mapping[str, tuple[float, float, float]]:
    """Value and 95% percentile interval over lives, for

    sharpe        mean over standard deviation of the pooled daily returns, times the root of 252; no riskless rate
    max drawdown  mean of the lives' deepest falls from a peak
    ruin rate     share of lives that were ruined
    log wealth    mean logarithm of final over first wealth, upkeep included
    """
    if not results:
        return {}
    rows = np.array([_row(result) for result in results])
    years: dict[str, list[int]] = {}
    for index, result in enumerate(results):
        years.setdefault(str(result["born"])[:4], []).append(index)
    draws = rng("market report", len(results))
    times = draws.multinomial(len(years), np.full(len(years), 1 / len(years)), size=RESAMPLES)
    sums = np.zeros((RESAMPLES, rows.shape[1]))
    for drawn, lives in zip(times.T, years.values(), strict=True):
        # A year of n lives that is drawn m times draws n of its lives m times over.
        counts = draws.multinomial(drawn * len(lives), np.full(len(lives), 1 / len(lives)))
        sums += counts @ rows[lives]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(_figures(sums), (tail, 1 - tail), axis=0).tolist()
    (value,) = _figures(rows.sum(axis=0, keepdims=True)).tolist()
    names = ("sharpe", "max drawdown", "ruin rate", "log wealth")
    return dict(zip(names, zip(value, low, high, strict=True), strict=True))


def _row(result: Mapping[str, Any]) -> tuple[float, ...]:
    """What the figures need of one life, so that it can be summed: itself, its days, the sum of their returns and of
    their squares, drawdown, ruin, log wealth."""
    returns = result["returns"]
    squares = sum(value * value for value in returns)
    return 1, len(returns), sum(returns), squares, result["drawdown"], float(result["ruined"]), result["score"]


def _figures(sums: _Rows) -> _Rows:
    """The four figures from summed rows, one line per sample."""
    lives, days, total, squares = sums.T[:4]
    average = total / days
    deviation = np.sqrt(np.maximum(squares / days - average**2, 0.0))
    sharpe = np.divide(average, deviation, out=np.zeros_like(average), where=deviation > 0) * sqrt(DAYS_PER_YEAR)
    return np.column_stack([sharpe, sums[:, 4:] / lives[:, None]])
