"""Who drives a run: one driver at a time, taken over on demand, rewound to any generation, cleaned up afterwards."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.forager import IN_PROCESS, ROOT, SMOKE, command, environment, forager, ok, smoke
from tests.inprocess import output

SLOW = ("--set", "ledger.commit_seconds=0.05")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return smoke(tmp_path_factory.mktemp("store"), "ray.executor=inprocess")


def journal(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((run / "journal").glob("*.json"))}


def contents(run: Path) -> dict[Path, bytes]:
    """Every file but the lock, which names its last holder."""
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "driver.lock"}


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[tuple[Path, "subprocess.Popen[bytes]"]]:
    """A run in the middle of its first generation, its driver stopped by SIGSTOP."""
    run = tmp_path / "smoke"
    arguments = command("run", SMOKE, "--store", tmp_path, *IN_PROCESS, *SLOW)
    with subprocess.Popen(
        arguments, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as driver:
        while driver.poll() is None and len(list((run / "journal").glob("*.json"))) < 3:
            time.sleep(0.002)
        os.kill(driver.pid, signal.SIGSTOP)
        assert driver.poll() is None, "the run had ended before its driver was stopped"
        try:
            yield run, driver
        finally:
            driver.kill()


def test_second_driver_is_refused(stopped: tuple[Path, "subprocess.Popen[bytes]"]) -> None:
    run, driver = stopped
    before = journal(run)
    result = forager("resume", run)
    assert result.code == 4
    assert f"pid {driver.pid}" in result.err
    assert "--take-over" in result.err
    assert journal(run) == before
    assert forager("gc", run).code == 4


def test_take_over_fences_the_first_driver(stopped: tuple[Path, "subprocess.Popen[bytes]"], finished: Path) -> None:
    run, driver = stopped
    ok("resume", run, "--take-over")
    ended = journal(run)
    os.kill(driver.pid, signal.SIGCONT)
    _, errors = driver.communicate(timeout=60)
    assert driver.returncode == 4
    assert b"another driver took over" in errors
    assert journal(run) == ended
    assert output("digest", run) == output("digest", finished)
    assert output("verify", run).startswith(("ok", "note"))
    assert output("audit", run).startswith("ok")


@pytest.mark.parametrize("generation", [0, 1, 2])
def test_rewound_run_ends_the_same(finished: Path, tmp_path: Path, generation: int) -> None:
    run = tmp_path / "smoke"
    shutil.copytree(finished, run)
    before = journal(run)
    ok("resume", run, "--at-generation", str(generation))
    assert journal(run).items() > before.items(), "rewinding must not touch what was acknowledged"
    assert output("digest", run) == output("digest", f"{run}@branch-1") == output("digest", finished)
    assert output("verify", run).startswith("ok")
    assert output("audit", run).startswith("ok")
    status = json.loads(output("status", run, "--json"))
    assert status["finished"]
    assert status["totals"] == {
        **json.loads(output("status", finished, "--json"))["totals"],
        **{key: status["totals"][key] for key in ("rollout_seconds", "training_seconds")},
    }


def test_rewinding_needs_a_committed_generation(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "smoke"
    shutil.copytree(finished, run)
    before = journal(run)
    result = forager("resume", run, "--at-generation", "3")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "the run has 3" in result.err
    assert forager("status", f"{run}@branch-1").code == 2
    assert forager("resume", f"{run}@branch-1").code == 2
    assert journal(run) == before


def test_garbage_goes_and_nothing_else(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "smoke"
    shutil.copytree(finished, run)
    kept = contents(run)
    planted = [
        run / "adapters" / ("0" * 64) / "adapter_model.safetensors",
        run / "ledger" / "steps" / "generation=0" / f"{'1' * 64}.parquet",
        run / "heldout" / "lives" / "generation=0" / f"{'1' * 64}.parquet",
        run / "journal" / ".00000000000000000009.json.0123456789abcdef",
        run / "probe" / "0123",
    ]
    for path in planted:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"left behind")
    assert "0 objects" in ok("gc", run)
    shown = ok("gc", run, "--grace-hours", "0", "--dry-run")
    assert all(str(path.relative_to(run)) in shown for path in planted)
    assert all(path.exists() for path in planted)
    assert f"{len(planted)} objects" in ok("gc", run, "--grace-hours", "0")
    assert contents(run) == kept
    assert "0 objects" in ok("gc", run, "--grace-hours", "0")
