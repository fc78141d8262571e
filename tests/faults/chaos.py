"""One fault every half minute against a run on a head and four nodes, next to the same run in peace.

    python -m tests.faults.chaos --minutes 10 --every 30

Agents and engines are killed and stopped, nodes are lost and come back. Driver, actors, nodes and faults are real; the
model is not: scripted engines take SECONDS of time, but of no processor, for each completion. So what bounds the run is
what its engines can do, as with models, while all its processes share this machine. Prints how much of the peaceful
throughput is left, how busy the machine's own cores were, how soon each fault was noticed and made good, and whether
the run came to the same results. Exits 1 when a goal is missed.
"""

import argparse
import itertools
import json
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from orchestrator.digest import digest
from orchestrator.state import fold
from telemetry.journal import Journal
from telemetry.ledger import Ledger
from telemetry.store import open_store
from tests.faults.striking import Driver, names_on, ray_nodes, run_file
from tests.forager import ok

HANG = 5.0
"""Seconds without a sign of life."""
NOTICED_KILLED, NOTICED_HUNG, RECOVERED, NODE, THROUGHPUT = 2.0, HANG + 5, 5.0, 30.0, 0.9
"""Goals: seconds, seconds, seconds, seconds until the work of a lost node goes on, share of the peaceful run."""
ENGINES, SECONDS = 8, 0.016
SHAPE = {
    "engine.count": ENGINES,
    "engine.seconds": SECONDS,
    "population.lives": 400,
    "workers.agents": 4,
    "workers.lives_per_agent": 40,
    "workers.request_batch": 8,
}
"""Generations of some 40 s. An engine has some 20 lives under way: enough never to be idle, and no more to lose."""
FAULTS = ("kill agent", "stop engine", "lose node", "kill engine", "stop agent")


@dataclass(frozen=True)
class Strike:
    """One fault and what followed, for one actor that it hit."""

    fault: str
    actor: str
    noticed: float
    """Seconds from the fault until the driver said so."""
    recovered: float
    """Seconds from then until a replacement stood."""

    @property
    def in_time(self) -> bool:
        verb = self.fault.split()[0]
        if verb == "lose":
            return self.noticed + self.recovered <= NODE
        return self.noticed <= (NOTICED_KILLED if verb == "kill" else NOTICED_HUNG) and self.recovered <= RECOVERED


def strike(driver: Driver, nodes: Any, fault: str) -> list[Strike]:
    """Injects one fault; returns when everything that it hit is replaced."""
    verb, _, role = fault.partition(" ")
    if verb == "lose":
        node = max(nodes.worker_nodes, key=lambda one: len(names_on(one, driver)))
        names = names_on(node, driver)
        began = time.monotonic()
        nodes.remove_node(node, allow_graceful=False)
    else:
        began = time.monotonic()
        names = [driver.strike(role, signal.SIGKILL if verb == "kill" else signal.SIGSTOP)[0]]
    strikes = []
    for name in names:
        noticed = driver.until(lambda name=name: driver.heard(name, began))
        started = driver.until(lambda name=name, since=noticed: driver.heard(": started", since, name))
        strikes.append(Strike(fault, name, noticed - began, started - noticed))
    if verb == "lose":
        nodes.add_node(num_cpus=1, object_store_memory=80 << 20)
    return strikes


@dataclass(frozen=True)
class Lived:
    """What came of a run of some minutes."""

    rate: float
    """Decisions per second."""
    busy: float
    """Cores of this machine at work, on average."""
    strikes: list[Strike]


def live(place: Path, minutes: float, every: float) -> Lived:
    """A run of some minutes with a fault every so many seconds; 0: none."""
    file = run_file(place, generations=100_000, hang_timeout=HANG)
    with ray_nodes(workers=4) as nodes:
        settings = [f"{name}={value}" for name, value in (SHAPE | {"ray.address": nodes.address}).items()]
        arguments = [argument for setting in settings for argument in ("--set", setting)]
        with Driver(place / "chaos", "run", file, "--store", place, *arguments) as driver:
            return watch(driver, nodes, minutes, every)


def watch(driver: Driver, nodes: Any, minutes: float, every: float) -> Lived:
    """Strikes the driver's run from its first committed lives on, and ends it."""
    driver.until(driver.living)
    began, before, worked = time.monotonic(), driver.decisions(), processor_seconds()
    strikes: list[Strike] = []
    faults = itertools.cycle(FAULTS)
    next_fault = began + every / 2
    while time.monotonic() < began + 60 * minutes:
        if every and time.monotonic() >= next_fault:
            strikes += strike(driver, nodes, next(faults))
            next_fault += every
        time.sleep(0.2)
        assert driver.process.poll() is None, driver.text()
    seconds = time.monotonic() - began
    rate, busy = (driver.decisions() - before) / seconds, (processor_seconds() - worked) / seconds
    driver.process.send_signal(signal.SIGTERM)
    assert driver.end(60) == 128 + signal.SIGTERM, driver.text()
    return Lived(rate, busy, strikes)


def processor_seconds() -> float:
    """Time that all cores of this machine have worked since it was started."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq)


def generations(run: Path) -> Iterator[str]:
    """Digest of the run's beginning up to each generation that is over."""
    store = open_store(run)
    entries = Journal(store).read()
    for entry in entries:
        if entry.kind == "generation":
            yield digest(fold(entries[: entry.seq + 1]), Ledger(store))


def common(first: Path, second: Path) -> tuple[int, bool]:
    """Generations that both runs finished, and whether they are equal in all of them."""
    kinds = [[json.loads(path.read_bytes())["kind"] for path in entries(run)] for run in (first, second)]
    last = min(found.count("generation") for found in kinds) - 1
    [one, other] = [next(itertools.islice(generations(run), last, None)) for run in (first, second)]
    return last + 1, one == other


def entries(run: Path) -> list[Path]:
    return sorted((run / "journal").glob("[0-9]*.json"))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="of the run that faults happen to")
    parser.add_argument("--peace", type=float, help="minutes of the run that nothing happens to, if not as many")
    parser.add_argument("--every", type=float, default=30, help="seconds between faults")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as directory:
        peace, chaos = Path(directory) / "peace", Path(directory) / "war"
        for place in (peace, chaos):
            place.mkdir()
        calm = live(peace, options.peace or options.minutes, 0)
        struck = live(chaos, options.minutes, options.every)
        whole = ok("verify", chaos / "chaos").splitlines()[-1]
        audited = ok("audit", chaos / "chaos").splitlines()[-1]
        shared, equal = common(peace / "chaos", chaos / "chaos")
    share = struck.rate / calm.rate
    for one in struck.strikes:
        print(f"{one.fault:12} {one.actor:10} noticed {one.noticed:5.1f} s  replaced {one.recovered:5.1f} s")
    print(f"{ENGINES} engines that take {1000 * SECONDS:g} ms for a decision, for want of a model:", end=" ")
    print(f"{ENGINES / SECONDS:.0f} decisions/s at most")
    print(f"in peace {calm.rate:.0f} decisions/s, {calm.busy:.1f} cores busy of {psutil.cpu_count()};", end=" ")
    print(f"with {len(struck.strikes)} actors lost {struck.rate:.0f}, {struck.busy:.1f} cores busy: {share:.3f}")
    print(f"first {shared} generations {'equal' if equal else 'DIFFERENT'}; verify {whole}; audit {audited}")
    good = share >= THROUGHPUT and equal and bool(struck.strikes) and all(one.in_time for one in struck.strikes)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
