"""Runs on endpoints: what a liar did is undone, and nobody but the engine learns a key."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from orchestrator import driver
from orchestrator.builder import Builder, Model
from telemetry.failures import UsageError
from tests.inprocess import forager_here, output
from tests.orchestrator.small_run import small_config
from tests.workers.endpoints import Machines, beyond_probes, lie, machines
from workers import engines
from workers.config_remote import EndpointConfig, RemoteEngineConfig
from workers.engines.remote import RemoteEngine
from workers.engines.scripted import CARD, END, description


@pytest.fixture
def room() -> Iterator[Machines]:
    with machines() as started:
        yield started


RUN = """
name: remote
generations: 2
environment: {{settings: {{horizon: 6, start_energy: 4}}}}
population:
  size: 2
  lives: 6
  founders:
    - {{name: bold, strategy: Walk far., epsilon: 0.2}}
    - {{name: shy, strategy: Stay near., epsilon: 0.2}}
engine:
  kind: remote
  endpoints: [{{url: "{}", trusted: true}}, {{url: "{}"}}]
  checks: 1
  tolerance: 0.000001
  context: 4096
trainer: {{enabled: false}}
workers: {{life_retries: 0, restarts: 0, request_batch: 1}}
evaluation: {{lives: 2, manners: 0}}
metrics: {{enabled: false}}
ray: {{executor: inprocess}}
"""


def test_a_run_with_a_liar_is_the_run_without_it(
    room: Machines, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def build(config: Any, directory: Any, card: Any, path: Any, keys: Any) -> RemoteEngine:
        return RemoteEngine(config, description(8), path, vocabulary=300, end_of_turn=(END,))

    monkeypatch.setattr(driver, "find_model", lambda config: Model(CARD, None))
    monkeypatch.setattr(engines, "build", build)
    trusted, other = room.start(), room.start()
    (tmp_path / "run.yaml").write_text(RUN.format(trusted.url, other.url))
    output("run", tmp_path / "run.yaml", "--store", tmp_path / "honest")
    honest = output("digest", tmp_path / "honest" / "remote")
    found = output("query", tmp_path / "honest" / "remote", "select distinct engine from steps", "--csv")
    assert f"engine-0.0 {other.name}" in found
    other.fault = beyond_probes(lie)
    output("run", tmp_path / "run.yaml", "--store", tmp_path / "lied")
    assert f"{other.name}: expelled after" in caplog.text
    assert output("digest", tmp_path / "lied" / "remote") == honest
    assert output("audit", tmp_path / "lied" / "remote").startswith("ok")
    other.fault = None
    plan = forager_here("plan", tmp_path / "run.yaml")
    assert plan.code == 0, plan


def test_no_actor_but_the_engine_gets_a_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    endpoint = EndpointConfig(url="https://127.0.0.1:1", key="RENTED_KEY", trusted=True)
    config = small_config().model_copy(update={"engine": RemoteEngineConfig(endpoints=(endpoint,))})
    places = []

    async def start(build: Any, place: Any, **limits: Any) -> Any:
        places.append((place, build))

    monkeypatch.setenv("RENTED_KEY", "sk-abc")
    builder = Builder(config, Model(CARD, None), str(tmp_path), None, start)
    asyncio.run(builder._engine(0))
    asyncio.run(builder._agent(0, description(8)))
    assert [place.environment["RENTED_KEY"] for place, _ in places] == ["", ""]
    (_, engine), (_, agent) = places
    assert engine.keywords["keys"]["RENTED_KEY"].get_secret_value() == "sk-abc"
    assert "sk-abc" not in repr(engine)
    assert "keys" not in agent.keywords
    for value in ("", "two\nlines"):
        monkeypatch.setenv("RENTED_KEY", value)
        with pytest.raises(UsageError, match=r"RENTED_KEY: got .* the API key of 127\.0\.0\.1:1") as caught:
            engines.keys_of(config.engine)
        assert "two" not in str(caught.value)
