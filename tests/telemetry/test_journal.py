"""The journal: chained, fenced, and able to name the object that is damaged."""

import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from telemetry.failures import FencedError, StateError, StorageError, UsageError
from telemetry.journal import Journal, Writer, decode, encode, key_of, seal
from telemetry.store import Store, open_store
from tests.telemetry.journals import driver, ref, rewrite, write_run

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=10,
)


@pytest.fixture
def store(store_url: str) -> Store:
    return open_store(store_url)


def test_what_was_appended_is_read(store: Store) -> None:
    writer = Journal(store).create({"seed": 7, **driver(1)})
    first = writer.append("lives", {"energy": 0.1 + 0.2, "name": "ünï\u2028"}, (ref("a"), ref("b")))
    second = writer.append("generation", {"number": 0})
    assert Journal(store).read() == [*writer.history, first, second]
    assert [(entry.seq, entry.epoch, entry.kind) for entry in Journal(store).read()] == [
        (0, 0, "run"),
        (1, 0, "lives"),
        (2, 0, "generation"),
    ]
    assert first.refs == (ref("a"), ref("b"))
    assert first.body["energy"] == 0.1 + 0.2


def test_a_longer_journal_is_read_in_order(store: Store) -> None:
    write_run(store, 150)
    assert [entry.seq for entry in Journal(store).read()] == list(range(150))


def test_a_store_without_a_run_is_empty_and_cannot_be_taken_over(store: Store) -> None:
    assert Journal(store).read() == []
    with pytest.raises(StateError, match="no journal"):
        Journal(store).open_epoch(driver(1))
    assert store.list("") == []


def test_a_second_run_in_the_same_place_is_refused(store: Store) -> None:
    write_run(store)
    before = Journal(store).read()
    with pytest.raises(UsageError, match="a run lives here already"):
        Journal(store).create({"seed": 8})
    assert Journal(store).read() == before


@given(body=st.dictionaries(st.text(), JSON, max_size=4))
def test_any_json_body_comes_back_equal(body: dict[str, Any]) -> None:
    entry = decode(encode(3, "0" * 64, 1, "w", "k", body), 3)
    assert entry.body == body
    assert json.dumps(entry.body, sort_keys=True) == json.dumps(body, sort_keys=True)


@pytest.mark.parametrize("body", [{"x": float("nan")}, {"x": float("inf")}])
def test_what_is_not_finite_is_refused_before_it_is_written(tmp_path: Path, body: dict[str, Any]) -> None:
    writer = Journal(open_store(tmp_path)).create({})
    with pytest.raises(ValueError, match="not JSON compliant"):
        writer.append("lives", body)
    assert len(Journal(open_store(tmp_path)).read()) == 1


def test_a_stale_writer_is_fenced_and_writes_nothing(store: Store) -> None:
    stale = write_run(store)
    fresh = Journal(store).open_epoch(driver(2))
    for _ in range(2):
        with pytest.raises(FencedError, match="epoch 2, host node, pid 2"):
            stale.append("lives", {})
    fresh.append("lives", {"by": "fresh"})
    with pytest.raises(FencedError, match="epoch 2, host node, pid 2"):
        stale.append("lives", {})
    entries = Journal(store).read()
    assert [entry.epoch for entry in entries] == [0, 1, 1, 1, 1, 1, 2, 2]
    assert fresh.history == tuple(entries[:7])
    assert fresh.epoch == 2


def test_racing_openers_take_turns_and_only_the_last_can_write(store: Store) -> None:
    write_run(store)
    barrier = threading.Barrier(4)

    def take_over(pid: int) -> Writer:
        barrier.wait()
        return Journal(store).open_epoch(driver(pid))

    with ThreadPoolExecutor(4) as pool:
        writers = sorted(pool.map(take_over, range(4)), key=lambda writer: writer.epoch)
    assert [writer.epoch for writer in writers] == [2, 3, 4, 5]
    for writer in writers[:-1]:
        with pytest.raises(FencedError):
            writer.append("lives", {})
    assert writers[-1].append("lives", {}).seq == 10


def test_racing_founders_make_one_run(store: Store) -> None:
    barrier = threading.Barrier(4)

    def found(seed: int) -> bool:
        barrier.wait()
        try:
            Journal(store).create({"seed": seed})
        except UsageError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(found, range(4))) == 1
    assert len(Journal(store).read()) == 1


def test_an_append_whose_acknowledgement_was_lost_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path)
    writer = write_run(store)
    put = store.put_if_absent

    def lose_the_answer(key: str, data: bytes) -> bool:
        put(key, data)
        raise StorageError("lost")

    with monkeypatch.context() as patch:
        patch.setattr(store, "put_if_absent", lose_the_answer)
        with pytest.raises(StorageError):
            writer.append("lives", {"number": 9})
    entry = writer.append("lives", {"number": 9})
    assert Journal(store).read()[-1] == entry
    assert entry.seq == 6


def test_events_appended_together_are_entries_of_their_own(store: Store) -> None:
    writer = write_run(store)
    made = writer.append_all("birth", [({"number": number}, ()) for number in range(5)])
    last = writer.append("generation", {})
    assert Journal(store).read()[-6:] == [*made, last]
    assert [entry.body["number"] for entry in made] == list(range(5))


@pytest.mark.parametrize("there", [0, 1, 3])
def test_appending_together_goes_on_where_an_earlier_try_failed(store: Store, there: int) -> None:
    writer = write_run(store)
    events = [({"number": number}, ()) for number in range(3)]
    lost = Writer(store, Journal(store).read())
    lost.append_all("birth", events[:there])
    assert writer.append_all("birth", events) == Journal(store).read()[6:]


@pytest.mark.parametrize("before", [0, 1])
def test_whoever_is_replaced_appends_nothing_behind_the_other(store: Store, before: int) -> None:
    writer = write_run(store)
    events = [({"number": number}, ()) for number in range(3)]
    Writer(store, Journal(store).read()).append_all("birth", events[:before])
    Journal(store).open_epoch(driver(7))
    with pytest.raises(FencedError):
        writer.append_all("birth", events)
    assert [entry.kind for entry in Journal(store).read()[6:]] == ["birth"] * before + ["epoch"]


def write_future_format(path: Path) -> None:
    data = path.read_bytes()
    payload = data[:-77].replace(b'"format":1', b'"format":2')
    path.write_bytes(payload + seal(payload))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "gap": os.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "zero-filled": lambda path: path.write_bytes(b"\0" * path.stat().st_size),
    "extended": lambda path: path.write_bytes(path.read_bytes() + b"\n"),
    "foreign text": lambda path: path.write_text("not an entry at all, but longer than a checksum would be" * 3),
    "foreign JSON": lambda path: path.write_text(json.dumps({"seq": 3, "sha256": "0" * 64})),
    "wrong seq": lambda path: rewrite(path, seq=4),
    "epoch backwards": lambda path: rewrite(path, epoch=0),
    "epoch ahead": lambda path: rewrite(path, epoch=2),
    "foreign writer": lambda path: rewrite(path, writer="somebody"),
    "foreign chain": lambda path: rewrite(path, previous_sha256="1" * 64),
    "second founding": lambda path: rewrite(path, kind="run"),
    "future format": write_future_format,
    "pipe": lambda path: (path.unlink(), os.mkfifo(path)),
}


# A journal without its newest entry is a valid journal: its loss cannot be seen from the inside.
@pytest.mark.parametrize(("name", "seq"), [(n, s) for n in DAMAGES for s in (3, 5) if (n, s) != ("gap", 5)])
def test_damage_is_found_and_named(tmp_path: Path, name: str, seq: int) -> None:
    write_run(open_store(tmp_path))
    DAMAGES[name](tmp_path / key_of(seq))
    with pytest.raises(StateError, match=key_of(seq)) as error:
        Journal(open_store(tmp_path)).read()
    assert "\n" not in str(error.value)


def test_a_missing_entry_is_named(store: Store) -> None:
    write_run(store)
    store.delete(key_of(3))
    with pytest.raises(StateError, match=f"^{key_of(3)}: missing, but {key_of(4)} exists"):
        Journal(store).read()


def test_a_replaced_entry_breaks_the_chain_behind_it(tmp_path: Path) -> None:
    write_run(open_store(tmp_path))
    rewrite(tmp_path / key_of(3), body={"number": 99})
    with pytest.raises(StateError, match=key_of(4)):
        Journal(open_store(tmp_path)).read()


def test_an_entry_of_another_run_does_not_fit(tmp_path: Path) -> None:
    for run in ("one", "two"):
        write_run(open_store(tmp_path / run))
    os.replace(tmp_path / "one" / key_of(5), tmp_path / "two" / key_of(5))
    with pytest.raises(StateError, match=key_of(5)):
        Journal(open_store(tmp_path / "two")).read()


def test_the_founding_entry_must_found(tmp_path: Path) -> None:
    write_run(open_store(tmp_path))
    rewrite(tmp_path / key_of(0), kind="epoch")
    with pytest.raises(StateError, match=key_of(0)):
        Journal(open_store(tmp_path)).read()


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_run(open_store(folder))
    return folder


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(data=st.data())
def test_every_single_bit_flip_is_found_and_named(run_folder: Path, data: st.DataObject) -> None:
    seq = data.draw(st.integers(0, 5))
    path = run_folder / key_of(seq)
    whole = path.read_bytes()
    bit = data.draw(st.integers(0, len(whole) * 8 - 1))
    flipped = bytearray(whole)
    flipped[bit // 8] ^= 1 << bit % 8
    path.write_bytes(flipped)
    try:
        with pytest.raises(StateError, match=key_of(seq)):
            Journal(open_store(run_folder)).read()
    finally:
        path.write_bytes(whole)
    assert len(Journal(open_store(run_folder)).read()) == 6


@given(cut=st.integers(0, 5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=10)
def test_every_prefix_is_a_run(run_folder: Path, tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    prefix = tmp_path_factory.mktemp("prefix")
    entries = Journal(open_store(run_folder)).read()
    for entry in entries[:cut]:
        open_store(prefix).put(key_of(entry.seq), (run_folder / key_of(entry.seq)).read_bytes())
    assert Journal(open_store(prefix)).read() == entries[:cut]


def test_left_over_and_foreign_names_are_ignored(tmp_path: Path) -> None:
    write_run(open_store(tmp_path))
    before = Journal(open_store(tmp_path)).read()
    for name in (".00000000000000000006.json.0f", "notes.txt", "99.json", "zzz"):
        (tmp_path / "journal" / name).write_text("x")
    assert Journal(open_store(tmp_path)).read() == before


def test_an_entry_that_is_a_link_is_damage(tmp_path: Path) -> None:
    write_run(open_store(tmp_path))
    (tmp_path / key_of(5)).rename(tmp_path / "elsewhere")
    (tmp_path / key_of(5)).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateError, match=f"{key_of(5)}: not a regular file"):
        Journal(open_store(tmp_path)).read()
