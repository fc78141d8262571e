"""Unit costs of the scale model, measured on this machine: prints what `orchestrator/unit_costs.yaml` holds.

    python -m tests.bench.units > costs.yaml                     # two minutes on two idle cores
    python -m tests.bench.units --store s3://bucket/units        # the bucket's latency and requests as well

Most figures are processor time, which a busy machine changes little; latencies are the shortest of many. What needs a
language model is not measured here but taken over from `docs/performance.md`, and a GPU's figures are left out.
"""

import argparse
import asyncio
import resource
import tempfile
import time
import tracemalloc
import uuid
from collections.abc import Sequence
from itertools import count, cycle, islice
from pathlib import Path
from statistics import fmean, median
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import yaml
from msgspec.structs import replace

from orchestrator.diversity import diversity
from orchestrator.experience import experience
from orchestrator.fitness import bootstrap_interval
from orchestrator.rooms import tasks
from orchestrator.run import Run, create
from orchestrator.scale_costs import SHIPPED
from telemetry.ledger import Ledger, Receipt
from telemetry.records import Individual, LifeKey, LifeSummary
from telemetry.seeds import rng, world_seed
from telemetry.store import open_store
from tests.bench.__main__ import machine
from tests.bench.units_shared import (
    LIVES,
    TRIES,
    Figures,
    Tables,
    cpu,
    durable,
    handed_out,
    in_bucket,
    on_ray,
    people,
    settings,
    wake,
)
from trainer.config_operators import GaussianMutation, LinearCrossover
from trainer.examples import of_parents
from trainer.job import Parent, TrainingJob
from workers.agent import AgentHost
from workers.config import EnvironmentConfig, ScriptedEngineConfig
from workers.engines.scripted import CARD, ScriptedEngine, description

FEW, MANY = 16, 2048
"""Lives in a flush."""
FLUSHES = 7
"""Of each size; the median counts."""


class Recording:
    """An engine that knows its own time, and a sink that keeps what it is sent."""

    def __init__(self) -> None:
        self.engine = ScriptedEngine(ScriptedEngineConfig(), Path)
        self.seconds = 0.0
        self.decisions = 0
        self.tables: list[Tables] = []

    async def complete(self, requests: Sequence[Any]) -> Any:
        begin = time.process_time()
        answers = await self.engine.complete(requests)
        self.seconds += time.process_time() - begin
        self.decisions += len(requests)
        return answers

    async def append(self, steps: pa.Table, lives: pa.Table) -> None:
        self.tables.append((steps, lives))


def live(one: Individual) -> tuple[Figures, Tables, list[LifeSummary]]:
    """Lives with the scripted engine, all at once in this process."""
    recording, config = Recording(), settings()
    host = AgentHost(
        run="units",
        run_seed=1,
        environment=EnvironmentConfig(),
        heldout={},
        description=description(64),
        request_batch=config.workers.request_batch,
    )
    seeds = [world_seed(1, 0, life) for life in range(LIVES)]
    asyncio.run(host.live(tasks(one, seeds[:8]), "engine", recording, recording))
    recording.seconds, recording.decisions, recording.tables = 0.0, 0, []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.process_time()
    report = asyncio.run(host.live(tasks(one, seeds), "engine", recording, recording))
    seconds = time.process_time() - begin
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    [tables] = recording.tables
    figures = {
        "engine": {"scripted_seconds": recording.seconds / recording.decisions},
        "agent": {
            "decision_seconds": (seconds - recording.seconds) / recording.decisions,
            "life_bytes": grown / LIVES,
        },
    }
    return figures, tables, list(report.finished)


def write(tables: Tables, folder: Path) -> Figures:
    """Flushes of few and of many lives into a ledger on this disk: what a row costs, and what a flush."""
    steps, _ = tables
    few = tuple(table.filter(pc.less(table["life"], FEW)) for table in tables)
    ledger = Ledger(open_store(folder))
    ledger.append(*few, uuid.uuid4().hex)

    def flushed(batch: Tables) -> tuple[float, Receipt]:
        begin = time.process_time()
        receipt = ledger.append(*batch, uuid.uuid4().hex)
        return time.process_time() - begin, receipt

    small, large = ([flushed(batch) for _ in range(FLUSHES)] for batch in (few, tables))
    receipt = large[0][1]
    sizes = {name: sum(one.size for one in receipt.files if f"/{name}/g" in one.key) for name in ("steps", "lives")}
    flush, flush_all = (median(seconds for seconds, _ in several) for several in (small, large))
    row = (flush_all - flush) / (steps.num_rows - few[0].num_rows)
    return {
        "sink": {
            "row_seconds": row,
            "flush_seconds": max(0.0, flush - row * few[0].num_rows),
            "row_memory": steps.nbytes / steps.num_rows,
            "row_bytes": sizes["steps"] / steps.num_rows,
            "life_row_bytes": sizes["lives"] / LIVES,
        }
    }


def acknowledge(folder: Path, lived: Sequence[LifeSummary]) -> Figures:
    """A driver's entries, small and large; its processor's time, since the disk is counted apart."""
    run: Run = create(open_store(folder), settings(), CARD)
    numbers = count()

    def commit(lives: int) -> float:
        number = next(numbers)
        many = [
            replace(one, key=LifeKey(0, one.key.individual, number * MANY + life), attempt=f"{number:04x}{life:028x}")
            for life, one in enumerate(islice(cycle(lived), lives))
        ]
        begin = time.process_time()
        run.acknowledge([], many, 1.0)
        return time.process_time() - begin

    small = fmean([commit(1) for _ in range(TRIES)][5:])
    large = fmean(commit(MANY) for _ in range(TRIES))
    tracemalloc.start()
    for _ in range(TRIES // 4):
        commit(MANY)
    # The last thousand entries stand by until they are a segment.
    run._writer._tail.clear()
    known, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    life = (large - small) / MANY
    return {"driver": {"entry_seconds": small, "life_seconds": life, "life_bytes": known / (TRIES // 4 * MANY)}}


def close(tables: Tables, one: Individual, folder: Path) -> Figures:
    """What the driver does with a generation's rows when all have lived."""
    steps, lives = tables
    config, ledger = settings(), Ledger(open_store(folder))
    receipt = ledger.append(steps, lives, "close")
    attempts = lives["attempt"].to_pylist()
    job = TrainingJob(
        child=one,
        parents=(Parent(individual=one.id, adapter=None, weight=1.0),),
        crossover=LinearCrossover(),
        mutation=GaussianMutation(),
        seed=1,
    )

    def read() -> None:
        rows = ledger.recall("steps", 0, receipt.files, attempts)
        experience(rows, lives, config.fitness, horizon=60)
        diversity(ledger.recall("steps", 0, receipt.files, attempts, ["individual", "action"]), [one])

    lived = experience(steps, lives, config.fitness, horizon=60)
    strangers = [one.model_copy(update={"id": f"g000-{number:03d}"}) for number in range(500, 520)]
    many = pa.concat_tables([lives] * 40).combine_chunks()
    values = lives["steps"].to_numpy().astype(float)
    # Those who lived nothing cost the search alone.
    search = cpu(lambda: [many.filter(pc.equal(many["individual"], who.id)) for who in strangers])
    interval = cpu(
        lambda: bootstrap_interval(
            lambda index: values[index].mean(axis=1), LIVES, resamples=1000, confidence=0.95, generator=rng(1, "units")
        ),
        3,
    )
    return {
        "driver": {
            "row_read_seconds": cpu(read, 3) / steps.num_rows,
            "score_seconds": search / len(strangers) / many.num_rows,
            "bootstrap_seconds": interval / LIVES / 1000,
            "job_row_seconds": cpu(lambda: of_parents(lived, job), 10) / steps.num_rows,
        }
    }


def merged(found: dict[str, Any], figures: Figures, by: str) -> None:
    for section, values in figures.items():
        for name, value in values.items():
            found[section][name] = {"value": float(f"{value:.3g}"), "by": by}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.units", description=__doc__.splitlines()[0])
    parser.add_argument("--store", default="", help="URL in a bucket; its server's address in AWS_ENDPOINT_URL")
    parser.add_argument("--without-ray", action="store_true", help="leave alone what needs a cluster")
    parser.add_argument("--state", default="idle", help="what else the machine does meanwhile")
    arguments = parser.parse_args()
    found: dict[str, Any] = yaml.safe_load(SHIPPED.read_text())
    by = "python -m tests.bench.units"
    one = people(settings())[0]
    figures, tables, lived = live(one)
    merged(found, figures, by)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        for work in (
            lambda: write(tables, place / "ledger"),
            lambda: close(tables, one, place / "rows"),
            lambda: acknowledge(place / "run", lived),
            wake,
            handed_out,
            lambda: {"store": {"local_seconds": durable(open_store(place / "disk"))}},
        ):
            merged(found, work(), by)
    if not arguments.without_ray:
        merged(found, on_ray(), by)
    if arguments.store:
        merged(found, in_bucket(arguments.store, tables), f"{by} --store {arguments.store}")
    found |= {"machine": machine(), "state": arguments.state}
    print(yaml.safe_dump(found, sort_keys=False, width=120), end="")


if __name__ == "__main__":
    main()
