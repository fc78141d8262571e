"""The Ray cluster under a run: joined or started, quiet, and ended with the driver."""

import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Thread
from typing import Any

import psutil

from orchestrator.config import RayConfig
from orchestrator.credentials import prepare
from orchestrator.needs import missing
from orchestrator.reaper import reaped
from telemetry import processes
from telemetry.actors import Place
from telemetry.failures import ClusterLostError, UsageError
from telemetry.reservations import EVERY, LOOK_SECONDS
from telemetry.supervisor import Cluster

Note = Callable[[str], None]
"""Takes what goes on, in words."""
Start = Callable[..., Any]
"""`await start(build, place, start_timeout=..., call_timeout=..., hang_timeout=...)`: hosts what `build` returns."""

SHUTDOWN_SECONDS = 10.0
"""How long Ray may take to end what it started here; then it is ended without being asked."""

SETTINGS = {
    # Set here, before Ray is imported, because some are read at import.
    # Ray lowers the priority of its workers, who do all the work here.
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # A call that comes after the end must not start another cluster.
    "RAY_ENABLE_AUTO_CONNECT": "0",
    "RAY_DEDUP_LOGS": "0",
    # What is larger goes through the object store: with 100 kB, a call of 200 decisions takes longer than to decide.
    "RAY_max_direct_call_object_size": str(4 << 20),
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def to_stderr(text: str) -> None:
    """Says what goes on where there is no display."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def cluster(config: RayConfig, gpus: Sequence[float] = (), note: Note = to_stderr) -> Iterator[Start]:
    """Yields the function that starts hosted objects; everything it started is gone afterwards.

    gpus: of each actor that holds some, all at the same time. A joined cluster without room for them is waited for, as
    `note` is told. Raises UsageError when a cluster started here has no room for them, ClusterLostError when a joined
    one cannot be reached or has none in time; so does every wait for a hosted object once the cluster is lost.
    """
    prepare(config)
    if config.executor == "inprocess":
        yield _start_in_process
        return
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    with reaped(), _connected(config, gpus, note) as hosts:
        yield hosts.start


@contextmanager
def _connected(config: RayConfig, gpus: Sequence[float], note: Note) -> Iterator[Cluster]:
    import ray

    before = set(psutil.Process().children())
    try:
        if config.address is None:
            ray.init(
                address="local",
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=config.object_store_mib << 20,
            )
        else:
            ray.init(address=config.address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ClusterLostError(f"Ray cluster {config.address or 'on this machine'}: {reason}") from error
    hosts = Cluster(wait=config.wait, note=note)
    started = [process for process in psutil.Process().children() if process not in before]
    try:
        _wait_for_nodes(config, gpus, note)
        yield hosts
    finally:
        hosts.close()
        _shut_down(started)


def _wait_for_nodes(config: RayConfig, gpus: Sequence[float], note: Note) -> None:
    """Returns once all that the run needs is there."""
    import ray

    began = time.monotonic()
    told = -math.inf
    while lack := missing(gpus, config.cpus, [node["Resources"] for node in ray.nodes() if node["Alive"]]):
        now = time.monotonic()
        if config.address is None:
            raise UsageError(
                f"engine.gpus and trainer.gpus_per_job: {lack} on this machine; lower them, or join a larger cluster"
            )
        if now - began >= config.wait:
            raise ClusterLostError(
                f"Ray cluster {config.address}: {lack} after {config.wait:g} s (ray.wait); resume when nodes joined it"
            )
        if now - told >= EVERY:
            note(f"waiting for the cluster: {lack}")
            told = now
        time.sleep(LOOK_SECONDS)


def _shut_down(started: Sequence[psutil.Process]) -> None:
    """Ends Ray in this process, then what is left of the processes it started, also when its control plane is gone."""
    import ray

    family = processes.families(started)
    shutting = Thread(target=ray.shutdown, name="ray shutdown", daemon=True)
    shutting.start()
    shutting.join(SHUTDOWN_SECONDS)
    processes.kill(family)


async def _start_in_process(
    build: Callable[[], Any], place: Place, *, start_timeout: float, call_timeout: float, hang_timeout: float
) -> Any:
    """The object itself; place and time-outs have no meaning inside one process."""
    return build()
