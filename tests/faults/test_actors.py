"""Actors that die and hang for real, on a real cluster: found, ended with all their children, and reported in time."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.cluster import cluster
from orchestrator.config import RayConfig
from telemetry.actors import Place
from telemetry.failures import UsageError
from telemetry.member import Member
from telemetry.remote import RemoteLost
from telemetry.supervisor import Supervised

pytestmark = pytest.mark.cluster

HANG = 2.0
"""Seconds without a sign of life."""

Start = Callable[..., Awaitable[Supervised]]


class Hosted:
    """What the actors host: sleeps, blocks, and has children."""

    def __init__(self) -> None:
        program = "import time; time.sleep(600)"
        self.children = [
            subprocess.Popen([sys.executable, "-c", program], start_new_session=detached).pid
            for detached in (False, True)
        ]

    async def pids(self) -> list[int]:
        return [os.getpid(), *self.children]

    async def sleep(self, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "slept"

    async def block(self, seconds: float) -> str:
        time.sleep(seconds)
        return "blocked"

    async def work(self, seconds: float) -> str:
        await asyncio.to_thread(time.sleep, seconds)
        return "worked"


def broken() -> Hosted:
    raise UsageError("engine.dtype: got float7, expected float16 or float32")


def suicidal() -> Hosted:
    print("last words", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """Starts actors that are taken for hung after HANG seconds."""
    with cluster(RayConfig(object_store_mib=80)) as start_actor:
        yield partial(start_actor, start_timeout=60, call_timeout=60, hang_timeout=HANG)


def run(start: Start, scenario: Callable[[Supervised, list[int]], Awaitable[Any]]) -> list[int]:
    """The scenario with a fresh actor; returns the process ids of actor and children."""

    async def main() -> list[int]:
        actor = await start(Hosted, Place())
        pids: list[int] = await actor.pids()
        await scenario(actor, pids)
        return pids

    return asyncio.run(main())


def gone(pids: list[int], seconds: float = 5) -> bool:
    """True once none of the processes runs any more."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        left = [pid for pid in pids if psutil.pid_exists(pid)]
        if all(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE for pid in left):
            return True
        time.sleep(0.05)
    return False


async def until_lost(actor: Supervised, seconds: float) -> None:
    """Makes no call, so that only the watch can find out; raises what it found."""
    raise await asyncio.wait_for(asyncio.shield(actor._lost), seconds)


@pytest.mark.faults
@pytest.mark.parametrize(("strike", "limit"), [(signal.SIGKILL, 2.0), (signal.SIGSTOP, HANG + 5)])
@pytest.mark.parametrize("calling", [True, False])
def test_a_dead_or_stopped_actor_is_found_in_time(start: Start, strike: int, limit: float, calling: bool) -> None:
    async def scenario(actor: Supervised, pids: list[int]) -> None:
        call = asyncio.ensure_future(actor.sleep(50)) if calling else None
        await asyncio.sleep(0.3)
        os.kill(pids[0], strike)
        began = time.monotonic()
        with pytest.raises(RemoteLost, match="hung: no sign of life" if strike == signal.SIGSTOP else None):
            await (call or until_lost(actor, limit + 1))
        assert time.monotonic() - began <= limit

    pids = run(start, scenario)
    # Of a process that was killed by somebody else Ray ends the group; of one that the watch kills, everything goes.
    assert gone(pids[:2] if strike == signal.SIGKILL else pids)
    with suppress(ProcessLookupError):
        os.kill(pids[2], signal.SIGKILL)


@pytest.mark.faults
def test_a_blocked_event_loop_is_a_hang(start: Start) -> None:
    async def scenario(actor: Supervised, pids: list[int]) -> None:
        with pytest.raises(RemoteLost, match="hung"):
            await actor.block(60)

    assert gone(run(start, scenario))


@pytest.mark.faults
def test_work_in_a_thread_is_no_hang(start: Start) -> None:
    async def scenario(actor: Supervised, pids: list[int]) -> None:
        assert await actor.work(2 * HANG) == "worked"
        actor.kill()

    assert gone(run(start, scenario))


@pytest.mark.faults
def test_a_stopped_actor_alone_is_alive_to_ray(start: Start) -> None:
    """Why there is a watch at all: Ray goes on waiting for a stopped process."""
    import ray

    async def scenario(actor: Supervised, pids: list[int]) -> None:
        os.kill(pids[0], signal.SIGSTOP)
        reference = actor.handle.call.remote("sleep", (0,))
        ready, waiting = ray.wait([reference], timeout=HANG / 2)
        assert (ready, waiting) == ([], [reference])
        actor.kill()

    assert gone(run(start, scenario))


@pytest.mark.faults
def test_a_replacement_works_again_in_time(start: Start) -> None:
    async def main() -> float:
        agent = Member("agent", 0, partial(start, Hosted, Place("agent-0")))
        first = await agent.start()
        os.kill((await first.pids())[0], signal.SIGKILL)
        began = time.monotonic()
        with pytest.raises(RemoteLost) as error:
            await first.sleep(60)
        assert await agent.lost(0, error.value, budget=1)
        second = await agent.start(1)
        assert await second.sleep(0) == "slept"
        second.kill()
        return time.monotonic() - began

    assert asyncio.run(main()) <= 2 + 5


@pytest.mark.faults
def test_what_building_raises_arrives_as_it_was(start: Start) -> None:
    with pytest.raises(UsageError, match=r"^engine\.dtype: got float7"):
        asyncio.run(start(broken, Place()))  # type: ignore[arg-type]


@pytest.mark.faults
def test_an_actor_that_does_not_start_names_its_log(start: Start, tmp_path: Path) -> None:
    log = tmp_path / "engine-0.log"
    with pytest.raises(RemoteLost, match=f"; see {log}$"):
        asyncio.run(start(suicidal, Place("engine-0", log=log)))  # type: ignore[arg-type]
    assert "last words" in log.read_text()
