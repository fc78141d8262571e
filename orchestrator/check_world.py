"""`forager check-world`: the conformance suite in a process of its own, which may hang, crash or write what it likes.

The suite is started twice with different hash seeds, because a world that goes by the order of a set repeats itself
within one process and not in the next.
"""

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any

import typer

from orchestrator.plain import clean
from telemetry.failures import UsageError
from workers.conformance import Verdict
from workers.registry import ENTRY_POINTS

STYLE = {"ok": typer.colors.GREEN, "note": typer.colors.YELLOW, "fail": typer.colors.RED}
POLL = 0.2
LAST_WORDS = 4096
"""Bytes at the end of what a child wrote to standard error, where its last line is looked for."""


def examine(name: str, settings: Mapping[str, Any], timeout: float) -> Iterator[Verdict]:
    """Every verdict on the world `name`. No single check may take longer than `timeout` seconds."""
    doing, failed = "starting", False
    for line in _lines(name, settings, timeout):
        if "doing" in line:
            doing = line["doing"]
        elif "level" in line:
            failed |= line["level"] == "fail"
            yield Verdict(**line)
        elif "failure" in line:
            yield Verdict("fail", doing, line["failure"])
            return
    if not failed:
        yield _across_processes(name, settings, timeout)


def _across_processes(name: str, settings: Mapping[str, Any], timeout: float) -> Verdict:
    """Whether a world repeats itself in a process with another hash seed."""
    prints = []
    for seed in ("1", "2"):
        for line in _lines(name, settings, timeout, "fingerprint", PYTHONHASHSEED=seed):
            if "failure" in line:
                return Verdict("fail", "processes", line["failure"])
            prints.append(line["fingerprint"])
    if prints[0] == prints[1]:
        return Verdict("ok", "processes", "equal seeds give equal lives in another process")
    why = "equal seeds give different lives in another process; does it use hash(), set order or the clock?"
    return Verdict("fail", "processes", why)


def _lines(name: str, settings: Mapping[str, Any], timeout: float, *more: str, **variables: str) -> Iterator[Any]:
    """JSON lines from a child process; the last one has `failure` when it hung, or ended before it was done."""
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "workers.conformance", str(writing), name, json.dumps(dict(settings)), *more]
    with (
        open(reading, "rb", buffering=0) as pipe,
        tempfile.TemporaryFile() as errors,  # a pipe that nobody empties would hold up a world that writes a lot
        subprocess.Popen(
            command,
            pass_fds=[writing],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=os.environ | variables,
        ) as child,
    ):
        os.close(writing)
        done = False
        try:
            for line in _until_closed(pipe.fileno(), timeout):
                done = "done" in line or "failure" in line
                if "done" not in line:
                    yield line
        finally:
            child.kill()
        if done:
            return
        code = child.wait()
        errors.seek(max(0, errors.seek(0, os.SEEK_END) - LAST_WORDS))
        said = errors.read().decode(errors="replace").strip().splitlines()
    yield {"failure": f"the process ended with {code}: {clean(said[-1]) if said else 'it said nothing'}"}


def _until_closed(descriptor: int, timeout: float) -> Iterator[Any]:
    rest, deadline = b"", time.monotonic() + timeout
    while True:
        ready, _, _ = select.select([descriptor], [], [], POLL)
        if not ready:
            if time.monotonic() > deadline:
                yield {"failure": f"no end in {timeout:g} s: the world hangs, or is far too slow"}
                return
            continue
        data = os.read(descriptor, 1 << 16)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        deadline = time.monotonic() + timeout
        yield from map(json.loads, lines)


def check_world(name: str, settings: Mapping[str, Any], timeout: float, *, as_json: bool) -> None:
    """Prints every verdict as it comes. Raises UsageError when one of them is a failure."""
    failed, found = 0, []
    for verdict in examine(name, settings, timeout):
        failed += verdict.level == "fail"
        if as_json:
            found.append({"level": verdict.level, "check": verdict.check, "found": verdict.found})
        else:
            level = typer.style(verdict.level.ljust(4), fg=STYLE[verdict.level])
            typer.echo(f"{level}  {clean(verdict.check).ljust(22)}  {clean(verdict.found, 1000)}")
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    if failed:
        raise UsageError(f"{clean(name)}: {failed} of its checks failed; see docs/worlds.md ({ENTRY_POINTS})")
