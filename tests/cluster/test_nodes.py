"""Runs on machines that share nothing but a network and a bucket come to what one machine comes to."""

import json
import signal

import pytest

from orchestrator.places import GENESIS
from orchestrator.state import RunState, fold
from telemetry.journal import Journal
from telemetry.store import open_store
from tests.cluster.nodes import Away, Node, Site
from tests.faults.striking import RUN_FILE
from tests.forager import IN_PROCESS
from tests.inprocess import output

pytestmark = [pytest.mark.namespaces, pytest.mark.timeout(900)]

PATIENCE = 240.0
"""Seconds for what comes soon: five machines share the cores of one."""
HANG = 120.0
"""Seconds without a sign of life. Nothing hangs here, but much is slow."""
TEXT = RUN_FILE.format(generations=3, lives=64, hang_timeout=HANG).replace("count: 2", "count: 2, seconds: 0.01")
"""Engines take their time, so that a run lasts longer than a machine takes to join."""


@pytest.fixture(scope="module")
def digest(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of the run in one process, on this disk."""
    place = tmp_path_factory.mktemp("calm")
    (place / "chaos.yaml").write_text(TEXT)
    output("run", place / "chaos.yaml", "--store", place, *IN_PROCESS)
    return output("digest", place / "chaos")


def start(node: Node, nodes: Site, bucket: str, place: str) -> Away:
    """A driver on the node, of a new run at `bucket/place/chaos`."""
    file = node.file("chaos.yaml", TEXT)
    store = f"{bucket}/{place}"
    return node.drive(f"{store}/chaos", "run", file, "--store", store, "--address", nodes.address)


def state(run: str) -> RunState:
    return fold(Journal(open_store(run)).read())


def healthy(run: str, digest: str) -> None:
    """Asserts, from a machine that is none of the cluster, that a finished run is whole and the calm one."""
    assert output("verify", run).splitlines()[-1].startswith("ok")
    assert output("audit", run).startswith("ok")
    assert output("digest", run) == digest
    lived = state(run)
    for generation in range(len(lived.history)):
        keys = [(individual, life) for individual, life, _ in acknowledged(run, generation)]
        assert len(keys) == len(set(keys)) == 4 * 64


def acknowledged(run: str, generation: int) -> list[tuple[str, int, str]]:
    """(individual, life, attempt) of all that the journal acknowledges of a generation, repetitions included."""
    bodies = [entry.body for entry in Journal(open_store(run)).read() if entry.kind == "lives"]
    return [tuple(life) for body in bodies if body["generation"] == generation for life in body["lives"]]


def test_a_run_on_three_machines_is_the_run_on_one(nodes: Site, bucket: str, digest: str) -> None:
    _, second, third = nodes.nodes
    with start(second, nodes, bucket, "calm") as driver:
        driver.until(lambda: second.actors() and third.actors(), PATIENCE)
        assert driver.end(PATIENCE) == 0, driver.text()
    healthy(f"{bucket}/calm/chaos", digest)
    status = json.loads(output("status", f"{bucket}/calm/chaos", "--json"))
    assert status["finished"] is True
    assert status["totals"]["lives"] == 3 * 4 * 64


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
        assert 64 <= lived(run) < 3 * 4 * 64, "the run was over before anything happened to it"
        driver.kill()
        assert driver.end(30) == -signal.SIGKILL
    before = lived(run)
    with fourth.drive(run, "resume", run, "--address", nodes.address) as driver:
        assert driver.end(PATIENCE) == 0, driver.text()
    assert before < 3 * 4 * 64
    healthy(run, digest)


def lived(run: str) -> int:
    """Lives that the journal acknowledges."""
    entries = Journal(open_store(run)).read() if open_store(run).exists(GENESIS) else []
    return sum(len(entry.body["lives"]) for entry in entries if entry.kind == "lives")
