"""Whole generations with real vLLM and real TRL on a tiny random model, served merged and as LoRA adapters."""

import json
from pathlib import Path

import pytest

from tests import tiny
from tests.conftest import free_ports
from tests.forager import ROOT, forager, ok
from tests.inprocess import output
from tests.prometheus import Server, alerts, panels, recorded, scraping

pytestmark = [pytest.mark.real, pytest.mark.cluster, pytest.mark.timeout(600)]

RUN_FILE = """
name: tiny
generations: {generations}
model: {model}
environment: {{name: forage, settings: {{bushes: 24}}}}
population:
  size: 2
  lives: 4
  founders:
    - {{name: bold, strategy: Explore widely., epsilon: 0.9}}
    - {{name: shy, strategy: Stay out of danger., epsilon: 0.9}}
engine: {{kind: vllm, serving: {serving}, dtype: float32, context: 128, kv_cache_gib: 0.1, max_rank: 8}}
trainer:
  objective: {{kind: sft, threshold: 0.0, max_examples: 8, epochs: 1, batch_size: 4}}
  lora: {{rank: 4, alpha: 4}}
evaluation: {{lives: 2}}
metrics: {{port: {port}}}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize("serving", ["merged", "lora"])
def test_generations_with_real_weights(tmp_path: Path, model: Path, serving: str) -> None:
    file = tmp_path / "tiny.yaml"
    [port] = free_ports("metrics").values()
    file.write_text(RUN_FILE.format(generations=2, model=model, serving=serving, port=port))
    with scraping(tmp_path / "prometheus", port) as server:
        ok("run", file, "--store", tmp_path)
        if server is not None:
            assert_every_expression_has_data(server)
    run = tmp_path / "tiny"
    assert output("verify", run).startswith("ok")
    assert output("audit", run).startswith("ok")
    status = json.loads(output("status", run, "--json"))
    assert status["finished"] is True
    rows = json.loads(output("lineage", run, "--json"))
    born = [row for row in rows if row["generation"] == 1 and row["adapter"]]
    assert born, "no individual of generation 1 has weights of its own"
    steps = json.loads(output("replay", run, f"{born[0]['id']}/0", "--json"))
    assert steps
    assert all(0 < step["probability"] <= 1 for step in steps)
    assert_published_weights_found_a_run(run, born[0]["id"], file)


def assert_published_weights_found_a_run(run: Path, who: str, file: Path) -> None:
    out = run.parent / "out"
    output("export", run, out, "--merged", "--who", who)
    names = {path.name for path in (out / "merged" / who).iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md", "SHA256SUMS"} <= names
    output("import", file, "--store", run.parent, "--set", "name=heirs", "--adapter", f"shy={out / 'adapters' / who}")
    assert output("verify", run.parent / "heirs").splitlines()[-1].startswith("ok")


def assert_every_expression_has_data(server: Server) -> None:
    """Of every panel and every recording rule; those of the alerts can at least be executed."""
    expressions = [(title, one) for title, queries in panels().items() for one in queries]
    expressions += [("recording rule", one) for one in recorded()]
    empty = [(title, one) for title, one in expressions if not server.series(one)]
    assert not empty
    for expression in alerts().values():
        server.series(expression)


def test_missing_model_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(RUN_FILE.format(generations=1, model=tmp_path / "nowhere", serving="merged", port=0))
    result = forager("run", file, "--store", tmp_path / "runs", cwd=ROOT)
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert "nowhere" in result.err
    assert not [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
