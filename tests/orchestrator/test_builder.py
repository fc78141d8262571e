"""What the parts of a run do when its store is gone before they start: they stop, and make nothing anew."""

import asyncio
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from orchestrator.builder import Builder, Model, _build_engine, _build_trainer
from telemetry.actors import Place, Shell
from telemetry.allocation import TENSORS
from telemetry.failures import StorageError
from telemetry.sink import TelemetrySink
from tests.orchestrator.small_run import small_config
from trainer.config import TrainerConfig
from workers.config import ScriptedEngineConfig, VllmEngineConfig
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


def test_parts_that_hold_tensors_keep_the_memory_that_they_free(tmp_path: Path) -> None:
    places: list[Place] = []

    async def start(build: Any, place: Place, **limits: Any) -> None:
        places.append(place)

    config = small_config().model_copy(update={"engine": VllmEngineConfig()})
    builder = Builder(config, Model(CARD, None), str(tmp_path), None, start)
    asyncio.run(builder._engine(0))
    asyncio.run(builder._trainer(0))
    assert [dict(TENSORS.items() & place.environment.items()) for place in places] == [TENSORS, TENSORS]
