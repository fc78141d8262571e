"""The scripts that all manifests share, at work: start or resume, and a Ray cluster of two nodes."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import is_free, stop
from tests.deploy.tools import DEPLOY
from tests.forager import IN_PROCESS, SMOKE
from tests.inprocess import output

SHORT = "population.lives=4 evaluation.lives=4 evaluation.manners=0"
SETTINGS = [part for one in SHORT.split() for part in ("--set", one)]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """What a manifest gives the scripts: a path to them and to `forager`, and a store."""
    path = os.pathsep.join([str(DEPLOY / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "FORAGER_STORE": str(tmp_path / "runs"), "NO_COLOR": "1"}


def start_or_resume(environment: dict[str, str], *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["start-or-resume", *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=900
    )


def test_a_run_is_started_stopped_and_resumed(environment: dict[str, str], tmp_path: Path) -> None:
    options = (*IN_PROCESS, *SETTINGS, "--set", "engine.seconds=0.005")
    output("run", SMOKE, "--store", tmp_path / "straight", *options)
    process = subprocess.Popen(["start-or-resume", SMOKE, *options], env=environment, stdout=subprocess.PIPE)
    journal = tmp_path / "runs" / "smoke" / "journal"
    deadline = time.monotonic() + 120
    while len(list(journal.glob("*.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)  # to the shell, which has become the driver
    process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    done = start_or_resume(environment, SMOKE, *options)
    assert done.returncode == 0, done.stderr
    assert output("digest", tmp_path / "runs" / "smoke") == output("digest", tmp_path / "straight" / "smoke")


def test_the_exit_code_and_the_words_are_foragers(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("name: bad\ngenerations: none\n")
    done = start_or_resume(environment, tmp_path / "bad.yaml")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: ")
    stranger = tmp_path / "runs" / "smoke"
    stranger.mkdir(parents=True)
    (stranger / "mine.txt").touch()
    done = start_or_resume(environment, SMOKE)
    assert done.returncode == 2
    assert "not empty and not a run" in done.stderr
    assert [path.name for path in stranger.iterdir()] == ["mine.txt"]
    del environment["FORAGER_STORE"]
    assert "FORAGER_STORE: a directory or URL" in start_or_resume(environment, SMOKE).stderr


@pytest.fixture
def cluster(environment: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """Address of a Ray cluster of a head and another node, made by `ray-node` as each machine of a cluster would."""
    # Ray keeps the ports from 10002 to 19999 for its workers.
    port = next(port for port in range(20_000 + os.getpid() % 10_000, 32_000) if is_free(port))
    environment |= {"RAY_HEAD_PORT": str(port), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    head, started = "127.0.0.1", []
    try:
        for rank in ("0", "1"):
            command = ["ray-node", rank, head]
            with (tmp_path / f"node-{rank}.log").open("wb") as log:
                started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT))
        assert subprocess.run(["ray-up", f"{head}:{port}"], env=environment, timeout=600).returncode == 0
        yield f"{head}:{port}"
    finally:
        families = [one for process in started for one in psutil.Process(process.pid).children(recursive=True)]
        for process in reversed(started):
            stop(process)
        _, alive = psutil.wait_procs(families, timeout=30)
        for one in alive:
            one.kill()
        assert not alive, "a node that is told to end leaves nobody behind"


@pytest.mark.cluster
@pytest.mark.timeout(1800)
def test_nodes_join_and_a_run_is_driven_on_them(cluster: str, environment: dict[str, str], tmp_path: Path) -> None:
    everybody = ("--set", f"ray.cpus={2 * (psutil.cpu_count() or 1)}")
    done = start_or_resume(environment, SMOKE, "--address", cluster, *SETTINGS, *everybody)
    assert done.returncode == 0, done.stdout + done.stderr
    assert output("verify", tmp_path / "runs" / "smoke").startswith("ok")
    del environment["RAY_AUTH_TOKEN"]
    environment |= {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    (tmp_path / "token").touch(0o600)
    (tmp_path / "token").write_text("0" * 64)
    refused = subprocess.run(["ray", "health-check", "--address", cluster], env=environment, capture_output=True)
    assert refused.returncode != 0, "without the token nobody enters"
