"""The critic: it expects what the words tell, and takes nothing away that is not in them."""

import numpy as np
import pytest

from tests.trainer.builders import job, steps
from trainer.baseline import FEATURES, expected
from trainer.config_objectives import LearningConfig
from trainer.examples import agreed, decisions, life_codes, standardise, surprises


@pytest.mark.parametrize("rows", [200, 3 * FEATURES])
def test_it_expects_what_the_words_tell(rows: int) -> None:
    """Fewer rows than features are solved in the dual, more in the primal."""
    draw = np.random.default_rng(0)
    wolf, berry, noise = draw.random(rows) < 0.3, draw.random(rows) < 0.5, draw.standard_normal(rows)
    texts = [
        f"day {draw.integers(9)}. {'A wolf is near.' if near else 'Nothing moves.'} {'Berries here.' if food else ''}"
        for near, food in zip(wolf, berry, strict=True)
    ]
    truth = -6.0 * wolf + 3.0 * berry
    lives = np.arange(rows) // 5
    found = expected(texts, truth + noise, lives)
    assert np.corrcoef(found, truth)[0, 1] > 0.97
    assert np.abs(found - truth).mean() < 0.6


def test_chance_is_not_expected() -> None:
    """Everybody sees something of their own: fitted to their own lives, it would explain everything."""
    draw = np.random.default_rng(1)
    credit = draw.standard_normal(120)
    found = expected([f"word{row} other{row}" for row in range(120)], credit, np.arange(120))
    assert np.abs(found - credit.mean()).mean() < 0.15
    assert np.corrcoef(found, credit)[0, 1] < 0.2


def test_a_decision_is_good_for_what_could_be_expected_where_it_was_made() -> None:
    """Near the wolf everything is bad; running is the least bad, and becomes a good decision."""
    lives = [
        ("g000-000", life, [("eat", 2.0), ("run" if life % 2 else "rest", -3.0 if life % 2 else -9.0)])
        for life in range(40)
    ]
    table = steps(lives)
    plain = decisions(table, job(("g000-000", None, 1.0)), LearningConfig(lookahead=1))
    told = decisions(table, job(("g000-000", None, 1.0)), LearningConfig(lookahead=1, baseline="observation"))
    ran = np.array([action == "run" for action in told.table["action"].to_pylist()])
    assert (plain.credit[ran] < 0).all()
    assert (told.credit[ran] > 0.5).all()


FOREST = [
    ("g000-000", life, [("rest" if life % 2 else "walk", -1.0)] * (life % 3) + [("eat", 6.0)]) for life in range(60)
]


def test_a_decision_has_no_credit_for_what_was_decided_later() -> None:
    """Whoever rests before he eats eats none the better for it: only a longer look ahead would think so."""
    ahead, successor = (
        decisions(steps(FOREST), job(("g000-000", None, 1.0)), LearningConfig.model_validate(settings))
        for settings in ({"lookahead": 2, "discount": 0.8}, {"baseline": "successor", "discount": 0.8})
    )
    actions = np.array(ahead.table["action"].to_pylist())
    other = actions != "eat"
    assert np.ptp(ahead.credit[other]) > 1.5, "the step before the meal looks much better than the one before it"
    assert np.ptp(successor.credit[other]) < 1
    assert successor.credit[~other].min() > successor.credit[other].max()


def test_both_is_what_two_estimates_agree_on() -> None:
    """Praise and blame cancel to nothing; of two that agree, the weaker word counts."""
    numbers = np.array([3.0, 1.0, -2.0, 2.0, 0.0]), np.array([1.0, 2.0, -5.0, -4.0, 3.0])
    np.testing.assert_array_equal(agreed(*numbers), [1.0, 1.0, -2.0, 0.0, 0.0])
    np.testing.assert_array_equal(agreed(*numbers), agreed(*reversed(numbers)))


@pytest.mark.parametrize("credit", ["energy", "life"])
def test_a_decision_is_as_good_as_the_warier_of_two_estimates_says(credit: str) -> None:
    table, of = steps(FOREST), job(("g000-000", None, 1.0))
    settings = {"credit": credit, "lookahead": 2, "trace": 0.5}
    judges = ("mean", "successor" if credit == "energy" else "observation")
    plain, judged = (
        decisions(table, of, LearningConfig.model_validate({**settings, "baseline": one})).credit for one in judges
    )
    both = decisions(table, of, LearningConfig.model_validate({**settings, "baseline": "both"}))
    np.testing.assert_allclose(both.credit, standardise(agreed(plain, judged)), atol=1e-9)


def test_both_praise_the_meal_and_not_what_came_before_it() -> None:
    settings = {"lookahead": 2, "trace": 0.5, "baseline": "both"}
    both = decisions(steps(FOREST), job(("g000-000", None, 1.0)), LearningConfig.model_validate(settings))
    eaten = np.array(both.table["action"].to_pylist()) == "eat"
    assert both.credit[eaten].min() > 0 > both.credit[~eaten].max()


def test_with_a_full_trace_surprises_are_what_came_less_what_was_expected() -> None:
    table = steps(FOREST, died=range(0, 60, 4))
    config = LearningConfig(baseline="successor", discount=0.9, trace=1.0, death=3.0)
    found = surprises(table, config)
    returns = list[float]()
    for position, (_, _, walk) in enumerate(FOREST):
        changes = [change for _, change in walk]
        changes[-1] -= 3.0 * (position % 4 == 0)
        returns += [sum(0.9**k * change for k, change in enumerate(changes[step:])) for step in range(len(walk))]
    values = expected(table["observation"].to_pylist(), np.array(returns), life_codes(table))
    np.testing.assert_allclose(found, np.array(returns) - values, atol=1e-9)


def test_without_a_trace_only_the_next_value_counts() -> None:
    table = steps([("g000-000", 0, [("walk", -1.0), ("walk", -2.0)]), ("g000-000", 1, [("eat", 4.0), ("eat", 5.0)])])
    found = surprises(table, LearningConfig(baseline="successor", discount=0.5, trace=0.0))
    returns = np.array([-1 + 0.5 * -2, -2, 4 + 0.5 * 5, 5])
    values = expected(table["observation"].to_pylist(), returns, life_codes(table))
    wanted = [-1 + 0.5 * values[1] - values[0], -2 - values[1], 4 + 0.5 * values[3] - values[2], 5 - values[3]]
    np.testing.assert_allclose(found, wanted, atol=1e-12)
