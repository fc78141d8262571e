"""A real vLLM engine that is killed in the middle of a generation: no committed life is lost or lived again."""

import json
import signal
from pathlib import Path

import pytest

from tests import tiny
from tests.faults.harness import look, losses
from tests.faults.striking import Driver
from tests.forager import ok

pytestmark = [pytest.mark.faults, pytest.mark.real, pytest.mark.cluster, pytest.mark.timeout(600)]

RUN_FILE = """
name: tiny
generations: 2
model: {model}
environment: {{name: forage, settings: {{bushes: 24}}}}
population:
  size: 2
  lives: 24
  founders:
    - {{name: bold, strategy: Explore widely., epsilon: 0.9}}
    - {{name: shy, strategy: Stay out of danger., epsilon: 0.9}}
engine: {{kind: vllm, serving: merged, dtype: float32, context: 128, kv_cache_gib: 0.1, max_rank: 8}}
workers: {{agents: 2}}
trainer:
  objective: {{kind: sft, threshold: 0.0, max_examples: 8, epochs: 1, batch_size: 4}}
  lora: {{rank: 4, alpha: 4}}
ledger: {{commit_seconds: 0.2}}
evaluation: {{lives: 2}}
metrics: {{enabled: false}}
"""


def test_a_real_engine_killed_in_mid_generation(tmp_path: Path) -> None:
    file, run = tmp_path / "tiny.yaml", tmp_path / "tiny"
    file.write_text(RUN_FILE.format(model=tiny.build(tmp_path / "model")))
    with Driver(run, "run", file, "--store", tmp_path) as driver:
        driver.until(driver.living, timeout=240)
        driver.strike("engine", signal.SIGKILL)
        before = look(run)
        assert driver.end(400) == 0, driver.text()
        assert driver.heard("engine-0.0: lost")
        assert driver.heard("engine-0.1: started")
    assert before.committed
    after = look(run)
    assert not list(losses(before, after))
    assert len(after.committed) == len(set(after.committed)) == 2 * 2 * 24
    # `verify` compares the adapter of every step with the life's, and the life's with the individual's.
    assert ok("verify", run).splitlines()[-1].startswith("ok")
    assert ok("audit", run).startswith("ok")
    assert json.loads(ok("status", run, "--json"))["finished"]
