"""What the market's report says of many lives: right values, honest intervals."""

from collections.abc import Sequence
from math import log, sqrt
from statistics import mean, pstdev
from typing import Any

import pytest

from telemetry.seeds import rng
from workers.environments.market_report import report


def lived(year: int, returns: Sequence[float], drawdown: float = 0.1, ruined: bool = False) -> dict[str, Any]:
    return {"born": f"{year}-06-01", "returns": list(returns), "drawdown": drawdown, "ruined": ruined, "score": -0.5}


def noise(lives: int, years: int, *, drift: float = 0.0, common: float = 0.0, seed: int = 0) -> list[dict[str, Any]]:
    """Lives of 100 days with daily noise of 1%; lives of one year share a drift of their own of size `common`."""
    draws = rng("test", seed)
    shared = draws.normal(0, common, years) if common else [0.0] * years
    return [
        lived(2000 + life % years, (draws.normal(drift, 0.01, 100) + shared[life % years]).tolist())
        for life in range(lives)
    ]


def test_values_are_what_they_say() -> None:
    lives = [
        {**lived(2001, [0.01, -0.02, 0.03], 0.02), "score": log(1.1)},
        {**lived(2002, [-0.10], 0.10, ruined=True), "score": log(0.8)},
        {**lived(2002, [0.0, 0.01], 0.0), "score": 0.0},
    ]
    pooled = [0.01, -0.02, 0.03, -0.10, 0.0, 0.01]
    found = report(lives)
    assert {name: value for name, (value, _, _) in found.items()} == pytest.approx(
        {
            "sharpe": mean(pooled) / pstdev(pooled) * sqrt(252),
            "max drawdown": 0.04,
            "ruin rate": 1 / 3,
            "log wealth": (log(1.1) + log(0.8)) / 3,
        }
    )
    assert all(low <= value <= high for value, low, high in found.values())


def test_no_lives_no_figures_and_no_trades_no_sharpe() -> None:
    assert report([]) == {}
    assert report([lived(2001, [0.0] * 9)] * 4)["sharpe"] == (0.0, 0.0, 0.0)


def test_the_same_lives_have_the_same_intervals() -> None:
    assert report(noise(9, 3)) == report(noise(9, 3))


def test_a_drift_is_found_and_noise_is_not() -> None:
    drifting = report(noise(100, 10, drift=0.002))["sharpe"]
    assert drifting[1] > 1.5
    assert drifting[0] == pytest.approx(0.002 / 0.01 * sqrt(252), abs=0.6)
    found = [report(noise(40, 10, seed=seed))["sharpe"] for seed in range(20)]
    assert sum(low > 0 or high < 0 for _, low, high in found) <= 3


def test_many_lives_of_few_years_are_not_taken_for_much_evidence() -> None:
    """Years with drifts of their own and none in common: who took lives for independent would find one."""
    found = {"by year": 0, "by life": 0}
    for seed in range(20):
        lives = noise(60, 6, common=0.002, seed=seed)
        apart = [{**life, "born": str(3000 + index)} for index, life in enumerate(lives)]
        for way, results in (("by year", lives), ("by life", apart)):
            _, low, high = report(results)["sharpe"]
            found[way] += low > 0 or high < 0
    assert found["by year"] <= 5
    assert found["by life"] >= 2 * found["by year"]
