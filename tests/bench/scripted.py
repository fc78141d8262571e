"""A thousand concurrent lives with the scripted engine on Ray: memory of all processes, steps per second."""

import json
import subprocess
import tempfile
from pathlib import Path

import psutil

from orchestrator.state import fold
from telemetry.journal import Journal
from telemetry.store import open_store
from tests.forager import ROOT, SMOKE, command, environment

LIVES = 1000


def proportional_bytes(pid: int) -> int:
    """Memory of a process and its descendants, pages shared between them counted once."""
    total = 0
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in family:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


def main() -> None:
    settings = [
        f"population.lives={LIVES // 4}",
        "workers.lives_per_agent=1024",
        "generations=2",
        "metrics.enabled=false",
    ]
    with tempfile.TemporaryDirectory() as store:
        overrides = [part for setting in settings for part in ("--set", setting)]
        with subprocess.Popen(
            command("run", SMOKE, "--store", store, *overrides),
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.DEVNULL,
        ) as driver:
            peak = 0
            while driver.poll() is None:
                peak = max(peak, proportional_bytes(driver.pid))
                try:
                    driver.wait(0.25)
                except subprocess.TimeoutExpired:
                    continue
        assert driver.returncode == 0, driver.returncode
        state = fold(Journal(open_store(Path(store) / "smoke")).read())
    seconds = sum(event.seconds["rollout"] for event in state.history)
    decisions = sum(commit.decisions for commit in state.commits)
    print(json.dumps({"lives": LIVES, "gib": peak / 2**30, "steps_per_second": decisions / seconds}))


if __name__ == "__main__":
    main()
