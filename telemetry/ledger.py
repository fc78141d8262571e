"""Steps and lives as Delta Lake tables: batches in exactly once, rows out at pinned versions.

The data files are written here, named by their content, with page checksums, and durable before the log mentions
them. An append carries an application transaction id, so repeating it changes nothing. Readers see only rows of
acknowledged attempts; whatever else was appended stays unseen.
(Armbrust et al. 2020, "Delta Lake: high-performance ACID table storage over cloud object stores".)
"""

import json
import time
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from telemetry import delta_log, row_files
from telemetry.delta_commits import Log
from telemetry.failures import StateError, StorageError
from telemetry.records import FileRef
from telemetry.row_files import PARTITION
from telemetry.store import Store
from telemetry.tables import TABLES

LEARNED = "ledger"
"""Where the tables of a run's own lives are."""
HELD_OUT = "heldout"
"""Where those of lives in held-out worlds are."""
ORDER = ("generation", "individual", "life", "step")
READERS = 4
SETTINGS = {
    # Acknowledged log entries are never cleaned away: the journal vouches for each of them.
    "delta.enableExpiredLogCleanup": "false",
    "delta.checkpointInterval": "50",
}


@dataclass(frozen=True)
class Receipt:
    """What an append, or several in a row, put into the ledger; the journal entry that acknowledges it repeats this."""

    versions: dict[str, int]
    """Table name -> version that holds the rows."""
    files: tuple[FileRef, ...]
    """The new data files and log entries."""
    attempts: tuple[str, ...]
    """Attempts of the lives appended, sorted."""


class Ledger:
    """The tables `steps` and `lives` of a store. Not for use by several threads; several ledgers may append at once."""

    def __init__(self, store: Store, root: str = LEARNED) -> None:
        """root: LEARNED, or HELD_OUT for lives that nobody may learn from."""
        self.store = store
        self._root = root
        self._logs: dict[str, Log] = {}

    def append(self, steps: pa.Table, lives: pa.Table, transaction: str) -> Receipt:
        """Append exactly once: a repetition with the same rows changes nothing and returns the same receipt.

        Steps go first, so that no life is ever without its steps. Both tables must have the schemas of `records`.
        Raises StorageError if the outcome stays unknown (repeat the call), StateError if the transaction was used
        for other rows or a table is damaged, ValueError for rows of another schema.
        """
        batch = _checked(steps, lives)
        versions, files = {}, []
        for name, rows in batch.items():
            versions[name], new = self._append(name, rows, transaction)
            files += new
        attempts = sorted(set(lives.column("attempt").to_pylist()))
        return Receipt(versions=versions, files=tuple(files), attempts=tuple(attempts))

    def keep(self, steps: pa.Table, lives: pa.Table) -> tuple[FileRef, ...]:
        """Writes rows that no table's log names: `recall` finds them for whoever has these references.

        Both tables must have the schemas of `records`. Raises StorageError, ValueError for rows of another schema.
        """
        batch = _checked(steps, lives)
        return tuple(ref for name, rows in batch.items() for ref in self._write(name, rows)[0])

    def recall(
        self,
        table: str,
        generation: int,
        files: Iterable[FileRef],
        attempts: Collection[str] | None,
        columns: Sequence[str] | None = None,
        *,
        ordered: bool = True,
    ) -> pa.Table:
        """Acknowledged rows of one generation in canonical order (individual, life, step), schema as in `records`.

        files: what the journal vouches for. Nothing else is looked at, neither the table's log nor what others have
        appended. attempts: None for all that these files hold. With `columns` only these; not `ordered`, they come as
        they lie. Raises StateError, naming the object, if one is missing or damaged.
        """
        folder = f"{self._folder(table)}/{PARTITION}={generation}/"
        keys = dict.fromkeys(ref.key for ref in files if ref.key.startswith(folder))
        return self._load(table, [(key, generation) for key in keys], attempts, columns, ordered=ordered)

    def read(
        self,
        table: str,
        version: int,
        attempts: Collection[str] | None = None,
        generation: int | None = None,
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        """Rows at a version of the table as other tools see it, in canonical order, schema as in `records`.

        With `attempts` only their rows, with `generation` only its partition, with `columns` only these. Raises
        StateError, naming the object, if anything that should be there is missing or damaged.
        """
        files = [(f"{self._folder(table)}/{path}", part) for path, part in self.files(table, version)]
        return self._load(table, [file for file in files if generation in (None, file[1])], attempts, columns)

    def _load(
        self,
        table: str,
        files: Sequence[tuple[str, int]],
        attempts: Collection[str] | None,
        columns: Sequence[str] | None,
        *,
        ordered: bool = True,
    ) -> pa.Table:
        """Rows of data files, each with its generation."""
        schema = TABLES[table]
        wanted = list(schema.names if columns is None else columns)
        order = [name for name in ORDER if name in schema.names] if ordered else []
        needed = pa.schema([schema.field(name) for name in dict.fromkeys([*wanted, *order, "attempt"])])
        known = None if attempts is None else pa.array(sorted(attempts), pa.string())

        def load(file: tuple[str, int]) -> pa.Table:
            rows = row_files.read(self.store, *file, needed)
            return rows if known is None else rows.filter(pc.is_in(rows.column("attempt"), value_set=known))

        with ThreadPoolExecutor(READERS) as pool:
            # Threads take longer to start than one file to read.
            loaded = pool.map(load, files) if len(files) > 1 else map(load, files)
            rows = pa.concat_tables([needed.empty_table(), *loaded])
        if ordered:
            rows = rows.sort_by([(name, "ascending") for name in order])
        return rows.select(wanted)

    def repair(self, versions: Mapping[str, int]) -> tuple[str, ...]:
        """Remove what is damaged beyond the acknowledged versions, and the log's caches; returns the removed keys.

        For a resumed run, before anybody appends. Acknowledged rows are never touched.
        """
        self._logs.clear()
        return tuple(
            key
            for name in TABLES
            for key in delta_log.repair(self.store, self._folder(name), versions.get(name, -1), _definition(name))
        )

    def named(self, name: str, version: int) -> dict[str, int]:
        """Key and generation of every data file that the log entries up to a version add, whatever its caches say."""
        entries = (delta_log.added(self.store, self._folder(name), number) for number in range(version + 1))
        return {key: int(part) for added in entries for key, part in added}

    def damaged(self, name: str, version: int, known: Container[str]) -> Iterator[tuple[str, str]]:
        """Damaged log entries of a table up to a version but for the `known` ones: key, and what is wrong.

        Nobody vouches for what was appended and never acknowledged; but whoever appends reads its log entries, and
        other tools read its rows.
        """
        for number in range(version + 1):
            key = delta_log.key_of(self._folder(name), number)
            if key not in known:
                flaw = delta_log.damage(self.store, self._folder(name), number, _definition(name))
                if flaw:
                    yield key, flaw

    def _append(self, name: str, rows: pa.Table, transaction: str) -> tuple[int, list[FileRef]]:
        """Version and new files of one table's append, done now or by an earlier try."""
        refs, adds = self._write(name, rows)
        log = self._log(name)
        version = log.commit(transaction, adds)
        if sorted(log.added(version)) != sorted(ref.key for ref in refs):
            raise StateError(f"{log.table}: the transaction {transaction!r} has other rows; choose a new name")
        # The entry that made the table is vouched for by whoever appended first.
        entries = [0, 1] if version == 1 else [version]
        return version, [*refs, *(self._ref(delta_log.key_of(log.table, entry)) for entry in entries)]

    def _log(self, name: str) -> Log:
        """The table's log; made if there is none."""
        if name not in self._logs:
            self._logs[name] = Log(self.store, self._folder(name), _definition(name))
        return self._logs[name]

    def _write(self, name: str, rows: pa.Table) -> tuple[list[FileRef], list[delta_log.Action]]:
        """Data files, one per generation, named by their content, durable; and what the log is to say of them."""
        refs, adds = [], []
        generations = sorted(rows.column(PARTITION).unique().to_pylist())
        for generation in generations:
            part = rows.filter(pc.equal(rows.column(PARTITION), generation)) if len(generations) > 1 else rows
            data, digest = row_files.encode(part.drop_columns([PARTITION]))
            path = f"{PARTITION}={generation}/{digest}.parquet"
            ref = FileRef(key=f"{self._folder(name)}/{path}", size=len(data), sha256=digest)
            if not self.store.put_if_absent(ref.key, data) and self.store.get(ref.key) != data:
                # Its name says what it must hold: anything else is damage.
                self.store.put(ref.key, data)
            refs.append(ref)
            adds.append(
                {
                    "path": path,
                    "partitionValues": {PARTITION: str(generation)},
                    "size": ref.size,
                    "modificationTime": int(time.time() * 1000),
                    "dataChange": True,
                    "stats": json.dumps({"numRecords": part.num_rows}),
                }
            )
        return refs, adds

    def between(
        self, since: Mapping[str, int], until: Mapping[str, int], known: Iterable[FileRef]
    ) -> Iterator[FileRef]:
        """Log entries of all tables after some versions and up to others that are not among the known files.

        They are appends that nobody acknowledges, but the next appender and every other tool has to read them.
        """
        keys = {file.key for file in known}
        for name, version in until.items():
            for number in range(since.get(name, -1) + 1, version + 1):
                key = delta_log.key_of(self._folder(name), number)
                if key not in keys:
                    yield self._ref(key)

    def _folder(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _ref(self, key: str) -> FileRef:
        try:
            size, digest = self.store.size_and_sha256(key)
        except KeyError as error:
            raise StorageError(f"{self.store}/{key}: gone{self.store.free_text()}") from error
        return FileRef(key=key, size=size, sha256=digest)

    def files(self, name: str, version: int) -> list[tuple[str, int]]:
        """Path within the table and generation of every data file at a version."""
        url, options = self.store.delta(self._folder(name))
        with delta_log.failures(self.store, self._folder(name)):
            actions = pa.table(DeltaTable(url, version=version, storage_options=options).get_add_actions(flatten=True))
        if not actions.num_rows:
            return []
        return sorted(zip(actions["path"].to_pylist(), actions[f"partition.{PARTITION}"].to_pylist(), strict=True))


def _checked(steps: pa.Table, lives: pa.Table) -> dict[str, pa.Table]:
    # Both are checked before either is written.
    return {name: rows.cast(TABLES[name]) for name, rows in (("steps", steps), ("lives", lives))}


def _definition(name: str) -> delta_log.Definition:
    return delta_log.Definition(TABLES[name], PARTITION, SETTINGS)
