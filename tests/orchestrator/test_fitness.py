"""Fitness: survival time under censoring by hand, its properties, and custom functions that misbehave."""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config import CustomFitnessConfig, RmstConfig
from orchestrator.fitness import load_function, restricted_mean_survival, score
from orchestrator.verdict import Fitness, ranked
from telemetry.failures import NoProgressError, UsageError
from telemetry.records import Genome, Hyperparameters, Individual
from telemetry.tables import LIVES

HORIZON = 20

samples = st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=1, max_size=30)


def rmst(lives: list[tuple[int, bool]], horizon: float = HORIZON) -> float:
    times = np.array([time for time, _ in lives], dtype=np.float64)
    return restricted_mean_survival(times, np.array([died for _, died in lives]), horizon)


def individual(name: str = "g000-000") -> Individual:
    numbers = Hyperparameters(temperature=1.0, epsilon=0.5, learning_rate=1e-3)
    return Individual(id=name, generation=0, lineage="bold", genome=Genome(strategy="Walk.", hyperparameters=numbers))


def lives_table(rows: list[tuple[str, int, int, str]]) -> pa.Table:
    """rows: (individual, life, steps, end)."""
    columns = {
        "run": ["r"] * len(rows),
        "generation": [0] * len(rows),
        "individual": [row[0] for row in rows],
        "lineage": ["bold"] * len(rows),
        "life": [row[1] for row in rows],
        "attempt": [f"{row[0]}-{row[1]}" for row in rows],
        "world": ["forage-v1"] * len(rows),
        "world_seed": [row[1] for row in rows],
        "steps": [row[2] for row in rows],
        "end": [row[3] for row in rows],
        "cause": ["starved" if row[3] == "died" else "" for row in rows],
        "energy": [0.0] * len(rows),
        "adapter": [None] * len(rows),
        "prompt_tokens": [0] * len(rows),
        "completion_tokens": [0] * len(rows),
        "started_at": [0] * len(rows),
        "seconds": [0.0] * len(rows),
        "seat": [0] * len(rows),
        "born": [0] * len(rows),
        "parent_seat": [None] * len(rows),
        "result": [""] * len(rows),
    }
    return pa.table({name: pa.array(columns[name], type=LIVES.field(name).type) for name in LIVES.names}, schema=LIVES)


def score_one(rows: list[tuple[str, int, int, str]], seed: int = 7) -> Fitness:
    return score(lives_table(rows), [individual()], RmstConfig(), horizon=HORIZON, seed=seed)[0]


def test_kaplan_meier_area_by_hand() -> None:
    # Deaths at 2, 5 and 9, a life lost at 4, one alive at the horizon of 10. Survival is 1 up to 2, then 4/5 up
    # to 5 (3 at risk there), 8/15 up to 9 (2 at risk), 4/15 to the end: 2 + 2.4 + 32/15 + 4/15.
    lives = [(2, True), (4, False), (5, True), (9, True), (10, False)]
    assert rmst(lives, 10) == pytest.approx(2 + 3 * 0.8 + 4 * 8 / 15 + 4 / 15)


def test_death_comes_before_censoring_at_the_same_time() -> None:
    # Both are at risk at 3, so half survive it; the other order would let the death end the curve at zero.
    assert rmst([(3, True), (3, False)], 10) == pytest.approx(3 + 7 * 0.5)


def test_a_lost_life_counts_for_more_than_a_death_at_the_same_time() -> None:
    assert rmst([(2, True), (2, False), (8, True)]) > rmst([(2, True), (2, True), (8, True)])


@given(st.lists(st.integers(0, 30), min_size=1, max_size=30))
def test_without_censoring_it_is_the_mean_of_capped_times(times: list[int]) -> None:
    ends = [(time, time < HORIZON) for time in times]
    assert rmst(ends) == pytest.approx(np.minimum(times, HORIZON).mean(), rel=1e-12)


@given(samples)
def test_it_lies_between_zero_and_the_horizon(lives: list[tuple[int, bool]]) -> None:
    assert 0 <= rmst(lives) <= HORIZON * (1 + 1e-12)


@given(samples, st.randoms(use_true_random=False))
def test_the_order_of_lives_does_not_matter(lives: list[tuple[int, bool]], random: object) -> None:
    shuffled = list(lives)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert rmst(shuffled) == pytest.approx(rmst(lives), rel=1e-12)


@given(samples)
def test_losing_a_life_to_infrastructure_never_lowers_fitness(lives: list[tuple[int, bool]]) -> None:
    lost = [(lives[0][0], False), *lives[1:]]
    assert rmst(lost) >= rmst(lives) - 1e-9


@given(st.permutations(range(12)))
def test_score_does_not_depend_on_the_order_of_rows(order: list[int]) -> None:
    rows = [("g000-000", life, 3 * life % 17, "censored" if life % 5 == 0 else "died") for life in range(12)]
    assert score_one([rows[index] for index in order]) == score_one(rows)


def test_score_counts_lives_and_its_interval_holds_the_value() -> None:
    rows = [("g000-000", life, 2 + life, "died") for life in range(10)]
    rows += [("g000-000", 10, 4, "censored"), ("g000-000", 11, HORIZON, "survived")]
    fitness = score_one(rows)
    assert (fitness.lives, fitness.censored) == (12, 1)
    assert fitness.low < fitness.value < fitness.high


def test_a_life_of_which_nothing_is_known_changes_no_fitness() -> None:
    rows = [("g000-000", life, 2 + life, "died") for life in range(10)]
    lost = [("g000-000", life, 0, "censored") for life in range(10, 14)]
    known, fitness = score_one(rows), score_one(rows + lost)
    assert (fitness.value, fitness.low, fitness.high) == (known.value, known.low, known.high)
    assert (fitness.lives, fitness.censored) == (14, 4)


def test_who_lost_every_life_has_no_fitness() -> None:
    people = [individual("g000-000"), individual("g000-001")]
    rows = [("g000-000", life, 0, "censored") for life in range(3)] + [("g000-001", 0, 5, "died")]
    nobody, somebody = score(lives_table(rows), people, RmstConfig(), horizon=HORIZON, seed=7)
    assert (nobody.value, nobody.low, nobody.high, nobody.lives, nobody.censored) == (None, None, None, 3, 3)
    assert [one.individual for one in ranked([nobody, somebody])] == ["g000-001"]


def test_a_generation_without_any_fitness_ends_the_run() -> None:
    rows = [("g000-000", life, 0, "censored") for life in range(3)]
    with pytest.raises(NoProgressError, match="generation 0: every life was lost to infrastructure"):
        score_one(rows)


def test_score_is_repeatable_and_keeps_the_population_order() -> None:
    people = [individual("g000-001"), individual("g000-000")]
    rows = [(one.id, life, 2 + life + 5 * index, "died") for index, one in enumerate(people) for life in range(4)]
    first = score(lives_table(rows), people, RmstConfig(), horizon=HORIZON, seed=7)
    assert first == score(lives_table(rows[::-1]), people, RmstConfig(), horizon=HORIZON, seed=7)
    assert [one.individual for one in first] == ["g000-001", "g000-000"]
    assert [one.value for one in first] == [3.5, 8.5]


def test_another_seed_moves_the_interval_and_not_the_value() -> None:
    rows = [("g000-000", life, life * life % 19, "died") for life in range(16)]
    first, second = score_one(rows, seed=1), score_one(rows, seed=2)
    assert first.value == second.value
    assert (first.low, first.high) != (second.low, second.high)


CUSTOM = """
def energy_left(lives):
    return (lives["energy"].to_numpy() + lives["steps"].to_numpy()).tolist()

def one_too_few(lives):
    return [1.0] * (lives.num_rows - 1)

def not_finite(lives):
    return [float("nan")] * lives.num_rows

def words(lives):
    return ["long"] * lives.num_rows

def breaks(lives):
    raise RuntimeError("no such column")

NUMBER = 3
"""


@pytest.fixture(scope="module", autouse=True)
def custom_module(tmp_path_factory: pytest.TempPathFactory) -> object:
    folder: Path = tmp_path_factory.mktemp("plugin")
    (folder / "custom_fitness_plugin.py").write_text(CUSTOM)
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))


def custom(name: str) -> CustomFitnessConfig:
    return CustomFitnessConfig(kind="custom", function=f"custom_fitness_plugin:{name}")


def test_custom_function_gives_the_mean_over_lives() -> None:
    rows = [("g000-000", life, 2 * life, "died") for life in range(5)]
    fitness = score(lives_table(rows), [individual()], custom("energy_left"), horizon=HORIZON, seed=7)[0]
    assert fitness.value == 4.0
    assert fitness.low <= 4.0 <= fitness.high


def test_custom_function_never_sees_a_life_of_which_nothing_is_known() -> None:
    rows = [("g000-000", life, 2 * life, "died") for life in range(5)] + [("g000-000", 5, 0, "censored")]
    assert score(lives_table(rows), [individual()], custom("energy_left"), horizon=HORIZON, seed=7)[0].value == 4.0


@pytest.mark.parametrize("name", ["one_too_few", "not_finite", "words", "breaks"])
def test_custom_function_that_misbehaves_is_the_users_error(name: str) -> None:
    rows = [("g000-000", life, life, "died") for life in range(3)]
    with pytest.raises(UsageError, match=rf"^fitness\.function: 'custom_fitness_plugin:{name}' [^\n]*$"):
        score(lives_table(rows), [individual()], custom(name), horizon=HORIZON, seed=7)


@pytest.mark.parametrize("path", ["custom_fitness_plugin:missing", "no_such_module:f", "custom_fitness_plugin:NUMBER"])
def test_custom_function_that_is_not_there_is_the_users_error(path: str) -> None:
    with pytest.raises(UsageError, match=r"^fitness\.function: "):
        load_function(path)
