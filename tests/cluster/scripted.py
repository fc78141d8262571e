"""The run of these tests without a language model, and what has to be true of it."""

from orchestrator.places import GENESIS
from orchestrator.state import fold
from telemetry.journal import Journal
from telemetry.store import open_store
from tests.cluster.nodes import Away, Node, Site
from tests.faults.striking import RUN_FILE
from tests.inprocess import output

LIVES = 3 * 4 * 64
PATIENCE = 240.0
"""Seconds for what comes soon: five machines share the cores of one."""
HANG = 120.0
"""Seconds without a sign of life. Nothing hangs here, but much is slow."""
TEXT = RUN_FILE.format(generations=3, lives=64, hang_timeout=HANG).replace("count: 2", "count: 2, seconds: 0.01")
"""Engines take their time, so that a run lasts longer than a machine takes to join."""


def start(node: Node, nodes: Site, bucket: str, place: str) -> Away:
    """A driver on the node, of a new run at `bucket/place/chaos`."""
    file = node.file("chaos.yaml", TEXT)
    store = f"{bucket}/{place}"
    return node.drive(f"{store}/chaos", "run", file, "--store", store, "--address", nodes.address)


def healthy(run: str, digest: str) -> None:
    """Asserts, from a machine that is none of the cluster, that a finished run is whole and the calm one."""
    assert output("verify", run).splitlines()[-1].startswith("ok")
    assert output("audit", run).startswith("ok")
    assert output("digest", run) == digest
    whole = fold(Journal(open_store(run)).read())
    assert len(whole.history) == 3
    for generation in range(3):
        keys = [(individual, life) for individual, life, _ in acknowledged(run, generation)]
        assert len(keys) == len(set(keys)) == 4 * 64


def acknowledged(run: str, generation: int) -> list[tuple[str, int, str]]:
    """(individual, life, attempt) of all that the journal acknowledges of a generation, repetitions included."""
    bodies = [entry.body for entry in Journal(open_store(run)).read() if entry.kind == "lives"]
    return [tuple(life) for body in bodies if body["generation"] == generation for life in body["lives"]]


def lived(run: str) -> int:
    """Lives that the journal acknowledges."""
    entries = Journal(open_store(run)).read() if open_store(run).exists(GENESIS) else []
    return sum(len(entry.body["lives"]) for entry in entries if entry.kind == "lives")
