"""Parquet files that somebody else may have put into a ledger, each a trap for whoever reads it carelessly."""

import io
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def pickled_canary(nest: Path) -> bytes:
    """A pickle, written by hand, that makes a directory when it is read."""
    return b"cos\nmkdir\n(V" + str(nest).encode() + b"\ntR."


def parquet(table: pa.Table, **options: object) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def pickled_extension(nest: Path, name: bytes) -> bytes:
    """A column of an extension type whose description is a pickle (as in CVE-2026-41486)."""
    metadata = {b"ARROW:extension:name": name, b"ARROW:extension:metadata": pickled_canary(nest)}
    field = pa.field("attempt", pa.string(), metadata=metadata)
    return parquet(pa.table([pa.array(["stranger"])], schema=pa.schema([field])))


def spring(trap: bytes) -> None:
    """Does, in a process of its own, what a careless reader would do with `pickled_extension`."""
    found = pq.read_schema(io.BytesIO(trap)).field("attempt").metadata[b"ARROW:extension:metadata"]
    careless = "import pickle, sys; pickle.load(sys.stdin.buffer)"
    subprocess.run([sys.executable, "-c", careless], input=found, check=True)


def huge_name() -> bytes:
    """A footer that declares a name of two gigabytes."""
    whole = parquet(pa.table({"attempt": ["stranger"]}))
    short = b"\x07attempt"
    assert short in whole
    return whole.replace(short, b"\xff\xff\xff\xff\x07" + short[5:])


def not_unicode() -> bytes:
    """A column that is called text and is none."""
    marked = parquet(pa.table({"attempt": ["stranger" * 3]}), compression="none", use_dictionary=False)
    return marked.replace(b"stranger" * 3, b"\xff" * 24)


GOOD = parquet(pa.table({"attempt": ["stranger"]}))
TRAPS: Mapping[str, bytes] = {
    "empty": b"",
    "four bytes": b"PAR1",
    "a hundred zeros": bytes(100),
    "half": GOOD[: len(GOOD) // 2],
    "one byte short": GOOD[:-1],
    "text": b"not a table\n" * 20,
    "huge name": huge_name(),
    "no Unicode": not_unicode(),
    "another table": parquet(pa.table({"other": [1]})),
    "lists": parquet(pa.table({"attempt": [["stranger"]]})),
    "structs": parquet(pa.table({"attempt": [{"attempt": "stranger"}]})),
}
"""Contents that cannot be read as a column of attempts."""
