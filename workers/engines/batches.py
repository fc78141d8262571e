"""Which requests share a batch where adapters are not merged: those of one individual, as far as they go.

Every adapter in a batch costs products of its own in every layer, and lives that are answered together ask again
together, so that a batch of few individuals is followed by another. Law: nobody starves. Individuals take turns in the
order in which they began to wait, and whoever has filled a whole batch goes to the end of the line.
"""

from collections import deque


class Line:
    """Names of requests that no batch has taken yet."""

    def __init__(self, size: int) -> None:
        """size: requests that a batch holds."""
        self._size = size
        self._waiting: dict[str | None, deque[str]] = {}
        self._in_a_row = 0
        """Requests of the first in line that were taken since it is the first."""

    def add(self, name: str, adapter: str | None) -> None:
        """Puts a request with the others of its adapter, or at the end of the line."""
        self._waiting.setdefault(adapter, deque()).append(name)

    def take(self, room: int) -> list[str]:
        """The next requests, at most `room`, those of an adapter side by side."""
        taken: list[str] = []
        while self._waiting and len(taken) < room:
            adapter, names = next(iter(self._waiting.items()))
            number = min(len(names), room - len(taken), self._size - self._in_a_row)
            taken += [names.popleft() for _ in range(number)]
            self._in_a_row += number
            if not names or self._in_a_row == self._size:
                del self._waiting[adapter]
                if names:
                    self._waiting[adapter] = names
                self._in_a_row = 0
        return taken
