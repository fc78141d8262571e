"""Resumption is idempotent, does not care where the run lies, and loses nothing of it."""

import shutil
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest

from tests.faults import gate
from tests.faults.harness import (
    Calm,
    Outcome,
    calm,
    copy_tree,
    drive,
    every,
    finish,
    judge,
    on_call,
    spread,
    start,
    workspace,
)
from tests.faults.witness import look


@pytest.fixture(scope="module")
def undisturbed() -> Calm:
    return calm()


def tree(directory: Path) -> dict[str, tuple[int, int, str]]:
    """Time stamp, size and content of every file and directory."""
    found = {}
    for path in [directory, *directory.rglob("*")]:
        status = path.stat()
        content = sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path.relative_to(directory))] = (status.st_mtime_ns, status.st_size if content else 0, content)
    return found


def resume_finished(expected: Calm, times: int) -> Outcome:
    """Resuming a finished run again and again changes no byte, no time stamp, no directory."""
    with workspace() as store:
        run = store / "tiny"
        assert drive(start(store)).code == 0
        before = tree(run)
        codes = {drive(["resume", run]).code for _ in range(times)}
        after = tree(run)
        changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        problems = [f"changed: {changed}"] if changed else []
        problems += [] if codes == {0} else [f"exit codes {codes}"]
        return Outcome("resume of a finished run", f"{times} times", len(codes), tuple(problems))


def move(expected: Calm, index: int) -> Outcome:
    """A killed run, copied elsewhere under another name, goes on there; the original is gone."""
    with workspace() as store, workspace() as elsewhere:
        ended = drive(start(store), at=on_call(index, gate.KILL), root=store)
        before = look(store / "tiny")
        copy_tree(store / "tiny", elsewhere / "tiny")
        shutil.rmtree(store / "tiny")
        problems = finish(elsewhere, expected.digest, [before])
        problems += [f"{store}/tiny came back"] * (store / "tiny").exists()
        return Outcome("moved run", f"call {index}", int(ended.code == gate.KILL), tuple(problems))


def test_resume_of_a_finished_run_changes_nothing(undisturbed: Calm) -> None:
    judge(every(partial(resume_finished, undisturbed), [3]), landed=1)


@pytest.mark.skipif(not gate.available(), reason="needs seccomp notifications on x86-64")
@pytest.mark.faults
def test_moved_runs_go_on(undisturbed: Calm) -> None:
    points = spread(range(20, len(undisturbed.calls) - 80), 8)
    judge(every(partial(move, undisturbed), points), landed=len(points))
