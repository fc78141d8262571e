"""Which engine lives what, and where: `workers.work` and `workers.placement` for ten thousand engines.

The rules are theirs, told by heaps instead of searches, so that a simulated driver is faster than a real one; what the
searches cost the real one is added by whoever simulates it. Nothing is ever lost here, so no party comes back.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from orchestrator.scale_engine import Part
from orchestrator.scale_plant import Plant

CHUNK = 16
"""As `workers.placement.CHUNK`, which importing would take long; so are ..."""
PARTS = 32
SPREAD = 4
"""... these."""


def chunk(room: int) -> int:
    """As `workers.placement.chunk`."""
    return max(CHUNK, room // PARTS)


@dataclass(slots=True, eq=False)
class Batch:
    """Parties that an engine lives without other weights; several engines may be at it."""

    number: int
    lengths: Sequence[int]
    """Steps of each, in the order in which they are lived."""
    adapters: int
    queued: int
    """Those that have not begun."""
    under_way: int = 0
    members: set[int] = field(default_factory=set)
    """Engines at it."""


@dataclass(slots=True, eq=False)
class Service:
    """An engine, and the batch that it is at."""

    batch: Batch | None = None
    ready: bool = False
    turn: int = 0
    parties: int = 0


class Placement:
    """Batches, services and the room on agents."""

    def __init__(self, plant: Plant) -> None:
        self._size, self._room, self._agents = plant.size, plant.room, plant.agents
        self._total = max(1, plant.agents * plant.room // plant.size)
        """Room for parties."""
        engines = len(plant.speeds)
        size = max(1, min(plant.capacity, -(-len(plant.lengths) // engines)))
        groups = [plant.lengths[first : first + size] for first in range(0, len(plant.lengths), size)]
        # Life by life across the individuals of a batch.
        self.batches = [
            Batch(number, group.T.ravel().tolist(), len(group), group.size) for number, group in enumerate(groups)
        ]
        self.begun = 0
        """Parts."""
        self.at_work = 0
        """Engines."""
        self.hungry = 0
        """Of those, with lives to begin."""
        self._services = [Service() for _ in range(engines)]
        self._unserved = 0
        self._needy: list[tuple[float, int]] = []
        self._idlest: list[tuple[int, int, int]] = []
        self._taken = [0] * plant.agents
        self._hosts = [(0, host) for host in range(plant.agents)]

    def employ(self, number: int) -> Batch | None:
        """As Work.choose: the first batch that nobody is at, or else the one that needs an engine most."""
        service = self._services[number]
        service.batch, service.ready = batch, _ = self._choose(), False
        if batch is None:
            return None
        if not batch.members:
            heappush(self._needy, (-batch.queued, batch.number))
        batch.members.add(number)
        self.at_work += 1
        self.hungry += 1
        return batch

    def stand(self, number: int) -> list[int]:
        """The engine has loaded its weights. Returns engines that have nothing to do now."""
        service = self._services[number]
        service.ready = True
        if service.batch is not None and service.batch.queued:
            self._offer(number)
            return []
        return [number] if self._leave(number) else []

    def begin(self) -> Iterator[tuple[Part | None, Sequence[int], list[int]]]:
        """Parts as they begin, the lengths of their lives, and engines that have nothing to do now."""
        while (key := self._next()) is not None:
            number = key[2]
            service = self._services[number]
            batch = service.batch
            taken, host = self._emptiest()
            free, most = self._room - taken, self._most() - service.parties
            if batch is None or most <= 0 or free < min(self._size, self._room):
                return
            heappop(self._idlest)
            share = -(-(batch.queued + batch.under_way) // len(batch.members))
            if (quota := share - service.parties) <= 0:
                continue  # until one of its own ends
            fitting = max(1, min(chunk(self._room), free, most * self._size) // self._size)
            agents = min(self._agents, max(SPREAD, self._agents // self.at_work))
            count = min(fitting, quota, -(-share // agents), batch.queued)
            begun = len(batch.lengths) - batch.queued
            lengths = batch.lengths[begun : begun + count]
            yield Part(number, host, count, count), lengths, self._take(number, batch, host, count)

    def end(self, part: Part) -> list[int]:
        """Gives back what a part took. Returns engines that have nothing to do now."""
        service = self._services[part.engine]
        batch = service.batch
        if batch is None:
            raise RuntimeError("a part of an engine without a batch")
        service.parties -= part.parties
        batch.under_way -= part.parties
        self._fill(part.host, -part.parties)
        if batch.queued:
            self._offer(part.engine)
            return []
        return [part.engine] if self._leave(part.engine) else []

    def _choose(self) -> Batch | None:
        if self._unserved < len(self.batches):
            self._unserved += 1
            return self.batches[self._unserved - 1]
        while self._needy:
            need, number = self._needy[0]
            batch = self.batches[number]
            now = -batch.queued / max(1, len(batch.members))
            if batch.queued and now == need:
                return batch
            # Needs only ever fall, so what stands first with its own number is first.
            heappop(self._needy)
            if batch.queued:
                heappush(self._needy, (now, number))
        return None

    def _leave(self, number: int) -> bool:
        service = self._services[number]
        if service.batch is None or service.parties or not service.ready:
            return False
        service.batch.members.discard(number)
        service.batch = None
        self.at_work -= 1
        return True

    def _most(self) -> int:
        """Parties that an engine may have under way, so that none takes all the room."""
        return -(-self._total // max(1, self.hungry))

    def _offer(self, number: int) -> None:
        service = self._services[number]
        if len(self._idlest) > 4 * len(self._services) + CHUNK:
            self._idlest = [key for key in self._idlest if self._holds(key)]
            heapify(self._idlest)
        heappush(self._idlest, (service.parties, service.turn, number))

    def _holds(self, key: tuple[int, int, int]) -> bool:
        parties, turn, number = key
        service = self._services[number]
        current = service.ready and (parties, turn) == (service.parties, service.turn)
        return current and service.batch is not None and service.batch.queued > 0

    def _next(self) -> tuple[int, int, int] | None:
        """The idlest engine that is ready and has lives to begin."""
        while self._idlest and not self._holds(self._idlest[0]):
            heappop(self._idlest)
        return self._idlest[0] if self._idlest else None

    def _emptiest(self) -> tuple[int, int]:
        """(room taken, number) of the agent with most room."""
        while self._hosts[0][0] != self._taken[self._hosts[0][1]]:
            heappop(self._hosts)
        return self._hosts[0]

    def _fill(self, host: int, parties: int) -> None:
        taken = min(self._room, abs(parties) * self._size)
        self._taken[host] += taken if parties > 0 else -taken
        if len(self._hosts) > 4 * self._agents + CHUNK:
            self._hosts = [(taken, number) for number, taken in enumerate(self._taken)]
            heapify(self._hosts)
        heappush(self._hosts, (self._taken[host], host))

    def _take(self, number: int, batch: Batch, host: int, count: int) -> list[int]:
        """Puts parties under way. Returns engines that have nothing to do now."""
        service = self._services[number]
        self.begun += 1
        service.turn = self.begun
        service.parties += count
        batch.queued -= count
        batch.under_way += count
        self._fill(host, count)
        if batch.queued:
            self._offer(number)
            return []
        self.hungry -= len(batch.members)
        return [one for one in sorted(batch.members) if self._leave(one)]
