"""The sink: owns what it was given, commits it once, and slows its senders down when the store is slow."""

import asyncio
import threading
from pathlib import Path

import pyarrow as pa
import pytest

from telemetry.failures import StorageError
from telemetry.ledger import Ledger, Receipt
from telemetry.sink import TelemetrySink
from telemetry.store import open_store
from tests.telemetry.rows import life


class Valve:
    """Stands before a sink's ledger: holds appends back, or makes them fail, on command."""

    def __init__(self, sink: TelemetrySink) -> None:
        self.open = threading.Event()
        self.reached = threading.Event()
        self.failures: list[Exception] = []
        self.fail_after_commit = False
        self._append = sink._ledger.append
        sink._ledger.append = self.append

    def append(self, steps: pa.Table, lives: pa.Table, transaction: str) -> Receipt:
        self.reached.set()
        assert self.open.wait(30)
        if self.failures and not self.fail_after_commit:
            raise self.failures.pop()
        receipt = self._append(steps, lives, transaction)
        if self.failures:
            raise self.failures.pop()
        return receipt


def lives_in(folder: Path, receipt: Receipt) -> list[int]:
    rows = Ledger(open_store(folder)).read("lives", receipt.versions["lives"], receipt.attempts)
    return rows.column("life").to_pylist()


def test_all_batches_go_out_in_one_append(store_url: str) -> None:
    open_store(store_url)

    async def scenario() -> None:
        sink = TelemetrySink(store_url)
        assert await sink.flush("nothing") is None
        for number in range(5):
            await sink.append(*life(life=number))
        receipt = await sink.flush("t0")
        assert receipt is not None
        assert receipt.versions == {"steps": 1, "lives": 1}
        assert lives_in(store_url, receipt) == [0, 1, 2, 3, 4]
        assert await sink.flush("t1") is None

    asyncio.run(scenario())


def test_a_flush_asked_for_again_is_the_same_flush(tmp_path: Path) -> None:
    async def scenario() -> None:
        sink = TelemetrySink(str(tmp_path))
        await sink.append(*life(life=0))
        receipt = await sink.flush("t0")
        await sink.append(*life(life=1))
        assert await sink.flush("t0") == receipt
        later = await sink.flush("t1")
        assert later is not None
        assert lives_in(tmp_path, later) == [1]

    asyncio.run(scenario())


@pytest.mark.parametrize("after_commit", [False, True])
def test_a_failed_flush_keeps_its_batches_and_its_name(tmp_path: Path, after_commit: bool) -> None:
    async def scenario() -> None:
        sink = TelemetrySink(str(tmp_path))
        valve = Valve(sink)
        valve.open.set()
        valve.failures, valve.fail_after_commit = [StorageError("full")], after_commit
        await sink.append(*life(life=0))
        with pytest.raises(StorageError):
            await sink.flush("t0")
        await sink.append(*life(life=1))
        with pytest.raises(ValueError, match="'t0' failed and has to be repeated before 't1'"):
            await sink.flush("t1")
        first, second = await sink.flush("t0"), await sink.flush("t1")
        assert first is not None
        assert second is not None
        assert (lives_in(tmp_path, first), lives_in(tmp_path, second)) == ([0], [1])
        assert second.versions == {"steps": 2, "lives": 2}
        assert Ledger(open_store(tmp_path)).read("lives", 2).num_rows == 2

    asyncio.run(scenario())


def test_a_full_buffer_holds_senders_back_until_the_flush_is_done(tmp_path: Path) -> None:
    async def scenario() -> None:
        sink = TelemetrySink(str(tmp_path), max_buffered_bytes=1)
        valve = Valve(sink)
        await sink.append(*life(life=0))
        await asyncio.wait_for(sink.append(*life(life=1)), 10)  # full, but nobody is emptying it
        flush = asyncio.create_task(sink.flush("t0"))
        await asyncio.to_thread(valve.reached.wait, 30)
        sender = asyncio.create_task(sink.append(*life(life=2)))
        await asyncio.sleep(0.1)
        assert not sender.done()
        assert not flush.done()
        valve.open.set()
        await asyncio.wait_for(sender, 30)
        receipt = await flush
        assert receipt is not None
        assert lives_in(tmp_path, receipt) == [0, 1]
        rest = await sink.flush("t1")
        assert rest is not None
        assert lives_in(tmp_path, rest) == [2]

    asyncio.run(scenario())


def test_a_failed_flush_lets_the_senders_go_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        sink = TelemetrySink(str(tmp_path), max_buffered_bytes=1)
        valve = Valve(sink)
        valve.failures = [StorageError("full")]
        await sink.append(*life(life=0))
        flush = asyncio.create_task(sink.flush("t0"))
        await asyncio.to_thread(valve.reached.wait, 30)
        sender = asyncio.create_task(sink.append(*life(life=1)))
        await asyncio.sleep(0.05)
        assert not sender.done()
        valve.open.set()
        with pytest.raises(StorageError):
            await flush
        await asyncio.wait_for(sender, 30)
        assert await sink.flush("t0") is not None

    asyncio.run(scenario())


def test_many_rows_are_written_before_anybody_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.setattr("telemetry.sink.AHEAD", 1)
        sink = TelemetrySink(str(tmp_path))
        for number in range(2):
            await sink.append(*life(life=number))
            assert sink._early is not None
            await sink._early
            assert Ledger(open_store(tmp_path)).read("lives", number + 1).num_rows == number + 1
        monkeypatch.setattr("telemetry.sink.AHEAD", 1 << 30)
        await sink.append(*life(life=2))
        receipt = await sink.flush("t0")
        assert receipt is not None
        assert receipt.versions == {"steps": 3, "lives": 3}
        assert lives_in(tmp_path, receipt) == [0, 1, 2]
        written = open_store(tmp_path).list("ledger")
        assert sorted(file.key for file in receipt.files) == sorted(key for key in written if "checkpoint" not in key)
        assert await sink.flush("t0") == receipt
        assert await sink.flush("t1") is None

    asyncio.run(scenario())


@pytest.mark.parametrize("after_commit", [False, True])
def test_a_flush_repeats_what_could_not_be_written_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after_commit: bool
) -> None:
    async def scenario() -> None:
        monkeypatch.setattr("telemetry.sink.AHEAD", 1)
        sink = TelemetrySink(str(tmp_path))
        valve = Valve(sink)
        valve.open.set()
        valve.failures, valve.fail_after_commit = [StorageError("full"), StorageError("still full")], after_commit
        await sink.append(*life(life=0))
        assert sink._early is not None
        await sink._early
        with pytest.raises(StorageError, match="full"):
            await sink.flush("t0")
        await sink.append(*life(life=1))
        await sink._early
        with pytest.raises(ValueError, match="'t0' failed and has to be repeated before 't1'"):
            await sink.flush("t1")
        receipt = await sink.flush("t0")
        assert receipt is not None
        assert lives_in(tmp_path, receipt) == [0, 1]
        assert Ledger(open_store(tmp_path)).read("lives", receipt.versions["lives"]).num_rows == 2

    asyncio.run(scenario())


def test_a_full_buffer_holds_senders_back_until_rows_are_written_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        monkeypatch.setattr("telemetry.sink.AHEAD", 1)
        sink = TelemetrySink(str(tmp_path), max_buffered_bytes=1)
        valve = Valve(sink)
        await sink.append(*life(life=0))
        await asyncio.to_thread(valve.reached.wait, 30)
        sender = asyncio.create_task(sink.append(*life(life=1)))
        await asyncio.sleep(0.05)
        assert not sender.done()
        valve.open.set()
        await asyncio.wait_for(sender, 30)

    asyncio.run(scenario())


def test_a_cancelled_flush_can_be_repeated(tmp_path: Path) -> None:
    async def scenario() -> None:
        sink = TelemetrySink(str(tmp_path))
        valve = Valve(sink)
        await sink.append(*life(life=0))
        flush = asyncio.create_task(sink.flush("t0"))
        await asyncio.to_thread(valve.reached.wait, 30)
        flush.cancel()
        with pytest.raises(asyncio.CancelledError):
            await flush
        again = asyncio.create_task(sink.flush("t0"))
        valve.open.set()
        receipt = await again
        assert receipt is not None
        assert receipt.versions == {"steps": 1, "lives": 1}

    asyncio.run(scenario())


def test_a_successor_may_use_the_same_flush_name_for_other_rows(tmp_path: Path) -> None:
    async def scenario() -> None:
        for number in range(2):
            sink = TelemetrySink(str(tmp_path))
            await sink.append(*life(life=number))
            receipt = await sink.flush("t0")
            assert receipt is not None
            assert lives_in(tmp_path, receipt) == [number]

    asyncio.run(scenario())
