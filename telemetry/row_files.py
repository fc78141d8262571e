"""Data files of the ledger: rows of one generation as Parquet with page checksums, named by their content."""

from hashlib import sha256

import pyarrow as pa
import pyarrow.parquet as pq

from telemetry.failures import StateError
from telemetry.store import Store
from telemetry.tables import TABLES

PARTITION = "generation"
"""The column that is in a file's place, not in the file."""
REPETITIVE = [
    f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name
    for schema in TABLES.values()
    for field in schema
    if pa.types.is_nested(field.type) or pa.types.is_string(field.type)
    if field.name not in ("attempt", "prompt_ids", "completion_logprobs")
]
"""Columns whose values are written once and pointed at: for the others that takes longer and more room."""


def encode(rows: pa.Table) -> tuple[bytes, str]:
    """The bytes of a file, and their SHA-256, by which it is named."""
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd", write_page_checksum=True, use_dictionary=REPETITIVE)
    data = sink.getvalue().to_pybytes()
    return data, sha256(data).hexdigest()


def read(store: Store, key: str, generation: int, schema: pa.Schema) -> pa.Table:
    """Columns of one file, checked against the digest in its name. Raises StateError if it is missing or damaged."""
    try:
        data = store.get(key)
    except KeyError:
        raise StateError(f"{store}/{key}: missing; restore it from a copy") from None
    if sha256(data).hexdigest() != key.rpartition("/")[2].removesuffix(".parquet"):
        raise StateError(f"{store}/{key}: damaged (its checksum does not match); restore it from a copy")
    stored = [name for name in schema.names if name != PARTITION]
    rows = pq.ParquetFile(pa.BufferReader(data), arrow_extensions_enabled=False).read(columns=stored)
    if PARTITION in schema.names:
        rows = rows.append_column(PARTITION, pa.repeat(pa.scalar(generation, pa.int32()), rows.num_rows))
    return rows.select(schema.names).cast(schema)
