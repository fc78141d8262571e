"""A generation with real vLLM and TRL on several machines: engines on two of them, a training job shared by two."""

import json
import shutil
import time
from pathlib import Path

import pytest

from tests import tiny
from tests.cluster.nodes import HOME, Site
from tests.inprocess import output

pytestmark = [pytest.mark.namespaces, pytest.mark.real, pytest.mark.timeout(900)]

RUN_FILE = """
name: tiny
generations: 2
model: {model}
environment: {{name: forage, settings: {{bushes: 24}}}}
population:
  size: 2
  lives: 4
  founders:
    - {{name: bold, strategy: Explore widely., epsilon: 0.9}}
    - {{name: shy, strategy: Stay out of danger., epsilon: 0.9}}
engine: {{kind: vllm, count: 2, dtype: float32, context: 128, kv_cache_gib: 0.1, threads: 1}}
workers: {{hang_timeout: 300}}
trainer:
  objective: {{kind: sft, threshold: 0.0, max_examples: 8, epochs: 1, batch_size: 4}}
  lora: {{rank: 4, alpha: 4}}
  workers: 2
  threads: 1
evaluation: {{lives: 2}}
metrics: {{enabled: false}}
"""


def test_engines_and_trainers_on_several_machines(nodes: Site, bucket: str, tmp_path: Path) -> None:
    built = tiny.build(tmp_path / "tiny")
    for node in nodes.nodes:
        shutil.copytree(built, node.home / "tiny")
    driving = nodes.nodes[-1]
    file = driving.file("tiny.yaml", RUN_FILE.format(model=f"{HOME}/tiny"))
    store, run = f"{bucket}/real", f"{bucket}/real/tiny"
    engines, trainers = set(), set()
    with driving.drive(run, "run", file, "--store", store, "--address", nodes.address) as driver:
        while driver.process.poll() is None:
            for node in nodes.nodes:
                names = node.actors()
                engines |= {node.name for name in names if name.startswith("engine")}
                trainers |= {node.name for name in names if name.startswith("trainer")}
            time.sleep(0.2)
        assert driver.end(1) == 0, driver.text() + "".join(node.said() for node in nodes.nodes)
    assert len(engines) == len(trainers) == 2
    assert output("verify", run).startswith("ok")
    assert output("audit", run).startswith("ok")
    assert json.loads(output("status", run, "--json"))["finished"] is True
    born = [row for row in json.loads(output("lineage", run, "--json")) if row["generation"] == 1 and row["adapter"]]
    assert born, "no individual of generation 1 has weights of its own"
    steps = json.loads(output("replay", run, f"{born[0]['id']}/0", "--json"))
    assert steps
    assert all(0 < step["probability"] <= 1 for step in steps)
