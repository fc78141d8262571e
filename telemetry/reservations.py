"""What actors hold of a cluster's GPUs and CPUs: placement groups, one for all actors that are of use only together.

A reservation outlives its actors, so that who replaces a lost one finds its share kept. When its node is lost, Ray
makes it again on whatever node has room, or joins; until then its actors wait, and all others go on. Reservations that
wait are also what an autoscaler sees of a run.
"""

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from telemetry.actors import Place
from telemetry.aside import aside
from telemetry.failures import ClusterLostError
from telemetry.remote import RemoteLost

LOOK_SECONDS = 0.5
"""Between two looks at a reservation that waits."""
EVERY = 30.0
"""Seconds between two words about it."""


class Reservations:
    """Of one cluster and one run. Ray gives them back when the run's connection ends."""

    def __init__(self, wait: float, note: Callable[[str], None]) -> None:
        """wait: seconds that all actors of a role may wait for the first of them; note: takes what for, in words."""
        self._wait = wait
        self._note = note
        self._groups: dict[str, Future[Any]] = {}
        self._waiting: dict[str, str] = {}
        """What each reservation that waits asks for."""
        self._told = -math.inf
        self._made: dict[str, str] = {}
        """Role by reservation, of those that waited no longer when they were last asked for."""

    async def made(self, place: Place) -> Any | None:
        """The placement group that has room for this actor, waited for; None when it asks for nothing.

        Raises ClusterLostError when there was no room for `wait` seconds, nor for any other of its role.
        """
        if not (place.gpus or place.cpus):
            return None
        key = place.party[0]
        if key not in self._groups:
            # Before anybody waits: those who are of use only together ask at the same time.
            self._groups[key] = aside(partial(_reserve, place))
        try:
            group = await asyncio.wrap_future(self._groups[key])
        except Exception:
            self._groups.pop(key, None)
            raise
        self._made.pop(key, None)
        since = time.monotonic()
        try:
            while not await self._stands(group):
                now = time.monotonic()
                if place.role in self._made.values():
                    since = now
                if now - since > self._wait:
                    raise ClusterLostError(
                        f"Ray cluster: no room for {key} in {self._wait:g} s (ray.wait): {_words(place)};"
                        " resume when nodes have joined"
                    )
                self._waiting[key] = _words(place)
                if now - self._told >= EVERY:
                    self._note(f"waiting for the cluster: {_all_words(self._waiting)}")
                    self._told = now
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            self._waiting.pop(key, None)
        self._made[key] = place.role
        return group

    async def gone(self, place: Place) -> Exception:
        """Returns when the node of the actor's reservation is gone, if it has one; that is nobody's fault.

        Ray may not know it yet when an actor is started there, and says nothing of it when it does.
        """
        asked = self._groups.get(place.party[0])
        while asked is None or await self._stands(asked.result()):
            await asyncio.sleep(LOOK_SECONDS)
        return RemoteLost(f"{place.name}: the node that was reserved for it is gone", preempted=True)

    async def _stands(self, group: Any) -> bool:
        return bool(await asyncio.wrap_future(aside(lambda: _state(group) == "CREATED")))


def _reserve(place: Place) -> Any:
    from ray.util import placement_group

    share = {"GPU": place.gpus, "CPU": place.cpus}
    bundle = {name: amount for name, amount in share.items() if amount}
    return placement_group([bundle] * len(place.party), strategy="PACK")


def _state(group: Any) -> str:
    from ray.util import placement_group_table

    return str(placement_group_table(group).get("state", ""))


def _words(place: Place) -> str:
    shares = [(place.gpus, "GPUs"), (place.cpus, "CPUs")]
    each = " and ".join(f"{amount:g} {name}" for amount, name in shares if amount)
    return f"{place.party[0]} needs " + (
        f"{len(place.party)} times {each}" if place.together else f"{each} on one node"
    )


def _all_words(waiting: dict[str, str]) -> str:
    first = min(waiting)
    return waiting[first] + (f", and {len(waiting) - 1} more" if len(waiting) > 1 else "")
