"""The statistics of experiments: intervals that cover, corrections that correct, verdicts that follow."""

import numpy as np
import pytest

from orchestrator.comparison import Arm, compare, holm


def arm(name: str, values: np.ndarray) -> Arm:
    seeds = len(values)
    return Arm(name, values, (100,) * seeds, (10,) * seeds, (4,) * seeds)


def drawn(
    effect: float, draw: np.random.Generator, seeds: int = 3, worlds: int = 64, spread: float = 1.0
) -> np.ndarray:
    """Fitness with worlds that are hard for everybody and seeds that are lucky for one arm."""
    return effect + spread * draw.standard_normal((seeds, 1)) + 4 * draw.standard_normal((seeds, worlds))


def test_a_large_effect_is_found_and_named() -> None:
    draw = np.random.default_rng(0)
    worlds = 10 * draw.standard_normal((1, 64))
    others = {"rules-only": 0.0, "loner": 40.0, "same": 20.0}
    rows = compare(
        arm("evolution", worlds + drawn(20.0, draw)),
        [arm(name, worlds + drawn(effect, draw)) for name, effect in others.items()],
    )
    assert [row.verdict for row in rows[1:3]] == ["evolution is better", "loner is better"]
    assert rows[1].difference is not None
    assert rows[1].difference.low < 20 < rows[1].difference.high
    assert rows[1].difference.low > 10
    assert rows[3].verdict == "no difference shown"
    assert rows[0].difference is None
    assert (rows[0].decisions, rows[0].generations) == (300, 12)


def test_nothing_is_found_where_nothing_is() -> None:
    """With three seeds and their luck, an effect is claimed no more often than the level says, give or take."""
    draw = np.random.default_rng(1)
    claims = 0
    for _ in range(20):
        [_, row] = compare(arm("evolution", drawn(0.0, draw, spread=0.3)), [arm("other", drawn(0.0, draw, spread=0.3))])
        claims += row.verdict != "no difference shown"
    assert claims <= 0.15 * 20


def test_worlds_are_compared_in_pairs() -> None:
    """A small but steady difference shows although the worlds differ a hundred times as much."""
    draw = np.random.default_rng(2)
    worlds = 100 * draw.standard_normal((3, 64))
    [_, row] = compare(arm("evolution", worlds + 1 + 0.1 * draw.standard_normal((3, 64))), [arm("other", worlds)])
    assert row.difference is not None
    assert row.difference.value == pytest.approx(1, abs=0.1)
    assert row.verdict == "evolution is better"


def test_corrected_p_values() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_equal_numbers_give_equal_tables() -> None:
    values = drawn(0.0, np.random.default_rng(3))
    first, second = (compare(arm("evolution", values), [arm("other", values / 2)]) for _ in range(2))
    assert first == second
