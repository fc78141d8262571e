"""Real runs on real Ray clusters that lose actors, replies, nodes, their control plane or their driver."""

import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.faults.striking import (
    Driver,
    calm,
    family,
    healthy,
    names_on,
    ray_nodes,
    resumed,
    run_file,
    segments,
    survivors,
)
from tests.inprocess import output

pytestmark = [pytest.mark.cluster, pytest.mark.faults, pytest.mark.timeout(400)]

HANG = 3.0
"""Seconds without a sign of life."""
ROLES = ("agent", "engine", "sink", "trainer")


@pytest.fixture(scope="module")
def digest(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of the run that nothing happens to."""
    return calm(tmp_path_factory.mktemp("calm"))


def start(place: Path, *settings: str, **env: str) -> Driver:
    file = run_file(place, hang_timeout=HANG)
    overrides = [part for setting in settings for part in ("--set", setting)]
    return Driver(place / "chaos", "run", file, "--store", place, *overrides, env=env)


def test_killed_actors_are_replaced_and_change_nothing(tmp_path: Path, digest: str) -> None:
    with start(tmp_path) as driver:
        driver.until(driver.living)
        struck = [driver.strike(role, signal.SIGKILL) for role in ROLES]
        assert driver.end() == 0, driver.text()
        for name, _ in struck:
            assert driver.heard("died", start=name), f"nobody noticed that {name} was killed: {driver.text()}"
    healthy(tmp_path / "chaos", digest)


def test_stopped_actors_are_ended_and_replaced(tmp_path: Path, digest: str) -> None:
    with start(tmp_path) as driver:
        driver.until(driver.living)
        for role in ROLES:
            name, pid = driver.strike(role, signal.SIGSTOP)
            began = time.monotonic()
            driver.until(lambda pid=pid: not psutil.pid_exists(pid))
            assert time.monotonic() - began <= HANG + 5
            assert driver.heard(f"{name}: hung: no sign of life")
        assert driver.end() == 0, driver.text()
    healthy(tmp_path / "chaos", digest)


@pytest.mark.parametrize("lost", ["req", "in_flight", "resp"])
def test_lost_calls_and_replies_change_nothing(tmp_path: Path, digest: str, lost: str) -> None:
    """Before the call arrives, while it is worked on, or after. Ray's fault injection can lose, but not duplicate.

    (`RAY_testing_rpc_failure`, https://github.com/ray-project/ray/blob/master/src/ray/rpc/rpc_chaos.cc)
    """
    failures = {f"{kind}_failure_prob": 10 * (kind == lost) for kind in ("req", "in_flight", "resp")}
    calls = {"CoreWorkerService.grpc_client.PushTask": {"num_failures": 12, **failures}}
    with start(tmp_path, RAY_testing_rpc_failure=json.dumps(calls)) as driver:
        assert driver.end(240) == 0, driver.text()
        logs = [path.read_text(errors="replace") for path in (tmp_path / "chaos" / "logs").iterdir()]
        seen = sum(text.count("a reply was lost") + text.count(": lost: ") for text in [*logs, driver.text()])
        assert seen >= 1, "no reply was lost"
    healthy(tmp_path / "chaos", digest)


def test_the_work_of_a_lost_node_moves(tmp_path: Path, digest: str) -> None:
    with ray_nodes(workers=2) as nodes, start(tmp_path, f"ray.address={nodes.address}") as driver:
        driver.until(driver.living)
        node = max(nodes.worker_nodes, key=lambda one: len(names_on(one, driver)))
        struck = [name for name in names_on(node, driver) if not name.startswith("trainer")]
        assert struck, "no actor runs on a worker node"
        began = time.monotonic()
        nodes.remove_node(node, allow_graceful=False)
        for name in struck:
            driver.until(lambda name=name: driver.heard(f"{name}.1: started", began), timeout=60)
        assert driver.end(180) == 0, driver.text()
        took = max(at for at, line in driver.said if ": started" in line) - began
        assert took <= 30, f"work went on elsewhere after {took:.1f} s"
    healthy(tmp_path / "chaos", digest)


def test_runs_whose_cluster_is_gone_end_cleanly_and_go_on_elsewhere(tmp_path: Path, digest: str) -> None:
    """One on a cluster of its own, one on a cluster it joined: side by side, for both have half a minute to wait."""
    places = [tmp_path / "own", tmp_path / "joined"]
    for place in places:
        place.mkdir()
    with (
        ray_nodes(workers=1) as nodes,
        start(places[0]) as own,
        start(places[1], f"ray.address={nodes.address}") as joined,
    ):
        own.until(own.living)
        processes = family(own.process.pid)
        [control] = [process for process in processes if "gcs_server" in process.name()]
        control.kill()
        joined.until(joined.living)
        nodes.head_node.kill_gcs_server(check_alive=False)
        began = time.monotonic()
        for driver in (own, joined):
            assert driver.end(90) == 7, driver.text()
            assert time.monotonic() - began <= 60
            assert "error: Ray cluster" in driver.text().splitlines()[-1]
        assert not survivors(processes)
    for place in places:
        resumed(place / "chaos", digest)


def test_nothing_is_left_of_a_killed_driver(tmp_path: Path, digest: str) -> None:
    before = segments()
    with start(tmp_path) as driver:
        driver.until(driver.living)
        processes = family(driver.process.pid)
        assert len(driver.actors()) >= 5
        driver.process.kill()
        assert driver.end(10) == -signal.SIGKILL
        assert not survivors(processes)
    assert segments() <= before
    resumed(tmp_path / "chaos", digest)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_commits_what_has_finished(tmp_path: Path, digest: str, signum: int, code: int) -> None:
    with start(tmp_path) as driver:
        driver.until(driver.living)
        processes = family(driver.process.pid)
        driver.process.send_signal(signum)
        assert driver.end(30) == code
        assert not survivors(processes)
        assert "error: stopped by a signal" in driver.text()
    resumed(tmp_path / "chaos", digest)


def test_a_signal_ends_what_is_no_run_as_well(tmp_path: Path) -> None:
    with start(tmp_path, "generations=1", "population.lives=4") as driver:
        assert driver.end() == 0, driver.text()
    run = tmp_path / "chaos"
    with Driver(run, "evaluate", run, "--lives", "100000") as driver:
        driver.until(lambda: driver.actors("agent"))
        processes = family(driver.process.pid)
        time.sleep(1)
        driver.process.send_signal(signal.SIGTERM)
        assert driver.end(30) == 143
        assert not survivors(processes)
        assert driver.text().splitlines()[-1].startswith("error: stopped by a signal")


def test_a_second_signal_waits_for_nothing(tmp_path: Path, digest: str) -> None:
    with start(tmp_path) as driver:
        driver.until(driver.living)
        processes = family(driver.process.pid)
        # A stopped sink cannot commit: the first signal alone would wait for it.
        _, stopped = driver.strike("sink", signal.SIGSTOP)
        driver.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert driver.process.poll() is None
        driver.process.send_signal(signal.SIGTERM)
        # Where the driver is past its own handlers the signal itself ends it: 143 to a shell all the same.
        assert driver.end(2) in (143, -signal.SIGTERM)
        # Nobody is left to end what stands still; it ends with its next step.
        os.kill(stopped, signal.SIGCONT)
        assert not survivors(processes)
    resumed(tmp_path / "chaos", digest)


WORLD = """
import ctypes, os, signal
from typing import ClassVar
from workers.environments.forage import Forage

STUCK = {stuck}

class Trap(Forage):
    name: ClassVar[str] = "trap-v1"

    def reset(self, seed):
        self.stuck = seed == STUCK
        return super().reset(seed)

    def step(self, action):
        while self.stuck and {loops}:
            pass
        if self.stuck:
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().step(action)
"""


def trap(place: Path, *, loops: bool) -> tuple[list[str], dict[str, str]]:
    """Settings and environment of a run in which life 3 of everybody is lived in a world that never comes back."""
    from telemetry.seeds import world_seed

    (place / "trap_world.py").write_text(WORLD.format(stuck=world_seed(5, 0, 3), loops=loops))
    shape = ["generations=1", "population.lives=16", "environment.name=trap_world:Trap", "workers.restarts=8"]
    path = os.pathsep.join([str(place), os.environ.get("PYTHONPATH", "")])
    return shape, {"PYTHONPATH": path}


def test_a_world_that_loops_for_ever_is_named(tmp_path: Path) -> None:
    shape, env = trap(tmp_path, loops=True)
    with start(tmp_path, *shape, "workers.hang_timeout=1.5", **env) as driver:
        assert driver.end(180) == 6, driver.text()
        last = driver.text().splitlines()[-1]
    assert last.startswith("error: life 3 of g000-00")
    assert "world trap-v1" in last
    assert "hung" in last


def test_a_world_that_kills_its_process_costs_only_its_own_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape, env = trap(tmp_path, loops=False)
    with start(tmp_path, *shape, "workers.when_spent=censor", **env) as driver:
        assert driver.end(240) == 0, driver.text()
        assert driver.heard(": lost: "), "no world killed its process"
    run = tmp_path / "chaos"
    monkeypatch.syspath_prepend(tmp_path)
    status = json.loads(output("status", run, "--json"))
    assert status["totals"]["censored"] == 4
    assert status["totals"]["lives"] == 64
    assert output("verify", run).splitlines()[-1].startswith("ok")
    assert output("audit", run)
