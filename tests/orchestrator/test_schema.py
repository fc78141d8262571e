"""The JSON Schema of run files: what Forager takes it takes, and what a schema can refuse it refuses."""

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from orchestrator import runfile
from orchestrator.runfile import assign
from telemetry.failures import UsageError
from tests.forager import ROOT, SMOKE
from tests.inprocess import output

RUNS = sorted((ROOT / "deploy" / "runs").glob("*.yaml"))


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(output("schema"))
    Draft202012Validator.check_schema(found)
    return found


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_shipped_run_files_are_valid(schema: dict[str, Any], path: Any) -> None:
    Draft202012Validator(schema).validate(runfile.read(path))


def test_a_run_file_with_every_default_written_out_is_valid(schema: dict[str, Any]) -> None:
    Draft202012Validator(schema).validate(runfile.load(SMOKE).model_dump(mode="json"))


@pytest.mark.parametrize(
    "change",
    [
        "generation=3",
        "generations=0",
        "seed='1'",
        "name=A B",
        "population.size=0",
        "population.founders=[]",
        "engine.kind=cloud",
        "trainer.objective.lookahead=1.5",
        "trainer.lora.rank=0",
        "selection.method=luck",
        "metrics.port=70000",
    ],
)
def test_what_forager_refuses_the_schema_refuses(schema: dict[str, Any], change: str) -> None:
    document = runfile.read(SMOKE)
    assign(document, change)
    assert list(Draft202012Validator(schema).iter_errors(document))
    with pytest.raises(UsageError):
        runfile.validate(document, "smoke.yaml")


def test_every_key_says_what_it_is(schema: dict[str, Any]) -> None:
    sections = {"run": schema, **schema["$defs"]}
    silent = [
        f"{section}.{key}"
        for section, shape in sections.items()
        for key, about in shape["properties"].items()
        if key != "kind" and not about.get("description")
    ]
    assert silent == []
