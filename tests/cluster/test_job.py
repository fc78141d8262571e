"""A driver as a job of the cluster: no terminal holds it, and it is looked on from the store alone."""

import json
import subprocess
import time

import pytest

from tests.cluster.nodes import JOBS, Site
from tests.cluster.scripted import PATIENCE, TEXT, healthy, lived
from tests.inprocess import output

pytestmark = [pytest.mark.namespaces, pytest.mark.timeout(900)]


@pytest.mark.skipif(not JOBS, reason="ray[default] is not installed, without which Ray takes no jobs")
def test_a_driver_as_a_job_of_the_cluster(nodes: Site, bucket: str, digest: str) -> None:
    head, second, _ = nodes.nodes
    store, run = f"{bucket}/job", f"{bucket}/job/chaos"
    # The job's driver may be started on any node.
    [file] = {node.file("job.yaml", TEXT) for node in nodes.nodes}
    submit = ["ray", "job", "submit", "--address", f"http://{head.address}:8265", "--no-wait", "--"]
    forager = ["forager", "run", file, "--store", store, "--address", "auto"]
    line = second.inside(*submit, *forager)
    told = subprocess.run(line, env=second.env, capture_output=True, text=True, timeout=PATIENCE)
    assert told.returncode == 0, told.stderr + told.stdout
    deadline = time.monotonic() + 2 * PATIENCE
    while lived(run) == 0 or not json.loads(output("status", run, "--json"))["finished"]:
        assert time.monotonic() < deadline, told.stdout
        time.sleep(1)
    healthy(run, digest)
