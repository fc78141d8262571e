"""Appends to a Delta table's log, each exactly once and durable.

An append is one small object under the next number, for which the store lets one of many writers win. delta-rs would
read all entries since the last checkpoint six times for it, and not fsync it.
"""

import json
import logging
import time
from collections.abc import Iterable, Sequence

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from telemetry import delta_log
from telemetry.failures import StateError, StorageError
from telemetry.store import Store

log = logging.getLogger(__name__)


class Log:
    """One appender's hold on the log of a table."""

    def __init__(self, store: Store, table: str, definition: delta_log.Definition) -> None:
        """Makes the table if there is none. Raises StorageError or StateError, as `delta_log.failures`."""
        self.table = table
        self._store = store
        self._interval = int(definition.settings["delta.checkpointInterval"])
        with delta_log.failures(store, table):
            try:
                self._seen = self._open()
            except TableNotFoundError:
                delta_log.create(store, table, definition)
                self._seen = self._open()
        self._head: int = self._seen.version()
        self._since: dict[str, int] = {}
        """Version by transaction, of entries after those that delta-rs has seen."""
        self._fsync(range(self._head + 1))
        if self._head >= self._interval and not store.exists(f"{table}/_delta_log/_last_checkpoint"):
            # To be asked for a transaction, delta-rs reads all entries since the last checkpoint.
            self._checkpoint(self._seen)
            with delta_log.failures(store, table):
                self._seen = self._open()

    def commit(self, transaction: str, adds: Sequence[delta_log.Action]) -> int:
        """Version of the transaction's entry, durable with all before it; written unless an earlier try wrote it.

        Raises StorageError if nobody knows whether it was (repeat the call), StateError if the log is damaged.
        """
        actions = [
            {"commitInfo": {"timestamp": int(time.time() * 1000), "operation": "WRITE", "engineInfo": "forager"}},
            *({"add": add} for add in adds),
            {"txn": {"appId": transaction, "version": 1}},
        ]
        entry = "\n".join(map(json.dumps, actions)).encode()
        while True:
            self._catch_up()
            version = self._version_of(transaction)
            if version is not None:
                return version
            if self._store.put_if_absent(delta_log.key_of(self.table, self._head + 1), entry):
                self._head += 1
                self._since[transaction] = self._head
                if (self._head + 1) % self._interval == 0:
                    self._checkpoint()
                return self._head

    def added(self, version: int) -> list[str]:
        """Keys of the data files that an entry adds."""
        return [key for key, _ in delta_log.added(self._store, self.table, version)]

    def _catch_up(self) -> None:
        """Reads what others have appended. Raises StorageError where the log has lost entries since the last look."""
        if not self._store.exists(delta_log.key_of(self.table, self._head)):
            raise _gone(self._store, self.table, self._head)
        begin = self._head + 1
        while (actions := _entry(self._store, self.table, self._head + 1)) is not None:
            self._head += 1
            self._since |= {action["txn"]["appId"]: self._head for action in actions if "txn" in action}
        self._fsync(range(begin, self._head + 1))

    def _version_of(self, transaction: str) -> int | None:
        if transaction in self._since:
            return self._since[transaction]
        with delta_log.failures(self._store, self.table):
            if self._seen.transaction_version(transaction) is None:
                return None
        for version in range(self._seen.version(), -1, -1):
            actions = _entry(self._store, self.table, version)
            if actions is None:
                raise delta_log.bad(self._store, self.table, version)
            if any(action.get("txn", {}).get("appId") == transaction for action in actions):
                return version
        raise StateError(f"{self._store}/{self.table}: no log entry has {transaction!r}; restore the log from a copy")

    def _fsync(self, versions: Iterable[int]) -> None:
        """Others' entries too: a version is only as durable as every version before it."""
        self._store.fsync(delta_log.key_of(self.table, version) for version in versions)

    def _checkpoint(self, seen: DeltaTable | None = None) -> None:
        try:
            (seen or self._open()).create_checkpoint()
        except (DeltaError, OSError) as error:
            # A cache; the entries stand.
            log.warning("%s/%s: no checkpoint: %s", self._store, self.table, delta_log.in_words(error))

    def _open(self) -> DeltaTable:
        url, options = self._store.delta(self.table)
        return DeltaTable(url, storage_options=options)


def _entry(store: Store, table: str, version: int) -> list[delta_log.Action] | None:
    """Actions of a log entry; None where there is none. Raises StateError if it is damaged."""
    try:
        actions = delta_log.parse(store.get(delta_log.key_of(table, version)))
    except KeyError:
        return None
    if not actions:
        raise delta_log.bad(store, table, version)
    return actions


def _gone(store: Store, table: str, version: int) -> StorageError:
    return StorageError(
        f"{store}/{delta_log.key_of(table, version)}: gone, it was there before; restore it, then resume"
    )
