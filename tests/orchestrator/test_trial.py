"""Fitness too good to be believed: measured again in fresh worlds before anybody breeds on it."""

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.places import open_run
from tests.inprocess import forager_here, output, refused, resumed_from_lives
from tests.orchestrator.small_run import small_config

LIVES = 4


def lucky_once(lives: pa.Table) -> list[float]:
    """From the second generation on, `bold` shines in the first worlds of a generation, and only in those."""
    if "lineage" not in lives.column_names:  # held-out lives
        return [0.0] * lives.num_rows
    rows = zip(*(lives[name].to_pylist() for name in ("lineage", "generation", "life")), strict=True)
    return [
        (90.0 if lineage == "bold" and generation == 1 and life < LIVES else 5.0) + life % 3
        for lineage, generation, life in rows
    ]


def write(place: Path, **selection: object) -> Path:
    founders = small_config().population.model_dump()["founders"]
    config = small_config(
        population={"size": 4, "lives": LIVES, "founders": founders},
        fitness={"kind": "custom", "function": "tests.orchestrator.test_trial:lucky_once", "resamples": 100},
        selection={"survivors": 0.5, "elites": 1} | selection,
        reproduction={"crossover": 0.0},
        ledger={"commit_seconds": 0.01, "min_free_gib": 0},
        metrics={"enabled": False},
        evaluation={"lives": 2},
        ray={"executor": "inprocess"},
    )
    (place / "run.yaml").write_text(json.dumps(config.model_dump(mode="json")))
    return place / "run.yaml"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("trial")
    result = forager_here("run", write(place, recheck=1.0), "--store", place)
    assert result.code == 0, result.err
    return place / "small"


def test_the_lucky_live_again_and_only_that_counts(finished: Path) -> None:
    _, state = open_run(str(finished))
    event = state.history[1]
    assert event.suspects
    assert {state.everyone[one].lineage for one in event.suspects} == {"bold"}
    rows = pq.read_table(finished / "ledger" / "lives").to_pylist()
    counts = Counter(row["individual"] for row in rows if row["generation"] == 1)
    for one in event.fitness:
        assert counts[one.individual] == (2 * LIVES if one.individual in event.suspects else LIVES)
        assert one.value is not None
        assert one.value < 10
        assert one.lives == LIVES
    seeds = {(row["life"], row["world_seed"]) for row in rows if row["generation"] == 1}
    assert len({seed for _, seed in seeds}) == 2 * LIVES, "in worlds of their own"
    assert not state.history[0].suspects
    assert not state.history[2].suspects


def test_the_run_adds_up(finished: Path) -> None:
    assert output("verify", finished).splitlines()[-1].startswith("ok")
    assert output("audit", finished).startswith("ok")


def test_whoever_is_not_doubted_is_believed(finished: Path, tmp_path: Path) -> None:
    assert forager_here("run", write(tmp_path), "--store", tmp_path).code == 0
    _, believed = open_run(str(tmp_path / "small"))
    assert max(one.value or 0.0 for one in believed.history[1].fitness) > 90


def test_a_resumed_run_doubts_the_same_ones(finished: Path, tmp_path: Path) -> None:
    assert set(resumed_from_lives(finished, tmp_path, 1)) == {output("digest", finished)}


def test_a_shared_world_refuses_it(tmp_path: Path) -> None:
    path = write(tmp_path, recheck=1.0)
    settings = ("--set", "environment={name: commons}", "--set", "fitness={kind: rmst}")
    refused(forager_here("run", path, "--store", tmp_path, *settings), 2, "selection.recheck", "shared world")
