"""Garbage collection: removes what a crash left behind and no reader of the run will ever see.

Law: an object goes only if no journal entry vouches for it, no entry of a ledger table's log names it, and it is
older than the grace period, by the store's own clock. Nothing has to be remembered to do so safely: killed at any
instant, it has removed garbage only, and the next collection finds the rest.
"""

import json
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from telemetry.failures import StateError
from telemetry.journal import Entry
from telemetry.ledger import HELD_OUT
from telemetry.store import Store

STAGED = re.compile(r"\..+\.[0-9a-f]{16}|.+#\d+")
"""Names of files that were being written: this store's, and those of the library that writes the ledger's log."""


@dataclass(frozen=True)
class Garbage:
    """An object that nobody needs."""

    key: str
    size: int
    """Bytes."""
    seconds: float
    """Age."""


def find_garbage(store: Store, entries: Sequence[Entry], grace: float) -> list[Garbage]:
    """Everything older than `grace` seconds that belongs to no run's record, by key.

    entries: the whole journal, read while no driver is alive. Raises StateError when the ledger's log is damaged.
    """
    needed = {ref.key for entry in entries for ref in entry.refs}
    loose = [key for folder in ("adapters", "probe", HELD_OUT) for key in store.list(folder)]
    candidates = [key for key in loose if key not in needed]
    for table in ("ledger/steps", "ledger/lives"):
        keys = store.list(table)
        named = set(_named(store, table, [key for key in keys if "/_delta_log/" in key and key.endswith(".json")]))
        candidates += [key for key in keys if "/_delta_log/" not in key and key not in needed | named]
    now = _now(store)
    aged = ((key, *store.size_and_time(key)) for key in candidates + store.staged(STAGED))
    return sorted(
        (Garbage(key, size, now - time) for key, size, time in aged if now - time >= grace), key=lambda one: one.key
    )


def remove(store: Store, garbage: Sequence[Garbage]) -> None:
    """Removes it for good."""
    for one in garbage:
        store.discard(one.key)


def _named(store: Store, table: str, log: Sequence[str]) -> Iterator[str]:
    """Keys of the data files that any entry of a table's log names."""
    for key in log:
        try:
            actions = [json.loads(line) for line in store.get(key).splitlines()]
            yield from (f"{table}/{action['add']['path']}" for action in actions if "add" in action)
        except (ValueError, KeyError, TypeError) as error:
            raise StateError(f"{key}: damaged; nothing is removed before `forager verify` is content") from error


def _now(store: Store) -> float:
    """Unix time by the store's clock."""
    key = f"probe/{secrets.token_hex(8)}"
    store.put(key, b"now")
    _, now = store.size_and_time(key)
    store.delete(key)
    return now
