"""Drives real runs through the public command line, breaks them, and judges from outside what is left.

Importing Forager takes longer than a tiny run, so cases run in worker processes that have imported it once: a worker
forks a child for every driver, resumption or check, and the child calls `orchestrator.cli.main` as the shell would.
A worker itself stays single-threaded, which makes its forks sound. A case says what it did as an Outcome.
"""

import multiprocessing
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TypeVar

from orchestrator import cli, places
from telemetry.report import page
from tests.faults import gate
from tests.faults.gate import Answer, Call
from tests.faults.witness import Sight, look, losses

# What a run imports on its way and the template of its report: loaded here, every fork has them.
for module in (
    *("orchestrator.audit", "orchestrator.digest", "orchestrator.driver", "orchestrator.finish"),
    *("orchestrator.inspection", "orchestrator.runfile", "pandas", "pyarrow.acero", "trainer.objectives.scripted"),
    *("workers.engines.scripted", "workers.environments.forage"),
    *("pydantic.type_adapter", "rich._emoji_codes", "typer._adapters", "typer._click.decorators"),
):
    import_module(module)
page.template("page.html.j2")

TINY = Path(__file__).with_name("tiny.yaml")
WORKERS = min(4, os.cpu_count() or 1)
TIMEOUT = 120.0

Command = Sequence[str | Path]
Point = TypeVar("Point")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Ended:
    """How a fork ended."""

    code: int
    """Exit code; -signal if one killed it."""
    out: str
    err: str
    calls: list[Call]
    """File-changing calls below the watched directory."""
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """What a case did and found."""

    fault: str
    point: str
    landed: int
    """Faults that really happened."""
    problems: tuple[str, ...] = ()
    """Violations; empty is good."""


@dataclass(frozen=True)
class Calm:
    """The run that nothing happens to."""

    digest: str
    calls: tuple[Call, ...]
    seconds: float
    bytes: int
    """Space that it takes on disk."""
    files: int
    """Files and directories that it leaves."""


def every(case: Callable[[Point], Result], points: Iterable[Point]) -> Iterator[Result]:
    """`case(point)` for all points in their order, on all cores; both must pickle."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(WORKERS, context) as pool:
        yield from pool.map(case, points)


def calm(settings: Sequence[str] = ()) -> Calm:
    """The uninterrupted run."""
    [result] = every(_calm, [tuple(settings)])
    return result


def _calm(settings: Sequence[str]) -> Calm:
    with workspace() as store:
        ended = drive(start(store, *settings), at=lambda call: None, root=store)
        assert ended.code == 0, ended.err
        checked = drive(*checks(store / "tiny"))
        assert checked.code == 0, checked.err
        everything = [store / "tiny", *(store / "tiny").rglob("*")]
        used = sum(path.stat().st_blocks * 512 for path in everything)
        return Calm(checked.out.split()[-1], tuple(ended.calls), ended.seconds, used, len(everything))


@contextmanager
def workspace() -> Iterator[Path]:
    """An empty directory, in memory where there is such a place: a kill does not ask what is on disk."""
    memory = Path("/dev/shm")
    above = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="forager-", dir=above) as directory:
        yield Path(directory)


def start(store: Path, *settings: str) -> Command:
    """Command that starts the tiny run in `store`."""
    return ["run", TINY, "--store", store, *(part for setting in settings for part in ("--set", setting))]


def onward(store: Path, *settings: str) -> Command:
    """Command that a user gives after a crash: resume, or run again if nothing was there yet to resume."""
    if not (store / "tiny" / places.GENESIS).exists():
        return start(store, *settings)
    return ["resume", store / "tiny"]


def checks(run: Path) -> list[Command]:
    """Commands that judge a run; the last one prints its digest."""
    return [["verify", run], ["audit", run], ["digest", run]]


def drive(
    *commands: Command,
    at: Answer | None = None,
    root: Path = Path("/"),
    seconds: float | None = None,
    before: Callable[[], None] | None = None,
) -> Ended:
    """Runs commands in one fork of this process, one after the other up to the first that fails.

    at: answers every call that changes a file below `root`. seconds: SIGKILL after these. before: runs in the fork
    first. Raises TimeoutError for a fork that hangs.
    """
    assert len(os.listdir("/proc/self/task")) == 1, "only a process with one thread can be forked soundly"
    out, err = os.memfd_create("out"), os.memfd_create("err")
    ours, theirs = socket.socketpair()
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _be_forager(commands, out, err, before, theirs if at else None)
    theirs.close()
    try:
        calls: list[Call] = []
        if at is not None:
            _, [listener], _, _ = socket.recv_fds(ours, 1, 1)
            calls = gate.supervise(listener, pid, root, at)
            os.close(listener)
        code = _wait(pid, seconds)
        took = time.monotonic() - began
        return Ended(code, _read(out), _read(err), calls, took)
    finally:
        ours.close()
        os.close(out)
        os.close(err)


def _be_forager(
    commands: Sequence[Command], out: int, err: int, before: Callable[[], None] | None, gated: socket.socket | None
) -> None:
    """The fork's whole life."""
    code = 1
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.environ |= {"COLUMNS": "160", "NO_COLOR": "1"}
        if before is not None:
            before()
        if gated is not None:
            listener = gate.install()
            socket.send_fds(gated, [b"."], [listener])
            os.close(listener)
        for command in commands:
            code = _call(command)
            if code != 0:
                break
    except BaseException:  # noqa: BLE001 - whatever it is, the fork must not return into the worker's code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _call(command: Command) -> int:
    sys.argv = ["forager", *map(str, command)]
    try:
        cli.main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _wait(pid: int, seconds: float | None) -> int:
    """Exit code of a child, which is killed after `seconds`. Raises TimeoutError."""
    descriptor = os.pidfd_open(pid)
    try:
        ended = select.poll()
        ended.register(descriptor, select.POLLIN)
        limit = TIMEOUT if seconds is None else seconds
        in_time = bool(ended.poll(limit * 1000))
        if not in_time:
            os.kill(pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if not in_time and seconds is None:
            raise TimeoutError(f"a command did not end in {TIMEOUT} s")
        return code
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> str:
    return os.pread(descriptor, 1 << 24, 0).decode("utf-8", "replace")


def finish(store: Path, expected: str, sights: Sequence[Sight] = (), settings: Sequence[str] = ()) -> list[str]:
    """Resumes a broken run to its end; returns every violation that an outsider can find."""
    run = store / "tiny"
    ended = drive(onward(store, *settings), *checks(run))
    if ended.code != 0:
        return [f"exit {ended.code}: {(ended.out + ended.err)[-600:]}"]
    problems = [] if ended.out.split()[-1] == expected else ["another digest than the uninterrupted run"]
    after = look(run)
    if len(after.committed) != len(set(after.committed)):
        problems.append("a life is committed twice")
    return problems + [problem for before in sights for problem in losses(before, after)]


def refused(ended: Ended, code: int, where: Path) -> list[str]:
    """What is wrong with how a driver gave up: it should exit with `code` and one line that names a path."""
    lines = ended.err.splitlines()
    if ended.code == code and len(lines) == 1 and lines[0].startswith("error: ") and str(where) in lines[0]:
        return []
    return [f"exit {ended.code}, expected {code} and one line naming {where}: {ended.err[-600:]}"]


def judge(cases: Iterable[Outcome], landed: int) -> None:
    """Fails a test on any violation, and when fewer than `landed` faults happened."""
    outcomes = list(cases)
    bad = [outcome for outcome in outcomes if outcome.problems]
    text = "\n".join(f"{one.fault} at {one.point}: {'; '.join(one.problems)}" for one in bad[:5])
    assert not bad, f"{len(bad)} of {len(outcomes)} cases\n{text}"
    assert sum(outcome.landed for outcome in outcomes) >= landed, "too few faults happened"


def on_call(index: int, answer: int) -> Answer:
    """Answers call `index`, lets all others happen."""
    return lambda call: answer if call.index == index else None


def from_call(index: int, answer: int, names: Iterable[str]) -> Answer:
    """Answers calls of these names from `index` on."""
    chosen = frozenset(names)
    return lambda call: answer if call.index >= index and call.name in chosen else None


def spread(points: Sequence[Point], count: int) -> list[Point]:
    """About `count` of the points, evenly."""
    return list(points[:: max(1, len(points) // count)])


def copy_tree(source: Path, target: Path) -> None:
    """A copy with other time stamps, as a user makes one."""
    shutil.copytree(source, target, copy_function=shutil.copy)
