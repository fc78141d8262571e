"""Synthetic news: invented companies report invented quarters, and the return depends in part on what is stated.

Every article states how the quarter went and what is expected next, among things that do not matter. Both facts
count, the outlook more than the quarter; and the same words stand in good and bad news (higher costs, higher
dividend), so that no single word tells. Held-out articles are about companies, and combinations of the two facts'
phrasings, that training articles never have; every phrasing by itself occurs in both.
"""

import math
from collections.abc import Callable
from functools import cache

import numpy as np

from telemetry.seeds import rng
from workers.environments.news_table import DAY, Table

QUARTER: dict[int, tuple[str, ...]] = {
    1: (
        "quarterly profit beat forecasts",
        "sales rose more than expected",
        "earnings came in well above estimates",
        "margins widened on lower costs",
    ),
    0: (
        "quarterly profit matched forecasts",
        "sales were much as expected",
        "earnings came in close to estimates",
        "margins held steady on unchanged costs",
    ),
    -1: (
        "quarterly profit missed forecasts",
        "sales rose less than expected",
        "earnings came in well below estimates",
        "margins narrowed on higher costs",
    ),
}
"""How the quarter went, by sign."""

OUTLOOK: dict[int, tuple[str, ...]] = {
    1: (
        "the board raised its full-year outlook",
        "management now expects faster growth",
        "orders for next year are filling up",
        "a higher dividend was promised",
    ),
    0: (
        "the board kept its full-year outlook",
        "management still expects similar growth",
        "orders for next year are unchanged",
        "an equal dividend was promised",
    ),
    -1: (
        "the board cut its full-year outlook",
        "management now expects slower growth",
        "orders for next year are drying up",
        "a lower dividend was promised",
    ),
}
"""What is expected next, by sign."""

WEIGHTS = (1.0, 1.5)
"""What a sign of the quarter and one of the outlook move the price by, before scaling."""

PADDING = (
    "the report came out on a {day}",
    "analysts will hold a call on {day}",
    "a new finance chief starts in {month}",
    "the annual meeting is due in {month}",
    "head office moves to {town} in {month}",
    "the firm employs {number} people",
    "its {number} shops stay open on {day}",
    "the company is based in {town}",
)
"""What does not matter."""

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
_MONTHS = ("January", "March", "April", "June", "September", "October", "November")
_TOWNS = ("Ardmouth", "Belbrook", "Corwick", "Dunhaven", "Elmstow", "Farleigh", "Garrowby", "Holmere")
_STARTS = (
    "Vel",
    "Kes",
    "Or",
    "Dal",
    "Mar",
    "Tor",
    "Lin",
    "Bry",
    "Sol",
    "Hal",
    "Nor",
    "Pel",
    "Ros",
    "Cal",
    "Fen",
    "Jor",
)
_ENDS = ("mora", "trin", "vane", "brix", "dell", "kova", "lund", "sten", "tara", "wick", "zora", "quill")
_TRADES = ("Foods", "Metals", "Rail", "Software", "Textiles", "Energy", "Shipping", "Medical")
_SIGNS = (1, 0, -1)
_KINDS = 4
"""Phrasings per sign; name parts and pairs of phrasings whose numbers add up to a multiple of it are held out."""

_EPOCH = 978_307_200 * 1_000_000  # 2001-01-01; a day like any other
_PER_DAY = 4
_VOLATILITY = 0.02
_DEVIATION = math.sqrt(sum(weight**2 for weight in WEIGHTS) * 2 / 3)  # each sign is -1, 0 or 1 with equal chances


def synthetic(count: int, first_held_out: int, signal: float, seed: int, *, shuffled: bool) -> Table:
    """`count` articles, four a day; from number `first_held_out` on with held-out companies and combinations.

    signal: share of the variance of returns that the facts explain. `shuffled` puts the same returns into random order.
    """
    draws = rng(seed, "synthetic news")
    numbers = draws.random((count, 12)).tolist()
    texts = [_article(row, held_out=index >= first_held_out) for index, row in enumerate(numbers)]
    facts = np.array([expectation(text) for text in texts])
    returns = _VOLATILITY * (math.sqrt(signal) * facts + math.sqrt(1 - signal) * draws.standard_normal(count))
    if shuffled:
        returns = draws.permutation(returns)
    times = _EPOCH + np.arange(count) * (DAY // _PER_DAY)
    return Table(times, texts, returns)


def expectation(text: str) -> float:
    """What the facts of a synthetic article stand for: mean 0 and variance 1 over articles. Raises ValueError."""
    lowered = text.lower()
    signs = [
        [sign for sign, phrases in fact.items() for phrase in phrases if phrase in lowered]
        for fact in (QUARTER, OUTLOOK)
    ]
    if [len(found) for found in signs] != [1, 1]:
        raise ValueError(f"not a synthetic article: {text!r}")
    return sum(weight * found[0] for weight, found in zip(WEIGHTS, signs, strict=True)) / _DEVIATION


def oracle(signal: float, forecasts: dict[str, float]) -> Callable[[str], str]:
    """From a text to the word with the least expected squared error: the best that can be known."""

    @cache
    def best(known: float) -> str:
        return min(forecasts, key=lambda word: abs(forecasts[word] - known))

    return lambda text: best(math.sqrt(signal) * expectation(text))


def _article(draws: list[float], *, held_out: bool) -> str:
    """One article out of 12 uniform draws."""

    def pick(number: int, among: tuple[str, ...]) -> str:
        return among[int(draws[number] * len(among))]

    def partner(number: int, first: int, groups: int) -> tuple[int, int]:
        """(group, number within it) of what goes with `first`: the sum is a multiple of _KINDS if held out."""
        if held_out:
            return int(draws[number] * groups), -first % _KINDS
        group, rest = divmod(int(draws[number] * groups * (_KINDS - 1)), _KINDS - 1)
        return group, (rest + 1 - first) % _KINDS

    start = int(draws[0] * len(_STARTS))
    group, within = partner(1, start, len(_ENDS) // _KINDS)
    company = f"{_STARTS[start]}{_ENDS[group * _KINDS + within]} {pick(2, _TRADES)}"
    quarter = int(draws[3] * len(_SIGNS) * _KINDS)
    sign, kind = partner(4, quarter % _KINDS, len(_SIGNS))
    details = {"day": pick(7, _DAYS), "month": pick(8, _MONTHS), "town": pick(9, _TOWNS)}
    clauses = [
        QUARTER[_SIGNS[quarter // _KINDS]][quarter % _KINDS],
        OUTLOOK[_SIGNS[sign]][kind],
        pick(5, PADDING).format(**details, number=20 + int(draws[10] * 80)),
    ]
    order = int(draws[6] * 6)
    clauses.insert(0, clauses.pop(order // 2))
    if order % 2:
        clauses.reverse()
    if draws[11] < 0.5:
        return f"{company}: {'; '.join(clauses)}."
    return f"{company}. {'. '.join(clause[0].upper() + clause[1:] for clause in clauses)}."
