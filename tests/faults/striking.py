"""A real driver with real actors, watched and struck from outside by process id, and the cluster to run it on."""

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import psutil

from orchestrator.config import RayConfig
from orchestrator.credentials import prepare
from tests.forager import IN_PROCESS, ROOT, command, environment
from tests.inprocess import output

RUN_FILE = """
name: chaos
seed: 5
generations: {generations}
population:
  size: 4
  lives: {lives}
  founders:
    - {{name: scout, strategy: Explore widely., epsilon: 0.4}}
    - {{name: grazer, strategy: Eat whenever there are berries., epsilon: 0.3}}
engine: {{kind: scripted, count: 2}}
trainer: {{objective: {{kind: scripted}}, retries: 20, jobs: 2}}
workers: {{agents: 2, lives_per_agent: 64, hang_timeout: {hang_timeout}, start_timeout: 120}}
ledger: {{commit_seconds: 0.3}}
fitness: {{kind: rmst, resamples: 100}}
evaluation: {{lives: 4}}
metrics: {{enabled: false}}
"""
"""Long enough to be struck several times, on two engines, two agents, two trainers and a sink."""

MEMORY = Path("/dev/shm")
NODE_MEMORY = 80 << 20
"""Bytes that a node of a Ray cluster has for objects."""


def run_file(place: Path, *, generations: int = 3, lives: int = 64, hang_timeout: float = 60) -> Path:
    """A run file in `place`, whose run is at `place / "chaos"`."""
    file = place / "chaos.yaml"
    file.write_text(RUN_FILE.format(generations=generations, lives=lives, hang_timeout=hang_timeout))
    return file


def calm(place: Path, **shape: int) -> str:
    """Digest of the run that nothing happens to."""
    output("run", run_file(place, **shape), "--store", place, *IN_PROCESS)
    return output("digest", place / "chaos")


def resumed(run: Path, digest: str) -> None:
    """Finishes a run without a cluster, and asserts that it is healthy."""
    output("resume", run, "--set", "ray.address=null", *IN_PROCESS)
    healthy(run, digest)


def healthy(run: Path, digest: str) -> None:
    """Asserts that a finished run is whole, follows from its records, and is the calm one."""
    assert output("verify", run).splitlines()[-1].startswith("ok")
    assert output("audit", run).startswith("ok")
    assert output("digest", run) == digest


class Driver:
    """A driver in a process of its own. A context manager: kills what is left of it."""

    def __init__(
        self,
        run: Path,
        *arguments: str | Path,
        env: Mapping[str, str] | None = None,
        inside: Sequence[str] = (),
    ) -> None:
        """`inside` begins the command line of a driver that is to run elsewhere."""
        self.run = run
        self.said: list[tuple[float, str]] = []
        """Lines on standard error, with the time each came."""
        self.process = subprocess.Popen(
            [*inside, *command(*arguments)],
            cwd=ROOT,
            env=environment() | dict(env or {}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._listener.join(5)
        if self.process.stderr is not None:
            self.process.stderr.close()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append((time.monotonic(), line.rstrip()))

    def text(self) -> str:
        """All of standard error so far."""
        return "\n".join(line for _, line in self.said)

    def heard(self, words: str, since: float = 0.0, start: str = "") -> float | None:
        """When a line with these words came first, None if none did; `start` is how it begins."""
        return next((at for at, line in self.said if at >= since and words in line and line.startswith(start)), None)

    def end(self, timeout: float = 120) -> int:
        """Exit code. Raises TimeoutExpired."""
        code = self.process.wait(timeout)
        self._listener.join(5)
        return code

    def actors(self, role: str = "") -> dict[str, int]:
        """Process ids of the run's actors by name, such as `agent-0`; found by the log that they write."""
        found: dict[str, int] = {}
        logs = f"{self.run}/logs/"
        for pid in psutil.pids():
            with suppress(OSError, psutil.Error):
                log = os.readlink(f"/proc/{pid}/fd/1")
                alive = psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_STOPPED)
                if log.startswith(f"{logs}{role}") and alive:
                    found[Path(log).stem] = pid
        return found

    def decisions(self) -> int:
        """Decisions of all actors' lives that are committed."""
        return sum(json.loads(path.read_bytes())["body"].get("decisions", 0) for path in self.entries())

    def entries(self) -> list[Path]:
        return sorted((self.run / "journal").glob("[0-9]*.json"))

    def until(self, what: Callable[[], Any], timeout: float = 90) -> Any:
        """The first true answer, asked while the driver runs. Raises AssertionError."""
        deadline = time.monotonic() + timeout
        while not (answer := what()):
            code = self.process.poll()
            assert code is None, f"the driver ended with {code}: {self.text()[-2000:]}"
            assert time.monotonic() < deadline, f"nothing came in {timeout} s: {self.text()[-2000:]}"
            time.sleep(0.05)
        return answer

    def living(self) -> bool:
        """True while lives are under way: some of the run are committed, and more are to come."""
        return any(b'"kind":"lives"' in path.read_bytes() for path in self.entries()[-3:])

    def strike(self, role: str, signum: int) -> tuple[str, int]:
        """Sends a signal to the first actor of a role there is; its name and process id."""
        actors = self.until(lambda: self.actors(role))
        name = min(actors)
        os.kill(actors[name], signum)
        return name, actors[name]

    def replaced(self, name: str, pid: int, timeout: float = 60) -> None:
        """Returns once another process has the name and the old one is gone, however it was ended."""
        self.until(lambda: self.actors(name).get(name, pid) != pid and not psutil.pid_exists(pid), timeout)


def names_on(node: Any, driver: Driver) -> list[str]:
    """Names of the run's actors on a node of `ray_nodes`."""
    pids = {process.pid for process in family(node.all_processes["raylet"][0].process.pid)}
    return [name for name, pid in driver.actors().items() if pid in pids]


def segments() -> set[str]:
    """Shared memory that has a name and belongs to no process."""
    names = {path.name for path in MEMORY.iterdir() if not path.is_dir()} if MEMORY.is_dir() else set()
    for pid in psutil.pids():
        with suppress(OSError):
            used = Path(f"/proc/{pid}/maps").read_text()
            names -= {name for name in names if f"{MEMORY}/{name}" in used}
    return names


def family(pid: int) -> list[psutil.Process]:
    """A process's descendants."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def survivors(processes: list[psutil.Process], seconds: float = 5) -> list[list[str]]:
    """Command lines of the processes that are still there after some seconds."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return [process.cmdline() for process in alive]


@contextmanager
def ray_nodes(workers: int, **variables: str) -> Iterator[Any]:
    """A Ray cluster of a head and some worker nodes on this machine; its `address` is what drivers join.

    variables: of the environment of the worker nodes and of the actors there.
    """
    prepare(RayConfig())
    from ray.cluster_utils import Cluster

    nodes = Cluster()
    try:
        # The first node is the head.
        nodes.add_node(num_cpus=1, include_dashboard=False, object_store_memory=NODE_MEMORY)
        for _ in range(workers):
            nodes.add_node(num_cpus=1, object_store_memory=NODE_MEMORY, env_vars=variables)
        yield nodes
    finally:
        with suppress(Exception):
            nodes.shutdown()
