"""Journal and stores against models that know nothing of them, and broken ones that the models notice.

A failing sequence is printed as the shortest program that still fails, with a blob that repeats it.
"""

from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

import telemetry.journal
from telemetry.journal import Writer, decode, encode, key_of
from telemetry.local_store import LocalStore
from tests.faults.journal_machine import JournalMachine, LocalJournalMachine, MemoryJournalMachine
from tests.faults.simulation import Inline
from tests.faults.trouble import LARGE, SMALL

pytestmark = pytest.mark.timeout(900)

SIZES = [pytest.param(SMALL, id="small"), pytest.param(LARGE, id="large", marks=pytest.mark.faults)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("machine", [LocalJournalMachine, MemoryJournalMachine])
def test_the_journal_keeps_what_it_acknowledged(
    monkeypatch: pytest.MonkeyPatch, machine: type[JournalMachine], size: settings
) -> None:
    if machine is MemoryJournalMachine:
        monkeypatch.setattr(telemetry.journal, "ThreadPoolExecutor", Inline)
    run_state_machine_as_test(machine, settings=size)


def generous(self: LocalStore, key: str, data: bytes) -> bool:
    """Says yes to everybody, and the last one wins."""
    self.put(key, data)
    return True


def deaf(self: Writer, kind: str, body: dict[str, Any], refs: Any = ()) -> Any:
    """Takes a place that is taken for its own."""
    head = self.head
    data = encode(head.seq + 1, head.sha256, head.epoch, head.writer, kind, body, refs)
    self.store.put_if_absent(key_of(head.seq + 1), data)
    self.head = decode(data, head.seq + 1)
    return self.head


@pytest.mark.parametrize(
    ("owner", "name", "mutant"),
    [
        (LocalStore, "put_if_absent", generous),
        (LocalStore, "delete", lambda self, key: None),
        (Writer, "append", deaf),
        (telemetry.journal, "check_link", lambda head, entry: None),
    ],
    ids=["generous store", "store that keeps", "deaf writer", "blind reader"],
)
def test_the_model_notices(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, mutant: Any) -> None:
    monkeypatch.setattr(owner, name, mutant)
    unshrunk = settings(SMALL, max_examples=200, phases=[Phase.generate], database=None, print_blob=False)
    with pytest.raises(BaseException):  # noqa: B017, PT011 - whatever it notices first
        run_state_machine_as_test(LocalJournalMachine, settings=unshrunk)
