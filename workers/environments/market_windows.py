"""Which days a life may be made of: walk-forward by construction.

Law: everything that a training life sees or earns lies before the boundary. Everything that a held-out life sees or
earns, its look-back included, lies after the boundary and an embargo as long as a whole window.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from telemetry.failures import UsageError
from telemetry.seeds import uniform
from workers.environments.market_data import Series
from workers.environments.market_settings import MarketSettings
from workers.environments.market_view import LOOKBACK


class Era(NamedTuple):
    """The days of one series on which a life may begin."""

    series: Series
    births: range
    """A life born on day b sees the closes from b - LOOKBACK and earns the returns up to close b + horizon * days."""


def births(dates: Sequence[str], settings: MarketSettings) -> range:
    """Days, as positions in `dates`, on which a life may begin; empty where no window fits."""
    span = settings.horizon * settings.days
    border = bisect_left(dates, settings.boundary.isoformat())
    if settings.split == "train":
        return range(LOOKBACK, border - span)
    embargo = LOOKBACK + span
    return range(border + embargo + LOOKBACK, bisect_right(dates, settings.until.isoformat()) - span)


def eras(series: Iterable[Series], settings: MarketSettings) -> tuple[Era, ...]:
    """All series with room for a life. Raises UsageError when there is none."""
    found = tuple(Era(one, days) for one in series if (days := births(one.dates, settings)))
    if not found:
        span = settings.horizon * settings.days
        raise UsageError(
            f"market: got no window of {LOOKBACK} + {span} trading days for split {settings.split}, boundary"
            f" {settings.boundary}, until {settings.until}, expected at least one; shorten horizon or days"
        )
    return found


def pick(seed: int, choices: Sequence[Era]) -> tuple[Series, int]:
    """The series and the day on which the life of a seed begins: any series, then any of its days."""
    series, days = choices[int(uniform(seed, "market series") * len(choices))]
    return series, days[int(uniform(seed, "market birth") * len(days))]
