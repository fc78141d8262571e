"""Segments: they say what the journal says, or nothing."""

import os
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import pytest

from telemetry import segments
from telemetry.failures import StateError, StorageError
from telemetry.journal import Entry, Journal, key_of
from telemetry.store import Store, open_store
from tests.telemetry.journals import driver, rewrite, write_run


@pytest.fixture
def store(store_url: str) -> Store:
    return open_store(store_url)


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "SIZE", 4)


def write_segments(store: Store) -> list[Entry]:
    """Entries of a journal of two segments and a half, as its objects say."""
    write_run(store, 10)
    entries = Journal(store).read(cached=False)
    assert store.list(segments.FOLDER) == [segments.place_of(number) for number in (0, 1)]
    return entries


def test_segments_say_what_their_entries_say(store: Store) -> None:
    entries = write_segments(store)
    assert Journal(store).read() == entries
    assert [segments.load(store, 0, None), segments.load(store, 1, entries[3])] == [entries[:4], entries[4:8]]


def test_what_a_segment_holds_is_not_read_again(tmp_path: Path) -> None:
    entries = write_segments(open_store(tmp_path))
    (tmp_path / key_of(5)).unlink()
    assert Journal(open_store(tmp_path)).read() == entries
    with pytest.raises(StateError, match=f"^{key_of(5)}: missing"):
        Journal(open_store(tmp_path)).read(cached=False)


SPOILT: dict[str, Callable[[Path], object]] = {
    "absent": os.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "a line less": lambda path: write_segment(path, path.read_bytes()[segments.HEAD :].splitlines()[:-1]),
    "a line more": lambda path: write_segment(path, [*path.read_bytes()[segments.HEAD :].splitlines(), b"{}"]),
    "no lines": lambda path: write_segment(path, []),
    "another order": lambda path: write_segment(path, path.read_bytes()[segments.HEAD :].splitlines()[::-1]),
    "pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "link": lambda path: (path.rename(path.parent / "x"), path.symlink_to(path.parent / "x")),
}


def write_segment(path: Path, lines: list[bytes]) -> None:
    """Lines under a digest that is right."""
    data = b"".join(line + b"\n" for line in lines)
    path.write_bytes(blake2b(data, digest_size=32).hexdigest().encode() + b"\n" + data)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_segment_is_passed_over(tmp_path: Path, name: str, number: int) -> None:
    entries = write_segments(open_store(tmp_path))
    SPOILT[name](tmp_path / segments.place_of(number))
    assert segments.load(open_store(tmp_path), number, entries[number * 4 - 1] if number else None) is None
    assert Journal(open_store(tmp_path)).read() == entries


def test_a_flipped_bit_spoils_a_segment(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    entries = write_segments(store)
    path = tmp_path / segments.place_of(1)
    whole = path.read_bytes()
    for byte in range(0, len(whole), 7):
        path.write_bytes(whole[:byte] + bytes([whole[byte] ^ 1 << byte % 8]) + whole[byte + 1 :])
        assert segments.load(store, 1, entries[3]) is None
    path.write_bytes(whole)
    assert segments.load(store, 1, entries[3]) == entries[4:8]


def test_whoever_takes_over_makes_the_segments_that_are_not_sound(tmp_path: Path) -> None:
    write_segments(open_store(tmp_path))
    path = tmp_path / segments.place_of(0)
    whole = path.read_bytes()
    path.write_bytes(b"spoilt")
    Journal(open_store(tmp_path)).open_epoch(driver(2))
    assert path.read_bytes() == whole


def test_segments_of_another_run_are_passed_over(tmp_path: Path) -> None:
    entries = write_segments(open_store(tmp_path / "one"))
    write_segments(open_store(tmp_path / "two"))
    for number in (0, 1):
        os.replace(tmp_path / "two" / segments.place_of(number), tmp_path / "one" / segments.place_of(number))
    assert Journal(open_store(tmp_path / "one")).read() == entries


def test_segments_are_no_longer_than_their_journal(tmp_path: Path) -> None:
    entries = write_segments(open_store(tmp_path))
    for entry in entries[6:]:
        (tmp_path / key_of(entry.seq)).unlink()
    assert Journal(open_store(tmp_path)).read() == entries[:6]


def test_damage_that_a_segment_ends_in_is_found_and_named(tmp_path: Path) -> None:
    write_segments(open_store(tmp_path))
    rewrite(tmp_path / key_of(7), body={"number": 99})
    with pytest.raises(StateError, match=f"^{key_of(8)}: does not follow {key_of(7)}"):
        Journal(open_store(tmp_path)).read()


def test_an_append_needs_no_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(tmp_path)
    refused = []

    def refuse(key: str, data: bytes) -> None:
        refused.append(key)
        raise StorageError("full")

    monkeypatch.setattr(store, "put", refuse)
    write_run(store, 10)
    assert refused == [segments.place_of(number) for number in (0, 1)]
    assert [entry.seq for entry in Journal(open_store(tmp_path)).read()] == list(range(10))
