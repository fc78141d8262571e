"""A journal in its store, and the models that it has to agree with: a list of what was acknowledged, and a dict.

Hypothesis draws sequences of commits, crashes, take-overs, races, lost answers and damage.
"""

import os
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from telemetry.failures import FencedError, StateError, StorageError, UsageError
from telemetry.journal import Journal, Writer, decode, encode, key_of
from telemetry.store_base import Store
from tests.faults.memory import Handle
from tests.faults.trouble import FAST, TROUBLE, UnsafeLocalStore, UnsafeMemory
from tests.faults.world import World

BODIES = st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=5), max_size=2)
KEYS = st.sampled_from(["a", "b/c", "b/d", "report.html"])
Payload = tuple[str, dict[str, Any]]


@dataclass(eq=False)
class Driver:
    """A writer and what it does not know."""

    store: Any
    writer: Writer
    unanswered: dict[str, Any] | None = None
    """Body of an append that has to be made again."""
    landed: bool = False
    """That append took effect."""


class JournalMachine(RuleBasedStateMachine):
    """Drivers come, go, fight and fail; the journal says what was acknowledged, in order, once."""

    drivers = Bundle("drivers")

    def __init__(self) -> None:
        super().__init__()
        self.acknowledged: list[Payload] = []
        self.reigning: Driver | None = None
        self.objects: dict[str, bytes] = {}

    def store(self) -> Any:
        """The store, opened by yet another process."""
        raise NotImplementedError

    @initialize(target=drivers, body=BODIES)
    def found(self, body: dict[str, Any]) -> Driver:
        store = self.store()
        self.acknowledged.append(("run", body))
        self.reigning = Driver(store, Journal(store).create(body))
        return self.reigning

    @rule(body=BODIES)
    def found_again(self, body: dict[str, Any]) -> None:
        with pytest.raises(UsageError):
            Journal(self.store()).create(body)

    @rule(target=drivers, body=BODIES)
    def take_over(self, body: dict[str, Any]) -> Driver:
        return self.open(body, self.store())

    @rule(target=drivers, bodies=st.lists(BODIES, min_size=2, max_size=4))
    def take_over_at_once(self, bodies: list[dict[str, Any]]) -> Driver:
        store = self.store()
        store.rivals = lambda: [self.open(body, self.store()) for body in bodies[1:]] and None
        return self.open(bodies[0], store)

    def open(self, body: dict[str, Any], store: Any) -> Driver:
        writer = Journal(store).open_epoch(body)
        self.acknowledged.append(("epoch", body))
        assert payloads(writer.history) == self.acknowledged
        self.reigning = Driver(store, writer)
        return self.reigning

    @rule(target=drivers, body=BODIES, lose=st.sampled_from(["before", "after"]))
    def take_over_unanswered(self, body: dict[str, Any], lose: str) -> Driver:
        store = self.store()
        store.lose = lose
        with pytest.raises(StorageError):
            Journal(store).open_epoch(body)
        if lose == "after":
            # An epoch without a driver: it fences the ones before, and anybody may open the next.
            self.acknowledged.append(("epoch", body))
            self.reigning = None
        return self.open(body, store)

    @rule(driver=drivers, body=BODIES, lose=TROUBLE)
    def commit(self, driver: Driver, body: dict[str, Any], lose: str) -> None:
        body = body if driver.unanswered is None else driver.unanswered
        reigns, repeated = driver is self.reigning, driver.landed
        driver.store.lose = lose
        if lose:
            with pytest.raises(StorageError):
                driver.writer.append("event", body)
            driver.unanswered, driver.landed = body, repeated or (reigns and lose == "after")
        elif not reigns and not repeated:
            with pytest.raises(FencedError):
                driver.writer.append("event", body)
        else:
            entry = driver.writer.append("event", body)
            assert payloads([entry]) == [("event", body)]
            driver.unanswered, driver.landed = None, False
        if reigns and not repeated and lose != "before":
            self.acknowledged.append(("event", body))

    @rule(driver=drivers, body=BODIES)
    def commit_behind(self, driver: Driver, body: dict[str, Any]) -> None:
        """A take-over between the look and the write: the write must lose."""
        if driver.unanswered is None:
            driver.store.rivals = lambda: self.open(body, self.store()) and None
            with pytest.raises(FencedError):
                driver.writer.append("event", body)

    @rule(driver=consumes(drivers))
    def crash(self, driver: Driver) -> None:
        """kill -9 in the middle of a write."""
        if driver is self.reigning:
            self.reigning = None
        self.leave_half_a_write(driver.writer.head.seq + 1)

    @rule(place=st.integers(0), bit=st.integers(0))
    def flip_a_bit(self, place: int, bit: int) -> None:
        seq = place % len(self.acknowledged)
        whole = self.raw(seq)
        flipped = bytearray(whole)
        bit %= len(whole) * 8
        flipped[bit // 8] ^= 1 << bit % 8
        self.plant(seq, bytes(flipped))
        for reading in (Journal(self.store()).read, lambda: Journal(self.store()).open_epoch({})):
            with pytest.raises(StateError, match=key_of(seq)):
                reading()
        self.plant(seq, whole)

    @rule(place=st.integers(0))
    def remove_an_entry(self, place: int) -> None:
        seq = place % len(self.acknowledged)
        whole = self.raw(seq)
        self.plant(seq, None)
        if seq == len(self.acknowledged) - 1:
            # A journal without its newest entry is a journal: from the inside nobody can tell.
            assert payloads(Journal(self.store()).read()) == self.acknowledged[:-1]
        else:
            with pytest.raises(StateError, match=key_of(seq)):
                Journal(self.store()).read()
        self.plant(seq, whole)

    @rule(place=st.integers(0))
    def forge_an_entry(self, place: int) -> None:
        """A whole entry in the place of another does not fit the one after it."""
        seq = place % len(self.acknowledged)
        whole = self.raw(seq)
        entry = decode(whole, seq)
        forged = encode(seq, entry.previous_sha256, entry.epoch, entry.writer, entry.kind, {"forged": True})
        if seq < len(self.acknowledged) - 1:
            self.plant(seq, forged)
            with pytest.raises(StateError, match=key_of(seq + 1)):
                Journal(self.store()).read()
            self.plant(seq, whole)

    @rule(place=st.integers(0), body=BODIES)
    def go_on_from_a_prefix(self, place: int, body: dict[str, Any]) -> None:
        length = 1 + place % len(self.acknowledged)
        copy = Handle(World(random.Random(0), 0, {}))
        for seq in range(length):
            copy.put_if_absent(key_of(seq), self.raw(seq))
        assert payloads(Journal(copy).read()) == self.acknowledged[:length]
        Journal(copy).open_epoch(body)
        assert payloads(Journal(copy).read()) == [*self.acknowledged[:length], ("epoch", body)]

    @rule(key=KEYS, racers=st.integers(1, 4))
    def create_at_once(self, key: str, racers: int) -> None:
        stores = [self.store() for _ in range(racers)]
        with ThreadPoolExecutor(racers) as pool:
            won = list(pool.map(lambda one: stores[one].put_if_absent(key, b"%d" % one), range(racers)))
        assert sum(won) == (0 if key in self.objects else 1)
        if True in won:
            self.objects[key] = b"%d" % won.index(True)

    @rule(key=KEYS, data=st.binary(max_size=5))
    def put(self, key: str, data: bytes) -> None:
        self.store().put(key, data)
        self.objects[key] = data

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        self.store().delete(key)
        self.objects.pop(key, None)

    @invariant()
    def what_was_acknowledged_is_read(self) -> None:
        entries = Journal(self.store()).read()
        assert payloads(entries) == self.acknowledged
        assert [entry.seq for entry in entries] == list(range(len(entries)))
        epochs = [entry.epoch for entry in entries]
        assert epochs == sorted(epochs)

    @invariant()
    def the_store_holds_what_was_put(self) -> None:
        store: Store = self.store()
        journal = [key_of(seq) for seq in range(len(self.acknowledged))]
        assert store.list("journal") == journal
        assert store.list("") == sorted([*journal, *self.objects])
        assert {key: store.get(key) for key in self.objects} == self.objects
        for key in ("a", "report.html"):
            assert store.exists(key) == (key in self.objects)

    def leave_half_a_write(self, seq: int) -> None:
        """What a killed process leaves behind in a store that stages its writes."""

    def raw(self, seq: int) -> bytes:
        return bytes(self.store().get(key_of(seq)))

    def plant(self, seq: int, data: bytes | None) -> None:
        """Replaces or removes an entry behind the store's back."""
        raise NotImplementedError


class LocalJournalMachine(JournalMachine):
    """On a local directory, with the real files."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory(dir=FAST)
        self.root = Path(self.folder.name) / "run"

    def teardown(self) -> None:
        self.folder.cleanup()

    def store(self) -> UnsafeLocalStore:
        return UnsafeLocalStore(self.root, create=True)

    def leave_half_a_write(self, seq: int) -> None:
        (self.root / "journal" / f".{seq:020d}.json.{os.urandom(8).hex()}").write_bytes(b'{"body":')

    def plant(self, seq: int, data: bytes | None) -> None:
        path = self.root / key_of(seq)
        path.unlink() if data is None else path.write_bytes(data)


class MemoryJournalMachine(JournalMachine):
    """On the simulator's store, which has to keep the same promises."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(random.Random(0), 0, {})

    def store(self) -> UnsafeMemory:
        return UnsafeMemory(self.world)

    def plant(self, seq: int, data: bytes | None) -> None:
        if data is None:
            del self.world.objects[key_of(seq)]
        else:
            self.world.objects[key_of(seq)] = data


def payloads(entries: Any) -> list[Payload]:
    return [(entry.kind, entry.body) for entry in entries]
