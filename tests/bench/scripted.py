"""Concurrent lives with the scripted engine on Ray, few and many: memory, steps per second, processor time of a step.

Everything is looked at from outside while the run goes on: processor time of all its processes, Ray's own included,
against the steps that its journal has acknowledged, from the end of the first generation to the end of the last.
"""

import json
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import psutil

from telemetry.journal import Journal
from telemetry.store import open_store
from tests.forager import ROOT, SMOKE, command, environment

MEMORY_EVERY = 4
"""Samples: to add up the pages of all processes takes a tenth of a second of a processor that they could use."""
CORES = len(os.sched_getaffinity(0))
GENERATIONS = {100: 30, 1000: 6, 10_000: 3}
"""By lives at the same time: enough for steps to be many."""


@dataclass(frozen=True)
class Sample:
    """A run at one moment."""

    at: float
    entries: int
    """Of its journal."""
    driver: float
    """Processor seconds of the driver."""
    all: float
    """Of all processes."""
    bytes: int
    """Memory, pages shared between processes counted once; 0 where nobody looked."""


def sample(pid: int, journal: Path, *, memory: bool) -> Sample:
    """What there is of a process, its descendants and the journal."""
    seconds, size = {}, 0
    family = [psutil.Process(pid)]
    family += family[0].children(recursive=True)
    for process in family:
        try:
            times = process.cpu_times()
            seconds[process.pid] = times.user + times.system
            size += process.memory_full_info().pss if memory else 0
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    entries = len(list(journal.glob("*.json"))) if journal.is_dir() else 0
    return Sample(time.monotonic(), entries, seconds.get(pid, 0.0), sum(seconds.values()), size)


def measure(lives: int) -> dict[str, float]:
    settings = [
        f"population.lives={lives // 4}",
        f"workers.agents={CORES}",
        f"workers.lives_per_agent={lives}",
        "workers.request_batch=256",
        f"generations={GENERATIONS[lives]}",
        "trainer.enabled=false",
        "metrics.enabled=false",
    ]
    with tempfile.TemporaryDirectory() as store:
        overrides = [part for setting in settings for part in ("--set", setting)]
        samples = []
        with subprocess.Popen(
            command("run", SMOKE, "--store", store, *overrides), cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL
        ) as driver:
            while driver.poll() is None:
                memory = len(samples) % MEMORY_EVERY == 0
                samples.append(sample(driver.pid, Path(store, "smoke", "journal"), memory=memory))
                time.sleep(0.5)
        assert driver.returncode == 0, driver.returncode
        entries = Journal(open_store(Path(store) / "smoke")).read()
    ends = [entry.seq for entry in entries if entry.kind == "generation"]
    steps = list(accumulate(entry.body.get("decisions", 0) for entry in entries))
    within = [one for one in samples if ends[0] < one.entries <= ends[-1] + 1]
    first, last = within[0], within[-1]
    made = steps[last.entries - 1] - steps[first.entries - 1]
    generations = sum(first.entries <= end < last.entries for end in ends)
    return {
        "gib": max(one.bytes for one in samples) / 2**30,
        "steps": made,
        "steps_per_second": made / (last.at - first.at),
        "cpu_seconds_per_step": (last.all - first.all) / made,
        "driver_cpu_seconds_per_generation": (last.driver - first.driver) / max(1, generations),
    }


def main() -> None:
    found = {lives: measure(lives) for lives in GENERATIONS}
    few, *_, many = (one["cpu_seconds_per_step"] for one in found.values())
    print(json.dumps({"lives": found, "many_to_few": many / few}))


if __name__ == "__main__":
    main()
