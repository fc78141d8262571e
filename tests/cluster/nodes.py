"""Nodes of a Ray cluster that share nothing but a network: each in its own network, process, mount, host name and IPC
namespaces, with its own /tmp, /dev/shm, home and cache. What they have in common is the code, as machines made from one
image have, and a bucket.

All of it hangs below the process that runs the tests: the kernel removes a node with its first process, and that one is
killed when the tests' process ends, however it ends.
"""

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import psutil

from tests.faults.striking import Driver, family
from tests.forager import ROOT, Result, command

INSIDE = "FORAGER_TEST_NAMESPACES"
"""Variable that says that the tests are in namespaces of their own."""
NETWORK = "10.77.0"
SWITCH = f"{NETWORK}.1"
"""Address of the bridge, where the tests and the bucket are."""
PORT = 6379
MEMORY = 80 << 20
"""Bytes that a node has for objects."""
HOME = "/tmp/home"
"""Of every node, each its own."""
JOBS = all(find_spec(name) for name in ("aiohttp_cors", "opencensus", "smart_open"))
"""Whether Ray takes jobs: `ray[default]` is installed."""
UNSHARE = ("unshare", "--net", "--pid", "--mount", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc")
BOOT = """
set -e
mount --make-rprivate /
for path in $IMAGE; do mkdir -p "$OWN/tmp/${path#/tmp/}" && mount --bind "$path" "$OWN/tmp/${path#/tmp/}"; done
mount --bind "$OWN/hosts" /etc/hosts
mount -t tmpfs -o size=1g tmpfs /dev/shm
mount --rbind "$OWN/tmp" /tmp
hostname "$NAME"
until ip link show eth0 > /dev/null 2>&1; do sleep 0.05; done
ip link set lo up
ip address add "$ADDRESS/24" dev eth0
ip link set eth0 up
cd "$ROOT"
"$@" &
wait
"""


class Node:
    """A machine of its own, as far as the kernel can make one. Ends when `end` is called, or Ray on it does."""

    def __init__(self, number: int, folder: Path, token: str, ray: Sequence[str], env: Mapping[str, str]) -> None:
        self.name = f"node-{number}"
        self.address = f"{NETWORK}.{10 + number}"
        self.own = folder / self.name
        self.home = self.own / HOME.removeprefix("/")
        """Where HOME is from here."""
        (self.home / ".ray").mkdir(parents=True, mode=0o700)
        (self.home / ".ray" / "auth_token").write_text(token)
        (self.home / ".ray" / "auth_token").chmod(0o600)
        # As Debian has it: the name of the machine leads to nobody else's address.
        (self.own / "hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {self.name}\n")
        self.env = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": HOME,
            "RAY_AUTH_MODE": "token",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",
            **{name: os.environ[name] for name in os.environ if name.startswith(("AWS_", "PYTHONPATH"))},
            **env,
        }
        image = {str(path) for path in (ROOT, Path(sys.prefix), Path(sys.base_prefix)) if path.is_relative_to("/tmp")}
        boot = {
            "IMAGE": " ".join(sorted(image)),
            "OWN": str(self.own),
            "NAME": self.name,
            "ADDRESS": self.address,
            "ROOT": str(ROOT),
        }
        start = [*ray, f"--node-ip-address={self.address}", f"--object-store-memory={MEMORY}", "--block"]
        self._log = (self.own / "node.log").open("wb")
        self._process = subprocess.Popen(
            [*UNSHARE, "bash", "-c", BOOT, "init", sys.executable, "-m", "ray.scripts.scripts", "start", *start],
            env={**self.env, **boot},
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        self._plug(f"port{number}")

    def _plug(self, port: str) -> None:
        """Lays a cable from the bridge to the node."""
        self.init = _first_child(self._process.pid)
        ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(self.init))
        ip("link", "set", port, "master", "bridge", "up")

    def inside(self, *arguments: str | Path) -> list[str]:
        """A command line that runs another one on this node."""
        enter = ["nsenter", f"--target={self.init}", "--net", "--pid", "--mount", "--uts", "--ipc"]
        return [*enter, "bash", "-c", 'cd "$0" && exec "$@"', str(ROOT), *map(str, arguments)]

    def forager(self, *arguments: str | Path, timeout: float = 120) -> Result:
        """Runs `forager` on this node to its end."""
        line = self.inside(*command(*arguments))
        done = subprocess.run(line, env=self._wide(), capture_output=True, text=True, timeout=timeout)
        return Result(done.returncode, done.stdout, done.stderr)

    def drive(self, run: str, *arguments: str | Path) -> "Away":
        """A driver on this node."""
        return Away(self, run, arguments)

    def file(self, name: str, text: str) -> Path:
        """Puts a file into the node's home; its path there."""
        (self.home / name).write_text(text)
        return Path(HOME) / name

    def actors(self) -> list[str]:
        """Names of the actors here, by the logs that they write."""
        logs = self.home / ".cache" / "forager" / "logs"
        found = []
        for process in family(self.init):
            with suppress(psutil.Error, OSError):
                log = Path(os.readlink(f"/proc/{process.pid}/fd/1"))
                if log.suffix == ".log" and list(logs.rglob(log.name)):
                    found.append(log.stem)
        return sorted(found)

    def end(self) -> None:
        """Takes the machine away: all its processes at once, without a word to anybody."""
        with suppress(ProcessLookupError):
            os.kill(self.init, 9)
        self._process.wait()
        self._log.close()

    def ready(self, seconds: float = 180) -> None:
        """Waits until Ray runs here. Raises RuntimeError when it does not."""
        deadline = time.monotonic() + seconds
        while "Ray runtime started" not in self.log():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"{self.name} does not start: {self.log()[-2000:]}")
            time.sleep(0.1)

    def log(self) -> str:
        """What Ray said when it was started."""
        return (self.own / "node.log").read_text(errors="replace")

    def said(self) -> str:
        """The ends of what the actors of this node wrote."""
        logs = sorted((self.home / ".cache" / "forager" / "logs").rglob("*.log"))
        return "".join(f"\n{self.name} {log.stem}: {log.read_text(errors='replace')[-1000:]}" for log in logs)

    def _wide(self) -> dict[str, str]:
        return {**self.env, "COLUMNS": "160", "NO_COLOR": "1"}


class Away(Driver):
    """A driver on a node, of a run in the bucket."""

    def __init__(self, node: Node, run: str, arguments: Sequence[str | Path]) -> None:
        super().__init__(Path(run), *arguments, env=node.env, inside=node.inside())
        self._enter = self.process.pid

    def kill(self) -> None:
        """Ends the driver itself, without notice."""
        os.kill(_first_child(self._enter), 9)

    def __exit__(self, *error: object) -> None:
        with suppress(ProcessLookupError, RuntimeError):
            self.kill()
        super().__exit__(*error)


class Site:
    """The bridge and what is plugged into it."""

    def __init__(self, folder: Path) -> None:
        self.nodes: list[Node] = []
        self._folder = folder
        self._token = secrets.token_hex(32)
        self._made = 0

    @property
    def address(self) -> str:
        """Of the cluster."""
        return f"{self.nodes[0].address}:{PORT}"

    def add(self, cpus: int = 1, **env: str) -> Node:
        """Starts a node; the first one is the head, for which the others wait."""
        if self.nodes:
            self.nodes[0].ready()
        joining = [f"--address={self.address}"] if self.nodes else ["--head", f"--port={PORT}"]
        extra = [] if self.nodes else [f"--include-dashboard={str(JOBS).lower()}", "--dashboard-host=0.0.0.0"]
        self._made += 1
        node = Node(self._made, self._folder, self._token, [*joining, *extra, f"--num-cpus={cpus}"], env)
        self.nodes.append(node)
        return node

    def remove(self, node: Node) -> None:
        """Takes a node away without notice."""
        self.nodes.remove(node)
        node.end()


@contextmanager
def site(folder: Path) -> Iterator[Site]:
    """A bridge without nodes. Whatever is added ends with it."""
    ip("link", "set", "lo", "up")
    ip("link", "add", "bridge", "type", "bridge")
    ip("address", "add", f"{SWITCH}/24", "dev", "bridge")
    ip("link", "set", "bridge", "up")
    made = Site(folder)
    try:
        yield made
    finally:
        for node in made.nodes:
            node.end()
        ip("link", "delete", "bridge")


def ip(*arguments: str) -> None:
    """Runs iproute2. Raises RuntimeError with what it says."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def _first_child(pid: int, seconds: float = 10) -> int:
    """Process id of the only child, as it is known here. Raises RuntimeError when there is none."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(psutil.NoSuchProcess):
            if children := psutil.Process(pid).children():
                return int(children[0].pid)
        time.sleep(0.02)
    raise RuntimeError(f"process {pid} started nothing")
