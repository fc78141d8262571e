"""A seeded simulator of the loop: real drivers, pools, agents and journal in a world where everything fails.

Time is virtual, store and ledger are in memory, and one seed decides every fault: what dies, hangs, answers late or
twice, and where the driver crashes, is stopped, or is replaced by another. After each driver's end the journal is
judged from outside, and the next driver takes the run over. In every fourth seed the world is shared: the lives of an
instance count together or not at all. Two modes, as in TigerBeetle's VOPR:

    safety      faults never stop; whatever was committed is right and stays so
    liveness    faults stop after a while; then the run finishes with the digest of a run without faults

In both, a driver that meets no fault finishes the run.

    python -m tests.faults.simulator --seeds 0..10000 --mode both --jobs 2
"""

import argparse
import logging
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from hashlib import sha256
from math import inf
from multiprocessing import get_context
from typing import Literal

import pyarrow as pa

from tests.faults.oracle import Expected, Oracle, expectation
from tests.faults.simulation import Simulation, configs, patched
from tests.faults.world import RATES, Violation, World

Mode = Literal["safety", "liveness"]
MODES: tuple[Mode, ...] = ("safety", "liveness")
MOST_DRIVERS = 5
"""Drivers of one safety run."""
CHUNK_OF_SEEDS = 50


@dataclass
class Outcome:
    """What became of one seed in one mode."""

    seed: int
    mode: Mode
    faults: Counter[str]
    ends: Counter[str]
    """How drivers ended."""
    finished: bool
    violation: str
    trace: list[str] = field(repr=False)

    @property
    def schedule(self) -> str:
        """Names the schedule: equal for equal traces."""
        return sha256("\n".join(self.trace).encode()).hexdigest()[:16]


def simulate(seed: int, mode: Mode) -> Outcome:
    """One run from its founding to its end, or to the first broken promise."""
    dice = random.Random(f"{mode} {seed}")
    rates = {kind: rate * dice.uniform(0.3, 2) for kind, rate in RATES.items() if dice.random() < 0.5}
    shared = seed % 4 == 3
    world = World(dice, inf if mode == "safety" else dice.randint(1, 12), rates)
    return run_in(world, seed, mode, expected(shared), shared)


def run_in(world: World, seed: int, mode: Mode, expected: Expected | None, shared: bool = False) -> Outcome:
    """Driver after driver until the run has finished, a promise is broken, or a safety run has seen enough."""
    config = configs(shared)[0]
    oracle = Oracle(config.population.size, config.population.lives, config.generations, expected, digest=seed % 8 == 0)
    simulation = Simulation(world, oracle, shared)
    with patched():
        try:
            while not oracle.finished and (mode == "liveness" or simulation.drivers < MOST_DRIVERS):
                simulation.drive()
        except Violation:
            world.note(f"VIOLATION: {world.violation}")
    return Outcome(seed, mode, world.faults, simulation.ends, oracle.finished, world.violation, world.trace)


@cache
def expected(shared: bool = False) -> Expected:
    """What every run must come to."""
    world = World(random.Random(0), 0, {})
    outcome = run_in(world, 0, "liveness", None, shared)
    if not outcome.finished:
        raise AssertionError("\n".join(outcome.trace))
    return expectation(world)


@dataclass
class Summary:
    """Many seeds together."""

    runs: int = 0
    finished: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    failed: list[Outcome] = field(default_factory=list)

    def add(self, other: "Summary") -> None:
        self.runs += other.runs
        self.finished += other.finished
        self.faults += other.faults
        self.ends += other.ends
        self.failed += other.failed


def campaign(seeds: Sequence[int], modes: Sequence[Mode]) -> Summary:
    """All seeds in all modes."""
    # What pools say of lost peers is in the trace; to a table of two rows, more threads are only a cost.
    logging.disable(logging.CRITICAL)
    pa.set_cpu_count(1)
    summary = Summary()
    for seed in seeds:
        for mode in modes:
            one = simulate(seed, mode)
            summary.add(Summary(1, one.finished, one.faults, one.ends, [one] if one.violation else []))
    return summary


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.simulator", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="0..1000", help="FIRST..END, END left out")
    parser.add_argument("--mode", choices=[*MODES, "both"], default="both")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--trace", action="store_true", help="print every seed's trace")
    arguments = parser.parse_args()
    first, end = map(int, arguments.seeds.split(".."))
    modes = MODES if arguments.mode == "both" else (arguments.mode,)
    if arguments.trace:
        for one in (simulate(seed, mode) for seed in range(first, end) for mode in modes):
            print(f"seed {one.seed} {one.mode}", *one.trace, f"schedule {one.schedule}", sep="\n")
        return 0
    begun, summary = time.monotonic(), Summary()
    chunks = [range(start, min(start + CHUNK_OF_SEEDS, end)) for start in range(first, end, CHUNK_OF_SEEDS)]
    with ProcessPoolExecutor(arguments.jobs, get_context("spawn")) as pool:
        for part in pool.map(partial(campaign, modes=modes), chunks):
            summary.add(part)
    seconds = time.monotonic() - begun
    for one in summary.failed:
        print(f"seed {one.seed} {one.mode}: {one.violation}", *one.trace, "", sep="\n")
    print(f"seeds {first}..{end}, {' and '.join(modes)}: {summary.runs} runs, {summary.finished} finished,")
    print(f"{summary.ends.total()} drivers, {summary.faults.total()} faults, {len(summary.failed)} violations")
    print(f"{seconds:.1f} s, {(end - first) / seconds:.1f} seeds/s")
    for title, counts in (("driver ended", summary.ends), ("fault", summary.faults)):
        for name, number in sorted(counts.items()):
            print(f"  {title}: {name:20} {number:8}")
    return 1 if summary.failed else 0


if __name__ == "__main__":
    sys.exit(main())
