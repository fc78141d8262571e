"""Who is next when not everybody's weights fit: requests that wait, and the order in which they get their turn.

A turn lasts until nothing is left to answer for its weights, since changing them costs as much as several decisions.
Law: nobody starves. A turn that others wait through takes no new requests after a while, and whoever is passed over
counts twice as much the next time.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from workers.engine import CompletionRequest

TURN_SECONDS = 5.0
"""How long a turn that others wait through takes new requests: about thirty times what changing the weights takes."""


@dataclass(slots=True)
class _Queue:
    requests: list[tuple[str, CompletionRequest]] = field(default_factory=list)
    passed_over: int = 0
    """Turns of others that it has waited for."""

    def weight(self) -> int:
        return len(self.requests) << self.passed_over


class Turns:
    """Named requests by the adapter that they wait for."""

    def __init__(self, seconds: float = TURN_SECONDS) -> None:
        """seconds: how long a turn takes new requests once others wait."""
        self._seconds = seconds
        self._queues: dict[str | None, _Queue] = {}
        self._since = 0.0

    def __bool__(self) -> bool:
        """True while anybody waits."""
        return bool(self._queues)

    def __len__(self) -> int:
        """Requests that wait."""
        return sum(len(queue.requests) for queue in self._queues.values())

    def overdue(self) -> bool:
        """True when others have waited long enough: the present turn is to take no new requests."""
        return bool(self._queues) and monotonic() - self._since >= self._seconds

    def wait(self, name: str, request: CompletionRequest) -> None:
        """Puts a request at the end of its adapter's queue."""
        if not self._queues:
            self._since = monotonic()
        self._queues.setdefault(request.adapter, _Queue()).requests.append((name, request))

    def next(self, served: Callable[[str | None], bool]) -> tuple[str | None, list[tuple[str, CompletionRequest]]]:
        """The adapter whose turn begins, and all that waited for it.

        Of those that are not `served` now it is the one with the most requests, doubled for every turn that it was
        passed over; of equals, the oldest. One that is served waits only if others do.
        """
        others = [adapter for adapter in self._queues if not served(adapter)]
        adapter = max(others, key=lambda one: self._queues[one].weight())
        requests = self._queues.pop(adapter).requests
        for queue in self._queues.values():
            queue.passed_over += 1
        self._since = monotonic()
        return adapter, requests
