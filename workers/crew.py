"""Members that are replaced in the background: whoever needs one takes any that stands."""

import asyncio
from collections.abc import Sequence

from telemetry.member import Member


class Bell:
    """Wakes everybody who waits, each time it rings; a tap is heard only by who listens for taps, and so is a ring."""

    def __init__(self) -> None:
        self._ring = asyncio.Event()
        self._tap = asyncio.Event()

    def ring(self) -> None:
        self.tap()
        self._ring.set()
        self._ring = asyncio.Event()

    def tap(self) -> None:
        self._tap.set()
        self._tap = asyncio.Event()

    async def wait(self) -> None:
        """Returns at the next ring."""
        await self._ring.wait()

    async def listen(self) -> None:
        """Returns at the next tap or ring."""
        await self._tap.wait()


class Crew:
    """Keeps members standing, and rings a bell for each that stands again."""

    def __init__(self, members: Sequence[Member], restarts: int, bell: Bell) -> None:
        self._members = members
        self._restarts = restarts
        self._bell = bell
        self._starting: dict[int, asyncio.Task[None]] = {}
        """By position among the members."""
        self._failure: Exception | None = None

    def keep_standing(self) -> None:
        """Starts every member that does not stand, unless it is being started already."""
        for position, member in enumerate(self._members):
            under_way = self._starting.get(position)
            if member.peer is None and (under_way is None or under_way.done()):
                self._starting[position] = asyncio.create_task(self._start(member))

    async def lost(self, member: Member, incarnation: int, error: Exception, *, charged: bool = True) -> None:
        """As Member.lost; its replacement is under way when this returns."""
        await member.lost(incarnation, error, self._restarts, charged=charged)
        self.keep_standing()

    def check(self) -> None:
        """Raises what kept a replacement from starting."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    async def _start(self, member: Member) -> None:
        try:
            await member.start(self._restarts)
        except Exception as error:  # noqa: BLE001 - raised by `check`, in whoever waits for the bell
            self._failure = error
        self._bell.ring()
