"""One fault every half minute against a run on three nodes, next to the same run in peace.

    python -m tests.faults.chaos --minutes 10 --every 30

Agents and engines are killed and stopped, nodes are lost and come back. Prints how much of the peaceful throughput is
left, how soon each fault was noticed and made good, and whether the run came to the same results. Exits 1 when a goal
is missed.
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
    began = time.monotonic()
    verb, _, role = fault.partition(" ")
    if verb == "lose":
        node = max(nodes.worker_nodes, key=lambda one: len(names_on(one, driver)))
        names = names_on(node, driver)
        nodes.remove_node(node, allow_graceful=False)
    else:
        names = [driver.strike(role, signal.SIGKILL if verb == "kill" else signal.SIGSTOP)[0]]
    strikes = []
    for name in names:
        noticed = driver.until(lambda name=name: driver.heard(name, began))
        started = driver.until(lambda name=name, since=noticed: driver.heard(": started", since, name))
        strikes.append(Strike(fault, name, noticed - began, started - noticed))
    if verb == "lose":
        nodes.add_node(num_cpus=1, object_store_memory=80 << 20)
    return strikes


def live(place: Path, minutes: float, every: float) -> tuple[float, list[Strike]]:
    """A run of some minutes with a fault every so many seconds (0: none): decisions per second, and the faults."""
    strikes: list[Strike] = []
    file = run_file(place, generations=100_000, hang_timeout=HANG)
    with (
        ray_nodes(workers=2) as nodes,
        Driver(place / "chaos", "run", file, "--store", place, "--set", f"ray.address={nodes.address}") as driver,
    ):
        driver.until(driver.living)
        began, before = time.monotonic(), driver.decisions()
        faults = itertools.cycle(FAULTS)
        next_fault = began + every / 2
        while time.monotonic() < began + 60 * minutes:
            if every and time.monotonic() >= next_fault:
                strikes += strike(driver, nodes, next(faults))
                next_fault += every
            time.sleep(0.2)
            assert driver.process.poll() is None, driver.text()
        rate = (driver.decisions() - before) / (time.monotonic() - began)
        driver.process.send_signal(signal.SIGTERM)
        assert driver.end(60) == 128 + signal.SIGTERM, driver.text()
    return rate, strikes


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
    parser.add_argument("--minutes", type=float, default=10, help="of each of the two runs")
    parser.add_argument("--every", type=float, default=30, help="seconds between faults")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as directory:
        peace, chaos = Path(directory) / "peace", Path(directory) / "war"
        for place in (peace, chaos):
            place.mkdir()
        calm, _ = live(peace, options.minutes, 0)
        rate, strikes = live(chaos, options.minutes, options.every)
        whole = ok("verify", chaos / "chaos").splitlines()[-1]
        audited = ok("audit", chaos / "chaos").splitlines()[-1]
        shared, equal = common(peace / "chaos", chaos / "chaos")
    for one in strikes:
        print(f"{one.fault:12} {one.actor:10} noticed {one.noticed:5.1f} s  replaced {one.recovered:5.1f} s")
    print(f"throughput {rate:.0f} decisions/s with {len(strikes)} actors lost, {calm:.0f} in peace: {rate / calm:.3f}")
    print(f"first {shared} generations {'equal' if equal else 'DIFFERENT'}; verify {whole}; audit {audited}")
    good = rate / calm >= THROUGHPUT and equal and bool(strikes) and all(one.in_time for one in strikes)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
