"""Worlds that keep their word in one life and are unfit for a run all the same; `forager check-world` says why."""

import ctypes
import os
import random
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any

from telemetry.records import EndReason
from tests.corpus.worlds import Good
from workers.environment import Observation, Outcome


class Hangs(Good):
    def step(self, action: str) -> Any:
        while self.day == 2:
            time.sleep(0.01)
        return super().step(action)


class HangsInC(Good):
    def reset(self, seed: int) -> Any:
        ctypes.CDLL(None).pause()
        return super().reset(seed)


class Exits(Good):
    def step(self, action: str) -> Any:
        os._exit(7)


class Vanishes(Good):
    """Ends its process as if somebody had killed it, and as if all were well."""

    def step(self, action: str) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)


class Leaves(Good):
    def step(self, action: str) -> Any:
        os._exit(0)


class Twofold(Good):
    """Lives in the first process only: the next ones fail alike."""

    def reset(self, seed: int) -> Any:
        if os.environ.get("PYTHONHASHSEED", "random") != "random":
            raise RuntimeError("not here")
        return super().reset(seed)


class Segfaults(Good):
    def reset(self, seed: int) -> Any:
        ctypes.string_at(0)
        return super().reset(seed)


class Shouts(Good):
    """Writes to the standard streams; harms nobody."""

    def reset(self, seed: int) -> Any:
        print("{}\n" * 100, file=sys.stderr)
        os.write(1, b'{"level": "fail", "check": "forged", "found": "forged"}\n' * 100)
        return super().reset(seed)


class Dice(Good):
    """Draws from a generator that no seed reaches."""

    def observe(self) -> Any:
        return Observation(f"Day {self.day}, luck {random.random()}.", self.actions, 10.0 - self.day)


class Hashes(Good):
    """Repeats itself within one process only."""

    def observe(self) -> Any:
        return Observation(f"Omen {hash('omen')}.", self.actions, 10.0 - self.day)


class Shared(Good):
    """Keeps its day in the class, where all instances meet."""

    days: list[int] = [0]  # noqa: RUF012

    def reset(self, seed: int) -> Any:
        self.days[0] = 0
        return self.observe()

    def step(self, action: str) -> Any:
        self.days[0] += 1
        return Outcome(self.observe())

    def observe(self) -> Any:
        return Observation(f"Day {self.days[0]}.", self.actions, 10.0)

    def state(self) -> Any:
        return {}


class Forgets(Good):
    """`reset` leaves what the life before left."""

    def reset(self, seed: int) -> Any:
        return self.observe()


class NoCause(Good):
    def step(self, action: str) -> Any:
        return Outcome(super().step(action).observation, EndReason.DIED)


class Sleepy(Good):
    def step(self, action: str) -> Any:
        time.sleep(0.002)
        return super().step(action)


VERDICTS: Mapping[str, tuple[str, str]] = {
    "Hangs": ("contract", "hangs"),
    "HangsInC": ("contract", "hangs"),
    "Exits": ("contract", "the process ended with 7"),
    "Vanishes": ("contract", "the process ended with -9"),
    "Leaves": ("contract", "the process ended with 0"),
    "Twofold": ("processes", "not here"),
    "Segfaults": ("contract", "the process ended with -11"),
    "Dice": ("determinism", "against"),
    "Hashes": ("processes", "hash()"),
    "Shared": ("separation", "share state"),
    "Forgets": ("separation", "reset()"),
    "NoCause": ("ends", "without a cause"),
}
"""By class: the check that fails, and words of its verdict."""
