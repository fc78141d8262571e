"""What a trader sees of a series, and the picture of a state for people.

Law: a day's text depends on the last LOOKBACK returns and on nothing else, every move is in units of their own
volatility and cut into few steps, so neither date nor name nor price level can be read off or remembered. Only exactly
rounded arithmetic is used, in a fixed order: the same day has the same text on every machine.
"""

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
Steps = npt.NDArray[np.int64]

LOOKBACK = 60
"""Trading days back from today's close that a text looks at."""
SPANS = {"Day": 1, "Week": 5, "Month": 20, "Quarter": 60}
"""Moves that are told, and the trading days of each."""
MOST = 3
"""Moves beyond so many standard deviations are told as this many."""
CALM, WILD = 0.8, 1.25
"""Volatility of the last month relative to the whole look-back: below is calm, above is wild."""

Look = tuple[str | int, ...]
"""A day in words: the four moves, the swings, and the place from 0 to 10."""

_MOVES = np.array([f"down {-n}" if n < 0 else f"up {n}" if n else "even" for n in range(-MOST, MOST + 1)], dtype=object)
_SWINGS = np.array(["calm", "usual", "wild"], dtype=object)
_TEXT = f"{'. '.join(f'{name} %s' for name in SPANS)}. Swings %s. Place %d of 10."
_BARS = "▁▂▃▄▅▆▇█"


def looks(closes: Sequence[float]) -> list[Look]:
    """What every day looks like; nothing for the first LOOKBACK days."""
    prices = np.asarray(closes, dtype=np.float64)
    if len(prices) <= LOOKBACK:
        return [()] * len(prices)
    growth = prices[1:] / prices[:-1] - 1
    volatility = _volatility(growth, LOOKBACK)
    recent = _volatility(growth, SPANS["Month"])
    moves = (_move(prices, days, volatility) for days in SPANS.values())
    swings = np.where(recent < CALM * volatility, 0, np.where(recent > WILD * volatility, 2, 1))
    columns = (*(_MOVES[MOST + move] for move in moves), _SWINGS[swings], _place(prices))
    return [()] * LOOKBACK + list(zip(*(column.tolist() for column in columns), strict=True))


def text(look: Look) -> str:
    """The market part of an observation."""
    return _TEXT % look


def _volatility(growth: Numbers, days: int) -> Numbers:
    """Root mean square of the last `days` returns, for every day from LOOKBACK on."""
    squares = growth * growth
    total = np.zeros(len(growth) - LOOKBACK + 1)
    for back in range(days):
        total += squares[LOOKBACK - 1 - back : len(squares) - back]
    root: Numbers = np.sqrt(total / days)
    return root


def _move(prices: Numbers, days: int, volatility: Numbers) -> Steps:
    """Return over `days` in standard deviations, rounded and cut off at MOST, for every day from LOOKBACK on."""
    move = prices[LOOKBACK:] / prices[LOOKBACK - days : len(prices) - days] - 1
    scale = volatility * sqrt(days)
    deviations = np.divide(move, scale, out=np.zeros_like(move), where=scale > 0)
    steps: Steps = np.clip(np.rint(deviations), -MOST, MOST).astype(np.int64)
    return steps


def _place(prices: Numbers) -> Steps:
    """Where each close lies between the lowest (0) and the highest (10) of its look-back."""
    today = low = high = prices[LOOKBACK:]
    for back in range(1, LOOKBACK + 1):
        earlier = prices[LOOKBACK - back : len(prices) - back]
        low, high = np.minimum(low, earlier), np.maximum(high, earlier)
    width = high - low
    share = np.divide(today - low, width, out=np.full_like(width, 0.5), where=width > 0)
    tenths: Steps = np.rint(10 * share).astype(np.int64)
    return tenths


def draw(state: Mapping[str, Any]) -> str:
    """A recorded state: where and when, the last closes (1000 at birth) as bars, and what is held."""
    closes = state["closes"]
    low, width = min(closes), max(closes) - min(closes)
    bars = "".join(_BARS[round((close - low) / width * (len(_BARS) - 1)) if width else 0] for close in closes)
    return "\n".join(
        [
            f"step {state['step']}  {state['series']} {state['date']}  energy {state['wealth']:.1f}",
            f"{bars}  close {closes[-1]}",
            f"{state['position']}  held {state['held']:.1f}  turnover {state['turnover']:.1f}",
        ]
    )
