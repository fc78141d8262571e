"""A group-by over ten million steps of a run: `open_run(...).query(...)` against DuckDB over the same files.

Lives of a real scripted run are committed again and again under new names, through the real sink, ledger and journal.
The bare side knows nothing of a journal: it reads whatever files lie in the folder.
"""

import asyncio
import json
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from orchestrator.places import open_run
from orchestrator.run import create
from orchestrator.state import config_of
from telemetry import open_run as open_tables
from telemetry.sink import TelemetrySink
from telemetry.store import open_store
from tests.bench.commits import COLUMNS, Life, recorded, summary
from tests.forager import IN_PROCESS, SMOKE, ok
from workers.engines.scripted import CARD

STEPS = 10_000_000
COMMITTED = 20_000
"""Lives per commit, about."""
ROUNDS = 5
SQL = "select individual, action, count(*), avg(energy_after - energy_before) from {} group by 1, 2 order by 1, 2"


def main() -> None:
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else STEPS
    with tempfile.TemporaryDirectory() as scratch:
        ok("run", SMOKE, "--store", scratch, *IN_PROCESS, "--set", "generations=1", "--set", "evaluation.lives=1")
        place = asyncio.run(enlarge(Path(scratch), steps))
        began = time.perf_counter()
        with open_tables(str(place)) as tables:
            opened = time.perf_counter() - began
            ours = median(seconds(lambda: tables.query(SQL.format("steps"))) for _ in range(ROUNDS))
            answer = tables.query(SQL.format("steps"))
        files = f"read_parquet('{place}/ledger/steps/generation=*/*.parquet', hive_partitioning = true)"
        bare = median(seconds(lambda: duckdb.sql(SQL.format(files)).to_arrow_table()) for _ in range(ROUNDS))
        assert answer.equals(duckdb.sql(SQL.format(files)).to_arrow_table())
    found = {"open_seconds": opened, "query_seconds": ours, "bare_seconds": bare, "ratio": ours / bare}
    print(json.dumps({"steps": sum(answer.column(2).to_pylist()), **found}))


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


async def enlarge(folder: Path, steps: int) -> Path:
    """A run of one generation that is still under way, of at least so many steps."""
    _, state = open_run(str(folder / "smoke"))
    config, place = config_of(state), folder / "large"
    run, sink = create(open_store(place), config, CARD), TelemetrySink(str(place))
    lived = [pa.concat_tables(tables).combine_chunks() for tables in zip(*recorded(folder / "smoke"), strict=True)]
    copies = COMMITTED // lived[1].num_rows
    first = total = 0
    while total < steps:
        batch = tiled(lived, copies, first)
        await sink.append(*batch)
        receipt = await sink.flush(uuid.uuid4().hex)
        assert receipt is not None
        ended = [summary(row) for row in batch[1].select(COLUMNS).to_pylist()]
        run.acknowledge([receipt], ended, config.ledger.commit_seconds)
        first, total = first + copies, total + batch[0].num_rows
    return place


def tiled(lived: Sequence[pa.Table], copies: int, first: int) -> Life:
    """Steps and rows of lives, so many times, the lives of each copy under names of their own."""
    steps, lives = lived
    most = max(lives.column("life").to_pylist()) + 1
    numbers = np.arange(first, first + copies, dtype=np.int32)
    return named(steps, numbers, most), named(lives, numbers, most)


def named(table: pa.Table, numbers: NDArray[np.int32], most: int) -> pa.Table:
    many = pa.concat_tables([table] * len(numbers)).combine_chunks()
    copy = np.repeat(numbers, table.num_rows)
    life = many.column("life").to_numpy() + copy * most
    attempts = pc.binary_join_element_wise(many.column("attempt"), pa.array(copy).cast(pa.string()), "-")
    for name, values in {"life": pa.array(life, pa.int32()), "attempt": attempts}.items():
        index = many.schema.get_field_index(name)
        many = many.set_column(index, many.schema.field(index), values)
    return many


if __name__ == "__main__":
    main()
