"""What durability costs: seconds per commit (ledger append, fsyncs, journal entry) as a share of the time between two.

Lives of a real scripted run are committed again and again under new names, through the real sink, ledger, journal and
fold: ten minutes' worth of commits, so that the tables' logs grow and checkpoints fall due. In a run the next lives
go on meanwhile; the share of a generation's wall time is therefore at most what is measured here.
"""

import asyncio
import json
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.places import open_run
from orchestrator.run import create
from orchestrator.state import config_of
from telemetry.ledger import Ledger
from telemetry.records import EndReason, LifeKey, LifeSummary
from telemetry.sink import TelemetrySink
from telemetry.store import open_store
from tests.forager import IN_PROCESS, SMOKE, ok
from workers.engines.scripted import CARD
from workers.placement import CHUNK

COMMITS = 60
SHAPES = {"demo": 7, "busy": 333}
"""Lives per commit: 64 in 100 seconds as on two cores, and 2,000 a minute."""
COLUMNS = ("individual", "life", "attempt", "steps", "end", "cause", "energy", "prompt_tokens", "completion_tokens")

Life = tuple[pa.Table, pa.Table]


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        ok("run", SMOKE, "--store", scratch, *IN_PROCESS, "--set", "generations=1", "--set", "evaluation.lives=1")
        lived = recorded(Path(scratch) / "smoke")
        results = {name: asyncio.run(commit(Path(scratch), name, lived, size)) for name, size in SHAPES.items()}
    print(json.dumps(results))


def recorded(place: Path) -> list[Life]:
    """Steps and row of every life of a run's first generation."""
    store, state = open_run(str(place))
    steps, lives = (
        Ledger(store).recall(table, 0, state.vouched(0), state.attempts(0)).combine_chunks()
        for table in ("steps", "lives")
    )
    return [
        (steps.filter(pc.equal(steps["attempt"], attempt)), lives.filter(pc.equal(lives["attempt"], attempt)))
        for attempt in state.attempts(0)
    ]


async def commit(folder: Path, name: str, lived: Sequence[Life], size: int) -> dict[str, float]:
    """Commits in a new run; seconds of the median and the worst one, shares of wall time and of one core's time."""
    _, state = open_run(str(folder / "smoke"))
    config, store = config_of(state), open_store(folder / name)
    run, sink, seconds, steps, cpu = (
        create(store, config, CARD),
        TelemetrySink(str(folder / name)),
        list[float](),
        0,
        0.0,
    )
    for number in range(COMMITS):
        batch = list(renamed(lived, range(number * size, (number + 1) * size)))
        summaries = [summary(life.select(COLUMNS).to_pylist()[0]) for _, life in batch]
        steps += sum(one.steps for one in summaries)
        for first in range(0, size, CHUNK):
            reported = zip(*batch[first : first + CHUNK], strict=True)
            await sink.append(*(pa.concat_tables(tables).combine_chunks() for tables in reported))
        start, used = time.perf_counter(), time.process_time()
        receipt = await sink.flush(uuid.uuid4().hex)
        assert receipt is not None
        run.acknowledge([receipt], summaries, config.ledger.commit_seconds)
        seconds.append(time.perf_counter() - start)
        cpu += time.process_time() - used
    assert len(run.finished_lives()) == COMMITS * size
    between = COMMITS * config.ledger.commit_seconds
    return {
        "lives_per_commit": size,
        "steps_per_commit": steps / COMMITS,
        "median_seconds": median(seconds),
        "worst_seconds": max(seconds),
        "wall_share": sum(seconds) / between,
        "cpu_share": cpu / between,
    }


def renamed(lived: Sequence[Life], numbers: range) -> Iterator[Life]:
    """The same lives again and again, under names of their own."""
    for number in numbers:
        names = {"life": pa.scalar(number, pa.int32()), "attempt": pa.scalar(uuid.uuid4().hex)}
        steps, life = (with_values(table, names) for table in lived[number % len(lived)])
        yield steps, life


def with_values(table: pa.Table, values: Mapping[str, pa.Scalar]) -> pa.Table:
    """Columns that hold the same everywhere put in the place of others."""
    for name, value in values.items():
        index = table.schema.get_field_index(name)
        table = table.set_column(index, table.schema.field(index), pa.repeat(value, table.num_rows))
    return table


def summary(row: dict[str, object]) -> LifeSummary:
    key = LifeKey(0, row.pop("individual"), row.pop("life"))
    return LifeSummary(key=key, end=EndReason(row.pop("end")), **row)


if __name__ == "__main__":
    main()
