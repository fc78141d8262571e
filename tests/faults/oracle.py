"""Judges a simulated run from outside: a second reading of the journal that shares no code with the first.

It looks at every entry once and at the rows it acknowledges, and knows which results the run must come to.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from orchestrator.digest import digest
from orchestrator.state import fold
from telemetry.journal import Journal
from telemetry.tables import TABLES, VOLATILE
from tests.faults.memory import Handle, MemoryLedger, file_of
from tests.faults.world import World
from workers.life import STRIDE

Life = tuple[int, str, int]
STABLE = {name: [column for column in schema.names if column not in VOLATILE] for name, schema in TABLES.items()}


@dataclass(frozen=True)
class Expected:
    """What a run comes to when nothing fails."""

    digest: str
    results: tuple[dict[str, Any], ...]
    """Of each generation: fitness, selection, next population with the adapters that were trained."""
    rows: list[pa.Table]
    """All that the ledger shows, but for columns that say who did the work and when."""


def expectation(world: World) -> Expected:
    """From a world in which nothing failed."""
    bodies = [entry["body"] for entry in world.journal if entry["kind"] == "generation"]
    return Expected(digest_of(world), tuple(map(results, bodies)), rows_of(world))


def results(body: Mapping[str, Any]) -> dict[str, Any]:
    """What does not depend on the clock."""
    return {name: value for name, value in body.items() if name != "seconds"}


def digest_of(world: World) -> str:
    """What `forager digest` says."""
    store = Handle(world)
    return digest(fold(Journal(store).read()), MemoryLedger(store))


def rows_of(world: World) -> list[pa.Table]:
    """What the ledger shows of each generation."""
    store = Handle(world)
    state, ledger = fold(Journal(store).read()), MemoryLedger(store)
    return [
        ledger.recall(name, one.generation, state.vouched(one.generation), state.attempts(one.generation), columns)
        for one in state.history
        for name, columns in STABLE.items()
    ]


@dataclass
class Oracle:
    """What a journal has said so far."""

    size: int
    """Individuals per generation."""
    lives: int
    """Lives per individual."""
    generations: int
    expected: "Expected | None"
    """None for the run that others are compared with."""
    digest: bool = True
    """Also compute the digest itself, of what is compared one by one anyway."""
    read: int = 0
    epoch: int = 0
    generation: int = 0
    populations: list[list[str]] = field(default_factory=list)
    """Ids of each generation so far."""
    committed: dict[Life, str] = field(default_factory=dict)
    born: dict[str, str] = field(default_factory=dict)
    """Newborn -> adapter."""
    vouched: set[str] = field(default_factory=set)
    """Objects that an entry vouches for."""
    finished: bool = False

    def check(self, world: World) -> None:
        """Ends the simulation with a Violation if anything in the journal is not as it must be."""
        news = world.journal[self.read :]
        self.read = len(world.journal)
        for entry in news:
            problem = self._problem(entry, world)
            if problem:
                world.fail(f"entry {entry['seq']} ({entry['kind']}): {problem}")
        if self.expected and self.finished and any(entry["kind"] == "finish" for entry in news):
            if self.digest and digest_of(world) != self.expected.digest:
                world.fail("the digest is not that of a run without faults")
            if rows_of(world) != self.expected.rows:
                world.fail("the ledger is not that of a run without faults")

    def _problem(self, entry: Mapping[str, Any], world: World) -> str:
        kind, body = entry["kind"], entry["body"]
        if kind == "run":
            self.populations = [[one["id"] for one in body["founders"]]]
            return ""
        if kind == "epoch":
            self.epoch += 1
            return "" if entry["epoch"] == self.epoch else f"epoch {entry['epoch']}, expected {self.epoch}"
        if entry["epoch"] != self.epoch:
            return f"written by a driver of epoch {entry['epoch']} in epoch {self.epoch}"
        if kind == "rewind":
            return self._rewind(body["generation"])
        if self.finished:
            return "after the run had finished"
        self.vouched |= {ref["key"] for ref in entry["refs"]}
        if kind == "finish":
            self.finished = True
            return "" if self.generation == self.generations else f"after {self.generation} generations"
        if body["generation"] != self.generation:
            return f"generation {body['generation']}, expected {self.generation}"
        return {"lives": self._lives, "birth": self._birth, "generation": self._generation}[kind](body, world)

    def _lives(self, body: Mapping[str, Any], world: World) -> str:
        attempts = Counter(attempt for _, _, attempt in body["lives"])
        for individual, life, attempt in body["lives"]:
            key = (self.generation, individual, life)
            if key in self.committed:
                return f"life {key} is committed twice"
            if individual not in self.populations[self.generation] or not 0 <= life % STRIDE < self.lives:
                return f"life {key} was never to be lived"
            self.committed[key] = attempt
            if [end for end in body["ends"] if end == "censored"]:
                # Nobody knows how long that life would have lasted: the run may come to other results.
                self.expected = None
            ends = world.rows["lives"].get(attempt, [])
            steps = world.rows["steps"].get(attempt, [])
            wanted = sorted(step for _, number in ends for step in range(number))
            if len(ends) != attempts[attempt] or sorted(step for _, step in steps) != wanted:
                return f"life {key} has the rows {ends} and {steps}, expected each once"
            for table, rows in (("lives", ends), ("steps", steps)):
                versions = {version for version, _ in rows}
                if max(versions, default=0) > body["tables"][table]:
                    return f"life {key} lies in {table} {versions}, beyond the pinned {body['tables'][table]}"
                if not all(file_of(table, version, self.generation).key in self.vouched for version in versions):
                    return f"life {key}: nobody vouches for {table} {versions}"
        return ""

    def _birth(self, body: Mapping[str, Any], world: World) -> str:
        result = body["result"]
        if missing := self._missing():
            return f"a birth before {missing} lives were committed"
        if result["individual"] in self.born:
            return f"{result['individual']} is born twice"
        if result["status"] != "trained":
            return f"training failed: {result['reason']}"
        self.born[result["individual"]] = result["adapter"]
        return ""

    def _generation(self, body: Mapping[str, Any], world: World) -> str:
        if missing := self._missing():
            return f"the generation ends before {missing} lives were committed"
        if self.expected and results(body) != self.expected.results[self.generation]:
            return "other results than those of a run without faults"
        self.generation += 1
        size = self.size if self.generation < self.generations else 0
        ids = [one["id"] for one in body["population"]]
        if ids != [f"g{self.generation:03d}-{index:03d}" for index in range(size)]:
            return f"the next population is {ids}"
        for one in body["population"]:
            if one["genome"]["adapter"] != self.born.get(one["id"], one["genome"]["adapter"]):
                return f"{one['id']} has not the adapter it was born with"
        if len([one for one in ids if one in self.born]) != size - len(body["selection"]["elites"][:size]):
            return f"of {ids} only {sorted(self.born)} are born"
        self.populations.append(ids)
        return ""

    def _rewind(self, last: int) -> str:
        if last >= self.generation:
            return f"to generation {last}, of {self.generation}"
        self.generation, self.finished = last + 1, False
        self.populations = self.populations[: last + 2]
        self.committed = {key: attempt for key, attempt in self.committed.items() if key[0] <= last}
        known = [one for ids in self.populations for one in ids]
        self.born = {child: adapter for child, adapter in self.born.items() if child in known}
        return ""

    def _missing(self) -> int:
        """Lives of this generation that are not committed."""
        done = sum(generation == self.generation and life < STRIDE for generation, _, life in self.committed)
        return len(self.populations[self.generation]) * self.lives - done
