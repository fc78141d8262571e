"""Rows per second of the telemetry path: sink, ledger, Delta commit and fsyncs, against one bare pyarrow writer.

Lives of a real scripted run, renamed until there are enough, in the batches in which agents send them. The bare writer
puts the same rows of both tables into as many files, each durable at its end, with the same columns, encodings,
compression and page checksums; it neither names files by their content nor commits them to a table. Both take turns.
Processor time, that of all threads, is what a busy machine changes least.
"""

import asyncio
import json
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from telemetry.row_files import REPETITIVE
from telemetry.sink import TelemetrySink
from tests.bench.commits import Life, recorded, renamed
from tests.forager import IN_PROCESS, SMOKE, ok

LIVES = 20_000
BATCH = 64
"""Lives per message of an agent."""
FLUSHES = 4
ROUNDS = 5


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        ok("run", SMOKE, "--store", scratch, *IN_PROCESS, "--set", "generations=1", "--set", "evaluation.lives=1")
        lives = list(renamed(recorded(Path(scratch) / "smoke"), range(LIVES)))
        batches = [joined(lives[first : first + BATCH]) for first in range(0, LIVES, BATCH)]
        rounds = [
            (
                timed(lambda place: asyncio.run(through_the_sink(place, batches)), Path(scratch) / f"ours-{number}"),
                timed(lambda place: barely(place, batches), Path(scratch) / f"bare-{number}"),
            )
            for number in range(ROUNDS)
        ]
    rows = sum(steps.num_rows for steps, _ in batches)
    found: dict[str, Any] = {"rows": rows}
    for index, kind in enumerate(("wall", "cpu")):
        found[kind] = {
            "rows_per_second": rows / median(ours[index] for ours, _ in rounds),
            "bare_rows_per_second": rows / median(bare[index] for _, bare in rounds),
            "ratio": median(bare[index] / ours[index] for ours, bare in rounds),
        }
    print(json.dumps(found))


def joined(lives: Sequence[Life]) -> Life:
    steps, rows = (pa.concat_tables(tables).combine_chunks() for tables in zip(*lives, strict=True))
    return steps, rows


def timed(work: Callable[[Path], None], place: Path) -> tuple[float, float]:
    """Seconds of wall and of processor time."""
    place.mkdir()
    wall, cpu = time.perf_counter(), time.process_time()
    work(place)
    return time.perf_counter() - wall, time.process_time() - cpu


async def through_the_sink(place: Path, batches: Sequence[Life]) -> None:
    """Until every row is in the ledger."""
    sink = TelemetrySink(str(place))
    for flush in range(FLUSHES):
        for batch in batches[flush::FLUSHES]:
            await sink.append(*batch)
        assert await sink.flush(uuid.uuid4().hex)


def barely(place: Path, batches: Sequence[Life]) -> None:
    """A file of steps and one of lives for every flush."""
    for flush in range(FLUSHES):
        for name, tables in zip(("steps", "lives"), zip(*batches[flush::FLUSHES], strict=True), strict=True):
            rows = pa.concat_tables(tables)
            with (place / f"{name}-{flush}.parquet").open("wb") as file:
                with pq.ParquetWriter(
                    file, rows.schema, compression="zstd", write_page_checksum=True, use_dictionary=REPETITIVE
                ) as writer:
                    writer.write_table(rows)
                file.flush()
                os.fsync(file.fileno())


if __name__ == "__main__":
    main()
