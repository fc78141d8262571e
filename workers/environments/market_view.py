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

LOOKBACK = 60
"""Trading days back from today's close that a text looks at."""
SPANS = {"Day": 1, "Week": 5, "Month": 20, "Quarter": 60}
"""Moves that are told, and the trading days of each."""
MOST = 3
"""Moves beyond so many standard deviations are told as this many."""
CALM, WILD = 0.8, 1.25
"""Volatility of the last month relative to the whole look-back: below is calm, above is wild."""

_MOVES = {0: "even", **{n: f"up {n}" for n in range(1, MOST + 1)}, **{-n: f"down {n}" for n in range(1, MOST + 1)}}
_BARS = "▁▂▃▄▅▆▇█"


def texts(closes: Sequence[float]) -> list[str]:
    """The market part of the observation for every day; empty for the first LOOKBACK days."""
    prices = np.asarray(closes, dtype=np.float64)
    if len(prices) <= LOOKBACK:
        return [""] * len(prices)
    growth = prices[1:] / prices[:-1] - 1
    volatility = _volatility(growth, LOOKBACK)
    moves = [_move(prices, days, volatility) for days in SPANS.values()]
    recent = _volatility(growth, SPANS["Month"])
    swings = np.where(recent < CALM * volatility, 0, np.where(recent > WILD * volatility, 2, 1)).tolist()
    told = [""] * LOOKBACK
    for *ways, swing, place in zip(*moves, swings, _place(prices), strict=True):
        parts = [f"{name} {_MOVES[way]}" for name, way in zip(SPANS, ways, strict=True)]
        told.append(f"{'. '.join(parts)}. Swings {('calm', 'usual', 'wild')[swing]}. Place {place} of 10.")
    return told


def _volatility(growth: Numbers, days: int) -> Numbers:
    """Root mean square of the last `days` returns, for every day from LOOKBACK on."""
    squares = growth * growth
    total = np.zeros(len(growth) - LOOKBACK + 1)
    for back in range(days):
        total += squares[LOOKBACK - 1 - back : len(squares) - back]
    root: Numbers = np.sqrt(total / days)
    return root


def _move(prices: Numbers, days: int, volatility: Numbers) -> list[int]:
    """Return over `days` in standard deviations, rounded and cut off at MOST, for every day from LOOKBACK on."""
    move = prices[LOOKBACK:] / prices[LOOKBACK - days : len(prices) - days] - 1
    scale = volatility * sqrt(days)
    deviations = np.divide(move, scale, out=np.zeros_like(move), where=scale > 0)
    steps: list[int] = np.clip(np.rint(deviations), -MOST, MOST).astype(int).tolist()
    return steps


def _place(prices: Numbers) -> list[int]:
    """Where each close lies between the lowest (0) and the highest (10) of its look-back."""
    today = low = high = prices[LOOKBACK:]
    for back in range(1, LOOKBACK + 1):
        earlier = prices[LOOKBACK - back : len(prices) - back]
        low, high = np.minimum(low, earlier), np.maximum(high, earlier)
    width = high - low
    share = np.divide(today - low, width, out=np.full_like(width, 0.5), where=width > 0)
    tenths: list[int] = np.rint(10 * share).astype(int).tolist()
    return tenths


def draw(state: Mapping[str, Any]) -> str:
    """A recorded state: where and when, the last closes (100 at birth) as bars, and what is held."""
    closes = state["closes"]
    low, width = min(closes), max(closes) - min(closes)
    bars = "".join(_BARS[round((close - low) / width * (len(_BARS) - 1)) if width else 0] for close in closes)
    return "\n".join(
        [
            f"step {state['step']}  {state['series']} {state['date']}  energy {state['wealth']:.1f}",
            f"{bars}  close {closes[-1]:.1f}",
            f"{state['position']}  held {state['held']:.1f}  turnover {state['turnover']:.1f}",
        ]
    )
