"""What a trader may know: no training day near an evaluation day, no close of the future, no name and no date."""

import re
from collections import Counter
from datetime import date
from itertools import pairwise
from statistics import mean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.failures import UsageError
from tests.workers.market import changed, check, check_few, market, plays, seeds, trace
from workers.environments.market_data import load
from workers.environments.market_settings import MarketSettings
from workers.environments.market_view import LOOKBACK
from workers.environments.market_windows import births, eras

boundaries = st.dates(date(2001, 6, 1), date(2016, 1, 1))


# --- walk-forward ---


@given(one=seeds, other=seeds, boundary=boundaries, horizon=st.integers(1, 50), length=st.integers(1, 10))
@check
def test_no_training_window_touches_a_held_out_window(
    one: int, other: int, boundary: date, horizon: int, length: int
) -> None:
    dials: dict[str, Any] = {"boundary": boundary, "horizon": horizon, "days": length, "ruin": 1e-9, "upkeep": 0}
    spans = []
    for split, seed in (("train", one), ("heldout", other)):
        world = market(split=split, **dials)
        world.reset(seed)
        first = world.state()
        for _ in range(horizon):
            world.step("flat")
        spans.append((first["series"], first["date"], world.state()["date"]))
    (_, _, trained), (name, born, _) = spans
    dates = next(series.dates for data in MarketSettings().data for series in load(data) if series.name == name)
    seen = dates.index(born) - LOOKBACK
    assert trained < boundary.isoformat() <= dates[seen]
    apart = sum(trained < day < dates[seen] for day in dates)
    assert apart >= LOOKBACK + horizon * length


def test_every_window_of_every_series_keeps_to_its_side() -> None:
    settings = MarketSettings()
    span = settings.horizon * settings.days
    everything = [series for data in settings.data for series in load(data)]
    train = eras(everything, settings)
    kept = eras(everything, MarketSettings(split="heldout"))
    assert len(train) == len(kept) == 22
    last_trained = max(series.dates[days[-1] + span] for series, days in train)
    first_seen = min(series.dates[days[0] - LOOKBACK] for series, days in kept)
    assert last_trained == "2012-12-31"
    assert first_seen == "2014-03-27"
    assert all(days[-1] + span == len(series.dates) - 1 for series, days in kept)


def test_a_fold_ends_where_it_is_told_to() -> None:
    dates = load("sp500")[0].dates
    fold = MarketSettings.model_validate({"split": "heldout", "until": "2015-12-31"})
    found = births(dates, fold)
    assert found
    assert dates[found[-1] + fold.horizon * fold.days] == "2015-12-31"


@given(seed=seeds, actions=plays, data=st.data())
@check_few
def test_held_out_lives_know_nothing_from_before_the_embargo_and_training_lives_nothing_from_after_the_boundary(
    seed: int, actions: list[str], data: st.DataObject
) -> None:
    (series,) = load("nasdaq")
    border = sum(day < "2013-01-01" for day in series.dates)
    embargo = LOOKBACK + 250
    factor = data.draw(st.floats(0.01, 100))
    past = changed(series, lambda day, close: close * factor ** (day % 3) if day < border + embargo else close)
    future = changed(series, lambda day, close: close * factor ** (day % 3) if day >= border else close)
    for split, other in (("heldout", past), ("train", future)):
        assert trace(market((series,), split=split), seed, actions) == trace(market(other, split=split), seed, actions)


def test_no_room_for_a_window_is_one_clear_line() -> None:
    with pytest.raises(UsageError, match=r"^market: got no window of 60 \+ 250 trading days for split heldout"):
        market(split="heldout", until="2014-01-01")


# --- no look-ahead ---


@given(seed=seeds, step=st.integers(0, 8), jump=st.sampled_from([0.5, 0.9, 1.1, 2.0]))
@check_few
def test_a_decision_sees_no_close_after_its_own_and_earns_only_what_comes_after(
    seed: int, step: int, jump: float
) -> None:
    (series,) = load("sp500")
    dials: dict[str, Any] = {"horizon": 10, "ruin": 1e-9}
    world = market((series,), **dials)
    world.reset(seed)
    today = series.dates.index(world.state()["date"]) + step * 5
    other = market(changed(series, lambda day, close: close * jump if day > today else close), **dials)
    actions = ["long"] * 10
    left, right = trace(world, seed, actions), trace(other, seed, actions)
    upto = 2 + 3 * step
    assert left[:upto] == right[:upto]
    assert (left[upto].observation.energy < right[upto].observation.energy) == (jump > 1)


@given(scale=st.integers(-8, 8), seed=seeds)
@check_few
def test_the_level_of_prices_cannot_be_seen(scale: int, seed: int) -> None:
    (series,) = load("nasdaq")
    scaled = changed(series, lambda day, close: close * 2.0**scale)
    actions = ["long", "short", "flat"] * 5
    assert trace(market((series,)), seed, actions) == trace(market(scaled), seed, actions)


MOVE = r"(even|(up|down) [123])"
TEXT = re.compile(
    rf"Day {MOVE}\. Week {MOVE}\. Month {MOVE}\. Quarter {MOVE}\. Swings (calm|usual|wild)\. "
    r"Place (10|\d) of 10\. You are (long|flat|short)\. Energy \d+\."
)


@given(seed=seeds, split=st.sampled_from(["train", "heldout"]), actions=plays)
@check
def test_an_agent_sees_few_words_and_small_numbers(seed: int, split: str, actions: list[str]) -> None:
    seen = trace(market(split=split), seed, actions)
    for observation in [seen[0], *(outcome.observation for outcome in seen[2::3])]:
        assert TEXT.fullmatch(observation.text)


def test_the_text_tells_what_the_closes_hold() -> None:
    (series,) = load("sp500")
    world = market((series,))
    counts: Counter[str] = Counter()
    for seed in range(200):
        text = world.reset(seed).text
        day = series.dates.index(world.state()["date"])
        seen = series.closes[day - LOOKBACK : day + 1]
        growth = [later / close - 1 for close, later in pairwise(seen)]
        deviation = mean(value**2 for value in growth) ** 0.5
        words = []
        for name, back in (("Day", 1), ("Week", 5), ("Month", 20), ("Quarter", 60)):
            move = max(-3, min(3, round((seen[-1] / seen[-1 - back] - 1) / deviation / back**0.5)))
            words.append(f"{name} {'up' if move > 0 else 'down'} {abs(move)}" if move else f"{name} even")
        recent = mean(value**2 for value in growth[-20:]) ** 0.5 / deviation
        words.append(f"Swings {'calm' if recent < 0.8 else 'wild' if recent > 1.25 else 'usual'}")
        words.append(f"Place {round((seen[-1] - min(seen)) / (max(seen) - min(seen)) * 10)} of 10")
        assert text == f"{'. '.join(words)}. You are flat. Energy 100."
        counts.update(words)
    assert {"Day up 1", "Week down 1", "Quarter up 1", "Swings calm", "Swings wild", "Place 10 of 10"} <= set(counts)
