"""The loop in a simulated world: no seed breaks a promise, and a broken protocol is caught."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pytest
from msgspec import structs

import workers.pool
from orchestrator.rooms import WorkersRoom
from telemetry.failures import FencedError
from telemetry.journal import Journal, Writer
from telemetry.ledger import Ledger
from telemetry.store import open_store
from telemetry.tables import TABLES
from tests.faults.memory import Handle, MemoryLedger
from tests.faults.peers import Peer
from tests.faults.simulator import MODES, campaign, expected, run_in, simulate
from tests.faults.world import RATES, World
from tests.forager import ROOT
from tests.telemetry.rows import lives
from workers.life import STRIDE
from workers.saver import Saver
from workers.work import Lived, Party

pytestmark = pytest.mark.timeout(900)


def check(seeds: Sequence[int], kinds: int) -> None:
    """No violation in either mode, and at least so many kinds of faults."""
    summary = campaign(seeds, MODES)
    for one in summary.failed:
        print(f"seed {one.seed} {one.mode}: {one.violation}", *one.trace, sep="\n")
    assert not summary.failed
    assert summary.runs == len(seeds) * len(MODES)
    missing = [kind for kind in RATES if not summary.faults[kind]]
    assert len(missing) <= len(RATES) - kinds, f"these faults never happened: {missing}"
    assert {"crash", "finished", "StorageError", "FencedError", "NoProgressError", "Stopped"} <= set(summary.ends)


def test_no_seed_breaks_a_promise() -> None:
    check(range(30), len(RATES) - 3)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", [1555, 5302, 6151, 6975, 7559, 7575])
def test_seeds_that_once_broke_a_promise_keep_it(seed: int, mode: str) -> None:
    outcome = simulate(seed, mode)
    assert not outcome.violation, outcome.trace


@pytest.mark.faults
def test_no_seed_of_many_breaks_a_promise() -> None:
    check(range(30, 250), len(RATES))


def test_a_run_whose_faults_stop_finishes() -> None:
    outcomes = [simulate(seed, "liveness") for seed in range(10)]
    assert all(one.finished for one in outcomes)
    assert sum(one.faults.total() > 0 for one in outcomes) >= 8


def test_a_seed_is_a_schedule() -> None:
    for seed in range(4):
        for mode in MODES:
            first, second = simulate(seed, mode), simulate(seed, mode)
            assert first.trace == second.trace
            assert len(first.trace) > 10
    assert simulate(1, "safety").trace != simulate(2, "safety").trace


@pytest.mark.faults
def test_a_seed_is_the_same_schedule_in_every_process() -> None:
    def traces(hash_seed: int) -> str:
        return subprocess.run(
            [sys.executable, "-m", "tests.faults.simulator", "--seeds", "0..20", "--trace"],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout

    assert traces(1) == traces(2)


def always_created(self: World, key: str, data: bytes) -> bool:
    """A store whose put_if_absent says yes to everybody."""
    self.objects.setdefault(key, data)
    return True


def overwritten(self: World, key: str, data: bytes) -> bool:
    """A store whose put_if_absent is a put."""
    self.objects[key] = data
    return True


def unfenced(self: Writer, kind: str, events: Sequence[Any]) -> Any:
    """A writer that goes on behind whoever took over."""
    try:
        return APPEND(self, kind, events)
    except FencedError:
        newest = Journal(self.store).read()[-1]
        self.head = structs.replace(newest, epoch=self.head.epoch, writer=self.head.writer)
        return APPEND(self, kind, events)


def live_all(self: WorkersRoom, population: Any, lives: int, generation: int, skip: Any, acknowledge: Any) -> None:
    """A room that forgets what the journal holds."""
    LIVE(self, population, lives, generation, set(), acknowledge)


def read_all(self: MemoryLedger, table: str, generation: int, files: Any, attempts: Any, *rest: Any) -> pa.Table:
    """A reader that takes every row for an acknowledged one."""
    return READ(self, table, generation, files, set(self.store.world.rows["lives"]), *rest)


def acknowledge_early(self: Saver, work: Any) -> Any:
    """A saver that acknowledges lives before their rows are in the ledger."""
    work.in_ledger |= set(work.finished)
    return FLUSH(self, work)


def same(party: Party) -> Party:
    """A second try under the name of the first."""
    return party


def deaf(self: Peer, cluster: Any, role: str, name: str, hosted: Any, timeout: float) -> None:
    """A process that may hang unnoticed in calls that have no time-out."""
    INIT(self, cluster, role, name, hosted, FOR_EVER)
    self._end = lambda unnoticed, error: END(self, FOR_EVER if "hung" in str(error) else unnoticed, error)


FOR_EVER = 1e12
APPEND, LIVE, READ, FLUSH = Writer.append_all, WorkersRoom.live, MemoryLedger.recall, Saver._commit
KEEP = Saver.keep
INIT, END = Peer.__init__, Peer._end
ANY = ("death", "crash at await", "crash after write", "take-over before write", "unanswered write")
MUTATIONS: list[tuple[Any, str, Callable[..., Any], tuple[str, ...], str]] = [
    (World, "create", always_created, ANY, ""),
    (World, "create", overwritten, ANY, ""),
    (Writer, "append_all", unfenced, ("take-over before write",), ""),
    (WorkersRoom, "live", live_all, ("crash at await",), "is committed"),
    (MemoryLedger, "recall", read_all, ("lost reply",), ""),
    (Saver, "_commit", acknowledge_early, ANY, ""),
    (workers.pool, "fresh", same, ("lost reply",), "expected each once"),
    (Peer, "__init__", deaf, ("hang",), "waits for ever|busy for ever"),
]


def test_a_torn_party_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a shared world, an entry acknowledges all lives of an instance, descendants too, or none."""

    def keep_one(self: Saver, lived: Lived, work: Any) -> None:
        KEEP(self, replace(lived, lives=lived.lives[:1]), work)

    calm = World(Random(0), 0, {})
    assert run_in(calm, 0, "liveness", expected(True), shared=True).finished
    assert any(life >= STRIDE for _, _, life in calm.lived), "nobody was born"
    monkeypatch.setattr(Saver, "keep", keep_one)
    outcome = run_in(World(Random(0), 0, {}), 0, "liveness", expected(True), shared=True)
    assert "expected each once" in outcome.violation


@pytest.mark.parametrize(
    ("owner", "name", "mutant", "faults", "finding"), MUTATIONS, ids=[one[2].__name__ for one in MUTATIONS]
)
def test_a_broken_protocol_is_caught(
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    mutant: Callable[..., Any],
    faults: Sequence[str],
    finding: str,
) -> None:
    sound = expected()
    rates = {kind: 4 * RATES[kind] for kind in faults}
    calm = [run_in(World(Random(seed), 5, rates), seed, "liveness", sound) for seed in range(5)]
    assert not any(one.violation for one in calm)
    monkeypatch.setattr(owner, name, mutant)
    for seed in range(100):
        outcome = run_in(World(Random(seed), 5, rates), seed, "liveness", sound)
        if outcome.violation:
            assert any(part in outcome.violation for part in finding.split("|")), outcome.violation
            return
    pytest.fail("100 seeds did not notice")


def test_the_ledger_in_memory_is_like_the_real_one(tmp_path: Path) -> None:
    quiet = World(Random(0), 0, {})
    for ledger in (Ledger(open_store(tmp_path)), MemoryLedger(Handle(quiet))):
        first, other = lives(2), lives(3, individual="g000-001", generation=1)
        receipts = [ledger.append(*first, "t0"), ledger.append(*other, "t1")]
        assert ledger.append(*first, "t0") == receipts[0]
        assert [sorted(receipt.versions) for receipt in receipts] == [["lives", "steps"]] * 2
        assert [receipt.attempts for receipt in receipts] == [
            ("g000-000/0", "g000-000/1"),
            ("g000-001/0", "g000-001/1", "g000-001/2"),
        ]
        for name, rows in zip(("steps", "lives"), zip(first, other, strict=True), strict=True):
            assert ledger.recall(name, 0, receipts[0].files, receipts[0].attempts).equals(rows[0])
            assert ledger.recall(name, 1, receipts[1].files, receipts[1].attempts).equals(rows[1])
            files = [file for receipt in receipts for file in receipt.files]
            assert ledger.recall(name, 0, files, ["g000-000/1"], columns=["life"]).to_pydict() == {
                "life": [1] * (3 if name == "steps" else 1)
            }
            assert ledger.recall(name, 0, receipts[1].files, receipts[0].attempts).num_rows == 0
            assert ledger.recall(name, 0, files, []).schema == TABLES[name]
