"""Jobs of several processes: the arithmetic of one, whatever the objective."""

import asyncio
import multiprocessing
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from telemetry import models
from telemetry.adapters import LoraWeights
from tests import tiny
from tests.trainer.builders import job, steps
from trainer.config import LoraConfig, TrainerConfig
from trainer.config_objectives import (
    DistillConfig,
    DpoConfig,
    GrpoConfig,
    KtoConfig,
    ObjectiveConfig,
    RegressionConfig,
    SftConfig,
)
from trainer.job import Parent
from trainer.lowrank import fresh
from trainer.team import Team, join

LORA = LoraConfig(rank=4, alpha=8)
TASK = job(("g000-000", None, 1.0), learning_rate=1e-2).model_copy(
    update={"teacher": Parent(individual="g000-003", adapter="teacher", weight=0.0)}
)
ALONE = -1
COMMON = {"epochs": 1, "batch_size": 5, "lookahead": 1}
OBJECTIVES: list[ObjectiveConfig] = [
    SftConfig(threshold=0.3, **COMMON),
    KtoConfig(likelihood="vocabulary", **COMMON),
    DpoConfig(**COMMON),
    GrpoConfig(beta=0.05, **COMMON),
    RegressionConfig(**COMMON),
    DistillConfig(**COMMON),
]


def table() -> pa.Table:
    """Nine lives: batches of five leave a last one that is smaller than the group."""
    walk = [("eat", 5.0), ("north", -5.0), ("rest", 0.5), ("north", -4.0), ("eat", 3.0), ("rest", -1.0)]
    return steps([("g000-000", life, walk[life % 4 :] + walk[: life % 4]) for life in range(9)])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("model"))


def fit(config: ObjectiveConfig, model: Path, group: Any = None, *, shard: bool = False) -> Any:
    from trainer.objectives import build

    start = fresh(models.card(model, "tiny"), LORA, np.random.default_rng(0))
    # Some distance to go: where there is nothing to learn, Adam makes steps of rounding.
    draw = np.random.default_rng(1)
    factors = {name: (a, draw.standard_normal(b.shape).astype(np.float32)) for name, (a, b) in start.factors.items()}
    teacher = LoraWeights(start.rank, start.alpha, factors)
    workers = 1 if group is None else group.size
    settings = TrainerConfig(objective=config, lora=LORA, precision="fp32", threads=1, workers=workers, shard=shard)
    objective = build(settings, model, {"teacher": teacher}.__getitem__)[""]
    if group is not None:
        objective.join(group)
    return objective.fit(start, objective.examples(table(), TASK), TASK)


def some(shard: bool) -> list[ObjectiveConfig]:
    """With and without a reference is enough where only the place of the base model differs."""
    return OBJECTIVES[:2] if shard else OBJECTIVES


def member(rank: int, size: int, port: int, model: Path, results: Any, shard: bool) -> None:
    from trainer.group import Group

    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    group = Group.join("127.0.0.1", port, rank, size, 60)
    results.put((rank, [fit(config, model, group, shard=shard) for config in some(shard)]))


def single(model: Path, results: Any, shard: bool) -> None:
    """In a process of its own too: where vLLM was started before, a process keeps its number of threads."""
    results.put((ALONE, [fit(config, model) for config in some(shard)]))


@pytest.mark.real
@pytest.mark.parametrize(
    ("size", "shard"),
    [(2, False), (2, True), *(pytest.param(3, one, marks=pytest.mark.faults) for one in (False, True))],
)
def test_several_processes_come_to_what_one_does(size: int, shard: bool, model: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    port = free_port()
    processes = [context.Process(target=member, args=(rank, size, port, model, results, shard)) for rank in range(size)]
    processes.append(context.Process(target=single, args=(model, results, shard)))
    for process in processes:
        process.start()
    found = dict(results.get(timeout=240) for _ in processes)
    alone = found.pop(ALONE)
    for process in processes:
        process.join()
    for fits in found.values():
        for one, shared, config in zip(alone, fits, some(shard), strict=True):
            np.testing.assert_allclose(shared.losses, one.losses, rtol=1e-4, atol=1e-6, err_msg=config.kind)
            for module, (a, b) in one.weights.factors.items():
                for mine, theirs in zip((a, b), shared.weights.factors[module], strict=True):
                    np.testing.assert_allclose(theirs, mine, rtol=1e-2, atol=2e-4, err_msg=f"{config.kind} {module}")
    first, second = found[0], found[1]
    for one, other in zip(first, second, strict=True):
        assert all(np.array_equal(one.weights.factors[name][1], b) for name, (_, b) in other.weights.factors.items())


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class Peer:
    """A process that joins, runs, and maybe fails."""

    def __init__(self, name: str, troubles: dict[str, Exception]) -> None:
        self.name, self.troubles, self.calls, self.killed = name, troubles, list[Any](), False

    async def listen(self, host: str | None) -> tuple[str, int]:
        self.calls.append(("listen", host))
        return "here", 7

    async def join(self, *where: Any) -> None:
        self.calls.append(("join", *where))
        if "join" in self.troubles:
            raise self.troubles["join"]

    async def run(self, job: Any, steps: Any) -> Any:
        if "run" in self.troubles:
            raise self.troubles["run"]
        if any("run" in one for one in (self.troubles, PARTNERS)):
            await asyncio.sleep(60)
        return self.name, ()

    def kill(self) -> None:
        self.killed = True


PARTNERS: dict[str, bool] = {}
"""With "run", a peer waits for one that has failed, as gloo would."""


def team_of(troubles: dict[str, dict[str, Exception]]) -> tuple[Any, dict[str, Peer]]:
    peers: dict[str, Peer] = {}

    async def start(name: str) -> Peer:
        if "start" in troubles.get(name, {}):
            raise troubles[name]["start"]
        peers[name] = Peer(name, troubles.get(name, {}))
        return peers[name]

    return join(["a", "b", "c"], start, "127.0.0.1"), peers


def test_everybody_joins_the_first_and_its_result_counts() -> None:
    async def whole() -> Any:
        joining, peers = team_of({})
        team: Team = await joining
        assert peers["a"].calls == [("listen", "127.0.0.1"), ("join", "here", 7, 0, 3)]
        assert peers["c"].calls == [("join", "here", 7, 2, 3)]
        return await team.run(None, None)  # type: ignore[arg-type]

    assert asyncio.run(whole()) == ("a", ())


@pytest.mark.parametrize("what", ["start", "join"])
def test_who_cannot_join_takes_all_others_along(what: str) -> None:
    async def whole() -> None:
        joining, peers = team_of({"b": {what: OSError("no route")}})
        with pytest.raises(OSError, match="no route"):
            await joining
        assert all(peer.killed for peer in peers.values())

    asyncio.run(whole())


def test_one_failure_ends_the_job_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PARTNERS, "run", True)

    async def whole() -> None:
        joining, peers = team_of({"c": {"run": ConnectionError("lost")}})
        team: Team = await joining
        async with asyncio.timeout(5):
            with pytest.raises(ConnectionError, match="lost"):
                await team.run(None, None)  # type: ignore[arg-type]
        team.kill()
        assert all(peer.killed for peer in peers.values())

    asyncio.run(whole())


def test_gloo_uses_the_interface_of_an_address_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer.group import talk_over

    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "")
    del os.environ["GLOO_SOCKET_IFNAME"]
    talk_over("192.0.2.1")
    assert "GLOO_SOCKET_IFNAME" not in os.environ
    talk_over("127.0.0.1")
    assert os.environ["GLOO_SOCKET_IFNAME"] == "lo"
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth9")
    talk_over("127.0.0.1")
    assert os.environ["GLOO_SOCKET_IFNAME"] == "eth9"
