"""`forager watch` on a run of a million steps: seconds from the start of the process to the first paint, and to the
first whole picture.

The run is made by the real loop, ledger and journal; its lives are those of one scripted generation, told again under
other names. Seconds until a pseudo-terminal shows that the journal is being read, and until it shows the fitness of the
last generation and its fittest individual, and of the processor until then; apart from it, seconds until the state is
known.
"""

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import tempfile
import termios
import time
import uuid
from collections.abc import Collection, Sequence
from pathlib import Path
from statistics import median

import psutil
import pyarrow as pa
from msgspec.structs import replace

from orchestrator.following import Follower
from orchestrator.generation import Publish, Rooms, run_generation
from orchestrator.places import open_run
from orchestrator.run import champion, create
from orchestrator.state import RunState, config_of
from orchestrator.trial import Acknowledge
from orchestrator.verdict import ranked
from telemetry.ledger import Ledger
from telemetry.numerals import interval
from telemetry.records import Individual, LifeKey
from telemetry.store import Store, open_store
from tests.bench.__main__ import measure
from tests.bench.commits import COLUMNS, Life, recorded, summary, with_values
from tests.forager import IN_PROCESS, SMOKE, command, environment, ok
from trainer.job import TrainingJob, TrainingResult
from workers.engines.scripted import CARD
from workers.registry import make

STEPS = 1_000_000
GENERATIONS = 20
SIZE = 16
LIVES_PER_COMMIT = 160
ROUNDS = 3
SCREEN = (40, 140)
PATIENCE = 60.0


class Retold:
    """Workers that live nothing: every life is one that was recorded."""

    def __init__(self, store: Store, lived: Sequence[Life], horizon: int) -> None:
        self.horizon = horizon
        self._ledger, self._lived, self._told = Ledger(store), lived, 0

    def live(
        self,
        population: Sequence[Individual],
        lives: int,
        generation: int,
        skip: Collection[LifeKey],
        acknowledge: Acknowledge,
    ) -> None:
        todo = [(one, life) for life in range(lives) for one in population]
        for first in range(0, len(todo), LIVES_PER_COMMIT):
            told = [self._tell(one, life) for one, life in todo[first : first + LIVES_PER_COMMIT]]
            steps, rows = (pa.concat_tables(tables).combine_chunks() for tables in zip(*told, strict=True))
            receipt = self._ledger.append(steps, rows, uuid.uuid4().hex)
            ends = [summary(row) for row in rows.select(COLUMNS).to_pylist()]
            keys = [LifeKey(generation, one.key.individual, one.key.life) for one in ends]
            acknowledge([receipt], [replace(one, key=key) for one, key in zip(ends, keys, strict=True)], 10.0)

    def _tell(self, one: Individual, life: int) -> Life:
        self._told += 1
        names = {
            "generation": pa.scalar(one.generation, pa.int32()),
            "individual": pa.scalar(one.id),
            "lineage": pa.scalar(one.lineage),
            "life": pa.scalar(life, pa.int32()),
            "attempt": pa.scalar(uuid.uuid4().hex),
        }
        steps, row = self._lived[self._told * 7 % len(self._lived)]
        return with_values(steps, names), with_values(row, names)


class Untrained:
    """Trainers whose every job fails."""

    def train(self, jobs: Sequence[TrainingJob], lived: pa.Table, skip: Collection[str], publish: Publish) -> None:
        for job in jobs:
            kept = job.parents[0].adapter
            publish(TrainingResult(individual=job.child.id, adapter=kept, status="failed", reason="not tried"), ())


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        state = write(Path(scratch))
        place = Path(scratch) / "long"
        best = ranked(state.history[-1].fitness)[0]
        words = (interval(best.value, best.low, best.high), best.individual)
        paints = [painted(place, ["reading the journal"]) for _ in range(ROUNDS)]
        pictures = [painted(place, words) for _ in range(ROUNDS)]
        follower = measure("tests.bench.watch", "follower", place)
    result = {
        "steps": sum(commit.decisions for commit in state.commits),
        "commits": len(state.commits),
        "first_paint_seconds": median(seconds for seconds, _ in paints),
        "first_paint_cpu_seconds": median(used for _, used in paints),
        "whole_picture_seconds": median(seconds for seconds, _ in pictures),
        "whole_picture_cpu_seconds": median(used for _, used in pictures),
    }
    print(json.dumps(result | follower))


def write(folder: Path) -> RunState:
    """The run, in `long`."""
    ok("run", SMOKE, "--store", folder, *IN_PROCESS, "--set", "generations=1", "--set", "evaluation.lives=1")
    lived = recorded(folder / "smoke")
    _, state = open_run(str(folder / "smoke"))
    each = sum(steps.num_rows for steps, _ in lived) / len(lived)
    document = state.created.config | {"name": "long", "generations": GENERATIONS}
    document["population"] = {**document["population"], "size": SIZE, "lives": round(STEPS / each / GENERATIONS / SIZE)}
    config = config_of(state).model_validate(document)
    store = open_store(folder / "long")
    run = create(store, config, CARD)
    horizon = make(config.environment.name, config.environment.settings).horizon
    rooms = Rooms(Retold(store, lived, horizon), Untrained())
    while run.population:
        run_generation(run, rooms, config)
    run.finish(champion(run.state).id)
    return run.state


def painted(place: Path, words: Sequence[str]) -> tuple[float, float]:
    """Seconds, and of the processor, until a terminal of the usual size has been shown all words."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *SCREEN, 0, 0))
    variables = {**environment(), "TERM": "xterm-256color"}
    start, shown = time.perf_counter(), ""
    with subprocess.Popen(
        command("watch", place), stdin=theirs, stdout=theirs, stderr=theirs, env=variables, start_new_session=True
    ) as process:
        while not all(word in shown for word in words):
            assert process.poll() is None, shown
            assert time.perf_counter() - start < PATIENCE, shown
            shown += os.read(ours, 1 << 16).decode(errors="replace")
        seconds = time.perf_counter() - start
        used = psutil.Process(process.pid).cpu_times()
        process.kill()
    os.close(ours)
    os.close(theirs)
    return seconds, used.user + used.system


def follower(place: Path) -> dict[str, float]:
    """Seconds from nothing known to the state, in a process that has loaded everything."""
    start, used = time.perf_counter(), time.process_time()
    Follower(open_store(place))
    return {
        "follower_seconds": time.perf_counter() - start,
        "follower_cpu_seconds": time.process_time() - used,
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["follower"]:
        print(json.dumps(follower(Path(sys.argv[2]))))
    else:
        main()
