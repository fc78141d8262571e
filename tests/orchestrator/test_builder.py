"""What the parts of a run do when its store is gone before they start: they stop, and make nothing anew."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from orchestrator.builder import Model, _build_engine, _build_trainer
from telemetry.actors import Shell
from telemetry.failures import StorageError
from telemetry.sink import TelemetrySink
from trainer.config import TrainerConfig
from workers.config import ScriptedEngineConfig
from workers.engines.scripted import CARD

PARTS = {
    "sink": TelemetrySink,
    "trainer": partial(_build_trainer, TrainerConfig(enabled=False), Model(CARD, None)),
    "engine": partial(_build_engine, ScriptedEngineConfig(), Model(CARD, None), keys={}, inside=True),
}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_a_deleted_run_does_not_bring_it_back(tmp_path: Path, part: str) -> None:
    run = tmp_path / "run"
    with pytest.raises(StorageError, match=str(run)):
        PARTS[part](store_url=str(run))
    assert not run.exists()


def test_nor_does_the_log_of_an_actor(tmp_path: Path) -> None:
    def build() -> Callable[[], None]:
        built.append(True)
        return print

    built: list[bool] = []
    mask = os.umask(0)
    try:
        Shell(build, str(tmp_path / "run" / "logs" / "agent-0.log"))
    finally:
        os.umask(mask)
    assert built
    assert not (tmp_path / "run").exists()
