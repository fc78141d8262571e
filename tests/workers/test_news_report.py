"""What is reported of forecasts: every return counts once, and every number is what its name says."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from tests.tools.news_figures import lives, spearman
from workers.environments import news_report
from workers.environments.news import News
from workers.environments.news_settings import NewsSettings
from workers.reference import random_policy

Result = Mapping[str, Any]


def life(*readings: tuple[int, int, float, float], read: int | None = None, return_days: int = 1) -> Result:
    """readings: article, day, forecast, return."""
    articles, days, predicted, actual = map(list, zip(*readings, strict=True))
    rest = {"winsor": 4.0, "deviation": 0.02, "return_days": return_days, "score": 0.0}
    columns = {"articles": articles, "days": days, "predicted": predicted, "actual": actual}
    return {**columns, "read": len(readings) if read is None else read, **rest}


@pytest.fixture(scope="module")
def results() -> list[Result]:
    return lives(News(NewsSettings(split="heldout", signal=0.9)), random_policy, 60)


def test_the_same_lives_again_are_no_more_evidence(results: list[Result]) -> None:
    once, often = news_report.report(results), news_report.report(results * 5)
    assert once.keys() == often.keys()
    for name in once:
        assert once[name] == pytest.approx(often[name])


def test_forecasts_of_one_article_are_averaged_and_unread_ones_left_out() -> None:
    found = news_report.collect(
        [
            life((7, 3, 1.0, 2.0), (9, 4, -0.5, -6.0)),
            life((7, 3, 0.5, 2.0), (8, 4, 1.0, 1.0), read=1),
        ]
    )
    assert found.days == [3, 4]
    assert found.block.tolist() == [0, 1]
    assert found.forecast.tolist() == [0.75, -0.5]
    assert found.actual.tolist() == [2.0, -6.0]
    assert found.base.tolist() == [4.0, 16.0]
    assert found.saved == pytest.approx([4 - ((1 - 2) ** 2 + (0.5 - 2) ** 2) / 2, 16 - (4 - 0.5) ** 2])
    assert found.fraction == pytest.approx([0.04, -0.12])


def test_returns_over_several_days_are_counted_in_blocks_of_them() -> None:
    found = news_report.collect([life((1, 7, 1.0, 1.0), (2, 9, 1.0, 1.0), (3, 10, 1.0, 1.0), return_days=5)])
    assert found.days == [5, 10]
    assert found.block.tolist() == [0, 0, 1]


def test_the_portfolio_holds_in_proportion_to_forecasts() -> None:
    lived = [life((1, 0, 1.0, 2.0), (2, 0, -0.5, 1.0), (3, 1, 0.0, 3.0), (4, 40, -1.0, -1.5))]
    first, last = (1.0 * 0.04 - 0.5 * 0.02) / 1.5, 0.03
    curve = news_report.curve(lived)
    assert curve["day"] == ["1970-01-01", "1970-01-02", "1970-02-10"]
    assert curve["return"] == pytest.approx([first, first, first + last])
    report = news_report.report(lived)
    earned = np.array([first, 0.0, last])
    assert report["long-short bp"][0] == pytest.approx(10_000 * earned.mean())
    assert report["long-short t"][0] == pytest.approx(earned.mean() / (earned.std(ddof=1) / math.sqrt(3)))


def test_rank_correlation_and_its_t_are_the_textbook_ones(results: list[Result]) -> None:
    found, report = news_report.collect(results), news_report.report(results)
    rank, count = spearman(found.forecast.tolist(), found.actual.tolist()), len(found.block)
    assert len(set(found.forecast)) < count
    assert report["rank correlation"][0] == pytest.approx(rank)
    assert report["rank correlation t"][0] == pytest.approx(rank * math.sqrt((count - 2) / (1 - rank**2)))
    assert report["squared error skill"][0] == pytest.approx(found.saved.sum() / found.base.sum())


@pytest.mark.parametrize("seed", range(5))
def test_a_block_that_counts_twice_is_as_good_as_there_twice(results: list[Result], seed: int) -> None:
    found = news_report.collect(results)
    times = np.random.default_rng(seed).integers(0, 3, len(found.days))
    index = np.repeat(np.arange(len(found.block)), times[found.block])
    statistics = news_report._Statistics(found).of(times.astype(float))
    assert statistics["rank correlation"] == pytest.approx(spearman(found.forecast[index], found.actual[index]))
    assert statistics["squared error skill"] == pytest.approx(found.saved[index].sum() / found.base[index].sum())
    earned = np.repeat(np.diff(news_report.curve(results)["return"], prepend=0), times)
    assert statistics["long-short bp"] == pytest.approx(10_000 * earned.mean())
    assert statistics["long-short t"] == pytest.approx(earned.mean() / earned.std(ddof=1) * math.sqrt(len(earned)))


def test_intervals_hold_the_value_and_are_about_as_wide_as_theory_says(results: list[Result]) -> None:
    report = news_report.report(results)
    for value, low, high in report.values():
        assert low <= value <= high
    _, low, high = report["rank correlation"]
    assert (high - low) / 2 == pytest.approx(1.96 / math.sqrt(len(news_report.collect(results).block)), rel=0.25)


def test_the_same_forecast_for_everything_is_no_correlation() -> None:
    flat = lives(News(NewsSettings(split="heldout")), lambda seed: News.references["always-flat"], 20)
    report = news_report.report(flat)
    names = ["squared error skill", "rank correlation", "rank correlation t", "long-short bp", "long-short t"]
    assert report == dict.fromkeys(names, (0, 0, 0))


def test_numbers_are_finite_for_perfect_forecasts_and_absent_for_hardly_any() -> None:
    perfect = [life(*((day, day, 1.0 * day, 0.5 * day) for day in range(1, 9)))]
    assert all(math.isfinite(number) for numbers in news_report.report(perfect).values() for number in numbers)
    assert news_report.report(perfect)["rank correlation"][0] == pytest.approx(1)
    assert news_report.report([life((1, 1, 1.0, 1.0), (2, 1, 1.0, 1.0), (3, 1, 1.0, 1.0))]) == {}
    assert news_report.report([]) == {}
    assert news_report.curve([]) == {"day": [], "return": []}
