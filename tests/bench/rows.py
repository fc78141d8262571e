"""Rows per second of the telemetry path: sink, ledger, Delta commit and fsyncs, against one bare pyarrow writer.

Steps of a real scripted run, renamed until there are enough, in the batches in which agents send them. The bare writer
puts the same columns with the same encodings, compression and page checksums into one file, durable at its end.
"""

import asyncio
import json
import os
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from telemetry.ledger import REPETITIVE
from telemetry.sink import TelemetrySink
from telemetry.tables import STEPS
from tests.bench.commits import Life, recorded, renamed
from tests.forager import IN_PROCESS, SMOKE, ok

LIVES = 20_000
BATCH = 64
"""Lives per message of an agent."""
FLUSHES = 4
ROUNDS = 3


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        ok("run", SMOKE, "--store", scratch, *IN_PROCESS, "--set", "generations=1", "--set", "evaluation.lives=1")
        lives = list(renamed(recorded(Path(scratch) / "smoke"), range(LIVES)))
        batches = [joined(lives[first : first + BATCH]) for first in range(0, LIVES, BATCH)]
        rows = sum(steps.num_rows for steps, _ in batches)
        ours, bare = [], []
        for number in range(ROUNDS):
            ours.append(asyncio.run(through_the_sink(Path(scratch) / f"ours-{number}", batches)))
            bare.append(barely(Path(scratch) / f"bare-{number}.parquet", [steps for steps, _ in batches]))
    print(
        json.dumps(
            {
                "rows": rows,
                "rows_per_second": rows / min(ours),
                "bare_rows_per_second": rows / min(bare),
                "ratio": min(bare) / min(ours),
            }
        )
    )


def joined(lives: Sequence[Life]) -> Life:
    steps, rows = (pa.concat_tables(tables).combine_chunks() for tables in zip(*lives, strict=True))
    return steps, rows


async def through_the_sink(place: Path, batches: Sequence[Life]) -> float:
    """Seconds until every row is in the ledger, lives included."""
    place.mkdir()
    sink = TelemetrySink(str(place))
    begin = time.perf_counter()
    for flush in range(FLUSHES):
        for batch in batches[flush::FLUSHES]:
            await sink.append(*batch)
        assert await sink.flush(uuid.uuid4().hex)
    return time.perf_counter() - begin


def barely(path: Path, batches: Sequence[pa.Table]) -> float:
    """Seconds of the bare writer; as many row groups as there are flushes."""
    begin = time.perf_counter()
    with path.open("wb") as file:
        with pq.ParquetWriter(
            file, STEPS, compression="zstd", write_page_checksum=True, use_dictionary=REPETITIVE
        ) as writer:
            for flush in range(FLUSHES):
                writer.write_table(pa.concat_tables(batches[flush::FLUSHES]))
        file.flush()
        os.fsync(file.fileno())
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
