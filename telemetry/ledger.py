"""Steps and lives as Delta Lake tables: batches in exactly once, rows out at pinned versions.

The data files are written here, named by their content, with page checksums, and durable before the log mentions
them; the transaction log is delta-rs's work. An append carries an application transaction id, so repeating it
changes nothing. delta-rs does not fsync on a local disk: this module does, before it hands out the receipt that
the journal acknowledges. Readers see only rows of acknowledged attempts; whatever else was appended stays unseen.
(Armbrust et al. 2020, "Delta Lake: high-performance ACID table storage over cloud object stores".)
"""

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, PostCommitHookProperties

from telemetry.failures import StateError, StorageError
from telemetry.records import TABLES, FileRef, Record
from telemetry.store import Store

PARTITION = "generation"
ORDER = ("generation", "individual", "life", "step")
COMMIT_TRIES = 20
SETTINGS = {
    # Acknowledged log entries are never cleaned away: the journal vouches for each of them.
    "delta.enableExpiredLogCleanup": "false",
    "delta.checkpointInterval": "100",
}


class Receipt(Record):
    """What one append put into the ledger; the journal entry that acknowledges it repeats this."""

    versions: dict[str, int]
    """Table name -> version that holds the rows."""
    files: tuple[FileRef, ...]
    """The new data files and log entries."""
    attempts: tuple[str, ...]
    """Attempts of the lives appended, sorted."""


class Ledger:
    """The tables `steps` and `lives` of a store. Not for use by several threads; several ledgers may append at once."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._tables: dict[str, DeltaTable] = {}
        self._durable: dict[str, int] = {}

    def append(self, steps: pa.Table, lives: pa.Table, transaction: str) -> Receipt:
        """Append exactly once: a repetition with the same rows changes nothing and returns the same receipt.

        Steps go first, so that no life is ever without its steps. Both tables must have the schemas of `records`.
        Raises StorageError if the outcome stays unknown (repeat the call), StateError if the transaction was used
        for other rows or a table is damaged.
        """
        versions, files = {}, []
        for name, rows in (("steps", steps), ("lives", lives)):
            versions[name], new = self._append(name, rows.cast(TABLES[name]), transaction)
            files += new
        attempts = sorted(set(lives.column("attempt").to_pylist()))
        return Receipt(versions=versions, files=tuple(files), attempts=tuple(attempts))

    def read(
        self,
        table: str,
        version: int,
        attempts: Collection[str] | None = None,
        generation: int | None = None,
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        """Rows at a pinned version in canonical order (generation, individual, life, step), schema as in `records`.

        With `attempts` only their rows, with `generation` only its partition, with `columns` only these. Raises
        StateError, naming the object, if anything that should be there is missing or damaged.
        """
        schema = TABLES[table]
        wanted = [name for name in schema.names if columns is None or name in columns]
        order = [name for name in ORDER if name in schema.names]
        needed = [name for name in schema.names if name in {*wanted, *order, "attempt"}]
        known = None if attempts is None else pa.array(sorted(attempts), pa.string())

        def load(file: tuple[str, int]) -> pa.Table:
            rows = self._read_file(f"ledger/{table}/{file[0]}", table, file[1], needed)
            return rows if known is None else rows.filter(pc.is_in(rows.column("attempt"), value_set=known))

        files = [file for file in self._files(table, version) if generation in (None, file[1])]
        with ThreadPoolExecutor(4) as pool:
            parts = list(pool.map(load, files))
        empty = pa.schema([schema.field(name) for name in needed]).empty_table()
        rows = pa.concat_tables([empty, *parts])
        return rows.sort_by([(name, "ascending") for name in order]).select(wanted).combine_chunks()

    def repair(self, versions: Mapping[str, int]) -> tuple[str, ...]:
        """Remove what a power cut left half-written beyond the acknowledged versions; returns the removed keys.

        For local stores, before a resumed run appends: delta-rs writes log entries and checkpoints without fsync,
        so one that no journal entry acknowledges may be empty or full of zeros, and would bar the table. Checkpoints
        are caches of the log. Acknowledged log entries are never touched.
        """
        removed: list[str] = []
        for name, acknowledged in versions.items():
            folder = f"ledger/{name}/_delta_log"
            if self.store.local_path(folder) is None:
                continue
            keys = self.store.list(folder)
            log = [key for key in keys if key.endswith(".json") and _version(key) > acknowledged]
            damaged = next((index for index, key in enumerate(log) if not _is_log_entry(self.store.get(key))), len(log))
            # What follows a removed entry has to go as well: a log with a gap cannot be read at all.
            removed += reversed(log[damaged:])
            checkpoints = [key for key in keys if key.endswith(".parquet")]
            if not all(_is_parquet(self.store.get(key)) for key in checkpoints):
                removed += [key for key in keys if key.endswith("_last_checkpoint")] + checkpoints
        for key in removed:
            self.store.delete(key)
        self._tables.clear()
        return tuple(removed)

    def _append(self, name: str, rows: pa.Table, transaction: str) -> tuple[int, list[FileRef]]:
        """Version and new files of one table's append, done now or by an earlier try."""
        refs, actions = self._write(name, rows)
        properties = CommitProperties(app_transactions=[Transaction(transaction, 1)], max_commit_retries=100)
        hooks = PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False)
        failure: Exception = StorageError("no try made")
        for attempt in range(COMMIT_TRIES):
            table = self._table(name)
            if table.transaction_version(transaction) is not None:
                return self._receive(name, table.version(), transaction, refs)
            time.sleep(0.05 * attempt)
            try:
                # A failed commit may have happened all the same; the next look at the table tells.
                table.create_write_transaction(
                    actions, "append", TABLES[name], [PARTITION], commit_properties=properties, post_commithook_properties=hooks
                )
            except (DeltaError, OSError) as error:
                failure = error
        raise StorageError(f"{self.store}/ledger/{name}: cannot commit: {_first_line(failure)}") from failure

    def _write(self, name: str, rows: pa.Table) -> tuple[list[FileRef], list[AddAction]]:
        """Data files, one per generation, named by their content, durable."""
        refs, actions = [], []
        for generation in sorted(set(rows.column(PARTITION).to_pylist())):
            part = rows.filter(pc.equal(rows.column(PARTITION), generation)).drop_columns([PARTITION])
            sink = pa.BufferOutputStream()
            pq.write_table(part, sink, compression="zstd", write_page_checksum=True)
            data = sink.getvalue().to_pybytes()
            digest = sha256(data).hexdigest()
            path = f"{PARTITION}={generation}/{digest}.parquet"
            ref = FileRef(key=f"ledger/{name}/{path}", size=len(data), sha256=digest)
            self.store.put_if_absent(ref.key, data)
            stats = json.dumps({"numRecords": part.num_rows})
            actions.append(AddAction(path, ref.size, {PARTITION: str(generation)}, int(time.time() * 1000), True, stats))
            refs.append(ref)
        return refs, actions

    def _table(self, name: str) -> DeltaTable:
        """The table as it is now; made if there is none."""
        url, options = self.store.delta(f"ledger/{name}")
        with _failures(f"{self.store}/ledger/{name}"):
            if name in self._tables:
                self._tables[name].update_incremental()
                return self._tables[name]
            try:
                table = DeltaTable(url, storage_options=options)
            except TableNotFoundError:
                # Somebody else may make it first; then theirs is opened.
                with suppress(DeltaError):
                    DeltaTable.create(
                        url,
                        TABLES[name],
                        mode="ignore",
                        partition_by=[PARTITION],
                        configuration=SETTINGS,
                        storage_options=options,
                    )
                table = DeltaTable(url, storage_options=options)
            self._tables[name] = table
            return table
