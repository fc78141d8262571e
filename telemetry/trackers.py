"""Carries a run's numbers to the trackers that people already use, each in a process of its own.

The law: a tracker can be late or missing, never in the way. What it is told waits in a bounded queue that a thread
empties; when it fails, hangs or falls behind, one line says so, its process is killed, and the run goes on.
"""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from queue import Full, Queue
from threading import Lock, Thread
from time import monotonic
from typing import Any, Literal

from telemetry.config_trackers import TrackerConfig
from telemetry.failures import UsageError

LATE = 1000
"""Rows that may wait; with more than that a tracker cannot keep up."""
PATIENCE = 60.0
"""Seconds that a tracker may take for one row."""
START_SECONDS = 30.0
"""Seconds from its start until a tracker must have taken its first row, if the run ends before."""
END_SECONDS = 10.0
"""Seconds that trackers get when the run has ended."""
SECRETS = {"mlflow": "MLFLOW_TRACKING_", "wandb": "WANDB_API_KEY"}
"""Beginning of the variables that are for trackers of a kind alone."""
_PACKAGES = {"wandb": "wandb"}
"""What a kind of tracker needs beyond what Forager brings."""

Axis = Literal["generation", "job"]
"""What a step counts: generations, or training jobs in the order of the journal."""


@dataclass(frozen=True)
class Row:
    """Numbers that belong together."""

    number: int
    """Place among all rows of the run, from 0: the same in every process that drives it."""
    axis: Axis
    step: int
    values: Mapping[str, float]
    """By name; finite."""


@dataclass(frozen=True)
class About:
    """The run, as trackers show it."""

    id: str
    """Its own among all runs; where it was rewound, among all its branches."""
    name: str
    version: str
    model: str
    config: Mapping[str, Any]
    """The resolved run file."""


def check(configs: Sequence[TrackerConfig]) -> None:
    """Raises UsageError for a tracker whose package is not installed."""
    for index, config in enumerate(configs):
        package = _PACKAGES.get(config.kind)
        # wandb leaves a directory of its own name wherever it is used, which Python takes for a package without code.
        if package and getattr(find_spec(package), "origin", None) is None:
            raise UsageError(
                f"trackers.{index}: the package {package} is not installed; pip install 'forager[{config.kind}]'"
            )


@contextmanager
def tracked(
    configs: Sequence[TrackerConfig], about: About, backlog: Sequence[Row], logs: Path
) -> Iterator[list["Tracker"]]:
    """Trackers that are told the backlog first and have ended, in bounded time, when the context has.

    Meanwhile their secrets are gone from this process's environment, and so from that of all it starts.
    """
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(tuple(SECRETS.values()))}
    environment = _environment()
    trackers: list[Tracker] = []
    try:
        for index, config in enumerate(configs):
            log = logs / f"tracker-{index}-{config.kind}.log"
            mine = SECRETS.get(config.kind)
            own = {name: value for name, value in hidden.items() if mine is not None and name.startswith(mine)}
            label = f"trackers.{index} ({config.kind})"
            trackers.append(Tracker(config, label, about, backlog, log, environment | own))
        yield trackers
    finally:
        try:
            end(trackers)
        finally:
            os.environ.update(hidden)


def end(trackers: Sequence["Tracker"]) -> None:
    """Lets all of them finish at the same time; whoever has not in time is killed."""
    now = monotonic()
    try:
        for one in trackers:
            one.close()
        for one in trackers:
            one.join(now + END_SECONDS)
    finally:
        for one in trackers:
            one.kill()


class Tracker:
    """The run's side of one tracker. Nothing here raises because of what the tracker does, or waits for it."""

    def __init__(
        self,
        config: TrackerConfig,
        label: str,
        about: About,
        backlog: Sequence[Row],
        log: Path,
        environment: Mapping[str, str],
    ) -> None:
        self._label = label
        self._opening = {"config": config.model_dump(mode="json"), "about": asdict(about)}
        self._backlog = backlog
        self._waiting: Queue[Row | None] = Queue(LATE)
        self._finished = False
        self._off = False
        self._killed = False
        self._lock = Lock()
        self._started = monotonic()
        self._opened = False
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = Thread(target=self._feed, name=label, daemon=True)
        try:
            self._process = _start(environment, log)
        except OSError as error:
            self.switch_off(f"its process cannot be started: {error.strerror or error}")
        else:
            self._thread.start()

    def put(self, row: Row) -> None:
        """Takes a row, sooner or later."""
        if self._off:
            return
        try:
            self._waiting.put_nowait(row)
        except Full:
            self.switch_off(f"it cannot keep up, {LATE} rows wait")

    def finish(self) -> None:
        """The run has nothing left to do."""
        self._finished = True

    def close(self) -> None:
        """No row follows."""
        with suppress(Full):  # then it is off, or will be when its time is over
            self._waiting.put_nowait(None)

    def join(self, deadline: float) -> None:
        """Waits until the tracker has ended, at most until the deadline (monotonic time).

        One that is still starting may take a little longer: short runs are over sooner than some libraries are loaded.
        """
        if self._off:
            return
        if not self._opened:
            deadline = max(deadline, self._started + START_SECONDS)
        self._thread.join(max(0.0, deadline - monotonic()))
        if self._thread.is_alive():
            self.switch_off("not done when the run was, so it lacks the last numbers")

    def kill(self) -> None:
        """Leaves no process behind."""
        if self._process is None:
            return
        with self._lock:
            self._kill_group()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        if self._thread.is_alive():
            self._thread.join(1.0)
        if not self._thread.is_alive():
            for pipe in (self._process.stdin, self._process.stdout):
                with suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]

    def switch_off(self, why: str) -> None:
        """Says once why the run goes on without this tracker."""
        with self._lock:
            if self._off:
                return
            self._off = True
            self._kill_group()
        line = f"warning: {self._label}: {why}; switched off, the run goes on"
        with suppress(OSError, ValueError):  # nobody reads
            print(line, file=sys.stderr, flush=True)

    def _kill_group(self) -> None:
        # Only once: its number may be somebody else's by the time that a long run ends.
        if self._process is not None and not self._killed:
            self._killed = True
            with suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _feed(self) -> None:
        try:
            self._tell(self._opening)
            self._opened = True
            for row in chain(self._backlog, iter(self._waiting.get, None)):
                self._tell({"row": asdict(row)})
            self._tell({"end": self._finished})
        except (OSError, ValueError) as error:
            self.switch_off(str(error))

    def _tell(self, message: Mapping[str, Any]) -> None:
        """Passes a message on and waits until it is taken. Raises OSError when it is not."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise OSError("it has no process")
        try:
            process.stdin.write(json.dumps(message).encode() + b"\n")
            process.stdin.flush()
        except OSError as error:
            raise OSError(f"its process ended with exit code {process.wait()}") from error
        if not select.select([process.stdout], [], [], PATIENCE)[0]:
            raise OSError(f"it took more than {PATIENCE:g} seconds for a row")
        answer = process.stdout.readline().decode("utf-8", "replace")
        if not answer:
            raise OSError(f"its process ended with exit code {process.wait()}")
        if answer != "\n":
            raise OSError(answer.strip())


def _start(environment: Mapping[str, str], log: Path) -> "subprocess.Popen[bytes]":
    """In a session of its own: what interrupts the run lets its trackers finish."""
    output: int = subprocess.DEVNULL
    with suppress(OSError):
        log.parent.mkdir(parents=True, exist_ok=True)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "telemetry.trackers_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            env=dict(environment),
            start_new_session=True,
        )
    finally:
        if output != subprocess.DEVNULL:
            os.close(output)


def _environment() -> dict[str, str]:
    """What a tracker's process gets: this one's environment, and the libraries' own reports to their makers off."""
    root = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH", "")) if part)
    return {**os.environ, "PYTHONPATH": path, "WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}
