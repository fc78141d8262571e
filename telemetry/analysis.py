"""A run as five tables, for people who ask questions of their own: SQL in, Arrow out.

Law: the same rows as every other reader of a run sees. `steps` and `lives` are the data files that the journal vouches
for, cut down to acknowledged attempts where others have got into them; what is small is handed over as it is. Files are
trusted by their names and sizes: whether their bytes are sound is for `forager verify` to say.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import entry_points

import duckdb
import pyarrow as pa

from telemetry.failures import StateError, UsageError
from telemetry.records import FileRef
from telemetry.store import Store
from telemetry.tables import TABLES

GROUP = "forager.readers"
"""Entry point that knows what a journal means; telemetry only keeps it."""
ACKNOWLEDGED = "acknowledged_attempts"
GLOB = re.compile(r"([*?\[])")
"""What DuckDB takes for a pattern in a path."""
READERS = 16
"""Requests to the store under way at once."""


class RunTables:
    """The tables of one run, as of when it was opened. Close it, or use it as a context."""

    def __init__(
        self,
        store: Store,
        rows: Mapping[str, pa.Table],
        files: Collection[FileRef],
        attempts: Sequence[str],
    ) -> None:
        """rows: small tables by name; files: what the journal vouches for; attempts: those that count.

        Raises StateError, naming it, for a data file that is missing or has another size.
        """
        self._connection = duckdb.connect()
        self._connection.execute("set timezone = 'UTC'")
        for name, table in rows.items():
            self._connection.register(name, table)
        self._connection.register(ACKNOWLEDGED, pa.table({"attempt": pa.array(attempts, pa.string())}))
        self.names = (*TABLES, *rows)
        """Of all tables."""
        filesystem = store.filesystem()
        if filesystem is not None:
            self._connection.register_filesystem(filesystem)
        _check_place(store)
        addresses = {name: [store.address(key) for key in _data_files(store, name, files)] for name in TABLES}
        self._view("lives", addresses["lives"], only_acknowledged=False)
        # Lives are few: they tell whether anything has to be left out of the steps, which are many.
        strangers = bool(self._strangers())
        for name in TABLES:
            self._view(name, addresses[name], only_acknowledged=strangers)

    def __enter__(self) -> "RunTables":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the files."""
        self._connection.close()

    def query(self, sql: str) -> pa.Table:
        """Answer to a statement in DuckDB's SQL. Raises UsageError in one line when it is none, or has no answer."""
        try:
            relation = self._connection.sql(sql)
            if relation is None:
                raise UsageError("query: the statement has no answer; expected a SELECT")
            answer: pa.Table = relation.to_arrow_table()
        except duckdb.Error as error:
            raise UsageError(f"query: {error}; tables: {', '.join(self.names)}") from error
        return answer

    def table(self, name: str, columns: Sequence[str] = ()) -> pa.Table:
        """All rows of a table, in canonical order, or only these columns. Raises UsageError for an unknown name."""
        if name not in self.names:
            raise UsageError(f"table: got {name!r}, expected one of {', '.join(self.names)}")
        chosen = ", ".join(f'"{column}"' for column in columns) or "*"
        order = {"steps": "individual, life, step", "lives": "individual, life"}.get(name)
        rows = self.query(f"select {chosen} from {name}" + (f" order by generation, {order}" if order else ""))
        return rows.cast(TABLES[name]) if order and not columns else rows

    def _view(self, name: str, addresses: Sequence[str], *, only_acknowledged: bool) -> None:
        schema = TABLES[name]
        if not addresses:
            self._connection.register(name, schema.empty_table())
            return
        columns = ", ".join(f'"{column}"' for column in schema.names)
        files = ", ".join("'" + GLOB.sub(r"[\1]", address).replace("'", "''") + "'" for address in addresses)
        where = f" where attempt in (select attempt from {ACKNOWLEDGED})" if only_acknowledged else ""
        self._connection.execute(
            f"create or replace view {name} as select {columns} from read_parquet([{files}],"
            f" hive_partitioning = true, hive_types = {{'generation': integer}}){where}"
        )

    def _strangers(self) -> int:
        """Rows of `lives` that nobody acknowledged."""
        [[count]] = self._connection.sql(
            f"select count(*) from lives where attempt not in (select attempt from {ACKNOWLEDGED})"
        ).fetchall()
        return int(count)


def open_run(place: str) -> RunTables:
    """The tables of a run directory or store URL: `open_run("runs/demo").query("select ...").to_pandas()`.

    Raises UsageError or StateError where there is no run, or a damaged one.
    """
    [reader] = entry_points(group=GROUP, name="run")
    tables: RunTables = reader.load()(place)
    return tables


def _check_place(store: Store) -> None:
    """Partitions are read off paths, so no folder above the tables may look like one of their columns."""
    columns = {column for schema in TABLES.values() for column in schema.names}
    for folder in store.address("ledger").split("/"):
        name, sign, _ = folder.partition("=")
        if sign and name in columns:
            raise UsageError(f"{store}: got the folder {folder!r}, which reads as a column; move the run elsewhere")


def _data_files(store: Store, table: str, files: Collection[FileRef]) -> list[str]:
    """Keys of a table's data files, each of the size that the journal knows."""
    folder = f"ledger/{table}/"
    found = {ref.key: ref for ref in files if ref.key.startswith(folder) and "/_delta_log/" not in ref.key}

    def check(ref: FileRef) -> None:
        try:
            size, _ = store.size_and_time(ref.key)
        except KeyError:
            raise StateError(f"{store}/{ref.key}: missing; restore it from a copy") from None
        if size != ref.size:
            raise StateError(f"{store}/{ref.key}: has {size} bytes, the journal vouches for {ref.size}")

    with ThreadPoolExecutor(READERS) as pool:
        list(pool.map(check, found.values()))
    return list(found)
