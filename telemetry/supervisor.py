"""Watch over actors and over the cluster under them: the dead and the hung are found, ended and reported.

Ray sees a process die but not hang, so every actor is asked for a sign of life, steadily, on the event loop that its
calls run on. Law: silence is counted in turns of the own loop, not by the clock, so that a driver that was stopped or
busy itself does not take its actors for dead; and nothing here ever waits for a process that may be gone.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from threading import Event, Thread
from typing import Any

from telemetry import processes
from telemetry.actors import Actor, Place, create, machine
from telemetry.aside import aside
from telemetry.failures import ClusterLostError
from telemetry.nodes import Nodes
from telemetry.remote import NoAnswer, RemoteLost, ReplyLost, settle
from telemetry.reservations import Reservations

log = logging.getLogger(__name__)

PING_SECONDS = 1.0
"""Between two signs of life."""
UNREACHABLE_SECONDS = 2.0
"""Time without any connection to an actor after which it is lost: Ray takes far longer to give up a node."""
LOST_SECONDS = 30.0
"""Silence of the cluster's control plane after which it is lost; Ray itself ends this process after 60 s."""


class Supervised(Actor):
    """The actor in the hands of whoever started it. When it dies or hangs, what is left of it is killed.

    Every call under way then raises RemoteLost at once, and so does every later one.
    """

    def __init__(
        self,
        handle: Any,
        *,
        name: str,
        pid: int | None,
        call_timeout: float,
        hang_timeout: float,
        cluster_lost: "asyncio.Future[Exception]",
        node: str = "",
        nodes: Nodes | None = None,
    ) -> None:
        """`pid` is that of the actor's process where it is one of this machine, else None; `node` is where it runs."""
        super().__init__(handle, call_timeout)
        self._name = name
        self._process = processes.find(pid)
        self._hang_timeout = hang_timeout
        self._cluster_lost = cluster_lost
        self._node = node
        self._nodes = nodes or Nodes()
        self._lost: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        self._watching = asyncio.create_task(self._watch())

    def kill(self) -> None:
        """Ends the actor's process and its children at once, a stopped one too."""
        self._end("killed")

    async def answers(self) -> bool:
        """True if it gives a sign of life within the time-out for hanging."""
        try:
            await self._unless_lost(settle(self.handle.ready.remote(), self._hang_timeout, "ready"))
        except RemoteLost as error:
            if isinstance(error, ReplyLost):
                self._nodes.suspect(self._node)
            return False
        return True

    def leaving(self) -> bool:
        """True if its node is being taken away with notice, or was."""
        return self._nodes.is_leaving(self._node)

    async def _settle(self, name: str, args: tuple[Any, ...]) -> Any:
        try:
            return await self._unless_lost(super()._settle(name, args))
        except RemoteLost as error:
            error.preempted = error.preempted or self.leaving()
            raise

    async def _unless_lost(self, answer: Coroutine[Any, Any, Any]) -> Any:
        return await _unless(answer, self._lost, self._cluster_lost)

    async def _watch(self) -> None:
        """Asks for signs of life until one is missing."""
        turn = min(PING_SECONDS, self._hang_timeout / 4)
        silence = 0.0
        while True:
            ping = asyncio.ensure_future(settle(self.handle.ready.remote(), None, "ready"))
            try:
                silence += await _spent(asyncio.wait({ping}, timeout=turn), turn)
                while not ping.done() and silence < self._hang_timeout:
                    silence += await _spent(asyncio.wait({ping}, timeout=turn), turn)
                error = ping.exception() if ping.done() else None
            finally:
                ping.cancel()
            if isinstance(error, RemoteLost) and not isinstance(error, ReplyLost):
                return self._found(str(error), preempted=error.preempted)
            if error is not None and silence >= min(UNREACHABLE_SECONDS, self._hang_timeout):
                self._nodes.suspect(self._node)
                return self._found(f"unreachable: no connection to it for {silence:.1f} s")
            if silence >= self._hang_timeout:
                return self._found(f"hung: no sign of life for {self._hang_timeout:g} s")
            pause = await _spent(asyncio.sleep(turn / 4 if error else turn), turn)
            silence = silence + pause if error else 0.0

    def _found(self, reason: str, *, preempted: bool = False) -> None:
        log.warning("%s: %s", self._name, reason)
        self._end(reason, preempted=preempted)

    def _end(self, reason: str, *, preempted: bool = False) -> None:
        self._watching.cancel()
        if self._lost.done():
            return
        self._nodes.release(self._node)
        self._lost.set_result(RemoteLost(f"{self._name}: {reason}", preempted=preempted))
        if self._process is not None:
            processes.kill(processes.families([self._process]))
        # For its processes elsewhere, and so that Ray gives back what it held.
        aside(partial(_ray_kill, self.handle))


class Cluster:
    """The Ray cluster that this process is connected to. Hosts objects for as long as its control plane answers and
    knows this process's node to be alive.

    When that has not been so for `lost_timeout` seconds, every wait for an actor raises ClusterLostError.
    """

    def __init__(
        self, lost_timeout: float = LOST_SECONDS, wait: float = math.inf, note: Callable[[str], None] = log.warning
    ) -> None:
        """wait, note: as `Reservations` takes them."""
        self._lost_timeout = lost_timeout
        self._beats = 0
        self._nodes = Nodes()
        self._reservations = Reservations(wait, note)
        self._closed = Event()
        self._listener = Thread(target=self._listen, name="cluster listener", daemon=True)
        self._lost: asyncio.Future[Exception] | None = None
        self._watching: asyncio.Task[None] | None = None

    async def start(
        self, build: Callable[[], Any], place: Place, *, start_timeout: float, call_timeout: float, hang_timeout: float
    ) -> Supervised:
        """An actor hosting what `build` returns. Raises RemoteLost, ClusterLostError, or what `build` raised.

        start_timeout, call_timeout: seconds it may take to start, and to answer a call; hang_timeout: seconds without
        a sign of life after which it is killed. The wait for a node with room counts for none of them.
        """
        lost = self._watched()
        # In a thread: it waits for the control plane.
        await _unless(asyncio.wrap_future(aside(self._look)), lost)
        group = await _unless(self._reservations.made(place), lost)
        present = self._nodes.present
        chosen = None if group is not None else self._nodes.take()
        unreserved = asyncio.ensure_future(self._reservations.gone(place))
        try:
            handle = await _unless(asyncio.wrap_future(aside(partial(create, build, place, chosen, group))), lost)
            try:
                where, pid, node = await _unless(_ready(handle, start_timeout), lost, unreserved)
            except BaseException:
                aside(partial(_ray_kill, handle))
                raise
        except RemoteLost as error:
            log = "" if place.log is None else f"; see {place.log}"
            gone = self._nodes.any_leaving(present if chosen is None else [chosen])
            raise RemoteLost(f"{error}{log}", preempted=gone or error.preempted) from error
        finally:
            unreserved.cancel()
            self._nodes.release(chosen)
        self._nodes.carry(node)
        return Supervised(
            handle,
            name=place.name,
            pid=pid if where == machine() else None,
            call_timeout=call_timeout,
            hang_timeout=hang_timeout,
            cluster_lost=lost,
            node=node,
            nodes=self._nodes,
        )

    def close(self) -> None:
        """Stops listening, so that Ray can be shut down."""
        self._closed.set()
        if self._listener.is_alive():
            self._listener.join(2 * PING_SECONDS)

    def _watched(self) -> "asyncio.Future[Exception]":
        loop = asyncio.get_running_loop()
        if self._lost is None or self._lost.get_loop() is not loop:
            self._lost = loop.create_future()
            self._watching = loop.create_task(self._watch(self._lost))
        if not self._listener.is_alive():
            self._listener.start()
        return self._lost

    async def _watch(self, lost: "asyncio.Future[Exception]") -> None:
        silence, heard = 0.0, 0
        while silence < self._lost_timeout:
            await asyncio.sleep(PING_SECONDS)
            silence = silence + PING_SECONDS if heard == self._beats else 0.0
            heard = self._beats
        lost.set_result(
            ClusterLostError(
                f"Ray cluster: its control plane has not answered for {self._lost_timeout:g} s;"
                " resume the run on one that works"
            )
        )

    def _listen(self) -> None:
        """In a thread, because a question to a control plane that is gone does not come back."""
        import ray

        own = ray.get_runtime_context().get_node_id()
        while not self._closed.wait(PING_SECONDS):
            self._beats += self._look() and own in self._nodes.present

    def _look(self) -> bool:
        """Asks which nodes there are; True when there was an answer."""
        import ray
        from ray._private.state import state

        with suppress(Exception):
            # Asked when it is not connected, Ray would start a cluster of its own.
            if ray.is_initialized():
                alive = [node for node in ray.nodes() if node["Alive"]]
                present = [node["NodeID"] for node in alive]
                accelerated = [node["NodeID"] for node in alive if node["Resources"].get("GPU")]
                # Ray has no public question for it.
                self._nodes.tell(present, state.get_draining_nodes(), accelerated)
                return True
        return False


async def _spent(wait: Awaitable[Any], turn: float) -> float:
    """Seconds that a wait of the own loop took, one turn at most."""
    began = time.monotonic()
    await wait
    return min(turn, time.monotonic() - began)


async def _ready(handle: Any, timeout: float) -> tuple[str, int, str]:
    """As Shell.ready, once the object stands. Asks again when only the reply was lost."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            place: tuple[str, int, str] = await settle(handle.ready.remote(), deadline - time.monotonic(), "start")
        except ReplyLost as error:
            if time.monotonic() > deadline:
                raise NoAnswer(f"start: no answer in {timeout:g} s") from error
            await asyncio.sleep(PING_SECONDS / 4)
        else:
            return place


async def _unless(answer: Awaitable[Any], *losses: "asyncio.Future[Exception]") -> Any:
    """The answer, unless one of the losses comes first: then that is raised."""
    answering = asyncio.ensure_future(answer)
    # One that fails in the turn in which a loss comes first is nobody's any more.
    answering.add_done_callback(lambda task: task.cancelled() or task.exception())
    try:
        await asyncio.wait({answering, *losses}, return_when=asyncio.FIRST_COMPLETED)
        if answering.done():
            return answering.result()
        raise next(loss.result() for loss in losses if loss.done())
    finally:
        answering.cancel()


def _ray_kill(handle: Any) -> None:
    import ray

    # Asked when it is not connected, Ray would start a cluster of its own.
    if ray.is_initialized():
        with suppress(Exception):
            ray.kill(handle)
