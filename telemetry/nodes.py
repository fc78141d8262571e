"""The nodes of a Ray cluster as its user knows them: which are there, which are going, and who has how much to carry.

Ray fills one node before it takes the next, so that much is lost with it, and goes on starting actors on a node for as
long as half a minute after its end. What needs no resources that Ray counts is therefore placed here.
"""

import time
from collections import Counter
from collections.abc import Iterable

SUSPECT_SECONDS = 60.0
"""How long nothing is placed on a node that an actor was lost with, if it stays in Ray's table."""


class Nodes:
    """What is known of the nodes, by id. One thread may tell, others ask."""

    def __init__(self) -> None:
        self.present: frozenset[str] = frozenset()
        """Those in Ray's table."""
        self._leaving: frozenset[str] = frozenset()
        self._suspected: dict[str, float] = {}
        self._carried: Counter[str] = Counter()
        self._accelerated: frozenset[str] = frozenset()

    def tell(self, present: Iterable[str], leaving: Iterable[str], accelerated: Iterable[str] = ()) -> None:
        """What Ray says now; `accelerated` have GPUs. Who was said to be leaving stays so: none comes back under the
        same id."""
        self.present = frozenset(present)
        self._accelerated = frozenset(accelerated)
        self._leaving |= frozenset(leaving)

    def suspect(self, node: str) -> None:
        """No connection reached an actor there."""
        self._suspected[node] = time.monotonic()

    def is_leaving(self, node: str) -> bool:
        """True if it is being taken away with notice, or was."""
        return node in self._leaving

    def any_leaving(self, nodes: Iterable[str]) -> bool:
        """True if one of these is being taken away with notice, or was."""
        return not self._leaving.isdisjoint(nodes)

    def take(self) -> str | None:
        """The node that carries least, which now carries one actor more; None when there is none to trust.

        One without GPUs where there are some: the processors beside GPUs have enough to do.
        """
        late = time.monotonic() - SUSPECT_SECONDS
        fit = [node for node in self.present - self._leaving if self._suspected.get(node, late) <= late]
        fit = [node for node in fit if node not in self._accelerated] or fit
        node = min(fit, key=lambda one: (self._carried[one], one), default=None)
        self.carry(node)
        return node

    def carry(self, node: str | None) -> None:
        """One actor more is there."""
        if node is not None:
            self._carried[node] += 1

    def release(self, node: str | None) -> None:
        """One actor less is there."""
        if node is not None:
            self._carried[node] -= 1
