"""The critic: it expects what the words tell, and takes nothing away that is not in them."""

import numpy as np
import pytest

from tests.trainer.builders import job, steps
from trainer.baseline import FEATURES, expected
from trainer.config_objectives import LearningConfig
from trainer.examples import decisions


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
