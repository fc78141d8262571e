"""A run's tables as Parquet files that other tools load without Forager.

Law: rows are read by the ledger's own reader, which checks every file against its name; nothing is written that was
not redacted first, if that was asked for, and then scanned for secrets. One generation is in memory at a time.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from orchestrator.leaks import Scanner
from orchestrator.outcomes import FATE, OUTCOMES, recall
from orchestrator.provenance import SHORT
from orchestrator.redaction import Redaction
from orchestrator.state import RunState
from orchestrator.tables import small_tables
from telemetry.ledger import Ledger
from telemetry.seeds import held_out_world_seed
from telemetry.store import Store
from telemetry.tables import TABLES

BATCH = 1 << 14
"""Rows redacted, scanned and written at a time."""
DATA = "data"
SMALL = ("individuals", "generations", "training")
HELD_OUT = pa.schema(
    [
        *(OUTCOMES.field(name) for name in ("who", "individual", "world_index")),
        pa.field("world_seed", pa.int64(), nullable=False),
        *(OUTCOMES.field(name).with_nullable(name != "fitness") for name in ("seat", "fitness", *FATE)),
    ]
)
"""One row per player and held-out life; per held-out world, without its fate, for runs that kept no more."""

Decode = Callable[[Sequence[int]], str]


@dataclass
class TableWriter:
    """Writes tables of one run below a directory, and counts their rows."""

    directory: Path
    digest: str
    """Of the run."""
    scanner: Scanner
    decode: Decode
    """Tokens to text, so that answers in free text are scanned too; asked only if there are any."""
    redaction: Redaction | None = None
    rows: dict[str, int] = field(default_factory=dict)
    """By table."""

    def write(self, name: str, table: pa.Table, part: str = "") -> None:
        """Writes `data/<name>/<source><part>.parquet`. Raises UsageError for a secret or a redaction that fails."""
        path = self.directory / DATA / name / f"{self.digest[:SHORT]}{part}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        schema = published_schema(table.schema)
        where, first = f"{DATA}/{name}/{path.name}", 0
        with pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True) as writer:
            for batch in table.to_batches(max_chunksize=BATCH):
                if self.redaction is not None:
                    batch = self.redaction.batch(name, batch)
                self._scan(name, where, batch, first)
                first += batch.num_rows
                source = pa.repeat(self.digest[:SHORT], batch.num_rows)
                columns = [source, *map(_plain, batch.columns)]
                writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema), row_group_size=BATCH)
        self.rows[name] = self.rows.get(name, 0) + table.num_rows

    def _scan(self, name: str, where: str, batch: pa.RecordBatch, first: int) -> None:
        for column, values in zip(batch.schema.names, batch.columns, strict=True):
            kind = values.type.value_type if pa.types.is_list(values.type) else values.type
            if pa.types.is_string(kind):
                self.scanner.check(f"{where}: column {column}", values, first)
        if name == "steps":
            free = pc.equal(pc.list_value_length(batch["choice_ids"]), 0)
            ids = pc.if_else(free, batch["completion_ids"], None).to_pylist()
            texts = pa.array([self.decode(one) if one else "" for one in ids], pa.string())
            self.scanner.check(f"{where}: column completion_ids", texts, first)


def write_tables(writer: TableWriter, store: Store, state: RunState) -> None:
    """All of a finished run's tables. Raises StateError for a damaged file, UsageError for what must not be shown."""
    ledger = Ledger(store)
    for event in state.history:
        number = event.generation
        for name in TABLES:
            rows = ledger.recall(name, number, state.vouched(number), state.attempts(number))
            writer.write(name, rows, f"-{number:05d}")
    small = small_tables(state)
    if writer.redaction is not None:
        small["generations"] = _redacted_ends(small["generations"], writer.redaction)
    for name in SMALL:
        writer.write(name, small[name])
    writer.write("held_out", held_out(store, state))


def held_out(store: Store, state: RunState) -> pa.Table:
    """How every player fared in every held-out world (schema HELD_OUT). Raises StateError for a damaged file."""
    rows = recall(store, state.held_out)
    if rows is None:
        rows = pa.Table.from_pylist(list(_by_world(state)), schema=HELD_OUT)
    else:
        seeds = [held_out_world_seed(index) for index in rows["world_index"].to_pylist()]
        rows = rows.append_column("world_seed", pa.array(seeds, pa.int64()))
    return rows.select(HELD_OUT.names).cast(HELD_OUT)


def _by_world(state: RunState) -> Iterator[dict[str, Any]]:
    for row in state.evaluation.rows if state.evaluation else ():
        for index, value in enumerate(row.values):
            yield {
                "who": row.who,
                "individual": row.individual,
                "world_index": index,
                "world_seed": held_out_world_seed(index),
                "fitness": value,
            }


def published_schema(schema: pa.Schema) -> pa.Schema:
    """The published form of a schema: where each row is from, and no maps, which many readers do not know."""
    fields = [one.with_type(_pairs(one.type) if pa.types.is_map(one.type) else one.type) for one in schema]
    return pa.schema([pa.field("source", pa.string(), nullable=False), *fields])


def _redacted_ends(table: pa.Table, redaction: Redaction) -> pa.Table:
    index = table.schema.get_field_index("ends")
    ends = [list(redaction.ends(dict(one)).items()) for one in table["ends"].to_pylist()]
    return table.set_column(index, table.schema.field(index), pa.array(ends, table.schema.field(index).type))


def _pairs(kind: pa.MapType) -> pa.DataType:
    return pa.list_(pa.struct([pa.field("key", kind.key_type), pa.field("value", kind.item_type)]))


def _plain(values: pa.Array) -> pa.Array:
    if not pa.types.is_map(values.type):
        return values
    pairs = [[{"key": key, "value": value} for key, value in one] for one in values.to_pylist()]
    return pa.array(pairs, _pairs(values.type))
