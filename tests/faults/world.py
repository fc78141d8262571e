"""The simulated world: what is durable, who is alive, and the dice that decide what goes wrong and when."""

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

from telemetry.failures import StateError, StorageError
from telemetry.tables import TABLES

RATES = {
    # What the driver asks of the store.
    "crash before write": 0.04,
    "crash after write": 0.04,
    "crash before read": 0.005,
    "refused write": 0.03,
    "unanswered write": 0.03,
    "refused read": 0.005,
    "take-over before write": 0.04,
    "take-over before read": 0.005,
    "stale list": 0.2,
    # What the sink asks of the ledger.
    "refused append": 0.1,
    "half append": 0.1,
    "unanswered append": 0.1,
    "late append": 1.0,
    # The driver while it waits.
    "crash at await": 0.002,
    "crash during append": 0.05,
    "signal": 0.0007,
    # The operator.
    "rewind": 0.3,
    # Engines, agents, sink and trainers, per call, start or kill.
    "late reply": 0.01,
    "lost request": 0.01,
    "lost reply": 0.01,
    "death": 0.01,
    "preemption": 0.01,
    "hang": 0.01,
    "engine failure": 0.02,
    "no start": 0.03,
    "survived kill": 0.5,
}
"""Fault -> probability per opportunity, before a seed scales it or switches it off."""


class Crash(BaseException):
    """kill -9 of the driver: nothing of it runs on, not even its handlers of exceptions."""


class Violation(BaseException):
    """A promise was broken."""


class Process:
    """One driver."""

    def __init__(self, world: "World", number: int) -> None:
        self.world = world
        self.number = number
        self.dead = False
        self.superseded = False
        """Another driver came in between."""

    def check(self) -> None:
        """Raises Crash in a process that is dead."""
        if self.dead:
            raise Crash

    def die(self) -> None:
        self.dead = True
        raise Crash


class World:
    """Everything that outlives a driver."""

    def __init__(self, dice: random.Random, budget: float, rates: Mapping[str, float]) -> None:
        """`budget` is the number of faults after which there are no more."""
        self.dice = dice
        self.budget = budget
        self.rates = rates
        self.faults: Counter[str] = Counter()
        self.trace: list[str] = []
        self.violation = ""
        self.time: Callable[[], float] = lambda: 0.0
        self.take_over: Callable[[Process], None] = lambda process: None
        """Runs another driver to its end while this one stands still."""
        self.late: list[Callable[[], Any]] = []
        """What processes that are gone still have under way."""
        self.objects: dict[str, bytes] = {}
        self.journal: list[dict[str, Any]] = []
        """Every entry as plain JSON, in the order in which they came to be."""
        self.lived: set[tuple[int, str, int]] = set()
        """Committed lives."""
        self.commits: dict[str, list[tuple[str, pa.Table]]] = {name: [] for name in TABLES}
        """Table -> (transaction, rows) of version 1, 2, ..."""
        self.recalled: dict[Any, pa.Table] = {}
        """Rows that were asked for before."""
        self.rows: dict[str, dict[str, list[tuple[int, int]]]] = {name: {} for name in TABLES}
        """Table -> attempt -> (version, step or number of steps) of each of its rows."""

    def note(self, text: str) -> None:
        self.trace.append(f"{self.time():9.2f} {text}")

    def fail(self, text: str) -> None:
        """Records a broken promise and ends the simulation."""
        self.violation = self.violation or text
        raise Violation(text)

    def strike(self, where: str, *kinds: str) -> str:
        """The fault of one of these kinds that strikes here; mostly none."""
        if self.budget > 0:
            for kind in kinds:
                rate = self.rates.get(kind)
                if rate and self.dice.random() < rate:
                    self.budget -= 1
                    self.faults[kind] += 1
                    self.note(f"fault: {kind}, {where}")
                    return kind
        return ""

    def delay(self) -> float:
        """Seconds that a message, a start or a write takes."""
        return self.dice.random() * 0.1

    def haunt(self) -> None:
        """Now and then a dead process's last work takes effect."""
        if self.late and self.dice.random() < 0.2:
            self.note("a dead process's append takes effect")
            try:
                self.late.pop(0)()
            except StorageError as error:
                self.note(f"and fails: {error}")

    def create(self, key: str, data: bytes) -> bool:
        """put-if-absent."""
        if key in self.objects:
            return False
        self.objects[key] = data
        if key.startswith("journal/"):
            entry = json.loads(data)
            self.journal.append(entry)
            body = entry["body"]
            if entry["kind"] == "lives":
                self.lived |= {(body["generation"], who, life) for who, life, _ in body["lives"]}
            elif entry["kind"] == "rewind":
                self.lived = {life for life in self.lived if life[0] <= body["generation"]}
            self.note(f"entry {entry['seq']} {entry['kind']} {_outline(entry['kind'], body)}")
        return True

    def append(self, name: str, rows: pa.Table, transaction: str) -> int:
        """Version at which a table has these rows, appended now or before."""
        log = self.commits[name]
        for version, (known, before) in enumerate(log, 1):
            if known == transaction:
                if not before.equals(rows):
                    raise StateError(f"{name}: the transaction {transaction!r} has other rows")
                return version
        log.append((transaction, rows))
        numbers = rows["step" if name == "steps" else "steps"].to_pylist()
        for attempt, number in zip(rows["attempt"].to_pylist(), numbers, strict=True):
            self.rows[name].setdefault(attempt, []).append((len(log), number))
        return len(log)


def _outline(kind: str, body: Mapping[str, Any]) -> str:
    """What the trace says of an entry: nothing that differs between two runs of one seed."""
    if kind == "lives":
        return " ".join(f"{who}/{life}" for who, life, _ in body["lives"])
    if kind == "birth":
        return f"{body['result']['individual']} {body['result']['status']}"
    return str(body.get("generation", ""))
