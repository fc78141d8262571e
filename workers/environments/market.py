"""Market: one trader, one instrument with a real past, and a cost of living.

A step is: the trader sees a close and says long, flat or short; the position is traded at that close, after costs; it
earns the returns of the following days, each of which costs upkeep. Law: a decision earns only returns that come after
everything it was shown, and the seed fixes the instrument and the days before the first step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import log
from typing import Any, ClassVar

from pydantic import BaseModel

from telemetry.records import EndReason
from workers.environment import Observation, Outcome, Policy
from workers.environments import market_report, market_view
from workers.environments.market_account import DAYS_PER_YEAR, START, Account
from workers.environments.market_data import Series, load
from workers.environments.market_settings import MarketSettings
from workers.environments.market_view import Look
from workers.environments.market_windows import eras, pick

LONG, FLAT, SHORT = "long", "flat", "short"
_BASIS_POINT = 1e-4
_SHOWN = 20
"""Closes of the past that a recorded state holds."""
_FLOOR = 0.01
"""Share of the first wealth below which the score does not fall: the logarithm of nothing is no number."""


@dataclass(slots=True)
class _Life:
    """Everything that changes while a life goes on, and the days it is made of."""

    series: Series
    born: int
    """Day of the first decision, as all days a position in the series."""
    day: int
    looks: list[Look]
    growth: list[float]
    """Return from each day's close to the next."""
    account: Account
    position: str = FLAT
    step: int = 0
    end: EndReason | None = None


def buy_and_hold(observation: Observation) -> str:
    """The reference that every trader has to beat."""
    return LONG


def always_flat(observation: Observation) -> str:
    """The reference that takes no risk and lives off what it has."""
    return FLAT


class Market:
    """The trading world. A fresh instance stands at the beginning of the life with seed 0."""

    name: ClassVar[str] = "market-v1"
    Settings: ClassVar[type[BaseModel]] = MarketSettings
    HELDOUT: ClassVar[Mapping[str, Any]] = {"split": "heldout"}
    references: ClassVar[Mapping[str, Policy]] = {"buy-and-hold": buy_and_hold, "always-flat": always_flat}
    actions: tuple[str, ...] = (LONG, FLAT, SHORT)

    def __init__(self, settings: MarketSettings, series: Sequence[Series] | None = None) -> None:
        """`series` takes the place of the packaged data. Raises UsageError when there is no data or no room in it."""
        self._settings = settings
        found = series if series is not None else [one for name in settings.data for one in load(name)]
        self._eras = eras(found, settings)
        self._exposures = {LONG: settings.leverage, FLAT: 0.0, SHORT: -settings.leverage}
        self._cost = (settings.cost_bps + settings.slippage_bps) * _BASIS_POINT
        self._borrowing = settings.borrow_bps * _BASIS_POINT / DAYS_PER_YEAR
        self.reset(0)

    @property
    def rules(self) -> str:
        ruin = self._settings.ruin
        return f"Trade to live. Days and trades cost energy; at {ruin:g} you die. Say long, flat or short."

    @property
    def horizon(self) -> int:
        return self._settings.horizon

    def reset(self, seed: int) -> Observation:
        """Begins the life of a seed."""
        series, day = pick(seed, self._eras)
        looks, growth = _prepared(series)
        self._life = _Life(series, day, day, looks, growth, Account())
        return self._observe()

    def step(self, action: str) -> Outcome:
        """Lives one step. Raises ValueError for a word that is no action, RuntimeError when the life has ended."""
        life, settings = self._life, self._settings
        if action not in self._exposures:
            raise ValueError(f"{action!r} is not one of {', '.join(self.actions)}")
        if life.end is not None:
            raise RuntimeError("the life has ended; reset() begins the next one")
        account, cause = life.account, ""
        life.position = action
        account.trade(self._exposures[action], self._cost)
        ahead = life.growth[life.day : life.day + settings.days]
        life.day += account.live(ahead, self._borrowing, settings.upkeep, settings.ruin)
        life.step += 1
        if account.wealth <= settings.ruin:
            life.end, cause = EndReason.DIED, "ruined"
        elif life.step == settings.horizon:
            life.end = EndReason.SURVIVED
        return Outcome(self._observe(), life.end, cause)

    def state(self) -> Mapping[str, Any]:
        """Hidden state: what is traded and when, the books, and the last closes relative to 1000 at birth."""
        life, account = self._life, self._life.account
        scale = 1000 / life.series.closes[life.born]
        return {
            "step": life.step,
            "series": life.series.name,
            "date": life.series.dates[life.day],
            "position": life.position,
            "wealth": account.wealth,
            "held": account.held,
            "turnover": account.turnover,
            "closes": [round(close * scale) for close in life.series.closes[life.day - _SHOWN : life.day + 1]],
        }

    def result(self) -> Mapping[str, Any]:
        """Daily returns after trading and borrowing but before upkeep, the books' totals, and the logarithm of final
        over first wealth as `score`."""
        life, account = self._life, self._life.account
        return {
            "series": life.series.name,
            "born": life.series.dates[life.born],
            "returns": [round(value, 6) for value in account.returns],
            "turnover": account.turnover,
            "drawdown": account.drawdown,
            "wealth": account.wealth,
            "ruined": life.end is EndReason.DIED,
            "score": log(max(account.wealth / START, _FLOOR)),
        }

    @staticmethod
    def report(results: Sequence[Mapping[str, Any]]) -> Mapping[str, tuple[float, float, float]]:
        """Sharpe ratio, drawdown, ruin rate and mean log wealth, each with a 95% interval."""
        return market_report.report(results)

    @staticmethod
    def draw(state: Mapping[str, Any]) -> str:
        """A recorded state as three lines of text."""
        return market_view.draw(state)

    def _observe(self) -> Observation:
        life = self._life
        energy = life.account.wealth
        text = f"{market_view.text(life.looks[life.day])} You are {life.position}. Energy {energy:.0f}."
        return Observation(text, self.actions, energy)


@lru_cache(maxsize=64)
def _prepared(series: Series) -> tuple[list[Look], list[float]]:
    """Looks and returns of a series, once per process."""
    return market_view.looks(series.closes), [later / close - 1 for close, later in pairwise(series.closes)]
