"""How alike a population plays."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.diversity import MOST_ACTIONS, diversity, warning
from orchestrator.verdict import Diversity
from tests.orchestrator.test_reproduction import population


def steps(*plays: str) -> pa.Table:
    """One letter per action, one word per individual."""
    rows = [(f"g000-{number:03d}", action) for number, play in enumerate(plays) for action in play]
    return pa.table({"individual": [who for who, _ in rows], "action": [what for _, what in rows]})


@pytest.mark.parametrize(
    ("plays", "entropy", "behaviour"),
    [
        (("aaaa", "aaaa"), 0.0, 0.0),
        (("aaaa", "bbbb"), 0.0, 1.0),
        (("abab", "baba"), 1.0, 0.0),
        (("abcd",), 2.0, 0.0),
        (("aaab", "bbba", "cccc"), 0.540852, 1.044111),
        ((), 0.0, 0.0),
    ],
)
def test_by_hand(plays: tuple[str, ...], entropy: float, behaviour: float) -> None:
    found = diversity(steps(*plays), population())
    assert found.entropy == pytest.approx(entropy, abs=1e-4)
    assert found.behaviour == pytest.approx(behaviour, abs=2e-3)
    assert (found.strategies, found.adapters) == (3, 1)


@given(st.lists(st.text("abc", min_size=1, max_size=9), min_size=1, max_size=6), st.randoms())
def test_the_order_of_rows_does_not_matter(plays: list[str], shuffle: object) -> None:
    table = steps(*plays)
    order = list(range(table.num_rows))
    shuffle.shuffle(order)  # type: ignore[attr-defined]
    assert diversity(table.take(order), population()) == diversity(table, population())


def test_texts_without_end_are_bounded() -> None:
    table = pa.table({"individual": ["g000-000"] * 9000, "action": [f"text {number}" for number in range(9000)]})
    assert diversity(table, population()).entropy < 13
    assert MOST_ACTIONS < 9000


def test_a_collapsed_population_is_told_of() -> None:
    alike = Diversity(entropy=0.4, behaviour=0.001, strategies=1, adapters=4)
    assert "plays alike" in warning(alike, 4)
    assert warning(alike, 1) == ""
    assert warning(alike.model_copy(update={"behaviour": 0.3}), 4) == ""
