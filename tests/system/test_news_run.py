"""A whole run in the news world: what it learns from and is selected by, and what it is judged on afterwards."""

import json
from pathlib import Path

import pytest

from orchestrator.state import fold
from telemetry.journal import Journal
from telemetry.ledger import Ledger
from telemetry.store import open_store
from tests.forager import ROOT
from tests.inprocess import forager_here
from workers.environments.news import News
from workers.environments.news_settings import NewsSettings

SMALL = [
    "environment.name=workers.environments.news:News",
    "engine={kind: scripted}",
    "trainer.objective={kind: scripted}",
    "generations=2",
    "population.lives=4",
    "evaluation.lives=6",
    "metrics.port=0",
    "ray.executor=inprocess",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("store")
    settings = [part for override in SMALL for part in ("--set", override)]
    result = forager_here("run", ROOT / "deploy" / "runs" / "news.yaml", "--store", store, *settings)
    assert result.code == 0, result.err
    return store / "news"


def test_fitness_is_the_mean_score_of_lives_that_read_training_articles(run: Path) -> None:
    store = open_store(run)
    state = fold(Journal(store).read())
    training = set(News(NewsSettings()).articles.ids)
    for generation, outcome in enumerate(state.history):
        table = Ledger(store).recall("lives", generation, state.vouched(generation), state.attempts(generation))
        scores: dict[str, list[float]] = {}
        for row in table.to_pylist():
            result = json.loads(row["result"])
            assert training.issuperset(result["articles"])
            assert result["read"] == row["steps"]
            scores.setdefault(row["individual"], []).append(result["score"])
        assert {one.individual: one.value for one in outcome.fitness} == {
            who: pytest.approx(sum(values) / len(values)) for who, values in scores.items()
        }


def test_the_evaluation_reports_what_held_out_forecasts_are_worth(run: Path) -> None:
    evaluation = fold(Journal(open_store(run)).read()).evaluation
    assert evaluation is not None
    rows = {row.who: row for row in evaluation.rows}
    assert {"random", "always-flat", "oracle", "founder", "champion"} <= set(rows)
    assert rows["oracle"].measures["rank correlation"].low > 0.5
    assert rows["always-flat"].measures["rank correlation"].value == 0
    assert rows["champion"].measures.keys() == rows["oracle"].measures.keys()


def test_the_run_is_whole_and_can_be_audited(run: Path) -> None:
    for command in ("verify", "audit"):
        result = forager_here(command, run)
        assert (result.code, result.out[:2]) == (0, "ok")
