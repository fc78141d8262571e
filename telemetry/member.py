"""A part of a room that can be lost and started again: restart budget, back-off, and a name per incarnation.

The rooms know their engines, agents, sinks and trainers only through this, so that whatever the parts are, they are
replaced by the same rules.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from telemetry.failures import ForagerError, NoProgressError, one_line
from telemetry.remote import RemoteLost, ReplyLost
from telemetry.seeds import uniform

log = logging.getLogger(__name__)

MAX_PAUSE = 30.0
"""Seconds before a new start, at most."""

MAX_REPLIES_LOST = 20
"""Without progress between them; a peer that cannot be heard is then as good as lost."""

Spawn = Callable[[], Awaitable[Any]]
"""Starts a peer: an object with async methods, maybe with `kill()` and with `async answers()`."""


@dataclass
class Member:
    """A replaceable engine, agent, sink or trainer. Each incarnation has a name of its own."""

    role: str
    index: int
    spawn: Spawn
    peer: Any = None
    """None between the loss of one incarnation and the start of the next."""
    incarnation: int = 0
    failures: int = 0
    """Losses and failed starts since the last progress."""
    replies_lost: int = 0
    """Of a peer that answered all the same, since the last progress."""
    pause: float = 0.5
    """Seconds before the start after the second failure in a row, doubled with every further one."""
    _starting: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def name(self) -> str:
        return f"{self.role}-{self.index}.{self.incarnation}"

    async def start(self, budget: int = 0) -> Any:
        """The peer, started where there is none.

        Raises NoProgressError when `budget` further starts fail as well, and any ForagerError of a start at once.
        """
        async with self._starting:
            while self.peer is None:
                await asyncio.sleep(self._pause())
                try:
                    self.peer = await self.spawn()
                except ForagerError:
                    raise
                except Exception as error:  # noqa: BLE001 - whatever keeps it from starting, another try may go well
                    reason = f"does not start: {in_words(error)}"
                    log.warning("%s: %s", self.name, reason)
                    if not getattr(error, "preempted", False):
                        self._charge(budget, reason)
                else:
                    if self.incarnation:
                        log.warning("%s: started", self.name)
            return self.peer

    async def lost(self, incarnation: int, error: Exception, budget: int, *, charged: bool = True) -> bool:
        """Ends an incarnation that failed with `error`; the next `start` starts another.

        False, and nothing done, when it had been ended before, or when only a reply was lost and it still answers.
        Raises NoProgressError when there were more than `budget` failures without progress. One that was preempted,
        or is not `charged`, does not count.
        """
        if isinstance(error, ReplyLost) and incarnation == self.incarnation and await self._answers():
            log.warning("%s: a reply was lost: %s", self.name, in_words(error))
            self.replies_lost += 1
            if self.replies_lost <= MAX_REPLIES_LOST:
                return False
        if incarnation != self.incarnation:
            return False
        log.warning("%s: lost: %s", self.name, in_words(error))
        peer, self.peer = self.peer, None
        self.incarnation += 1
        if hasattr(peer, "kill"):
            peer.kill()
        if charged and not getattr(error, "preempted", False):
            self._charge(budget, f"replaced {budget} times without progress; last failure: {in_words(error)}")
        return True

    def progressed(self) -> None:
        """Work came back: what failed before is forgiven."""
        self.failures = self.replies_lost = 0

    async def _answers(self) -> bool:
        # Looked up in the class: handles take any other name for a method of what they host.
        answers = getattr(type(self.peer), "answers", None)
        return answers is not None and bool(await answers(self.peer))

    def _charge(self, budget: int, what: str) -> None:
        self.failures += 1
        if self.failures > budget:
            raise NoProgressError(f"{self.role}-{self.index}: {what}")

    def _pause(self) -> float:
        """Grows with failures; the jitter is the name's own, so that what failed together does not start together."""
        if self.failures < 2:
            return 0.0
        return min(MAX_PAUSE, self.pause * 2.0 ** (self.failures - 2)) * (0.5 + uniform("pause", self.name) / 2)


def in_words(error: Exception) -> str:
    """An error in one line. RemoteLost speaks for itself, others say what they are."""
    return one_line(str(error) if isinstance(error, RemoteLost) else f"{type(error).__name__}: {error}")
