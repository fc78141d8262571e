"""Which endpoints stand: they are probed, hold the working set, are left alone after failures, come back, are expelled.

Law: nobody stands who was not probed since it last failed, does not hold the working set, or answers a probe otherwise
than the first endpoint with trust did. Without the answer of one that is trusted, nobody else stands.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any

import aiohttp

from telemetry.failures import UsageError
from workers.config_remote import RemoteEngineConfig
from workers.engine import EngineFailure, ModelDescription
from workers.engines.remote_endpoint import Endpoint, State
from workers.engines.remote_http import CallFailed, session
from workers.engines.remote_server import Misfit, distance

log = logging.getLogger(__name__)


class Roster:
    """All endpoints of a pool. Belongs to the event loop that `start` runs in."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        config: RemoteEngineConfig,
        description: ModelDescription,
        vocabulary: int,
    ) -> None:
        self.endpoints = endpoints
        self.on_standing: Callable[[], None] = lambda: None
        """Called whenever one stands again."""
        self._config = config
        self._description = description
        self._vocabulary = vocabulary
        self._client: asyncio.Future[aiohttp.ClientSession] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._paths: Mapping[str, str] = {}
        self._reference: tuple[str, list[float]] | None = None
        """Who was the first that was believed, and what it answered to the probe."""
        self._stood = asyncio.Event()

    @property
    def client(self) -> aiohttp.ClientSession:
        """The connections. There are none before `start`."""
        if self._client is None:
            raise EngineFailure("the engine was not started")
        return self._client.result()

    @property
    def anybody(self) -> bool:
        """Some endpoint stands."""
        return any(endpoint.state is State.STANDING for endpoint in self.endpoints)

    async def start(self) -> None:
        """Brings endpoints up, those with trust first; returns when each was tried once. A second call does nothing."""
        if self._client is not None:
            return
        self._client = asyncio.get_running_loop().create_future()
        self._spawn(self._connect(self._client))
        await asyncio.shield(self._client)
        for trusted in (True, False):
            group = [endpoint for endpoint in self.endpoints if endpoint.trusted is trusted]
            await asyncio.gather(*(self._try(endpoint, probed=False) for endpoint in group))

    async def hold(self, paths: Mapping[str, str]) -> None:
        """Has the adapters of a working set loaded everywhere; returns when one endpoint has them.

        paths: id -> directory on this machine. Raises UsageError when there is none that can load them, EngineFailure
        when none answers.
        """
        before, self._paths = self._paths, paths
        loading = [endpoint for endpoint in self.endpoints if endpoint.state is State.STANDING]
        for endpoint in loading:
            endpoint.state, endpoint.reason, endpoint.misfit = State.AWAY, "loads adapters", False
        attempts = {self._spawn(self._try(endpoint, probed=True)) for endpoint in loading}
        while attempts and not self.anybody:
            _, attempts = await asyncio.wait(attempts, return_when=asyncio.FIRST_COMPLETED)
        if not self.anybody and (misfits := [endpoint for endpoint in loading if endpoint.misfit]):
            self._paths = before
            raise UsageError(f"engine.endpoints: {misfits[0].name}: {misfits[0].reason}")
        await self._wait_for_anybody()

    def leave_alone(self, endpoint: Endpoint, reason: str) -> None:
        """Asks it nothing for a while; then it is probed."""
        endpoint.state, endpoint.reason = State.AWAY, reason
        log.warning("%s: left alone for a while: %s", endpoint.name, reason)
        self._spawn(self._bring_back(endpoint))

    def expel(self, endpoint: Endpoint, reason: str) -> None:
        """Never asks it again; what it answers from now on does not count."""
        endpoint.state, endpoint.reason = State.EXPELLED, reason
        log.warning(
            "%s: expelled after %d decisions, %d of them checked: %s; committed lives keep what it answered",
            *(endpoint.name, endpoint.account.requests, endpoint.account.checks, reason),
        )

    async def close(self) -> None:
        """Ends all connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def why_nobody(self, *, trusted: bool = False) -> str:
        """That nobody has answered, or nobody with trust, and the reasons of the first few."""
        asked = [one for one in self.endpoints if one.trusted or not trusted]
        reasons = "; ".join(f"{one.name}: {one.state}, {one.reason}" for one in asked[:3])
        whom = "endpoint with trust" if trusted else "endpoint"
        return f"no {whom} has answered for {self._config.patience:g} s ({reasons})"

    async def _wait_for_anybody(self) -> None:
        deadline = asyncio.get_running_loop().time() + self._config.patience
        while not self.anybody:
            self._stood.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    await self._stood.wait()
                    continue
            raise EngineFailure(self.why_nobody())

    async def _connect(self, opened: "asyncio.Future[aiohttp.ClientSession]") -> None:
        """Keeps the connections until it is cancelled, at the latest by the end of the loop."""
        async with session() as client:
            opened.set_result(client)
            await asyncio.get_running_loop().create_future()

    async def _try(self, endpoint: Endpoint, *, probed: bool) -> None:
        await self._bring_up(endpoint, probed=probed)
        if endpoint.state is State.AWAY:
            self._spawn(self._bring_back(endpoint))

    async def _bring_back(self, endpoint: Endpoint) -> None:
        while endpoint.state is State.AWAY:
            await asyncio.sleep(endpoint.pause())
            await self._bring_up(endpoint, probed=False)

    async def _bring_up(self, endpoint: Endpoint, *, probed: bool) -> None:
        """Probes it and has it load the working set; then it stands. If it fails, `reason` says why."""
        known = endpoint.reason
        try:
            if not probed:
                self._compare(endpoint, await endpoint.server.probe(self.client, self._description, self._vocabulary))
            paths = None
            while paths is not self._paths:
                paths = self._paths
                await endpoint.server.hold(self.client, paths)
        except CallFailed as error:
            endpoint.account.failures += 1
            endpoint.reason, endpoint.misfit = str(error), isinstance(error, Misfit)
            if endpoint.reason != known:
                log.warning("%s: not in use: %s", endpoint.name, error)
        else:
            if endpoint.state is State.AWAY:
                endpoint.state, endpoint.reason, endpoint.misfit = State.STANDING, "", False
                self._stood.set()
                self.on_standing()

    def _compare(self, endpoint: Endpoint, answer: list[float]) -> None:
        if self._reference is None and (endpoint.trusted or not any(one.trusted for one in self.endpoints)):
            self._reference = endpoint.name, answer
        if self._reference is None:
            raise CallFailed("no endpoint with trust has answered a probe yet")
        name, expected = self._reference
        if (far := distance(answer, expected)) > self._config.tolerance:
            raise Misfit(f"it answers a probe otherwise than {name} (distance {far:.3g}); is it the same model?")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
