"""Where a generation's wall time goes."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic


class Stopwatch:
    """Wall seconds by phase since the last `take`."""

    def __init__(self) -> None:
        self._since = monotonic()
        self._phases: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Adds the time spent inside to a phase."""
        begin = monotonic()
        try:
            yield
        finally:
            self._phases[name] = self._phases.get(name, 0.0) + monotonic() - begin

    def take(self) -> dict[str, float]:
        """Seconds by phase and in `total`; starts over."""
        now = monotonic()
        phases = {**self._phases, "total": now - self._since}
        self._since, self._phases = now, {}
        return phases
