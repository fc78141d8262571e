"""Metrics of other libraries, passed on under their own names: read where the library lives, served by the driver.

The law: reading asks nothing of the library but its registry, and serving asks nothing of anybody: what was heard last
is what is shown. However talkative an update makes a library, what one engine says is cut off at MOST samples.
"""

from collections.abc import Callable, Iterator, Mapping
from time import monotonic
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

EVERY = 10.0
"""Seconds between two readings."""
MOST = 1000
"""Samples of one engine; families that do not fit are left out."""
LABEL = "engine"
"""Names the engine; a label of this name that the library has itself is replaced."""


class Family(NamedTuple):
    """One metric of a library with all its samples."""

    name: str
    kind: str
    help: str
    samples: tuple[tuple[str, tuple[tuple[str, str], ...], float], ...]
    """(name, labels, value)"""


def read(registry: CollectorRegistry, prefix: str) -> tuple[Family, ...]:
    """Families of a registry whose names begin so."""
    found, room = [], MOST
    for metric in registry.collect():
        if not metric.name.startswith(prefix):
            continue
        # A time of creation per series tells no more than the restart of its engine, and is a third of all series.
        kept = [one for one in metric.samples if not one.name.endswith("_created")]
        if 0 < len(kept) <= room:
            room -= len(kept)
            samples = tuple((one.name, tuple(one.labels.items()), float(one.value)) for one in kept)
            found.append(Family(metric.name, metric.type, metric.documentation, samples))
    return tuple(found)


class Teller:
    """Beside a library: reads its registry now and then, however often it is asked."""

    def __init__(self, registry: CollectorRegistry, prefix: str, clock: Callable[[], float] = monotonic) -> None:
        self._registry, self._prefix, self._clock = registry, prefix, clock
        self._told, self._pause = float("-inf"), 0.0

    def __call__(self) -> tuple[Family, ...]:
        """What the library says; nothing if that was told lately: within a second at first, within EVERY later on.

        An answer may be lost on its way, and a short run should not wait for the next.
        """
        if self._clock() - self._told < self._pause:
            return ()
        self._told, self._pause = self._clock(), min(EVERY, max(1.0, 2 * self._pause))
        return read(self._registry, self._prefix)


class Foreign:
    """What engines said last of their libraries, as a collector of Prometheus's client."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[Family, ...]] = {}

    def heard(self, said: Mapping[str, tuple[Family, ...]]) -> None:
        """Takes what engines say, by the name of the incarnation; who says nothing now is shown as it was.

        The next incarnation of an engine takes the place of the one before.
        """
        fresh = {name.partition(".")[0]: families for name, families in said.items() if families}
        # A new mapping, because scrapes go on in threads of their own.
        self._said = self._said | fresh

    def collect(self) -> Iterator[Metric]:
        """One family per name, with the samples of all engines."""
        merged: dict[str, Metric] = {}
        for engine, families in sorted(self._said.items()):
            for family in families:
                metric = merged.setdefault(family.name, Metric(family.name, family.help, family.kind))
                for name, labels, value in family.samples:
                    metric.add_sample(name, {**dict(labels), LABEL: engine}, value)
        yield from merged.values()
