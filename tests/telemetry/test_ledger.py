"""The ledger: exactly once, pinned, and blind to what nobody acknowledged."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from telemetry.failures import StateError, StorageError
from telemetry.ledger import SETTINGS, Ledger
from telemetry.store import Store, open_store
from telemetry.tables import LIVES, STEPS, TABLES
from tests.telemetry.rows import life, lives


@pytest.fixture
def store(store_url: str) -> Store:
    return open_store(store_url)


def shuffled(table: pa.Table) -> pa.Table:
    return table.take(list(range(table.num_rows))[::-1])


def test_every_column_comes_back_as_it_went_in(store: Store) -> None:
    steps, ends = lives(3)
    receipt = Ledger(store).append(shuffled(steps), shuffled(ends), "t")
    back = Ledger(store).read("steps", receipt.versions["steps"])
    assert back.schema.equals(STEPS)
    assert back.equals(steps)
    back = Ledger(store).read("lives", receipt.versions["lives"])
    assert back.schema.equals(LIVES)
    assert back.equals(ends)
    assert receipt.attempts == ("g000-000/0", "g000-000/1", "g000-000/2")


def test_the_receipt_vouches_for_every_new_file(store: Store) -> None:
    first = Ledger(store).append(*life(), "t0")
    second = Ledger(store).append(*life(life=1), "t1")
    refs = [*first.files, *second.files]
    for ref in refs:
        assert store.size_and_sha256(ref.key) == (ref.size, ref.sha256)
    written = {key for key in store.list("ledger") if not key.endswith("_last_checkpoint")}
    assert written == {ref.key for ref in refs}


def test_a_repeated_append_changes_nothing_and_returns_the_same_receipt(store: Store) -> None:
    ledger, batch = Ledger(store), lives(2)
    receipt = ledger.append(*batch, "t0")
    ledger.append(*life(life=9), "t1")
    before = store.list("")
    assert ledger.append(*batch, "t0") == receipt
    assert Ledger(store).append(*batch, "t0") == receipt
    assert store.list("") == before
    assert Ledger(store).read("lives", 2).num_rows == 3


def test_an_append_that_stopped_between_the_tables_is_completed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, ledger = lives(2), Ledger(store)
    append = ledger._append

    def stop_before_lives(name: str, rows: pa.Table, transaction: str) -> object:
        if name == "lives":
            raise StorageError("full")
        return append(name, rows, transaction)

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "_append", stop_before_lives)
        with pytest.raises(StorageError):
            ledger.append(*batch, "t")
    receipt = Ledger(store).append(*batch, "t")
    assert receipt.versions == {"steps": 1, "lives": 1}
    assert Ledger(store).read("steps", 1).num_rows == 6


def test_a_name_used_for_other_rows_is_refused(store: Store) -> None:
    Ledger(store).append(*life(), "t")
    with pytest.raises(StateError, match="'t' has other rows"):
        Ledger(store).append(*life(life=1), "t")


def test_concurrent_appenders_all_get_in_once(store: Store) -> None:
    barrier = threading.Barrier(4)

    def append(writer: int) -> dict[str, int]:
        ledger, batch = Ledger(store), life(individual=f"g000-{writer:03}")
        barrier.wait()
        return [ledger.append(*batch, f"t{writer}").versions for _ in range(2)][1]

    with ThreadPoolExecutor(4) as pool:
        versions = list(pool.map(append, range(4)))
    assert sorted(version["lives"] for version in versions) == [1, 2, 3, 4]
    assert sorted(version["steps"] for version in versions) == [1, 2, 3, 4]
    rows = Ledger(store).read("lives", 4)
    assert rows.column("individual").to_pylist() == [f"g000-{writer:03}" for writer in range(4)]


def test_concurrent_appends_of_one_transaction_get_in_once(store: Store) -> None:
    batch, barrier = lives(2), threading.Barrier(4)

    def append(_: int) -> object:
        barrier.wait()
        return Ledger(store).append(*batch, "t")

    with ThreadPoolExecutor(4) as pool:
        receipts = list(pool.map(append, range(4)))
    assert all(receipt == receipts[0] for receipt in receipts)
    assert Ledger(store).read("lives", 1).num_rows == 2


def test_rows_of_unacknowledged_attempts_are_never_seen(store: Store) -> None:
    ledger = Ledger(store)
    ledger.append(*life(attempt="zombie", steps=5), "t0")
    versions = ledger.append(*life(attempt="acknowledged", steps=3), "t1").versions
    steps = ledger.read("steps", versions["steps"], attempts=["acknowledged"])
    assert steps.column("step").to_pylist() == [0, 1, 2]
    assert ledger.read("lives", versions["lives"], attempts={"acknowledged"}).num_rows == 1
    assert ledger.read("lives", versions["lives"], attempts=[]).num_rows == 0
    assert ledger.read("lives", versions["lives"], attempts=[]).schema.equals(LIVES)


def test_a_pinned_version_never_changes(store: Store) -> None:
    ledger = Ledger(store)
    pinned = ledger.append(*life(), "t0").versions["steps"]
    before = ledger.read("steps", pinned)
    ledger.append(*life(life=1), "t1")
    assert ledger.read("steps", pinned).equals(before)
    assert ledger.read("steps", pinned + 1).num_rows == 6
    assert ledger.read("steps", 0).num_rows == 0


def test_one_generation_reads_only_its_own_files(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    batches = [life(generation=generation, individual=f"g00{generation}-000") for generation in (0, 1)]
    ledger = Ledger(store)
    receipt = ledger.append(*(pa.concat_tables(tables) for tables in zip(*batches, strict=True)), "t")
    assert len([ref for ref in receipt.files if ref.key.startswith("ledger/steps/generation=")]) == 2
    for key in store.list("ledger/steps/generation=0"):
        store.delete(key)
    assert ledger.read("steps", 1, generation=1).equals(batches[1][0])
    with pytest.raises(StateError, match=r"ledger/steps/generation=0/\w+\.parquet: missing"):
        ledger.read("steps", 1)


def test_columns_in_the_order_asked_for_and_rows_in_canonical_order(tmp_path: Path) -> None:
    ledger = Ledger(open_store(tmp_path))
    for number, (individual, turn) in enumerate([("g000-001", 1), ("g000-001", 0), ("g000-000", 2)]):
        ledger.append(*life(individual=individual, life=turn, steps=2), f"t{number}")
    rows = ledger.read("steps", 3, columns=["action", "life", "step"])
    assert rows.schema.names == ["action", "life", "step"]
    assert list(zip(rows["life"].to_pylist(), rows["step"].to_pylist(), strict=True)) == [
        (2, 0),
        (2, 1),
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
    ]


def test_the_same_rows_are_recalled_in_order_or_as_they_lie(store: Store) -> None:
    ledger, (steps, ends) = Ledger(store), lives(3)
    files = ledger.append(shuffled(steps), shuffled(ends), "t").files
    assert ledger.recall("steps", 0, files, None).equals(steps)
    asked = ["action", "step", "life"]
    lying = ledger.recall("steps", 0, files, ["g000-000/0", "g000-000/2"], asked, ordered=False)
    assert lying.equals(shuffled(steps.filter(pc.not_equal(steps["life"], 1))).select(asked))


def test_an_empty_append_is_an_append(store: Store) -> None:
    receipt = Ledger(store).append(STEPS.empty_table(), LIVES.empty_table(), "t")
    assert receipt.attempts == ()
    assert Ledger(store).read("steps", receipt.versions["steps"]).num_rows == 0
    assert Ledger(store).append(STEPS.empty_table(), LIVES.empty_table(), "t") == receipt


@pytest.mark.parametrize("column", ["attempt", "started_at"])
def test_rows_that_do_not_fit_the_schema_are_refused_before_anything_is_written(tmp_path: Path, column: str) -> None:
    steps, ends = life()
    index = ends.schema.get_field_index(column)
    holes = ends.cast(pa.schema([field.with_nullable(True) for field in LIVES])).set_column(
        index, column, pa.nulls(1, LIVES.field(column).type)
    )
    for bad in (ends.drop_columns([column]), holes):
        with pytest.raises(ValueError, match=column):
            Ledger(open_store(tmp_path)).append(steps, bad, "t")
    assert open_store(tmp_path).list("") == []


def test_reading_a_table_or_version_that_is_not_there(store: Store) -> None:
    with pytest.raises(StateError, match="ledger/steps"):
        Ledger(store).read("steps", 0)
    Ledger(store).append(*life(), "t")
    with pytest.raises(StateError, match="version 7"):
        Ledger(store).read("steps", 7)


@pytest.mark.parametrize("table", ["steps", "lives"])
def test_every_flipped_byte_of_a_data_file_is_found_and_named(tmp_path: Path, table: str) -> None:
    store = open_store(tmp_path)
    ledger = Ledger(store)
    receipt = ledger.append(*life(), "t")
    key = next(ref.key for ref in receipt.files if ref.key.startswith(f"ledger/{table}/generation="))
    whole = store.get(key)
    for position in range(0, len(whole), 211):
        store.put(key, whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(StateError, match=key):
            ledger.read(table, 1)
    store.put(key, whole[:-1])
    with pytest.raises(StateError, match=key):
        ledger.read(table, 1)
    store.put(key, whole)
    assert ledger.read(table, 1).num_rows


def test_data_pages_carry_checksums_for_other_readers(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    receipt = Ledger(store).append(*lives(50), "t")
    path = tmp_path / next(ref.key for ref in receipt.files if "generation=" in ref.key)
    whole, columns = path.read_bytes(), pq.read_metadata(path).row_group(0)
    assert pq.read_table(path, page_checksum_verification=True, partitioning=None).num_rows == 150
    for chunk in (columns.column(index) for index in range(columns.num_columns)):
        last = (
            min(filter(None, (chunk.dictionary_page_offset, chunk.data_page_offset))) + chunk.total_compressed_size - 1
        )
        path.write_bytes(whole[:last] + bytes([whole[last] ^ 1]) + whole[last + 1 :])
        with pytest.raises(OSError, match="CRC"):
            pq.read_table(path, page_checksum_verification=True, partitioning=None)


def test_other_tools_read_the_tables(store: Store) -> None:
    Ledger(store).append(*lives(4), "t")
    url, options = store.delta("ledger/steps")
    dataset = DeltaTable(url, storage_options=options).to_pyarrow_dataset()  # noqa: F841 - DuckDB finds it by name
    answer = duckdb.sql("select generation, count(*), count(adapter), max(len(prompt_ids)) from dataset group by 1")
    assert answer.fetchall() == [(0, 12, 4, 3)]


def test_a_long_log_is_read_through_its_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SETTINGS, "delta.checkpointInterval", "5")
    store = open_store(tmp_path)
    ledger = Ledger(store)
    for number in range(12):
        receipt = ledger.append(*life(life=number, steps=1), f"t{number}")
    assert sum(key.endswith(".checkpoint.parquet") for key in store.list("ledger/lives/_delta_log")) == 2
    assert Ledger(store).read("lives", receipt.versions["lives"]).column("life").to_pylist() == list(range(12))
    assert Ledger(store).read("lives", 7).num_rows == 7
    assert Ledger(store).append(*life(life=0, steps=1), "t0").versions == {"steps": 1, "lives": 1}


def test_a_long_log_without_checkpoints_gets_one_before_it_is_appended_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path)
    for number in range(7):
        versions = Ledger(store).append(*life(life=number, steps=1), f"t{number}").versions
    monkeypatch.setitem(SETTINGS, "delta.checkpointInterval", "5")
    assert not [key for key in store.list("ledger") if "checkpoint" in key]
    ledger = Ledger(store)
    assert ledger.append(*life(life=3, steps=1), "t3").versions == {"steps": 4, "lives": 4}
    for table in TABLES:
        assert store.exists(f"ledger/{table}/_delta_log/{7:020d}.checkpoint.parquet")
    assert ledger.append(*life(life=7, steps=1), "t7").versions == dict.fromkeys(versions, 8)
    assert Ledger(store).read("lives", 8).column("life").to_pylist() == list(range(8))


POWER_CUTS = {"empty": b"", "zeros": b"\0" * 300, "half": b'{"commitInfo":{"timestamp":17'}


@pytest.mark.parametrize("left", POWER_CUTS.values(), ids=POWER_CUTS.keys())
def test_unacknowledged_log_entries_that_a_power_cut_destroyed_are_removed(tmp_path: Path, left: bytes) -> None:
    store = open_store(tmp_path)
    acknowledged = Ledger(store).append(*life(), "t0").versions
    for number in (1, 2):
        Ledger(store).append(*life(life=number), f"t{number}")
    store.put("ledger/steps/_delta_log/00000000000000000002.json", left)
    log = "ledger/steps/_delta_log"
    assert Ledger(store).repair(acknowledged) == (f"{log}/{3:020d}.json", f"{log}/{2:020d}.json")
    assert Ledger(store).repair(acknowledged) == ()
    versions = Ledger(store).append(*life(life=5), "t5").versions
    assert versions == {"steps": 2, "lives": 4}
    assert Ledger(store).read("steps", 2, attempts=["g000-000/0", "g000-000/5"]).num_rows == 6


def test_acknowledged_log_entries_are_never_removed(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    acknowledged = Ledger(store).append(*life(), "t0").versions
    store.put("ledger/steps/_delta_log/00000000000000000001.json", b"\0" * 300)
    assert Ledger(store).repair(acknowledged) == ()
    for use in (lambda: Ledger(store).read("steps", 1), lambda: Ledger(store).append(*life(life=1), "t1")):
        with pytest.raises(StateError, match=r"steps/_delta_log/0{19}1\.json: missing or damaged"):
            use()


def test_a_destroyed_checkpoint_is_dropped(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    acknowledged = Ledger(store).append(*life(), "t0").versions
    for table in TABLES:
        DeltaTable(store.delta(f"ledger/{table}")[0]).create_checkpoint()
        checkpoint = next(key for key in store.list(f"ledger/{table}") if key.endswith(".checkpoint.parquet"))
        store.put(checkpoint, b"\0" * 1000)
    with pytest.raises(StateError):
        Ledger(store).append(*life(life=1), "t1")
    assert len(Ledger(store).repair(acknowledged)) == 4
    assert Ledger(store).append(*life(life=1), "t1").versions == {"steps": 2, "lives": 2}
    assert pc.sum(Ledger(store).read("lives", 2).column("steps")).as_py() == 6


def test_a_store_that_fails_is_a_storage_error_and_the_append_can_be_repeated(tmp_path: Path) -> None:
    store = open_store(tmp_path / "run")
    Ledger(store).append(*life(), "t0")
    ledger, log = Ledger(store), tmp_path / "run" / "ledger" / "steps" / "_delta_log"
    aside = log.rename(tmp_path / "aside")
    log.write_text("in the way")
    with pytest.raises(StorageError, match=r"ledger/steps.*Not a directory.* bytes free$") as failed:
        ledger.append(*life(life=1), "t1")
    assert "\x1b" not in str(failed.value)
    log.unlink()
    aside.rename(log)
    assert ledger.append(*life(life=1), "t1").versions == {"steps": 2, "lives": 2}
