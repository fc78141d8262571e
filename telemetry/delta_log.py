"""What delta-rs leaves to its users: a log with one beginning, that can be searched and survives a power cut.

delta-rs writes the log `<table>/_delta_log/<version:020d>.json` and its checkpoints without fsync. On a local disk
an entry that was never acknowledged may therefore come back empty or full of zeros, and would bar the table to
everybody. On object stores a write is whole or absent, and there is nothing to do here.
"""

import json
import time
import uuid
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import Schema

from telemetry.failures import StateError
from telemetry.store import Store


def key_of(table: str, version: int) -> str:
    """Key of a log entry."""
    return f"{table}/_delta_log/{version:020d}.json"


def create(store: Store, table: str, schema: pa.Schema, partition: str, settings: dict[str, str]) -> None:
    """Make the table if there is none: its first log entry, which only one of several makers can write.

    The library's own creation is not exclusive: makers that race stack several table definitions.
    """
    metadata = {
        "id": str(uuid.uuid4()),
        "format": {"provider": "parquet", "options": {}},
        "schemaString": Schema.from_arrow(schema).to_json(),
        "partitionColumns": [partition],
        "createdTime": int(time.time() * 1000),
        "configuration": settings,
    }
    actions = [{"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}, {"metaData": metadata}]
    store.put_if_absent(key_of(table, 0), "\n".join(map(json.dumps, actions)).encode())


def find(store: Store, table: str, head: int, transaction: str) -> tuple[int, list[str]]:
    """Version of a committed transaction, searched backwards from `head`, and the keys of the files it added.

    Raises StateError, naming the object, if the log ends or is damaged before the transaction is found.
    """
    for version in range(head, -1, -1):
        try:
            actions = _parse(store.get(key_of(table, version)))
        except KeyError:
            raise StateError(f"{store}/{key_of(table, version)}: missing; restore it from a copy") from None
        if any(action.get("txn", {}).get("appId") == transaction for action in actions):
            return version, [f"{table}/{action['add']['path']}" for action in actions if "add" in action]
    raise StateError(f"{store}/{table}: the transaction {transaction!r} has no log entry; restore the log from a copy")


def make_durable(store: Store, table: str, done: int, version: int) -> int:
    """Fsync the log beyond version `done`; returns the version up to which it now is durable.

    Other appenders' entries too: a version is only as durable as every version before it.
    """
    folder = f"{table}/_delta_log"
    if store.local_path(folder) is not None:
        store.fsync(key for key in store.list(folder) if not 0 <= _version(key) <= done)
    return max(done, version)


def repair(store: Store, table: str, acknowledged: int) -> Iterator[str]:
    """Remove damaged log entries beyond the acknowledged version, and damaged checkpoints; yields the removed keys.

    Nobody else may be appending. What follows a damaged entry goes as well, newest first, since a log with a gap
    cannot be read at all. Checkpoints are caches of the log; the library makes new ones.
    """
    folder = f"{table}/_delta_log"
    if store.local_path(folder) is None:
        return
    keys = store.list(folder)
    log = [key for key in keys if key.endswith(".json") and _version(key) > acknowledged]
    damaged = next((index for index, key in enumerate(log) if not _parse(store.get(key))), len(log))
    doomed = log[:damaged:-1] + log[damaged : damaged + 1]
    checkpoints = [key for key in keys if key.endswith(".parquet")]
    if not all(_is_parquet(store.get(key)) for key in checkpoints):
        doomed += [f"{folder}/_last_checkpoint", *checkpoints]
    for key in doomed:
        store.delete(key)
        yield key


def _version(key: str) -> int:
    """Version that a file of the log belongs to; -1 for `_last_checkpoint` and whatever else lies there."""
    number = key.rpartition("/")[2].partition(".")[0]
    return int(number) if number.isdecimal() else -1


def _parse(data: bytes) -> list[dict[str, dict[str, str]]]:
    """Actions of a log entry; none if it is damaged."""
    try:
        actions = [json.loads(line) for line in data.splitlines()]
    except ValueError:
        return []
    return actions if all(isinstance(action, dict) for action in actions) else []


def _is_parquet(data: bytes) -> bool:
    try:
        pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError):
        return False
    return True
