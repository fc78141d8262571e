"""The market world: honest books, the same life for the same seed, and only the data it was made for."""

import gzip
import json
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from telemetry.failures import UsageError
from telemetry.models import resolve
from telemetry.records import EndReason
from telemetry.seeds import world_seed
from tests.workers.market import ACTIONS, check, digest, live, market, plays, seeds, trace
from workers.environment import Environment
from workers.environments.market import Market, always_flat, buy_and_hold
from workers.environments.market_data import Series, load
from workers.environments.market_settings import MarketSettings
from workers.reference import random_policy
from workers.registry import find, held_out, maker

ROOT = Path(__file__).parents[2]
NAME = "workers.environments.market:Market"


# --- the books ---


def hand_made(*growth: float) -> tuple[Series]:
    """A series whose only training birth is followed by the given returns."""
    closes = [100.0, 101.0] * 30 + [100.0]
    for rate in growth:
        closes.append(closes[-1] * (1 + rate))
    return (Series("made", tuple(f"2000-{day:05}" for day in range(len(closes))), tuple(closes)),)


def test_long_earns_short_pays_and_both_cost() -> None:
    series = hand_made(0.10, 0.10, -0.50)
    world = market(series, horizon=3, days=1, cost_bps=60, slippage_bps=40, borrow_bps=2520, upkeep=1, leverage=2)
    world.reset(0)
    # 2 W = h after a fee of 1% of h leaves W = 100 / 1.02; half of h is borrowed at 0.1% a day.
    left = 100 / 1.02
    assert world.step("long").observation.energy == pytest.approx(left + 2 * left * 0.1 - left * 0.001 - 1)
    before = left * 1.199 - 1
    after = before - 2 * left * 1.1 * 0.01 - 1
    assert world.step("flat").observation.energy == pytest.approx(after)
    ruined = world.step("short")
    short = after / 1.02
    assert ruined.observation.energy == pytest.approx(short + 2 * short * 0.5 - 2 * short * 0.001 - 1)
    assert ruined.end is EndReason.SURVIVED
    result = world.result()
    assert result["returns"] == [
        pytest.approx((before + 1) / 100 - 1, abs=1e-6),
        pytest.approx((after + 1) / before - 1, abs=1e-6),
        pytest.approx(short * 1.998 / after - 1, abs=1e-6),
    ]
    assert result["turnover"] == pytest.approx(2 * left / 100 + 2 * left * 1.1 / before + 2 * short / after)
    assert result["drawdown"] == pytest.approx(1 - (after + 1) / before)


class Ledger:
    """The same books kept another way: shares and cash at prices, the trade's size found by bisection."""

    def __init__(self) -> None:
        self.cash, self.shares = 100.0, 0.0

    def trade(self, price: float, exposure: float, cost: float) -> None:
        wealth = self.cash + self.shares * price

        def excess(shares: float) -> float:
            return shares * price - exposure * (wealth - cost * abs(shares - self.shares) * price)

        low, high = -1e3 / price * 10, 1e3 / price * 10
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (low, middle) if excess(middle) > 0 else (middle, high)
        self.cash -= (low - self.shares) * price + cost * abs(low - self.shares) * price
        self.shares = low

    def day(self, before: float, price: float, borrowing: float, upkeep: float) -> float:
        owed = -self.shares * before if self.shares < 0 else max(0.0, -self.cash)
        self.cash -= owed * borrowing + upkeep
        return self.cash + self.shares * price


@given(
    seed=seeds,
    actions=st.lists(st.sampled_from(ACTIONS), min_size=20, max_size=20),
    leverage=st.floats(0.2, 3),
    bps=st.floats(0, 100),
    borrow=st.floats(0, 2000),
    length=st.integers(1, 6),
)
@check
def test_the_books_agree_with_shares_and_cash(
    seed: int, actions: list[str], leverage: float, bps: float, borrow: float, length: int
) -> None:
    world = market(horizon=20, days=length, leverage=leverage, cost_bps=bps, slippage_bps=0, borrow_bps=borrow, ruin=40)
    world.reset(seed)
    name, born = world.state()["series"], world.state()["date"]
    series = next(one for data in MarketSettings().data for one in load(data) if one.name == name)
    day, books, wealth = series.dates.index(born), Ledger(), 100.0
    for action in actions:
        exposure = {"long": leverage, "flat": 0.0, "short": -leverage}[action]
        books.trade(series.closes[day], exposure, bps / 1e4)
        for _ in range(length):
            wealth = books.day(series.closes[day], series.closes[day + 1], borrow / 1e4 / 252, 0.1)
            day += 1
            if wealth <= 40:
                break
        outcome = world.step(action)
        assert outcome.observation.energy == pytest.approx(max(0.0, wealth), abs=1e-6)
        assert world.state()["date"] == series.dates[day]
        if outcome.end:
            assert outcome.end is (EndReason.DIED if wealth <= 40 else EndReason.SURVIVED)
            return
    raise AssertionError("the life has not ended")


def test_a_gap_takes_everything_but_no_more() -> None:
    world = market(hand_made(3.0, 0.1), horizon=2, days=1)
    world.reset(0)
    outcome = world.step("short")
    assert (outcome.end, outcome.cause, outcome.observation.energy) == (EndReason.DIED, "ruined", 0.0)
    result = world.result()
    assert (result["returns"], result["ruined"], result["drawdown"]) == ([-1.0], True, 1.0)
    assert result["score"] == pytest.approx(-4.605, abs=1e-3)
    with pytest.raises(RuntimeError, match="reset"):
        world.step("flat")


def test_a_word_that_is_no_action_is_refused_and_changes_nothing() -> None:
    world = market()
    before = world.state()
    with pytest.raises(ValueError, match="'sell' is not one of long, flat, short"):
        world.step("sell")
    assert world.state() == before


# --- how long lives last ---


@cache
def lives(player: str) -> tuple[tuple[int, str, dict[str, Any]], ...]:
    world = market()
    policies = {**Market.references, "short": lambda observation: "short"}
    return tuple(
        live(world, seed, policies.get(player) or random_policy(seed))
        for seed in (world_seed(1, 0, index) for index in range(100))
    )


def test_who_never_trades_dies_slowly_and_surely() -> None:
    assert {(steps, cause) for steps, cause, _ in lives("always-flat")} == {(41, "ruined")}


def test_random_trading_ruins_more_than_holding_and_selling_short_more_than_both() -> None:
    ruined = {
        player: mean(result["ruined"] for _, _, result in lives(player))
        for player in ("buy-and-hold", "random", "short")
    }
    assert 0.2 < ruined["buy-and-hold"] < ruined["random"] < ruined["short"] < 1


def test_references_are_policies_of_what_is_seen() -> None:
    assert dict(Market.references) == {"buy-and-hold": buy_and_hold, "always-flat": always_flat}
    observation = market().reset(0)
    assert {policy(observation) for policy in Market.references.values()} <= set(ACTIONS)


# --- the same seed is the same life ---


@given(seed=seeds, actions=plays)
@check
def test_a_life_is_a_pure_function_of_seed_and_actions(seed: int, actions: list[str]) -> None:
    used = market()
    trace(used, seed ^ 1, actions)
    assert trace(used, seed, actions) == trace(market(), seed, actions)


def test_another_process_lives_the_same_lives_and_imports_no_data_package() -> None:
    code = (
        "import sys; from tests.workers.market import digest; print(digest());"
        "print(sorted({'arch', 'skfolio', 'statsmodels', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == [digest(), "[]"]


def test_seeds_reach_every_series_and_many_days() -> None:
    world, found = market(), set()
    for seed in range(500):
        world.reset(world_seed(1, 0, seed))
        found.add((world.state()["series"], world.state()["date"]))
    assert len({name for name, _ in found}) == 22
    assert len(found) > 480


# --- the data ---


def test_the_data_are_what_they_are_said_to_be() -> None:
    spans = {
        name: [(one.dates[0], one.dates[-1], len(one.closes)) for one in load(name)] for name in MarketSettings().data
    }
    assert spans == {
        "sp500": [("1999-01-04", "2018-12-31", 5031)],
        "nasdaq": [("1999-01-04", "2018-12-31", 5031)],
        "stocks": [("1990-01-02", "2022-12-28", 8313)] * 20,
    }
    for data in spans:
        for series in load(data):
            assert list(series.dates) == sorted(set(series.dates))
            assert min(series.closes) > 0


def test_other_content_and_no_content_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "skfolio").mkdir()
    (tmp_path / "skfolio" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    line = (
        r"^market data stocks: got {}, expected datasets/data/sp500_dataset\.csv\.gz of skfolio 1\.12\.2; pip install"
    )
    with pytest.raises(UsageError, match=line.format("no file")):
        load.__wrapped__("stocks")
    file = tmp_path / "skfolio" / "datasets" / "data" / "sp500_dataset.csv.gz"
    file.parent.mkdir(parents=True)
    file.write_bytes(gzip.compress(b"Date,AAPL\n1990-01-02,1\n"))
    with pytest.raises(UsageError, match=line.format("content [0-9a-f]{12}")):
        load.__wrapped__("stocks")
    file.write_bytes(b"\x1f\x8b damaged")
    with pytest.raises(UsageError, match=line.format("no file")):
        load.__wrapped__("stocks")


def test_a_missing_package_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    maker(NAME, {})
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(UsageError, match=r"^environment\.settings\.data: got .* needs the package arch; pip install"):
        maker(NAME, {"data": ["sp500"]})


# --- how the world is found and set ---


def test_the_world_is_registered() -> None:
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["forager.environments"]
    assert points["market"] == NAME
    assert find(NAME) is Market
    assert isinstance(market(), Environment)
    assert held_out(NAME, {"days": 1}, {}) == {"days": 1, "split": "heldout"}


@pytest.mark.parametrize(
    ("dials", "dial"),
    [
        ({"data": []}, "data"),
        ({"data": ["sp500", "sp500"]}, "data"),
        ({"data": ["djia"]}, "data.0"),
        ({"split": "test"}, "split"),
        ({"boundary": "soon"}, "boundary"),
        ({"horizon": 1000, "days": 6}, "days"),
        ({"leverage": 0}, "leverage"),
        ({"ruin": 100}, "ruin"),
        ({"cash": 2}, "cash"),
    ],
)
def test_bad_dials_are_named(dials: dict[str, Any], dial: str) -> None:
    with pytest.raises(UsageError, match=rf"^environment\.settings\.{re.escape(dial)}: got "):
        maker(NAME, dials)


def test_state_result_and_picture_are_small_and_survive_json() -> None:
    world = market((load("sp500")[0],), horizon=500, ruin=1e-9, upkeep=0)
    world.reset(0)
    for action in (ACTIONS * 167)[:500]:
        world.step(action)
    state = json.loads(json.dumps(world.state()))
    assert state == world.state()
    assert len(json.dumps(state)) < 500
    assert len(json.dumps(world.result())) < 65_536 / 2
    first, second, third = Market.draw(state).splitlines()
    assert first == f"step 500  sp500 {state['date']}  energy {state['wealth']:.1f}"
    assert re.fullmatch(r"[▁▂▃▄▅▆▇█]{21}  close \d+", second)
    assert third.startswith(f"{state['position']}  held ")
    assert "▁▁▁  close 7" in Market.draw({**state, "closes": [7, 7, 7]})


def test_the_founding_strategies_are_documented_and_short() -> None:
    run = yaml.safe_load((ROOT / "deploy" / "runs" / "market.yaml").read_text())
    strategies = re.findall(r'strategy: "(.+?)"', (ROOT / "docs" / "worlds" / "market.md").read_text())
    assert {founder["strategy"] for founder in run["population"]["founders"]} < set(strategies)
    maker(run["environment"]["name"].replace("market", NAME), run["environment"]["settings"])
    assert len(strategies) >= 8
    assert max(len(text.split()) for text in strategies) <= 12


@pytest.mark.real
def test_prompts_are_short_and_actions_differ_in_their_first_token() -> None:
    tokenizer = Tokenizer.from_file(str(resolve("smollm2-135m-instruct") / "tokenizer.json"))

    def tokens(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    assert len({tokens(action)[0] for action in ACTIONS}) == len(ACTIONS)
    assert len(tokens(market().rules)) <= 30
    assert max(len(tokens(market().reset(seed).text)) for seed in range(100)) <= 60
