"""An adapter that is not finite: the gate keeps it out; put past the gate, no token of anybody else changes."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from telemetry.adapters import LoraWeights
from tests.forager import IN_PROCESS, SMOKE
from tests.inprocess import committed_steps, forager_here, refused
from trainer import finetune
from trainer.examples import Examples
from trainer.job import TrainingJob
from trainer.objectives import Fit
from trainer.objectives.scripted import Scripted

VICTIM = "g001-002"
SETTINGS = (*IN_PROCESS, "--set", "generations=2", "--set", "engine.capacity=1", "--set", "metrics.enabled=false")


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes the training of the victim come out as NaN from now on."""
    fit = Scripted.fit

    def poisoned(self: Scripted, start: LoraWeights, examples: Examples, job: TrainingJob) -> Fit:
        sound = fit(self, start, examples, job)
        if job.child.id != VICTIM:
            return sound
        factors = {module: (a, np.full_like(b, np.nan)) for module, (a, b) in sound.weights.factors.items()}
        return Fit(LoraWeights(start.rank, start.alpha, factors), tokens=sound.tokens)

    return lambda: monkeypatch.setattr(Scripted, "fit", poisoned)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("sound")
    assert forager_here("run", SMOKE, "--store", store, *SETTINGS).code == 0
    return store / "smoke"


def test_the_gate_keeps_it_out_and_nobody_else_is_touched(
    sound: Path, tmp_path: Path, poison: Callable[[], None]
) -> None:
    poison()
    assert forager_here("run", SMOKE, "--store", tmp_path, *SETTINGS).code == 0
    births = [json.loads(path.read_text()) for path in sorted((tmp_path / "smoke" / "journal").glob("*.json"))]
    [result] = [
        entry["body"]["result"]
        for entry in births
        if entry["kind"] == "birth" and entry["body"]["result"]["individual"] == VICTIM
    ]
    assert result["status"] == "failed"
    assert "lora_B" in result["reason"]
    assert "not finite" in result["reason"]
    expected, found = committed_steps(sound), committed_steps(tmp_path / "smoke")
    others = [key for key in expected if key[0] != VICTIM]
    assert len(others) == 7 * 16
    assert {key: found[key] for key in others} == {key: expected[key] for key in others}
    for verb in ("verify", "audit"):
        assert forager_here(verb, tmp_path / "smoke").code == 0


def test_past_the_gate_it_is_refused_by_the_engine_and_no_token_of_others_changes(
    sound: Path, tmp_path: Path, poison: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    poison()
    monkeypatch.setattr(finetune, "check_files", lambda files, card, rank: None)
    line = refused(forager_here("run", SMOKE, "--store", tmp_path, *SETTINGS), 3, "adapter ", "lora_B", "not finite")
    expected, found = committed_steps(sound), committed_steps(tmp_path / "smoke")
    served = {individual for individual, _ in found if individual.startswith("g001")}
    assert served == {"g001-000", "g001-001"}, "those before it have lived"
    assert found == {key: expected[key] for key in found}
    adapter = line.partition("adapter ")[2][:64]
    result = forager_here("verify", tmp_path / "smoke")
    assert result.code == 3
    assert f"error: adapters/{adapter}: adapter_model.safetensors: " in result.out
