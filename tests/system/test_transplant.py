"""`forager transplant`: lineages that have lived on one base model go on living on another."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from orchestrator.places import open_run
from tests import tiny
from tests.forager import SMOKE
from tests.inprocess import forager_here, output, refused
from workers.engines import scripted
from workers.prompt import Codec
from workers.registry import make
from workers.retell import TOKENS, retell

SETTINGS = (
    "ray.executor=inprocess",
    "generations=3",
    "population.lives=6",
    "metrics.enabled=false",
    "evaluation.lives=2",
)


def set_all(*settings: str) -> list[str]:
    return [part for one in settings for part in ("--set", one)]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("source")
    assert forager_here("run", SMOKE, "--store", place, *set_all(*SETTINGS)).code == 0
    return place / "smoke"


def test_a_story_retold_in_the_same_tokens_is_the_same_story(source: Path) -> None:
    _, state = open_run(str(source))
    steps = pq.read_table(source / "ledger" / "steps")
    strategies = {name: one.genome.strategy for name, one in state.everyone.items()}
    told = retell(steps, strategies, make("forage", {}), Codec(scripted.description(1)), ())
    for name in TOKENS:
        assert told[name].to_pylist() == steps[name].to_pylist(), name


def test_lineages_go_on_in_a_new_run(source: Path, tmp_path: Path) -> None:
    found = output("transplant", source, "--base", "scripted", "--store", tmp_path, "--name", "again")
    assert "forager resume" in found
    run = tmp_path / "again"
    _, old = open_run(str(source))
    _, new = open_run(str(run))
    alive = {old.everyone[one].lineage for one in old.history[-1].selection.survivors}
    assert new.created.origin is not None
    assert set(new.created.origin.ancestry) == alive
    assert new.created.origin.generations == 3
    for lineage, line in new.created.origin.ancestry.items():
        assert old.everyone[line[0]].generation == 0
        assert {old.everyone[one].lineage for one in line} == {lineage}
        assert old.everyone[line[-1]].generation == 2
    first = {
        line[-1]: founder
        for founder, line in zip(new.created.founders, new.created.origin.ancestry.values(), strict=False)
    }
    for heir, founder in first.items():
        assert founder.genome.strategy == old.everyone[heir].genome.strategy
        assert founder.genome.hyperparameters == old.everyone[heir].genome.hyperparameters
        assert founder.genome.adapter is not None
    assert len(new.created.founders) == len(old.created.founders)
    assert output("verify", run).splitlines()[-1].startswith("ok")
    assert forager_here("resume", run).code == 0
    assert output("verify", run).splitlines()[-1].startswith("ok")
    assert output("audit", run).startswith("ok")
    rows = {row["adapter"] for row in pq.read_table(run / "ledger" / "lives").to_pylist() if row["generation"] == 0}
    assert rows == {founder.genome.adapter for founder in new.created.founders}
    _, lived = open_run(str(run))
    assert lived.evaluation is not None
    assert [row.adapter for row in lived.evaluation.rows if row.who == "founder"] == [None], "its untouched model"
    refused(
        forager_here("transplant", source, "--base", "scripted", "--store", tmp_path, "--name", "again"), 2, "already"
    )


@pytest.mark.real
def test_what_was_lived_without_a_model_is_learned_by_one(source: Path, tmp_path: Path) -> None:
    model = tiny.build(tmp_path / "other-model")
    engine = ("engine={kind: vllm, serving: merged}", "trainer.lora={rank: 2, alpha: 2}", "trainer.threads=1")
    objective = "trainer.objective={kind: sft, epochs: 1, max_examples: 8, batch_size: 4}"
    result = forager_here(
        "transplant", source, "--base", str(model), "--store", tmp_path, "--name", "real", *set_all(*engine, objective)
    )
    assert result.code == 0, result.err
    run = tmp_path / "real"
    assert output("verify", run).splitlines()[-1].startswith("ok")
    genesis = json.loads((run / "journal" / f"{0:020d}.json").read_text())["body"]
    assert genesis["model"]["id"] == "other-model"
    assert genesis["origin"]["model"]["id"] == "scripted"
    assert len({one["genome"]["adapter"] for one in genesis["founders"]}) == len(genesis["founders"])
    shutil.rmtree(run / "adapters" / genesis["founders"][0]["genome"]["adapter"])
    assert forager_here("verify", run).code == 3


def test_what_cannot_be_transplanted_founds_nothing(source: Path, tmp_path: Path) -> None:
    place = ("--store", tmp_path, "--name", "none")
    frozen = forager_here("transplant", source, "--base", "scripted", *place, *set_all("trainer.enabled=false"))
    refused(frozen, 2, "trainer.enabled")
    missing = set_all("trainer.objective={kind: sft}", "engine={kind: vllm}")
    refused(forager_here("transplant", source, "--base", str(tmp_path / "no-model"), *place, *missing), 2, "no-model")
    hopeless = set_all("trainer.objective={kind: sft, threshold: 9}", "engine={kind: vllm}")
    model = tiny.build(tmp_path / "model")
    result = forager_here("transplant", source, "--base", str(model), *place, *hopeless)
    assert result.code == 3
    assert "could not be trained" in result.err.splitlines()[-1]
    assert not (tmp_path / "none" / "journal").exists()
    (tmp_path / "none" / "holiday.jpg").write_text("not a run")
    refused(forager_here("transplant", source, "--base", "scripted", *place), 2, "not empty and not a run")
