"""Disks that are full, read-only, limited, or gone: one line, exit 5, and nothing committed is harmed."""

import os
import resource
import shutil
from functools import partial

import pytest

from tests.faults import gate, mounts
from tests.faults.harness import (
    Calm,
    Outcome,
    calm,
    drive,
    every,
    finish,
    judge,
    on_call,
    onward,
    refused,
    spread,
    start,
    workspace,
)
from tests.faults.witness import look

pytestmark = pytest.mark.timeout(600)
needs_mounts = pytest.mark.skipif(not mounts.available(), reason="needs root, to mount a small disk")
needs_gate = pytest.mark.skipif(not gate.available(), reason="needs seccomp notifications on x86-64")

PAGE = os.sysconf("SC_PAGE_SIZE")
ROOM = 64 << 20
MADE = 1
"""Calls after which the run's directory is there."""


@pytest.fixture(scope="module")
def undisturbed() -> Calm:
    return calm()


def fill(expected: Calm, share: float) -> Outcome:
    """A disk that is full after `share` of what the run takes; then somebody frees space."""
    size = int(expected.bytes * share) // PAGE * PAGE
    with workspace() as place, mounts.tmpfs(place / "disk", size=size) as disk:
        return _run_out(expected, "disk full", f"{size} bytes", lambda: mounts.remount(disk, f"size={ROOM}"), disk)


def exhaust(expected: Calm, share: float) -> Outcome:
    """A disk that has no inode left after `share` of the files."""
    inodes = int(expected.files * share)
    with workspace() as place, mounts.tmpfs(place / "disk", size=ROOM, nr_inodes=inodes) as disk:
        free = partial(mounts.remount, disk, "nr_inodes=100000")
        return _run_out(expected, "no inodes", f"{inodes} inodes", free, disk)


def _run_out(expected: Calm, fault: str, point: str, free, disk) -> Outcome:
    ended = drive(start(disk))
    problems = refused(ended, 5, disk)
    if "bytes free" not in ended.err:
        problems.append(f"does not say how much is free: {ended.err}")
    before = look(disk / "tiny")
    if (disk / "tiny" / "journal").is_dir() and before.entries:
        checked = drive(["verify", disk / "tiny"])
        problems += [f"verify before resume: {checked.out}{checked.err}"] if checked.code else []
    free()
    problems += finish(disk, expected.digest, [before])
    return Outcome(fault, point, int(ended.code == 5), tuple(problems))


def limit(expected: Calm, size: int) -> Outcome:
    """No file may be larger than `size`: the limit that administrators set."""
    with workspace() as store:
        ended = drive(start(store), before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)))
        problems = refused(ended, 5, store)
        problems += finish(store, expected.digest, [look(store / "tiny")])
        return Outcome("file too large", f"{size} bytes", int(ended.code == 5), tuple(problems))


def freeze(expected: Calm, index: int) -> Outcome:
    """A killed run on a disk that then is read-only: refused, readable, and whole once it can be written again."""
    with workspace() as place, mounts.tmpfs(place / "disk", size=ROOM) as disk:
        drive(start(disk), at=on_call(index, gate.KILL), root=disk)
        before = look(disk / "tiny")
        mounts.remount(disk, "ro")
        ended = drive(onward(disk))
        problems = refused(ended, 5, disk)
        mounts.remount(disk, "rw")
        if look(disk / "tiny") != before:
            problems.append("a read-only disk changed")
        problems += finish(disk, expected.digest, [before])
        return Outcome("read-only disk", f"call {index}", int(ended.code == 5), tuple(problems))


def delete(expected: Calm, index: int) -> Outcome:
    """The run's directory vanishes under a driver that is starting or live: exit 5, and no run comes back.

    The library that writes the ledger's log makes the directories it misses: a log entry in the making may be left.
    """
    with workspace() as store:
        run = store / "tiny"
        deleted = []

        def answer(call: gate.Call) -> None:
            if call.index == index:
                # At one moment: file by file, another thread could miss an adapter before the store.
                run.rename(store / "trash")
                shutil.rmtree(store / "trash")
                deleted.append(call)

        ended = drive(start(store), at=answer, root=store)
        if not deleted:
            return Outcome("store deleted", f"call {index}", 0)
        problems = refused(ended, 5, run)
        left = [path for path in store.rglob("*") if path.is_file() and path.parent.name != "_delta_log"]
        problems += [f"came back: {left}"] if left else []
        return Outcome("store deleted", f"call {index}", len(deleted), tuple(problems))


def reserve(expected: Calm, gib: float) -> Outcome:
    """Less free space than the run file asks for: refused before a generation starts."""
    with workspace() as store:
        ended = drive(start(store, f"ledger.min_free_gib={gib}"))
        problems = refused(ended, 5, store)
        problems += ["the run was started"] * bool(look(store / "tiny").entries)
        problems += finish(store, expected.digest)
        return Outcome("free-space preflight", f"{gib} GiB", int(ended.code == 5), tuple(problems))


@needs_mounts
def test_disk_full_once(undisturbed: Calm) -> None:
    judge(every(partial(fill, undisturbed), [0.3, 0.6]), landed=2)


@needs_mounts
@pytest.mark.faults
def test_disk_full(undisturbed: Calm) -> None:
    shares = [0.02 + 0.04 * step for step in range(24)]
    judge(every(partial(fill, undisturbed), shares), landed=len(shares))


@needs_mounts
@pytest.mark.faults
def test_no_inodes_left(undisturbed: Calm) -> None:
    shares = [0.05, 0.2, 0.4, 0.6, 0.8, 0.95]
    judge(every(partial(exhaust, undisturbed), shares), landed=len(shares))


@pytest.mark.faults
def test_files_too_large(undisturbed: Calm) -> None:
    judge(every(partial(limit, undisturbed), [1000, 2000, 3000, 5000]), landed=4)


@needs_mounts
@needs_gate
@pytest.mark.faults
def test_read_only_disk(undisturbed: Calm) -> None:
    points = spread(range(len(undisturbed.calls) // 2), 6)
    judge(every(partial(freeze, undisturbed), points), landed=len(points))


@needs_gate
@pytest.mark.faults
def test_store_deleted_under_a_live_driver(undisturbed: Calm) -> None:
    points = spread(range(MADE, len(undisturbed.calls) - 3), 24)
    judge(every(partial(delete, undisturbed), points), landed=len(points) * 2 // 3)


def test_too_little_space_to_begin(undisturbed: Calm) -> None:
    judge(every(partial(reserve, undisturbed), [1e6]), landed=1)
