"""Which decisions are learned, against a slow reference."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.builders import job, steps
from trainer.config_objectives import LearningConfig, SftConfig
from trainer.examples import Examples, NoExamples, advantages, decisions, good_decisions, of_parents
from trainer.job import TrainingJob


def build(table: pa.Table, task: TrainingJob, config: SftConfig) -> Examples:
    return good_decisions(decisions(table, task, config), config)


lives = st.lists(
    st.lists(
        st.tuples(st.sampled_from(["eat", "north", "wait"]), st.integers(-3, 5).map(float)), min_size=1, max_size=9
    ),
    min_size=1,
    max_size=6,
)


@settings(deadline=None)
@given(lives=lives, lookahead=st.integers(1, 12), discount=st.floats(0.1, 1))
def test_advantages_match_a_loop(lives, lookahead, discount) -> None:
    table = steps([(f"g000-00{number // 2}", number % 2, life) for number, life in enumerate(lives)])
    expected = []
    for life in lives:
        changes = [change for _, change in life]
        for step in range(len(changes)):
            ahead = changes[step : step + lookahead]
            expected.append(sum(discount**power * change for power, change in enumerate(ahead)))
    found = advantages(table, LearningConfig(lookahead=lookahead, discount=discount))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def outcome(table: pa.Table, config: SftConfig) -> Examples | str:
    try:
        return build(table, job(("g000-000", None, 1.0)), config)
    except NoExamples as error:
        return str(error)


@settings(deadline=None)
@given(lives=lives, seed=st.integers(0, 9), most=st.integers(1, 20))
def test_the_order_of_rows_does_not_matter(lives, seed, most) -> None:
    table = steps([("g000-000", number, life) for number, life in enumerate(lives)])
    shuffled = table.take(np.random.default_rng(seed).permutation(table.num_rows))
    config = SftConfig(max_examples=most, threshold=0.0)
    straight, again = (outcome(rows, config) for rows in (table, shuffled))
    if isinstance(straight, str) or isinstance(again, str):
        assert straight == again
        return
    assert straight.keys == again.keys
    assert straight.prompt_ids == again.prompt_ids
    np.testing.assert_array_equal(straight.values, again.values)
    assert straight.values.mean() == pytest.approx(1, abs=1e-5)
    assert len(straight.keys) == len(set(straight.keys)) <= most


def test_good_decisions_are_kept_with_their_tokens_and_weights() -> None:
    table = steps([("g000-000", 0, [("wait", 0.0)] * 8 + [("eat", 4.0), ("north", 2.0)])])
    examples = build(table, job(("g000-000", None, 1.0)), SftConfig(lookahead=1, threshold=0.5))
    assert examples.keys == [("g000-000", 0, 8), ("g000-000", 0, 9)]
    assert examples.prompt_ids == [table["prompt_ids"][8].as_py(), table["prompt_ids"][9].as_py()]
    assert examples.completion_ids == [[103], [105]]
    values = np.array([0.0] * 8 + [4.0, 2.0])
    scores = (values - values.mean()) / values.std()
    np.testing.assert_allclose(examples.values, scores[8:] / scores[8:].mean(), rtol=1e-6)
    assert examples.tokens == 12


def test_weights_are_capped() -> None:
    table = steps([("g000-000", 0, [("wait", 0.0)] * 98 + [("eat", 100.0), ("eat", 20.0)])])
    examples = build(table, job(("g000-000", None, 1.0)), SftConfig(lookahead=1, max_weight=1.0))
    assert examples.values.tolist() == [1.0, 1.0]


def test_a_common_action_does_not_crowd_out_the_others() -> None:
    common = [("north", 5.0 + number) for number in range(20)]
    table = steps([("g000-000", 0, [*common, ("eat", 4.5), ("wait", 4.0), ("eat", 4.2), *[("die", -9.0)] * 40])])
    config = SftConfig(lookahead=1, threshold=0.0, max_examples=6)
    examples = build(table, job(("g000-000", None, 1.0)), config)
    # Rounds: (north 24, eat 4.5, wait 4), (north 23, eat 4.2), (north 22)
    assert [step for _, _, step in examples.keys] == [19, 20, 21, 18, 22, 17]


def test_only_the_parents_teach() -> None:
    good = [("wait", 0.0)] * 5 + [("eat", 5.0)]
    table = steps([("g000-000", 0, good), ("g000-001", 0, good), ("g000-002", 0, good)])
    chosen = build(table, job(("g000-002", None, 1.0), ("g000-000", None, 0.0)), SftConfig(lookahead=1))
    assert {individual for individual, _, _ in chosen.keys} == {"g000-000", "g000-002"}
    assert of_parents(table, job(("g000-001", None, 1.0))).num_rows == len(good)


def test_lives_do_not_leak_into_each_other() -> None:
    table = steps([("g000-000", 0, [("wait", 0.0)]), ("g000-000", 1, [("eat", 9.0)]), ("g000-001", 0, [("wait", 3.0)])])
    assert advantages(table, LearningConfig(lookahead=5, discount=1.0)).tolist() == [0.0, 9.0, 3.0]


@pytest.mark.parametrize(
    ("lived", "reason"),
    [
        ([], "no committed steps"),
        ([("wait", -1.0)] * 9, "did equally well"),
        ([("wait", 0.0), ("eat", 1.0)], "none of 2 decisions lies 3 deviations above"),
        ([("wait", float("nan"))], "not finite"),
    ],
)
def test_nothing_to_learn_has_a_reason(lived, reason) -> None:
    table = steps([("g000-000", 0, lived)])
    with pytest.raises(NoExamples, match=reason):
        build(table, job(("g000-000", None, 1.0)), SftConfig(lookahead=1, threshold=3.0))


def test_decisions_without_completion_are_left_out() -> None:
    table = steps([("g000-000", 0, [("wait", 0.0)] * 5 + [("eat", 5.0)])])
    empty = pa.array([[]] * table.num_rows, type=table["completion_ids"].type)
    table = table.set_column(table.column_names.index("completion_ids"), table.schema.field("completion_ids"), empty)
    with pytest.raises(NoExamples, match="none of 6 decisions has both"):
        build(table, job(("g000-000", None, 1.0)), SftConfig(lookahead=1))


def test_a_death_costs_what_the_objective_says_on_top() -> None:
    table = steps([("g000-000", 0, [("wait", -1.0)] * 3), ("g000-000", 1, [("wait", -1.0)] * 3)], died=[1])
    config = LearningConfig(lookahead=2, discount=0.5, death=8.0)
    assert advantages(table, config).tolist() == [-1.5, -1.5, -1.0, -1.5, -5.5, -9.0]


def test_credit_of_a_life_is_its_fitness_and_lives_cut_short_teach_nothing() -> None:
    table = steps([("g000-000", 0, [("eat", 1.0)] * 2), ("g000-000", 1, [("eat", 1.0)] * 6)])
    cut = steps([("g000-000", 2, [("eat", 1.0)] * 9)])
    unknown = pa.nulls(cut.num_rows, pa.float64())
    cut = cut.set_column(cut.column_names.index("worth"), "worth", unknown)
    found = decisions(pa.concat_tables([table, cut]), job(("g000-000", None, 1.0)), LearningConfig(credit="life"))
    assert found.table.num_rows == 8
    assert (found.credit[:2] < 0).all()
    assert (found.credit[2:] > 0).all()
