"""kill -9 of a real driver at random instants; resume must end in the run that was never killed."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.forager import ROOT, SMOKE, command, environment, forager, ok, smoke

pytestmark = pytest.mark.timeout(600)


def instants(count: int, always: int) -> list[object]:
    """Seeds of random instants; the default test run tries the first few, `make faults` all of them."""
    return [pytest.param(seed, marks=[pytest.mark.faults] if seed >= always else []) for seed in range(count)]


def descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def entries(run: Path) -> int:
    return len(list((run / "journal").glob("*.json")))


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, int]:
    """Digest of the uninterrupted run, and how many journal entries it has."""
    run = smoke(tmp_path_factory.mktemp("calm"), "ray.executor=inprocess")
    return ok("digest", run), entries(run)


def kill_once(arguments: list[str | Path], run: Path, after: int, delay: float) -> tuple[int, list[psutil.Process]]:
    """Starts a driver and kills it `delay` seconds after the run has `after` journal entries.

    Returns the driver's exit code and the processes it had started.
    """
    with subprocess.Popen(
        command(*arguments), cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as driver:
        while driver.poll() is None and entries(run) < after:
            time.sleep(0.002)
        time.sleep(delay)
        children = descendants(driver.pid)
        if driver.poll() is None:
            os.kill(driver.pid, signal.SIGKILL)
        return driver.wait(), children


def run_killed(store: Path, executor: str, draw: random.Random, last: int, kills: int) -> tuple[str, int]:
    """A smoke run killed up to `kills` times, then resumed to its end: (digest, kills that landed on a live driver)."""
    settings = ["--set", f"ray.executor={executor}", "--set", "ledger.commit_seconds=0.05"]
    run = store / "smoke"
    landed = 0
    for _ in range(kills):
        verb: list[str | Path] = ["resume", run] if entries(run) else ["run", SMOKE, "--store", store]
        code, children = kill_once([*verb, *settings], run, draw.randrange(last), draw.uniform(0.0, 0.3))
        landed += code == -signal.SIGKILL
        _, alive = psutil.wait_procs(children, timeout=5)
        assert not alive, f"orphans: {[process.cmdline() for process in alive]}"
    ok(*(["resume", run] if entries(run) else ["run", SMOKE, "--store", store]), *settings)
    assert forager("verify", run).code == 0
    return ok("digest", run), landed


@pytest.mark.parametrize("seed", instants(14, always=2))
def test_kill_in_process(tmp_path: Path, expected: tuple[str, int], seed: int) -> None:
    digest, last = expected
    got, landed = run_killed(tmp_path, "inprocess", random.Random(seed), last - 3, kills=1 + seed % 2)
    assert landed >= 1, "no kill landed on a live driver"
    assert got == digest


@pytest.mark.cluster
@pytest.mark.parametrize("seed", instants(6, always=1))
def test_kill_on_ray(tmp_path: Path, expected: tuple[str, int], seed: int) -> None:
    digest, last = expected
    got, landed = run_killed(tmp_path, "ray", random.Random(100 + seed), last - 3, kills=1)
    assert landed == 1, "the driver had ended before it was killed"
    assert got == digest
