"""An engine as the simulation has it: processor sharing, so that all lives on it advance at one rate.

Its clock counts the decisions that a life would have got that was always there; a life of so many steps ends when the
clock has moved on by as many, whoever came and went meanwhile.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf

from orchestrator.scale_plant import Plant

SAME = 1e-9
"""Decisions within which lives end together."""


@dataclass(slots=True, eq=False)
class Part:
    """Parties that an engine and an agent have been given in one call."""

    engine: int
    host: int
    parties: int
    left: int
    rows: int = 0


class Engine:
    """One of many."""

    __slots__ = (
        "_answer",
        "_batch",
        "_clock",
        "_each",
        "_ends",
        "_number",
        "_running",
        "_since",
        "_size",
        "busy",
        "seconds",
        "stamp",
    )

    def __init__(self, plant: Plant, speed: float, each: float) -> None:
        """`each`: decisions per second that agents have for it."""
        self.seconds = plant.decision_seconds / speed
        """Per decision."""
        self.busy = 0.0
        """Seconds it has computed."""
        self.stamp = 0
        """Changes with what `next_end` says."""
        self._answer, self._batch, self._size, self._each = plant.answer_seconds, plant.request_batch, plant.size, each
        self._clock = self._since = 0.0
        self._running = self._number = 0
        self._ends: list[tuple[float, int, Part, int]] = []

    def rate(self) -> float:
        """Decisions per second of each life: what there is for each, and how soon one can ask again."""
        running = self._running * self._size
        shared = min(1 / self.seconds if self.seconds else inf, self._each) / running
        again = self._answer + self.seconds * min(running, self._batch)
        return min(shared, 1 / again) if again else shared

    def join(self, now: float, part: Part, lengths: Sequence[int]) -> None:
        """Lives of so many steps begin."""
        self._advance(now)
        counts: dict[int, int] = {}
        for steps in map(int, lengths):
            counts[steps] = counts.get(steps, 0) + 1
            part.rows += steps * self._size
        for steps, count in counts.items():
            self._number += 1
            heappush(self._ends, (self._clock + steps, self._number, part, count))
        self._running += part.parties
        self.stamp += 1

    def next_end(self, now: float) -> float | None:
        """When the next life on it ends, if nobody joins."""
        if not self._ends:
            return None
        return now + max(0.0, self._ends[0][0] - self._clock) / self.rate()

    def end(self, now: float) -> list[Part]:
        """Ends the lives that are due; the parts that came to their end with them."""
        self._advance(now)
        self._clock = max(self._clock, self._ends[0][0])
        done = []
        while self._ends and self._ends[0][0] <= self._clock + SAME:
            _, _, part, count = heappop(self._ends)
            self._running -= count
            part.left -= count
            if not part.left:
                done.append(part)
        self.stamp += 1
        return done

    def _advance(self, now: float) -> None:
        if self._running and now > self._since:
            decisions = (now - self._since) * self.rate()
            self._clock += decisions
            self.busy += decisions * self._running * self._size * self.seconds
        self._since = now
