"""Where runs are: what users write for RUN becomes a store and the state of the run in it.

Heavy modules are imported inside the functions, so that the command line stays quick.
"""

import os.path
from typing import TYPE_CHECKING

from telemetry.failures import StateError, UsageError

if TYPE_CHECKING:
    from orchestrator.state import RunState
    from telemetry.store import Store

GENESIS = "journal/00000000000000000000.json"
"""A directory or URL that holds this is a run."""


def open_store(place: str, *, must_exist: bool = False) -> "Store":
    """Store of a directory or URL. Raises UsageError for a directory that must exist and does not."""
    from telemetry import store

    if must_exist and "://" not in place and not os.path.isdir(place):
        raise UsageError(f"{place}: no such run directory; give a directory or store URL that holds a run")
    return store.open_store(place, create=not must_exist)


def open_new(place: str, *leftovers: str) -> "Store":
    """Store of a run to be founded. Raises UsageError when a run or something else is there.

    leftovers: beginnings of keys that an earlier attempt may have left, besides those of any driver.
    """
    store = open_store(place)
    if store.exists(GENESIS):
        raise UsageError(f"{store}: a run is here already; `forager resume {store}`, or choose another name")
    # What a driver leaves that was killed before its first journal entry is no stranger's.
    known = ("driver.lock", "heartbeat/", "logs/", "probe", *leftovers)
    if [key for key in store.list("") if not key.startswith(known)]:
        raise UsageError(f"{store}: not empty and not a run; choose another name or store")
    return store


def open_existing(place: str) -> "Store":
    """Store of a run. Raises UsageError when there is no such place, StateError when it holds no run."""
    store = open_store(place, must_exist=True)
    if not store.exists(GENESIS):
        raise StateError(f"{place}: not a run: {GENESIS} is missing")
    return store


def open_run(place: str) -> tuple["Store", "RunState"]:
    """A run's store and state; `runs/demo@branch-1` is what was left behind when the run was rewound."""
    from orchestrator.state import fold
    from telemetry.journal import Journal

    branch = branch_of(place)
    store = open_existing(place.removesuffix(f"@{branch}"))
    entries = Journal(store).read()
    state = fold(entries)
    if branch is None:
        return store, state
    if branch not in state.branches:
        known = ", ".join(state.branches) or "none"
        raise UsageError(f"{place}: no such branch; the run's branches: {known}")
    return store, fold(entries[: state.branches[branch] + 1])


def branch_of(place: str) -> str | None:
    """The branch that a RUN names, if any."""
    _, at, branch = place.rpartition("@")
    return branch if at and branch.startswith("branch-") else None
