"""The two pieces of a scale model that theory knows closed forms of: a queue for one server, and a list of jobs."""

from collections.abc import Iterable
from heapq import heapify, heapreplace


class Server:
    """Serves in the order of arrival, one after the other."""

    def __init__(self) -> None:
        self.free = 0.0
        """When it has nothing left to do."""
        self.busy = 0.0
        """Seconds it has worked."""

    def attend(self, arrival: float, seconds: float) -> float:
        """When somebody who arrives now, later than all before, is done."""
        self.free = max(self.free, arrival) + seconds
        self.busy += seconds
        return self.free


def makespan(jobs: Iterable[float], machines: int) -> float:
    """Seconds until all jobs are done, each taken by the first machine that is free (Graham 1969)."""
    free = [0.0] * machines
    heapify(free)
    for seconds in jobs:
        heapreplace(free, free[0] + seconds)
    return max(free)
