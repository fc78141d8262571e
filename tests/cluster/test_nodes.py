"""Runs on machines that share nothing but a network and a bucket come to what one machine comes to."""

import json
import signal

import pytest

from tests.cluster.nodes import Site
from tests.cluster.scripted import LIVES, PATIENCE, healthy, lived, start
from tests.inprocess import output

pytestmark = [pytest.mark.namespaces, pytest.mark.timeout(900)]


def test_a_run_on_three_machines_is_the_run_on_one(nodes: Site, bucket: str, digest: str) -> None:
    _, second, third = nodes.nodes
    with start(second, nodes, bucket, "calm") as driver:
        driver.until(lambda: second.actors() and third.actors(), PATIENCE)
        assert driver.end(PATIENCE) == 0, driver.text()
    healthy(f"{bucket}/calm/chaos", digest)
    status = json.loads(output("status", f"{bucket}/calm/chaos", "--json"))
    assert status["finished"] is True
    assert status["totals"]["lives"] == LIVES


def test_machines_and_drivers_that_come_and_go_change_nothing(nodes: Site, bucket: str, digest: str) -> None:
    _, second, third = nodes.nodes
    run = f"{bucket}/struck/chaos"
    with start(second, nodes, bucket, "struck") as driver:
        driver.until(lambda: third.actors() and lived(run) >= 64, PATIENCE)
        fourth = nodes.add()
        fourth.ready()
        gone = [name for name in third.actors() if "trainer" not in name]
        nodes.remove(third)
        for name in gone:
            driver.until(lambda name=name: driver.heard(f"{name}.1: started"), PATIENCE)
        assert fourth.actors(), "nobody moved to the machine that came"
        assert 64 <= lived(run) < LIVES, "the run was over before anything happened to it"
        driver.kill()
        assert driver.end(30) == -signal.SIGKILL
    before = lived(run)
    with fourth.drive(run, "resume", run, "--address", nodes.address) as driver:
        assert driver.end(PATIENCE) == 0, driver.text()
    assert before < LIVES
    healthy(run, digest)
