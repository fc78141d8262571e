"""A base model on each machine: fetched once for all of its processes, and the one that the run was started on."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from telemetry import model_copies, models
from telemetry.failures import StateError, UsageError
from telemetry.records import BaseModelCard

ASK = """
import shutil, sys, time
from pathlib import Path
from telemetry import model_copies, models
from telemetry.records import BaseModelCard

source, target, card = Path(sys.argv[1]), Path(sys.argv[2]), BaseModelCard.model_validate_json(sys.argv[3])

def fetch(name):
    time.sleep(0.5)
    shutil.copytree(source, target)  # fails when it is there
    return target

models.on_disk = lambda name: target if target.exists() else None
model_copies._fetch = fetch
print(model_copies.here("org/small", card))
"""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A complete model directory, and a cache of its own."""
    monkeypatch.setenv("FORAGER_CACHE", str(tmp_path / "cache"))
    return write(tmp_path / "small", 1.0)


def write(folder: Path, value: float) -> Path:
    folder.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}")
    weights = {"model.layers.0.self_attn.q_proj.weight": np.full((6, 4), value, np.float32)}
    save_file(weights, folder / "model.safetensors")
    return folder


def card(directory: Path) -> BaseModelCard:
    return models.card(directory, str(directory))


def test_processes_that_ask_together_fetch_once(directory: Path, tmp_path: Path) -> None:
    line = [sys.executable, "-c", ASK, directory, tmp_path / "copy", card(directory).model_dump_json()]
    asked = [subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) for _ in range(4)]
    said = [one.communicate(timeout=60)[0].strip() for one in asked]
    assert [one.returncode for one in asked] == [0] * 4
    assert said == [str(tmp_path / "copy")] * 4


def test_files_that_are_here_are_not_fetched(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_copies, "_fetch", pytest.fail)
    assert model_copies.here(str(directory), card(directory)) == directory


def test_other_files_under_the_name_are_refused(directory: Path) -> None:
    expected = card(directory)
    shutil.rmtree(directory)
    write(directory, 2.0)
    with pytest.raises(StateError, match=rf"on {socket.gethostname()}.*{expected.sha256[:12]}.*the same files"):
        model_copies.here(str(directory), expected)


def test_a_machine_without_the_model_is_named(directory: Path) -> None:
    expected = card(directory)
    shutil.rmtree(directory)
    with pytest.raises(UsageError, match=rf"on {socket.gethostname()}: model: got '{directory}'"):
        model_copies.here(str(directory), expected)


def test_a_cache_that_cannot_be_written_costs_only_the_lock(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORAGER_CACHE", str(directory / "config.json" / "cache"))
    assert model_copies.here(str(directory), card(directory)) == directory


def test_other_machines_are_told_a_name_or_a_whole_path(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(directory.parent)
    assert model_copies.name_for_all("small", models.resolve("small")) == str(directory)
    assert model_copies.name_for_all("org/large", directory) == "org/large"
