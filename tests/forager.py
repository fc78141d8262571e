"""Runs the `forager` command as a user does: another process, exit code and output looked at from outside."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SMOKE = ROOT / "deploy" / "runs" / "smoke.yaml"
IN_PROCESS = ("--set", "ray.executor=inprocess")


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str


def command(*arguments: str | Path) -> list[str]:
    """The command line of `forager` in this interpreter's environment."""
    return [sys.executable, "-m", "orchestrator.cli", *map(str, arguments)]


def environment() -> dict[str, str]:
    """This process's environment, with plain output of a fixed width."""
    return {**os.environ, "COLUMNS": "160", "NO_COLOR": "1", "PYTHONHASHSEED": "random"}


def forager(*arguments: str | Path, cwd: Path | None = None, timeout: float = 240) -> Result:
    """Runs `forager` to its end."""
    done = subprocess.run(
        command(*arguments), cwd=cwd or ROOT, env=environment(), capture_output=True, text=True, timeout=timeout
    )
    return Result(done.returncode, done.stdout, done.stderr)


def ok(*arguments: str | Path, cwd: Path | None = None, timeout: float = 240) -> str:
    """Output of a command that must succeed."""
    result = forager(*arguments, cwd=cwd, timeout=timeout)
    assert result.code == 0, f"exit {result.code}\n{result.out}\n{result.err}"
    return result.out


def smoke(store: Path, *overrides: str, run: Sequence[str | Path] = (SMOKE,)) -> Path:
    """A finished smoke run inside `store`; returns its directory."""
    settings = [part for override in overrides for part in ("--set", override)]
    ok("run", *run, "--store", store, *settings)
    return store / "smoke"
