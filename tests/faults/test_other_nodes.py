"""Real runs whose actors live on other nodes: hung where nobody can send a signal, or taken away with notice."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.faults.striking import Driver, calm, healthy, names_on, ray_nodes, run_file

pytestmark = [pytest.mark.cluster, pytest.mark.faults, pytest.mark.timeout(400)]

HANG = 3.0
"""Seconds without a sign of life."""
NOTICE = 3.0
"""Seconds between being told that a node goes and its end."""

ELSEWHERE = """
import socket

name = socket.gethostname()
socket.gethostname = lambda: f"{name}-elsewhere"
"""
"""Process ids of this machine mean nothing to a process that says it is on another one."""


@pytest.fixture(scope="module")
def digest(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of the run that nothing happens to."""
    return calm(tmp_path_factory.mktemp("calm"))


def start(place: Path, address: str, *settings: str, hang_timeout: float = HANG) -> Driver:
    overrides = [part for setting in (f"ray.address={address}", *settings) for part in ("--set", setting)]
    return Driver(place / "chaos", "run", run_file(place, hang_timeout=hang_timeout), "--store", place, *overrides)


def busiest(nodes: Any, driver: Driver) -> tuple[Any, list[str]]:
    """The worker node with the most actors that lives need, and their names."""
    driver.until(driver.living)
    names = {node: [one for one in names_on(node, driver) if "trainer" not in one] for node in nodes.worker_nodes}
    node = max(names, key=lambda one: len(names[one]))
    assert names[node], "no actor runs on a worker node"
    return node, names[node]


def test_hung_actors_on_another_machine_are_replaced_and_harmless_when_they_wake(tmp_path: Path, digest: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(ELSEWHERE)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    with ray_nodes(workers=2, PYTHONPATH=path) as nodes, start(tmp_path, nodes.address) as driver:
        _, names = busiest(nodes, driver)
        pids = driver.actors()
        for name in names:
            os.kill(pids[name], signal.SIGSTOP)
        for name in names:
            driver.until(lambda name=name: driver.heard("hung: no sign of life", start=name))
            assert psutil.Process(pids[name]).status() == psutil.STATUS_STOPPED, f"{name} was killed from here"
            # At once: soon Ray's own node ends what the driver has given up.
            os.kill(pids[name], signal.SIGCONT)
        for name in names:
            driver.until(lambda name=name: driver.heard(f"{name}.1: started"))
        assert driver.end(180) == 0, driver.text()
    healthy(tmp_path / "chaos", digest)


def drain(address: str, node: Any, seconds: float) -> None:
    """Tells the cluster that a node will be taken away, as a cloud does with a spot instance."""
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.core.generated import autoscaler_pb2

    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    deadline = int((time.time() + seconds) * 1000)
    accepted, why = GcsClient(address).drain_node(node.node_id, reason, "preempted", deadline)
    assert accepted, why


def test_a_node_taken_away_with_notice_is_charged_to_no_budget(tmp_path: Path, digest: str) -> None:
    budgets = ("workers.restarts=0", "workers.life_retries=0", "trainer.retries=0")
    with ray_nodes(workers=2) as nodes, start(tmp_path, nodes.address, *budgets, hang_timeout=60) as driver:
        node, names = busiest(nodes, driver)
        drain(nodes.address, node, NOTICE)
        time.sleep(NOTICE)
        nodes.remove_node(node, allow_graceful=False)
        assert driver.end(180) == 0, driver.text()
        for name in names:
            assert driver.heard("The actor died", start=f"{name}: ") is not None, driver.text()
    healthy(tmp_path / "chaos", digest)
