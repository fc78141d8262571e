"""The way of a call through the pool: who is asked, who is asked besides, who is asked next.

Law: a call that fails costs nobody anything but its own time, and goes to another endpoint; it fails for good only when
no endpoint at all has answered for as long as the engine has patience, or several refuse it as it stands. Whoever is
asked stands, has room, and lets the call wait least. At most one call in HEDGED goes to a second endpoint, when the
first is slower than it usually is (Dean & Barroso 2013, "The tail at scale").
"""

import asyncio
from dataclasses import dataclass, field
from time import monotonic

from workers.config_remote import RemoteEngineConfig
from workers.engine import EngineFailure
from workers.engines.remote_endpoint import Endpoint, State
from workers.engines.remote_http import Busy, CallFailed, Refused, Row
from workers.engines.remote_roster import Roster
from workers.engines.remote_server import Job, Misfit

HEDGED = 20
REFUSALS = 3
"""Times a call is refused before it is taken for the call's own fault."""


@dataclass(eq=False)
class _Call:
    """A job in search of an endpoint."""

    job: Job
    trusted: bool
    """Only endpoints with trust may answer."""
    tried: set[str]
    """Those that failed it; they come last."""
    place: "asyncio.Future[Endpoint]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class EndpointPool:
    """Calls on their way to endpoints."""

    def __init__(self, roster: Roster, config: RemoteEngineConfig) -> None:
        self._roster = roster
        self._patience = config.patience
        self._hedge = config.hedge
        self._waiting: list[_Call] = []
        self._heard = {False: 0.0, True: 0.0}
        """When somebody, and somebody with trust, last answered, by the monotonic clock."""
        self._calls = self._hedges = 0
        roster.on_standing = self._seat_all

    @property
    def waiting(self) -> int:
        """Decisions that wait for room on an endpoint."""
        return sum(call.job.size for call in self._waiting)

    async def ask(self, job: Job, *, trusted: bool = False, not_of: str = "") -> tuple[Endpoint, list[Row]]:
        """Who answered, and one row per prompt. Raises EngineFailure.

        trusted: only such endpoints are asked; not_of: name of one that is asked last.
        """
        began, refusals, tried = monotonic(), 0, {not_of}
        self._calls += 1
        while True:
            call = _Call(job, trusted, tried)
            endpoint = await self._seat(call, began)
            try:
                return await self._ask_one_or_two(endpoint, call)
            except CallFailed as error:
                refusals += isinstance(error, Refused) and error.status < 500 and error.status != 404
                if refusals == REFUSALS:
                    raise EngineFailure(f"endpoints refuse a call, the last: {endpoint.name}: {error}") from error

    async def _seat(self, call: _Call, began: float) -> Endpoint:
        """An endpoint in which the call has its place. Raises EngineFailure when patience is at its end."""
        self._waiting.append(call)
        self._seat_all()
        try:
            while not call.place.done():
                left = max(began, self._heard[call.trusted]) + self._patience - monotonic()
                if left <= 0:
                    raise EngineFailure(self._roster.why_nobody(trusted=call.trusted))
                await asyncio.wait([call.place], timeout=left)
        except BaseException:
            if call.place.done():
                self._leave(call.place.result(), call.job)
            raise
        finally:
            if not call.place.done():
                self._waiting.remove(call)
        return call.place.result()

    def _seat_all(self) -> None:
        """Gives those who wait their places, in the order in which they came."""
        too_many: dict[bool, int] = {}
        """Decisions for which there is no room, with trust or without."""
        left = []
        for call in self._waiting:
            size = call.job.size
            endpoint = None if size >= too_many.get(call.trusted, size + 1) else self._best(call)
            if endpoint is None:
                too_many[call.trusted] = min(size, too_many.get(call.trusted, size))
                left.append(call)
            else:
                endpoint.in_flight += size
                call.place.set_result(endpoint)
        self._waiting = left

    def _best(self, call: _Call, but: Endpoint | None = None) -> Endpoint | None:
        size = call.job.size
        free = [
            endpoint
            for endpoint in self._roster.endpoints
            if (endpoint.trusted or not call.trusted) and endpoint.free_for(size) and endpoint is not but
        ]
        return min(free, key=lambda one: (one.name in call.tried, *one.wait(size)), default=None)

    def _leave(self, endpoint: Endpoint, job: Job) -> None:
        endpoint.in_flight -= job.size
        self._seat_all()

    async def _ask_one_or_two(self, first: Endpoint, call: _Call) -> tuple[Endpoint, list[Row]]:
        """The first usable answer of the endpoint or, if it is slow, of a second one. Raises CallFailed."""
        asked = {self._send(first, call): first}
        try:
            done, _ = await asyncio.wait(asked, timeout=first.slow_after(call.job, self._hedge))
            if not done and (second := self._spare(first, call)) is not None:
                asked[self._send(second, call)] = second
            under_way = set(asked)
            while True:
                done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                best = min(done, key=lambda task: task.exception() is not None)
                if not under_way or best.exception() is None:
                    return asked[best], best.result()
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    def _spare(self, first: Endpoint, call: _Call) -> Endpoint | None:
        """Another endpoint with a place for the call, if it is one of the few that may take two."""
        second = None if HEDGED * (self._hedges + 1) > self._calls else self._best(call, but=first)
        if second is not None:
            self._hedges += 1
            second.account.hedges += 1
            second.in_flight += call.job.size
        return second

    def _send(self, endpoint: Endpoint, call: _Call) -> "asyncio.Task[list[Row]]":
        task = asyncio.create_task(self._ask(endpoint, call))
        # Not in the task itself, which may be cancelled before it begins.
        task.add_done_callback(lambda _: self._leave(endpoint, call.job))
        return task

    async def _ask(self, endpoint: Endpoint, call: _Call) -> list[Row]:
        began = monotonic()
        try:
            rows = await endpoint.server.answer(self._roster.client, call.job)
            if endpoint.state is State.EXPELLED:
                raise CallFailed("it was expelled meanwhile")
        except CallFailed as error:
            call.tried.add(endpoint.name)
            self._failed(endpoint, error)
            raise
        except asyncio.CancelledError:
            # The slower one of two: it takes at least this long.
            endpoint.smooth(monotonic() - began)
            raise
        endpoint.answered(call.job, rows, monotonic() - began)
        self._hear(endpoint, monotonic())
        return rows

    def _failed(self, endpoint: Endpoint, error: CallFailed) -> None:
        last = endpoint.failed(error)
        if isinstance(error, Busy):
            self._hear(endpoint, endpoint.resting_until)
            asyncio.get_running_loop().call_later(error.seconds + 0.01, self._seat_all)
            return
        # Whoever knows neither key nor weights any more is not the one that was probed.
        changed = isinstance(error, Misfit) or (isinstance(error, Refused) and error.status == 404)
        if endpoint.state is State.STANDING and (last or changed):
            self._roster.leave_alone(endpoint, str(error))

    def _hear(self, endpoint: Endpoint, until: float) -> None:
        """Somebody is there."""
        for trusted in {False, endpoint.trusted}:
            self._heard[trusted] = max(self._heard[trusted], until)
