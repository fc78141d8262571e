"""The guide to an own objective: its files and changes, made in a copy of the sources, make one that learns."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.forager import ROOT, environment
from tests.system.documentation import DOCS, blocks
from tests.test_imports import ROOMS

PAGE = DOCS / "objectives.md"
PROGRAM = """
from pathlib import Path

import numpy as np

import trainer
from telemetry import models
from tests import tiny
from tests.trainer.builders import job, nobody, steps
from trainer.config import LoraConfig, TrainerConfig
from trainer.config_objectives import AvoidConfig
from trainer.lowrank import fresh
from trainer.objectives import build

if not Path(trainer.__file__).is_relative_to(Path.cwd()):
    raise SystemExit(f"learns with {trainer.__file__}")
model = tiny.build(Path("model"))
config = AvoidConfig(threshold=0.5, lookahead=1, epochs=4, batch_size=4)
settings = TrainerConfig(objective=config, lora=LoraConfig(rank=4, alpha=8), precision="fp32", threads=1)
objective = build(settings, model, nobody)[""]
one = job(("g000-000", None, 1.0), learning_rate=5e-2)
records = steps([("g000-000", life, [("eat", 3.0), ("rest", -1.0), ("north", -4.0)]) for life in range(4)])
examples = objective.examples(records, one)
fit = objective.fit(fresh(models.card(model, "tiny"), settings.lora, np.random.default_rng(0)), examples, one)
print(len(examples.keys), {step for _, _, step in examples.keys}, fit.losses[0] > fit.losses[-1])
"""


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A copy of the rooms with what the guide adds to them."""
    for room in ROOMS:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    for block in blocks(PAGE):
        if block.language == "python":
            (tmp_path / block.title).write_text(block.text)
        elif block.language == "diff":
            assert f"+++ b/{block.title}\n" in block.text
            apply = ["git", "apply", "--recount", "-C1", "-"]
            done = subprocess.run(apply, cwd=tmp_path, input=block.text, capture_output=True, text=True)
            assert done.returncode == 0, f"{block} does not fit the sources:\n{done.stderr}"
    return tmp_path


def run(sources: Path, *program: str | Path) -> str:
    variables = {**environment(), "PYTHONPATH": f"{sources}:{ROOT}"}
    done = subprocess.run(
        [sys.executable, *program], cwd=sources, env=variables, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_run_file_can_name_it(sources: Path) -> None:
    [part] = [block.text for block in blocks(PAGE) if block.language == "yaml"]
    demo = (ROOT / "deploy" / "runs" / "demo.yaml").read_text()
    kept = demo.split("trainer:")[0] + part
    (sources / "mine.yaml").write_text(kept)
    assert "training_jobs_per_generation" in run(sources, "-m", "orchestrator.cli", "plan", "mine.yaml")
    assert '"avoid"' in run(sources, "-m", "orchestrator.cli", "schema")


@pytest.mark.real
def test_it_learns_to_avoid_what_went_badly(sources: Path) -> None:
    assert run(sources, "-c", PROGRAM).split("\n")[-2] == "4 {2} True"
