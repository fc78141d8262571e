"""Every system call of a run that changes a file: killed before it, failing, full from there on, or lost."""

import errno
from collections.abc import Sequence
from functools import partial

import pytest

from tests.faults import gate
from tests.faults.harness import (
    Calm,
    Outcome,
    calm,
    checks,
    drive,
    every,
    finish,
    from_call,
    judge,
    on_call,
    onward,
    refused,
    spread,
    start,
    workspace,
)
from tests.faults.witness import look

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not gate.available(), reason="needs seccomp notifications on x86-64"),
]


# How often a generation's lives are committed depends on the machine's load, so a run may have fewer calls than the
# undisturbed one: points beyond its end do not land.
FEWER = 80


@pytest.fixture(scope="module")
def undisturbed() -> Calm:
    return calm()


def kill(expected: Calm, index: int) -> Outcome:
    """SIGKILL at call `index`; what a look at the run then shows as committed stays so."""
    with workspace() as store:
        ended = drive(start(store), at=on_call(index, gate.KILL), root=store)
        point = _point(ended.calls, index)
        if ended.code == 0:
            return Outcome("kill at a system call", point, 0)
        before = look(store / "tiny")
        problems = [] if ended.code == gate.KILL else [f"exit {ended.code}, expected {gate.KILL}"]
        acknowledged = set(gate.acknowledged(ended.calls))
        problems += [f"{name}: acknowledged, but not there" for name in acknowledged - before.entries.keys()]
        problems += finish(store, expected.digest, [before])
        return Outcome("kill at a system call", point, 1, tuple(problems))


def failed_sync(expected: Calm, index: int) -> Outcome:
    """EIO from the fsync at `index`: exit 5, no entry acknowledged after it, nothing synced again."""
    with workspace() as store:
        ended = drive(start(store), at=on_call(index, errno.EIO), root=store)
        if index >= len(ended.calls):
            return Outcome("EIO from fsync", _point(ended.calls, index), 0)
        call = ended.calls[index]
        problems = refused(ended, 5, store)
        later = ended.calls[index + 1 :]
        problems += [f"{call.path} was synced again" for other in later if _syncs(other) and other.path == call.path]
        acknowledged = set(gate.acknowledged(ended.calls))
        if acknowledged != set(gate.acknowledged(ended.calls[: index + 1])):
            problems.append("an entry was acknowledged after the failure")
        problems += finish(store, expected.digest, [look(store / "tiny")])
        return Outcome("EIO from fsync", _point(ended.calls, index), 1, tuple(problems))


def refuse(expected: Calm, code: int, index: int) -> Outcome:
    """From call `index` on nothing can be written: a full, read-only or forbidden disk."""
    with workspace() as store:
        ended = drive(start(store), at=from_call(index, code, gate.GROW), root=store)
        fault, point = f"{errno.errorcode[code]} from a call on", _point(ended.calls, index)
        if not any(call.answer == code for call in ended.calls):
            return Outcome(fault, point, 0)
        problems = refused(ended, 5, store)
        if "bytes free" not in ended.err:
            problems.append(f"does not say how much is free: {ended.err}")
        problems += finish(store, expected.digest, [look(store / "tiny")])
        return Outcome(fault, point, 1, tuple(problems))


def lose(expected: Calm, index: int) -> Outcome:
    """The call that names a file reports success and does nothing: the run heals, or says what is missing."""
    with workspace() as store:
        ended = drive(start(store), at=on_call(index, gate.LOST), root=store)
        point, run = _point(ended.calls, index), store / "tiny"
        again = drive(onward(store), *checks(run))
        said = ended.err + again.err + again.out
        silent = again.code == 0 and again.out.split()[-1] != expected.digest
        unclear = again.code not in (0, 3) or "Traceback" in said
        problems = [f"exit {again.code}: {said[-600:]}"] if silent or unclear else []
        return Outcome("lost link or rename", point, int(index < len(ended.calls)), tuple(problems))


def _syncs(call: gate.Call) -> bool:
    return call.name in gate.SYNC


def _point(calls: Sequence[gate.Call], index: int) -> str:
    call = calls[index] if index < len(calls) else None
    return f"call {index}" + (f" {call.name} {call.path.parent.name}/{call.path.name}" if call else "")


def indices(expected: Calm, names: frozenset[str]) -> list[int]:
    """Positions of the calls of these names in the undisturbed run."""
    return [call.index for call in expected.calls if call.name in names]


def test_the_gate_sees_what_a_run_writes(undisturbed: Calm) -> None:
    """Writes from several threads and processes, in the order that durability needs."""
    names = {call.name for call in undisturbed.calls}
    assert names >= {"openat", "write", "fsync", "mkdir", "unlink"}
    assert names & gate.NAME
    assert any(call.path.parent.name == "_delta_log" and call.name in gate.NAME for call in undisturbed.calls)
    entries = list(gate.acknowledged(undisturbed.calls))
    assert entries == [f"{seq:020d}.json" for seq in range(len(entries))]
    assert len(entries) >= 8


def test_killed_at_some_calls(undisturbed: Calm) -> None:
    """Also where what is being written must not be mistaken for a file of the log, or of an adapter."""
    naming = [call for call in undisturbed.calls if call.name in gate.NAME]
    log = next(call.index for call in naming if call.path.parent.name == "_delta_log")
    adapter = next(call.index for call in naming if call.path.name == "adapter_model.safetensors")
    points = [*spread(range(len(undisturbed.calls)), 3), log, adapter]
    judge(every(partial(kill, undisturbed), points), landed=len(points) - 1)


@pytest.mark.faults
def test_killed_at_every_call(undisturbed: Calm) -> None:
    points = range(len(undisturbed.calls))
    assert len(points) >= 200
    judge(every(partial(kill, undisturbed), points), landed=len(points) - FEWER)


def test_failed_syncs(undisturbed: Calm) -> None:
    points = spread(indices(undisturbed, gate.SYNC), 2)
    judge(every(partial(failed_sync, undisturbed), points), landed=len(points) * 2 // 3)


@pytest.mark.faults
def test_every_failed_sync(undisturbed: Calm) -> None:
    points = spread(indices(undisturbed, gate.SYNC), 40)
    judge(every(partial(failed_sync, undisturbed), points), landed=len(points) * 2 // 3)


@pytest.mark.faults
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_nothing_can_be_written_any_more(undisturbed: Calm, code: int) -> None:
    points = spread(indices(undisturbed, gate.GROW), 16)
    judge(every(partial(refuse, undisturbed, code), points), landed=len(points) * 2 // 3)


@pytest.mark.faults
def test_lost_names(undisturbed: Calm) -> None:
    points = indices(undisturbed, gate.NAME)
    judge(every(partial(lose, undisturbed), points), landed=len(points) * 2 // 3)


def test_without_a_fault_the_cases_find_nothing(undisturbed: Calm) -> None:
    """Guards against vacuous cases: a fault that cannot happen counts as one that did not."""
    [outcome] = every(partial(kill, undisturbed), [10 * len(undisturbed.calls)])
    assert outcome.landed == 0
    with pytest.raises(AssertionError, match="too few"):
        judge([outcome], landed=1)
