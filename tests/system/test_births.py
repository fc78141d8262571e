"""Runs whose births are of another kind, whole, without a model: finished, audited, and resumed to the same end."""

import json
from pathlib import Path

import pytest

from tests.forager import ROOT
from tests.inprocess import output, resumed_from_lives

KINDS = {
    "evolution strategy": [
        "trainer.objective={kind: es}",
        "population.size=4",
        "selection={survivors: 1.0, elites: 0}",
    ],
    "niches": ["selection={method: clearing, niche: 0.001, survivors: 0.7}", "population.size=6"],
    "inherited objectives": [
        "trainer.alternatives={wild: {kind: scripted, shift: 2.0}}",
        "reproduction.objective_mutation=0.7",
        "population.size=6",
    ],
    "frozen weights": [
        "trainer.enabled=false",
        "reproduction.weight_mutation={kind: gaussian, strength: 0.0}",
        "population.size=6",
    ],
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_of_this_kind_is_whole(kind: str, tmp_path: Path) -> None:
    settings = [part for one in ["generations=3", *KINDS[kind]] for part in ("--set", one)]
    output("run", ROOT / "tests/faults/tiny.yaml", "--store", tmp_path, *settings)
    run = tmp_path / "tiny"
    assert output("verify", run).splitlines()[-1].startswith("ok")
    assert output("audit", run).startswith("ok")
    assert set(resumed_from_lives(run, tmp_path / "again")) == {output("digest", run)}
    entries = [json.loads(path.read_bytes()) for path in sorted((run / "journal").glob("*.json"))]
    births = [entry["body"]["result"] for entry in entries if entry["kind"] == "birth"]
    assert {birth["status"] for birth in births} == {"trained"}
    assert {bool(birth["adapter"]) for birth in births} == {kind != "frozen weights"}
    if kind == "evolution strategy":
        assert len({birth["adapter"] for birth in births}) == len(births) == 8
    if kind == "inherited objectives":
        people = [one for entry in entries if entry["kind"] == "generation" for one in entry["body"]["population"]]
        assert {one["genome"]["objective"] for one in people} == {"", "wild"}
