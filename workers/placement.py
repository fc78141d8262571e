"""Where lives are lived: which engine is at which batch, and how much room each agent has left.

Law: what is decided here is decided at once, without waiting, from what stands and waits at that moment; so whoever
was told that something has changed only has to ask again.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from telemetry.member import Member
from workers.agent import LostLife
from workers.recorder import LifeTask
from workers.work import Batch, Party, Work

CHUNK = 16
"""Lives per call to an agent: small enough for steady reports, large enough that calls cost nothing beside a model."""
PARTS = 32
"""Calls that fill an agent, at most, one with room for thousands: without a model even large calls are short."""
SPREAD = 4
"""Agents among which an engine's lives are divided, at least, where there are so many."""


@dataclass(eq=False)
class Host:
    """An agent and the room on it, in lives."""

    agent: Member
    room: int
    taken: int = 0

    @property
    def free(self) -> int:
        return self.room - self.taken


@dataclass(eq=False)
class Service:
    """One incarnation of an engine at work on one batch."""

    engine: Member
    batch: Batch
    peer: Any
    name: str
    incarnation: int
    ready: bool = False
    """The weights are loaded, and there are lives to begin or under way."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when there are none any more."""
    turn: int = 0
    """When it last began lives, in parts begun by all."""
    parties: int = 0
    """Under way."""
    lives: int = 0
    """Under way."""
    lost: list[tuple[Party, LostLife]] = field(default_factory=list)
    """Those that lost the engine: once there is one, it begins no more."""

    @property
    def hungry(self) -> bool:
        return bool(self.batch.queued) and not self.lost


@dataclass(frozen=True, slots=True)
class Part:
    """Parties of one service under way on one agent."""

    service: Service
    host: Host
    parties: tuple[Party, ...]
    room: int
    """What it takes of the host's."""

    @property
    def tasks(self) -> list[LifeTask]:
        return [task for party in self.parties for task in party.tasks]


def chunk(room: int) -> int:
    """Lives per call, at most, to an agent with so much room."""
    return max(CHUNK, room // PARTS)


class Placement:
    """Engines at work and agents with room."""

    def __init__(self, agents: Sequence[Member], lives_per_agent: int) -> None:
        self._hosts = [Host(agent, lives_per_agent) for agent in agents]
        self._services: list[Service] = []
        self._begun = 0

    def employ(self, engine: Member, work: Work) -> Service | None:
        """Puts an engine to work; None when it does not stand, or nothing waits that it could do."""
        batch = work.choose() if engine.peer is not None else None
        if batch is None:
            return None
        service = Service(engine, batch, engine.peer, engine.name, engine.incarnation)
        self._services.append(service)
        batch.engines += 1
        return service

    def leave(self, service: Service) -> None:
        """The engine is idle, or lost."""
        self._services.remove(service)
        service.batch.engines -= 1

    def begin(self, work: Work) -> Part | None:
        """The next lives, with an engine that is ready for them and an agent that has room, if there are all three."""
        hosts = [host for host in self._hosts if host.agent.peer is not None]
        if not hosts:
            return None
        quietest = min(hosts, key=lambda host: host.taken)
        room = sum(host.room for host in hosts)
        if any(batch.alone for batch in work.batches if batch.engines):
            # It is left to drain, for somebody who has to be alone on it.
            hosts = [host for host in hosts if host is not quietest]
        roomiest = max(hosts, key=lambda host: host.free, default=None)
        if quietest.taken and (roomiest is None or not roomiest.free):
            return None
        # No engine takes all the room before the others have loaded their weights; then the idlest comes first.
        most = -(-room // max(1, sum(one.hungry for one in self._services)))
        hungry = [one for one in self._services if one.ready and one.hungry and one.lives < most]
        for service in sorted(hungry, key=lambda one: (one.lives, one.turn)):
            part = self._begin(service, quietest, roomiest, most - service.lives)
            if part is not None:
                return part
        return None

    def dismiss(self) -> None:
        """Tells services that have nothing under way and nothing to begin; they begin nothing more."""
        for service in self._services:
            if service.ready and not service.parties and not service.hungry:
                service.ready = False
                service.over.set()

    def _begin(self, service: Service, quietest: Host, host: Host | None, most: int) -> Part | None:
        """Of at most so many lives, or one party; on the host, unless somebody has to be alone on the quietest."""
        batch = service.batch
        quota = batch.share - service.parties
        if quota <= 0:
            return None
        if batch.alone and not quietest.taken:
            return self._take(service, quietest, (batch.alone.popleft(),), quietest.room)
        if host is None or not batch.waiting:
            return None
        size = len(batch.waiting[0].tasks)
        if host.free < min(size, host.room):
            return None
        most = max(1, min(chunk(host.room), host.free, most) // size)
        # Several agents get their share: while the engine answers one, the others decide what to ask next.
        agents = min(len(self._hosts), max(SPREAD, len(self._hosts) // len(self._services)))
        count = min(most, quota, -(-batch.share // agents), len(batch.waiting))
        parties = tuple(batch.waiting.popleft() for _ in range(count))
        return self._take(service, host, parties, min(host.room, sum(len(party.tasks) for party in parties)))

    def _take(self, service: Service, host: Host, parties: tuple[Party, ...], room: int) -> Part:
        part = Part(service, host, parties, room)
        self._begun += 1
        service.turn = self._begun
        host.taken += room
        service.parties += len(parties)
        service.lives += len(part.tasks)
        service.batch.under_way += len(parties)
        return part

    def end(self, part: Part) -> None:
        """Gives back what a part took."""
        part.host.taken -= part.room
        part.service.parties -= len(part.parties)
        part.service.lives -= len(part.tasks)
        part.service.batch.under_way -= len(part.parties)
