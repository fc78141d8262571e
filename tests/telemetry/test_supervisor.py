"""The watch over an actor, with a handle that answers on command; real processes die in tests/faults."""

import ast
import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from ray import exceptions

from telemetry.failures import ClusterLostError
from telemetry.remote import NoAnswer, RemoteLost, ReplyLost, settle
from telemetry.supervisor import Supervised

ROOT = Path(__file__).parents[2]
HANG = 0.4


class Reference:
    """What a remote call returns at once."""

    def __init__(self) -> None:
        self.answer: Future[Any] = Future()

    def future(self) -> "Future[Any]":
        return self.answer


class Handle:
    """An actor handle: `ping` decides what becomes of a sign of life, None lets it wait for ever."""

    def __init__(self, ping: Callable[[Reference], None]) -> None:
        self.asked = 0
        self.calls: list[Reference] = []
        self._ping = ping
        self.ready = self.call = self

    def remote(self, *arguments: Any) -> Reference:
        reference = Reference()
        if arguments:
            self.calls.append(reference)
        else:
            self.asked += 1
            self._ping(reference)
        return reference


def alive(reference: Reference) -> None:
    reference.answer.set_result(("here", 1, "node"))


def silent(reference: Reference) -> None:
    """Never answers."""


def unheard(reference: Reference) -> None:
    reference.answer.set_exception(exceptions.ActorUnavailableError("connection reset", None))


def dead(reference: Reference) -> None:
    reference.answer.set_exception(exceptions.ActorDiedError())


def supervise(handle: Handle, scenario: Callable[[Supervised], Awaitable[Any]], lost: Exception | None = None) -> Any:
    async def main() -> Any:
        cluster_lost: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        actor = Supervised(
            handle, name="agent-0", pid=None, call_timeout=30, hang_timeout=HANG, cluster_lost=cluster_lost
        )
        if lost is not None:
            asyncio.get_running_loop().call_later(0.1, cluster_lost.set_result, lost)
        return await asyncio.wait_for(scenario(actor), 20)

    return asyncio.run(main())


async def call(actor: Supervised) -> Any:
    return await actor.live("tasks")


def test_calls_of_a_hung_actor_end_with_its_hang_timeout() -> None:
    began = time.monotonic()
    with pytest.raises(RemoteLost, match=r"^agent-0: hung: no sign of life for 0\.4 s$"):
        supervise(Handle(silent), call)
    assert HANG <= time.monotonic() - began < HANG + 1


def test_every_later_call_is_refused_at_once() -> None:
    async def scenario(actor: Supervised) -> None:
        for _ in range(2):
            with pytest.raises(RemoteLost):
                await actor.live()
        assert not await actor.answers()

    supervise(Handle(silent), scenario)


def test_a_dead_actor_is_found_without_any_call_under_way() -> None:
    async def scenario(actor: Supervised) -> None:
        await asyncio.sleep(HANG)
        with pytest.raises(RemoteLost, match="agent-0: ready"):
            await actor.live()

    handle = Handle(dead)
    supervise(handle, scenario)
    assert handle.calls, "the call was made, and was not waited for"


def test_lost_replies_are_no_death_until_they_last() -> None:
    pings = [unheard, alive, unheard, alive] * 2
    handle = Handle(lambda reference: pings.pop(0)(reference) if pings else unheard(reference))
    with pytest.raises(RemoteLost, match="unreachable: no connection to it for"):
        supervise(handle, call)
    assert not pings


def test_a_driver_that_stood_still_takes_nobody_for_hung() -> None:
    late: list[Reference] = []

    async def scenario(actor: Supervised) -> str:
        while not late:
            await asyncio.sleep(0.01)
        # As after SIGSTOP and SIGCONT: the clock has moved on, the answer comes in the next turns.
        time.sleep(5 * HANG)
        asyncio.get_running_loop().call_later(0.05, alive, late[0])
        await asyncio.sleep(2 * HANG)
        assert await actor.answers()
        return "still there"

    def once_late(reference: Reference) -> None:
        if late:
            alive(reference)
        else:
            late.append(reference)

    assert supervise(Handle(once_late), scenario) == "still there"


def test_an_actor_at_work_is_left_in_peace() -> None:
    handle = Handle(alive)

    async def scenario(actor: Supervised) -> Any:
        asyncio.get_running_loop().call_later(2 * HANG, lambda: handle.calls[0].answer.set_result("done"))
        return await actor.live("tasks")

    assert supervise(handle, scenario) == "done"
    assert handle.asked >= 3


def test_a_killed_actor_ends_the_calls_under_way() -> None:
    async def scenario(actor: Supervised) -> None:
        asyncio.get_running_loop().call_later(0.05, actor.kill)
        await actor.live("tasks")

    with pytest.raises(RemoteLost, match="agent-0: killed"):
        supervise(Handle(alive), scenario)


def test_a_lost_cluster_ends_every_wait() -> None:
    with pytest.raises(ClusterLostError, match="gone"):
        supervise(Handle(alive), call, lost=ClusterLostError("gone"))


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (exceptions.ActorUnavailableError("connection reset", None), ReplyLost),
        (exceptions.ActorDiedError(), RemoteLost),
        (exceptions.OwnerDiedError("ab" * 28, "", ""), RemoteLost),
        (exceptions.RaySystemError("the raylet died"), RemoteLost),
        (exceptions.GetTimeoutError("too slow"), RemoteLost),
    ],
)
def test_what_ray_raises_is_one_exception(outcome: Exception, expected: type[Exception]) -> None:
    reference = Reference()
    reference.answer.set_exception(outcome)
    with pytest.raises(expected) as raised:
        asyncio.run(settle(reference, 5, "live"))
    assert type(raised.value) is expected
    assert "\n" not in str(raised.value)


def test_no_wait_is_endless() -> None:
    with pytest.raises(NoAnswer, match=r"^live: no answer in 0\.05 s$"):
        asyncio.run(settle(Reference(), 0.05, "live"))


def test_only_the_watch_talks_to_actors() -> None:
    """Elsewhere nobody calls one or waits for one, so that every wait passes through the time-outs here."""
    found = []
    for room in ("orchestrator", "workers", "trainer", "telemetry"):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    name = ast.unparse(node.func)
                    if name in ("ray.get", "ray.wait") or name.endswith(".remote"):
                        found.append((path.name, name.rpartition(".")[2]))
    assert set(found) == {("actors.py", "remote"), ("supervisor.py", "remote")}
