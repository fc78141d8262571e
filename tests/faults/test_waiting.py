"""Actors that hold GPUs wait for nodes that have some, and nobody else waits with them. The GPUs are only counted."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from telemetry.actors import Place
from telemetry.failures import ClusterLostError
from telemetry.member import Member
from telemetry.remote import RemoteLost
from telemetry.supervisor import Cluster
from tests.faults.striking import NODE_MEMORY, ray_nodes, run_file
from tests.inprocess import forager_here, refused

pytestmark = [pytest.mark.cluster, pytest.mark.faults, pytest.mark.timeout(900)]

WAIT = 240.0
"""Seconds: longer than actors take to start on a machine that is busy with other things."""
SOON = 3.0
TIMES = {"start_timeout": 240.0, "call_timeout": 60.0, "hang_timeout": 60.0}


class Where:
    """Says where it is."""

    async def node(self) -> str:
        import ray

        return str(ray.get_runtime_context().get_node_id())


@pytest.fixture
def nodes() -> Iterator[Any]:
    import ray

    with ray_nodes(workers=0) as found:
        ray.init(address=found.address, log_to_driver=False)
        try:
            yield found
        finally:
            ray.shutdown()


def add(nodes: Any, gpus: int) -> Any:
    return nodes.add_node(num_cpus=1, num_gpus=gpus, object_store_memory=NODE_MEMORY)


def test_who_needs_gpus_waits_and_nobody_else(nodes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    cluster = Cluster(wait=WAIT, note=said.append)
    names = ["engine-0", "engine-1"]

    async def play() -> None:
        engines = [asyncio.create_task(cluster.start(Where, Place(name, gpus=1), **TIMES)) for name in names]
        agent = await cluster.start(Where, Place("agent-0"), **TIMES)
        assert not any(engine.done() for engine in engines)
        assert all(line.startswith("waiting for the cluster: engine-") for line in said)
        assert "needs 1 GPUs on one node" in said[0]
        node = add(nodes, gpus=1)
        done, [waiting] = await asyncio.wait(engines, return_when=asyncio.FIRST_COMPLETED)
        first = done.pop().result()
        assert await first.node() == node.node_id != await agent.node()
        monkeypatch.setattr(cluster._reservations, "_wait", SOON)
        await asyncio.sleep(2 * SOON)
        assert not waiting.done(), "one engine stands, so that the other may wait for as long as it takes"
        nodes.remove_node(node, allow_graceful=False)
        again = Member("engine", 0, partial(replace, first, names[engines[0] is waiting]))
        with pytest.raises(ClusterLostError, match=r"no room for engine-. in 3 s \(ray.wait\): engine-. needs 1 GPUs"):
            await asyncio.gather(again.start(budget=3), waiting)

    async def replace(first: Any, name: str) -> Any:
        with suppress(RemoteLost):
            while await first.node():
                await asyncio.sleep(0.2)
        return await cluster.start(Where, Place(name, gpus=1), **TIMES)

    try:
        asyncio.run(play())
    finally:
        cluster.close()


def test_processes_of_one_job_get_their_gpus_together_or_not_at_all(nodes: Any) -> None:
    said: list[str] = []
    cluster = Cluster(wait=60, note=said.append)
    party = ("trainer-0-0", "trainer-0-1")

    async def play() -> None:
        add(nodes, gpus=1)
        places = [Place(name, gpus=1, together=party) for name in party]
        starts = [asyncio.create_task(cluster.start(Where, place, **TIMES)) for place in places]
        single = await cluster.start(Where, Place("engine-0", gpus=1), **TIMES)
        assert not any(start.done() for start in starts), "half of a job holds a GPU"
        assert "waiting for the cluster: trainer-0-0 needs 2 times 1 GPUs" in said
        add(nodes, gpus=2)
        there = await asyncio.gather(*starts)
        assert {await one.node() for one in there}.isdisjoint({await single.node()})

    try:
        asyncio.run(play())
    finally:
        cluster.close()


def test_a_run_waits_for_nodes_before_anything_starts_and_says_so(tmp_path: Path) -> None:
    with ray_nodes(workers=0) as found:
        began = time.monotonic()
        settings = ("--set", "ray.cpus=64", "--set", "ray.wait=2")
        result = forager_here("run", run_file(tmp_path), "--store", tmp_path, "--address", found.address, *settings)
        assert time.monotonic() - began >= 2
    refused(result, 7, "need 64 CPUs, see 1 after 2 s (ray.wait)", "resume")
    assert "waiting for the cluster: need 64 CPUs, see 1" in result.out
