"""Successive halving: who need not live on, on what evidence, and that a run which stops some early adds up."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.config import RunConfig
from orchestrator.halving import FEWEST, clearly_worse, rungs, standing, student_quantile
from telemetry.records import Genome, Hyperparameters, Individual
from telemetry.tables import LIVES
from tests.inprocess import forager_here, output, refused, resumed_from_lives
from tests.orchestrator.small_run import small_config

T_QUANTILES = {(0.975, 7): 2.3646, (0.975, 15): 2.1314, (0.999, 7): 4.7853, (0.999, 31): 3.3749, (0.9999, 63): 3.9474}
"""From a table of Student's t."""


def test_quantiles_are_those_of_the_tables() -> None:
    for (probability, freedom), wanted in T_QUANTILES.items():
        assert student_quantile(probability, np.array([freedom]))[0] == pytest.approx(wanted, rel=0.01)


@pytest.mark.parametrize(
    ("lives", "first", "wanted"),
    [(64, 0.25, (16, 32, 64)), (16, 0.25, (8, 16)), (8, 0.25, (8,)), (100, 0.1, (10, 20, 40, 80, 100))],
)
def test_comparisons_come_after_twice_as_many_lives_each(lives: int, first: float, wanted: tuple[int, ...]) -> None:
    population = {"size": 2, "lives": lives, "founders": small_config().population.model_dump()["founders"]}
    assert rungs(small_config(population=population, selection={"halving": {"first": first}})) == wanted
    assert rungs(small_config(population=population)) == (lives,)


def test_somebody_is_clearly_worse_only_where_the_difference_says_so() -> None:
    draw = np.random.default_rng(0)
    worlds = 10 * draw.random(16)
    values = np.stack([worlds + 5 + draw.random(16), worlds + draw.random(16), worlds + draw.random(16)])
    assert clearly_worse(values, 0.001).tolist() == [[False] * 3, [True, False, False], [True, False, False]]
    assert not clearly_worse(values[:, : FEWEST - 1], 0.001).any()
    values[1, : 16 - FEWEST + 1] = np.nan
    assert not clearly_worse(values, 0.001)[1].any(), "what nobody knows is no evidence"


@settings(deadline=None, max_examples=5)
@given(st.integers(0, 99), st.integers(FEWEST, 30))
def test_equals_are_hardly_ever_stopped(seed: int, lives: int) -> None:
    draw = np.random.default_rng(seed)
    wrong = [clearly_worse(draw.exponential(10, (2, lives)), 0.01).any() for _ in range(200)]
    assert np.mean(wrong) <= 0.06


def by_lineage(lives: pa.Table) -> list[float]:
    """A fitness that the tests know beforehand: `bold` and `bold-2` are unfit."""
    if "lineage" not in lives.column_names:  # held-out lives
        return [0.0] * lives.num_rows
    unfit = lives["lineage"][0].as_py().startswith("bold")
    return [life % 3 + (0.0 if unfit else 9.0) for life in lives["life"].to_pylist()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("halving")
    config = halving_config(selection={"survivors": 0.5, "halving": {"first": 0.25}}, ray={"executor": "inprocess"})
    document = config.model_dump(mode="json")
    (place / "run.yaml").write_text(json.dumps(document))
    result = forager_here("run", place / "run.yaml", "--store", place)
    assert result.code == 0, result.err
    return place / "small"


def test_the_unfit_live_fewer_lives_and_the_run_adds_up(finished: Path) -> None:
    rows = pq.read_table(finished / "ledger" / "lives").to_pylist()
    counts = Counter((row["individual"], row["lineage"]) for row in rows)
    for (individual, lineage), count in counts.items():
        assert count == (8 if lineage.startswith("bold") else 32), individual
    assert {lineage for _, lineage in counts} == {"bold", "bold-2", "timid", "timid-2"}
    assert output("verify", finished).splitlines()[-1].startswith("ok")
    assert output("audit", finished).startswith("ok")


def test_a_resumed_run_stops_the_same_ones(finished: Path, tmp_path: Path) -> None:
    """Whatever had been lived of a comparison's lives, and of those after it, when the driver went down."""
    assert set(resumed_from_lives(finished, tmp_path)) == {output("digest", finished)}


def test_the_best_of_a_poor_island_lives_on() -> None:
    """Everybody of the first island is clearly worse than everybody of the second; each island has its own survivor."""
    founders = small_config().population.model_dump()["founders"]
    population = {"size": 4, "lives": 32, "founders": founders}
    wanted = {1: {"g000-003"}, 2: {"g000-001", "g000-003"}}
    for isles, left in wanted.items():
        config = halving_config(
            population=population | {"islands": isles},
            selection={"survivors": 0.25 * isles, "halving": {"first": 0.5}},
            fitness={"kind": "rmst", "resamples": 100},
        )
        people = [person(place) for place in range(4)]
        rows = [
            {"individual": one.id, "life": life, "steps": 10 * place + life % 2, "end": "died", "parent_seat": None}
            for place, one in enumerate(people)
            for life in range(16)
        ]
        lives = pa.table({name: pa.array([row[name] for row in rows], LIVES.field(name).type) for name in rows[0]})
        assert {one.id for one in standing(lives, people, 16, config, horizon=60)} == left


def person(place: int) -> Individual:
    numbers = Hyperparameters(temperature=1.0, epsilon=0.0, learning_rate=0.1)
    return Individual(
        id=f"g000-{place:03d}", generation=0, lineage="one", genome=Genome(strategy="x", hyperparameters=numbers)
    )


def test_a_shared_world_refuses_it(tmp_path: Path) -> None:
    config = halving_config(selection={"halving": {}}, environment={"name": "commons"})
    (tmp_path / "run.yaml").write_text(json.dumps(config.model_dump(mode="json")))
    refused(forager_here("run", tmp_path / "run.yaml", "--store", tmp_path), 2, "selection.halving", "shared world")


def halving_config(**changes: object) -> RunConfig:
    founders = small_config().population.model_dump()["founders"]
    return small_config(
        **{
            "generations": 2,
            "population": {"size": 4, "lives": 32, "founders": founders},
            "fitness": {"kind": "custom", "function": "tests.orchestrator.test_halving:by_lineage", "resamples": 100},
            "ledger": {"commit_seconds": 0.01, "min_free_gib": 0},
            "metrics": {"enabled": False},
            "evaluation": {"lives": 2},
        }
        | changes
    )
