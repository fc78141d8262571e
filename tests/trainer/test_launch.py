"""The trainer pool with trainers that fail on schedule."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

import pytest

from telemetry.actors import Actor, Place
from telemetry.failures import NoProgressError, StorageError
from telemetry.records import FileRef
from telemetry.remote import RemoteLost, ReplyLost
from telemetry.supervisor import Cluster, Supervised
from tests.trainer.builders import SCRIPTED, job, steps
from trainer.config import TrainerConfig
from trainer.config_objectives import ScriptedConfig
from trainer.finetune import Trainer
from trainer.job import TrainingJob, TrainingResult
from trainer.launch import TrainerPool
from trainer.team import Team, join

LIFE = [("wait", -1.0), ("wait", -1.0), ("eat", 5.0)]
TABLE = steps([("g000-000", 0, LIFE), ("g000-001", 0, LIFE * 2), ("g000-002", 0, LIFE * 3)])


class Peer:
    """A trainer with a lever: `fail(child, try)` may return an exception to raise."""

    def __init__(self, fail: Callable[[str, int], Exception | None] = lambda child, attempt: None) -> None:
        self.fail = fail
        self.tries: list[tuple[str, int]] = []
        self.started: list[int] = []
        self.killed = 0

    async def spawn(self, index: int) -> "Peer":
        self.started.append(index)
        return self

    async def run(self, task: TrainingJob, table) -> tuple[TrainingResult, tuple[FileRef, ...]]:
        child = task.child.id
        self.tries.append((child, table.num_rows))
        await asyncio.sleep(0)
        error = self.fail(child, sum(name == child for name, _ in self.tries))
        if error:
            raise error
        return TrainingResult(individual=child, adapter="f" * 64, status="trained"), ()

    def kill(self) -> None:
        self.killed += 1


def jobs(count: int) -> list[TrainingJob]:
    template = [job((f"g000-00{number}", "a" * 64, 1.0)) for number in range(count)]
    return [
        one.model_copy(update={"child": one.child.model_copy(update={"id": f"g001-00{number}"})})
        for number, one in enumerate(template)
    ]


def train(peer: Peer, count: int = 3, **config: int) -> list[TrainingResult]:
    results: list[TrainingResult] = []

    def publish(result: TrainingResult, refs: Sequence[FileRef]) -> None:
        results.append(result)

    pool = TrainerPool(TrainerConfig(**config), peer.spawn)
    asyncio.run(pool.train(jobs(count), TABLE, publish))
    return results


def test_longest_first_and_each_job_gets_its_parents_rows() -> None:
    peer = Peer()
    results = train(peer)
    assert peer.tries == [("g001-002", 9), ("g001-001", 6), ("g001-000", 3)]
    assert [result.individual for result in results] == ["g001-002", "g001-001", "g001-000"]
    assert peer.started == [0]


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_every_job_is_published_once_whatever_the_number_of_trainers(count) -> None:
    peer = Peer()
    assert sorted(result.individual for result in train(peer, jobs=count)) == ["g001-000", "g001-001", "g001-002"]
    assert sorted(peer.started) == list(range(min(count, 3)))


@pytest.mark.parametrize("error", [RemoteLost("node is gone"), RuntimeError("out of memory\nlong trace")])
def test_a_lost_trainer_is_replaced_and_the_job_tried_again(error) -> None:
    peer = Peer(lambda child, attempt: error if (child, attempt) == ("g001-001", 1) else None)
    results = train(peer, retries=1)
    assert [result.status for result in results] == ["trained"] * 3
    assert peer.killed == 1
    assert peer.started == [0, 0]


def test_a_job_that_kills_every_trainer_keeps_its_parents_adapter() -> None:
    peer = Peer(lambda child, attempt: RemoteLost("no answer in 5 s") if child == "g001-001" else None)
    results = {result.individual: result for result in train(peer, retries=2)}
    assert results["g001-001"].status == "failed"
    assert results["g001-001"].adapter == "a" * 64
    assert results["g001-001"].reason == "no answer in 5 s"
    assert peer.killed == 3
    assert [results[name].status for name in ("g001-000", "g001-002")] == ["trained", "trained"]


def test_a_lost_reply_costs_neither_the_trainer_nor_a_try() -> None:
    peer = Answering(lambda child, attempt: ReplyLost("connection reset") if attempt <= 3 else None)
    results = train(peer, retries=0)
    assert [result.status for result in results] == ["trained"] * 3
    assert peer.started == [0]


def test_preempted_trainers_are_charged_to_nobody() -> None:
    gone = RemoteLost("the node was drained", preempted=True)
    peer = Peer(lambda child, attempt: gone if attempt <= 3 else None)
    results = train(peer, retries=0)
    assert [result.status for result in results] == ["trained"] * 3
    assert peer.started == [0] * 10


class Answering(Peer):
    """Still there, whatever became of its reply."""

    async def answers(self) -> bool:
        return True


def test_a_trainer_that_waits_for_a_node_keeps_no_job_from_the_others() -> None:
    peer = Peer(lambda child, attempt: RemoteLost("node is gone") if (child, attempt) == ("g001-001", 1) else None)
    results: list[TrainingResult] = []

    async def spawn(index: int) -> Peer:
        if peer.killed == index == 0:
            return await peer.spawn(index)
        await asyncio.sleep(0 if index else 3600)  # the first one's node does not come back
        return await peer.spawn(index)

    pool = TrainerPool(TrainerConfig(jobs=2, retries=1), spawn)
    asyncio.run(asyncio.wait_for(pool.train(jobs(3), TABLE, lambda result, refs: results.append(result)), 10))
    assert sorted(result.individual for result in results) == ["g001-000", "g001-001", "g001-002"]
    assert {result.status for result in results} == {"trained"}


def test_a_broken_store_stops_the_run_at_once() -> None:
    peer = Peer(lambda child, attempt: StorageError("disk full"))
    with pytest.raises(StorageError, match="disk full"):
        train(peer, retries=5)
    assert len(peer.tries) == 1


def test_trainers_that_cannot_start_stop_the_run() -> None:
    async def spawn(index: int) -> Peer:
        raise RemoteLost("start: no answer in 1 s")

    pool = TrainerPool(TrainerConfig(retries=1), spawn)
    with pytest.raises(NoProgressError, match="trainer-0: does not start: start: no answer"):
        asyncio.run(pool.train(jobs(2), TABLE, lambda result, refs: None))


def test_no_jobs_start_no_trainer() -> None:
    peer = Peer()
    assert train(peer, count=0) == []
    assert peer.started == []


def train_on_a_cluster(pool: TrainerPool, cluster: Cluster, count: int) -> list[TrainingResult]:
    """Results of so many jobs from the untouched model, on a real cluster that ends with them."""
    import ray

    fresh = [
        one.model_copy(update={"parents": (one.parents[0].model_copy(update={"adapter": None}),)})
        for one in jobs(count)
    ]
    results: list[TrainingResult] = []
    ray.init(address="local", include_dashboard=False, log_to_driver=False, object_store_memory=80 << 20)
    try:
        asyncio.run(pool.train(fresh, TABLE, lambda result, refs: results.append(result)))
    finally:
        cluster.close()
        ray.shutdown()
    return results


@pytest.mark.cluster
@pytest.mark.faults
def test_a_team_that_loses_a_process_is_replaced_whole_on_a_real_cluster(tmp_path) -> None:
    config = TrainerConfig(objective=ScriptedConfig(), workers=2, retries=1, timeout=60)
    build = partial(Trainer, config, SCRIPTED, None, str(tmp_path))
    started: list[Supervised] = []
    cluster = Cluster()

    async def start(name: str) -> Supervised:
        actor = await cluster.start(build, Place(name), start_timeout=60, call_timeout=60, hang_timeout=60)
        started.append(actor)
        return actor

    async def spawn(index: int) -> Team:
        team = await join([f"trainer-{index}-{rank}" for rank in range(2)], start, "127.0.0.1")
        if len(started) == 2:
            started[1].kill()
        return team

    pool = TrainerPool(config, spawn)
    results = train_on_a_cluster(pool, cluster, 2)
    assert [result.status for result in results] == ["trained"] * 2
    assert pool.restarts == 1
    assert len(started) == 4


@pytest.mark.cluster
def test_a_trainer_process_that_dies_is_replaced_on_a_real_cluster(tmp_path) -> None:
    config = TrainerConfig(objective=ScriptedConfig(), jobs=1, retries=1, timeout=60)
    build = partial(Trainer, config, SCRIPTED, None, str(tmp_path))
    started: list[int] = []
    cluster = Cluster()

    async def spawn(index: int) -> Actor:
        actor = await cluster.start(build, Place(), start_timeout=60, call_timeout=config.timeout, hang_timeout=60)
        if not started:
            actor.kill()
        started.append(index)
        return actor

    pool = TrainerPool(config, spawn)
    results = train_on_a_cluster(pool, cluster, 3)
    assert sorted(result.individual for result in results) == ["g001-000", "g001-001", "g001-002"]
    assert [result.status for result in results] == ["trained"] * 3
    assert pool.restarts == 1
    assert started == [0, 0]
