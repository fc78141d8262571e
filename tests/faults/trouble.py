"""Stores in which a request, an answer or a race is lost when a test says so."""

import os
from collections.abc import Callable

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from telemetry.failures import StorageError
from telemetry.local_store import LocalStore
from tests.faults.memory import Handle

# A file system in memory where there is one: an fsync costs nothing there.
FAST = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
SMALL = settings(max_examples=12, stateful_step_count=20, deadline=None, print_blob=True)
LARGE = settings(SMALL, max_examples=80, stateful_step_count=40, suppress_health_check=list(HealthCheck))
TROUBLE = st.sampled_from(["", "", "", "before", "after"])
"""Before or after the effect of the next creation; mostly none."""


class Trouble:
    """A store in front of a store: loses a request or an answer, or lets others go first, when it is told to."""

    lose = ""
    """`before` or `after` the effect of the next put_if_absent."""
    rivals: Callable[[], None] | None = None
    """Act between the caller's last look and its next put_if_absent."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        lose, rivals = self.lose, self.rivals
        self.lose, self.rivals = "", None
        if lose == "before":
            raise StorageError(f"{key}: lost")
        if rivals:
            rivals()
        created: bool = super().put_if_absent(key, data)  # type: ignore[misc]
        if lose == "after":
            raise StorageError(f"{key}: no answer")
        return created


class UnsafeLocalStore(Trouble, LocalStore):
    pass


class UnsafeMemory(Trouble, Handle):
    pass
