"""kill -9 of drivers at random instants, resumptions included; the end must be that of the run never killed."""

import os
import random
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.faults import gate
from tests.faults.harness import (
    Calm,
    Outcome,
    calm,
    drive,
    every,
    finish,
    judge,
    on_call,
    onward,
    workspace,
)
from tests.faults.witness import look
from tests.forager import ROOT, SMOKE, command, environment, forager, ok, smoke

pytestmark = pytest.mark.timeout(600)

MOST_KILLS = 5
LONG = ("generations=30",)
"""Settings of a run long enough for the ledger's log to be checkpointed."""


def kill_again_and_again(expected: Calm, settings: tuple[str, ...], seed: int) -> Outcome:
    """Up to five kills, of the run and of its resumptions: after a random time, or at a random system call."""
    draw = random.Random(seed)
    landed, sights = 0, []
    with workspace() as store:
        for _ in range(draw.randint(1, MOST_KILLS)):
            verb = onward(store, *settings)
            if draw.random() < 0.5 and gate.available():
                index = draw.randrange(len(expected.calls))
                ended = drive(verb, at=on_call(index, gate.KILL), root=store)
            else:
                ended = drive(verb, seconds=draw.uniform(0.0, expected.seconds))
            if ended.code not in (0, -signal.SIGKILL):
                problem = f"exit {ended.code} of {verb[0]}: {ended.err[-600:]}"
                return Outcome("random kills", f"seed {seed}", landed, (problem,))
            landed += ended.code == -signal.SIGKILL
            sights.append(look(store / "tiny"))
        problems = finish(store, expected.digest, sights, settings)
        return Outcome("random kills", f"seed {seed}", landed, tuple(problems))


@pytest.fixture(scope="module")
def undisturbed() -> Calm:
    return calm()


def test_a_few_random_kills(undisturbed: Calm) -> None:
    judge(every(partial(kill_again_and_again, undisturbed, ()), [3, 4]), landed=2)


@pytest.mark.faults
def test_random_kills(undisturbed: Calm) -> None:
    judge(every(partial(kill_again_and_again, undisturbed, ()), range(100, 130)), landed=45)


@pytest.mark.faults
def test_random_kills_of_a_longer_run() -> None:
    undisturbed = calm(LONG)
    assert any("checkpoint" in call.path.name for call in undisturbed.calls)
    judge(every(partial(kill_again_and_again, undisturbed, LONG), range(200, 204)), landed=4)


def descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def entries(run: Path) -> int:
    return len(list((run / "journal").glob("*.json")))


def kill_process(arguments: list[str | Path], run: Path, after: int, delay: float) -> tuple[int, list[psutil.Process]]:
    """Starts a driver as a user does and kills it `delay` seconds after the run has `after` journal entries.

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


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, int]:
    """Digest of the uninterrupted smoke run, and how many journal entries it has."""
    run = smoke(tmp_path_factory.mktemp("calm"), "ray.executor=inprocess")
    return ok("digest", run), entries(run)


@pytest.mark.cluster
@pytest.mark.parametrize("seed", [pytest.param(s, marks=[pytest.mark.faults] if s else []) for s in range(6)])
def test_kill_on_ray(tmp_path: Path, expected: tuple[str, int], seed: int) -> None:
    digest, last = expected
    draw, run, settings = random.Random(seed), tmp_path / "smoke", ("--set", "ledger.commit_seconds=0.05")
    first = ["run", SMOKE, "--store", tmp_path, *settings]
    code, children = kill_process(first, run, draw.randrange(last - 3), draw.uniform(0.0, 0.3))
    assert code == -signal.SIGKILL, "the driver had ended before it was killed"
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive, f"orphans: {[process.cmdline() for process in alive]}"
    ok(*(["resume", run, *settings] if entries(run) else first))
    assert forager("verify", run).code == 0
    assert ok("digest", run) == digest
