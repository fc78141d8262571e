"""One contract, every store: a local directory and a bucket on a real S3 server."""

import hashlib
import os
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry import local_store
from telemetry.failures import StateError, StorageError, UsageError
from telemetry.store import Store, join_store, open_store
from telemetry.store_base import check_key


@pytest.fixture
def store(store_url: str) -> Store:
    return open_store(store_url)


def test_first_creator_wins(store: Store) -> None:
    assert store.put_if_absent("a/b", b"one")
    assert not store.put_if_absent("a/b", b"two")
    assert not store.put_if_absent("a/b", b"one")
    assert store.get("a/b") == b"one"


def test_many_are_created_in_their_order_up_to_the_first_that_is_there(store: Store) -> None:
    assert store.put_all_if_absent([]) == 0
    assert store.put_all_if_absent([("a/1", b"one"), ("a/2", b"two")]) == 2
    assert store.put_if_absent("a/4", b"theirs")
    assert store.put_all_if_absent([("a/3", b"three"), ("a/4", b"four"), ("a/5", b"five")]) == 1
    assert [store.get(key) for key in store.list("a")] == [b"one", b"two", b"three", b"theirs"]


def test_sixteen_racing_creators_have_exactly_one_winner(store: Store) -> None:
    for round_ in range(2):
        barrier = threading.Barrier(16)

        def create(writer: int, key: str = f"race/{round_}", barrier: threading.Barrier = barrier) -> bool:
            barrier.wait()
            return store.put_if_absent(key, f"writer {writer}".encode())

        with ThreadPoolExecutor(16) as pool:
            won = list(pool.map(create, range(16)))
        assert sum(won) == 1
        assert store.get(f"race/{round_}") == f"writer {won.index(True)}".encode()


def test_put_replaces_and_delete_is_idempotent(store: Store) -> None:
    store.put("cache", b"old")
    store.put("cache", b"new")
    assert store.get("cache") == b"new"
    store.delete("cache")
    store.delete("cache")
    assert not store.exists("cache")
    with pytest.raises(KeyError):
        store.get("cache")
    with pytest.raises(KeyError):
        store.size_and_sha256("cache")


def test_listing_shows_every_write_at_once_and_only_below_the_prefix(store: Store) -> None:
    keys = [f"journal/{seq:020d}.json" for seq in range(30)]
    for key in keys:
        store.put_if_absent(key, b"{}")
        assert key in store.list("journal")
    store.put("journal-notes", b"")
    assert store.list("journal") == keys
    assert [store.list_after(key) for key in (keys[0], keys[27], keys[29])] == [keys[1:], keys[28:], []]
    assert store.list_after("nothing/here") == []
    assert store.list("") == sorted([*keys, "journal-notes"])
    assert store.list("nothing") == []


def test_size_and_sha256_of_a_large_object(store: Store) -> None:
    data = os.urandom(12 << 20)
    store.put("large", data)
    assert store.put_if_absent("large-too", data)
    expected = (len(data), hashlib.sha256(data).hexdigest())
    assert store.size_and_sha256("large") == store.size_and_sha256("large-too") == expected


def test_readers_see_one_write_or_another_and_never_a_mix(store: Store) -> None:
    bodies = [bytes([letter]) * 300_000 for letter in b"abcd"]
    store.put("cache", bodies[0])

    def write() -> None:
        for body in bodies * 5:
            store.put("cache", body)

    with ThreadPoolExecutor(1) as pool:
        writer, seen = pool.submit(write), set()
        while not writer.done():
            seen.add(store.get("cache"))
        writer.result()
    assert seen
    assert seen <= set(bodies)
    assert store.get("cache") == bodies[-1]


def test_empty_objects_are_objects(store: Store) -> None:
    assert store.put_if_absent("empty", b"")
    assert store.exists("empty")
    assert store.get("empty") == b""


BAD_KEYS = ["", "/", "/etc/passwd", "../x", "a/../b", "a//b", "a/", ".", "a/./b", ".hidden", "a\n", "a b", "-rf", "ａ"]
BAD_KEYS += ["a\\b", "a\x00", "a" * 300, "/".join(["a" * 100] * 11)]


@pytest.mark.parametrize("key", BAD_KEYS)
def test_bad_keys_are_refused_by_every_method(store: Store, key: str) -> None:
    calls = [store.get, store.exists, store.delete, store.size_and_sha256, store.delta]
    for call in (*calls, lambda key: store.put(key, b""), lambda key: store.put_if_absent(key, b"")):
        with pytest.raises(StateError):
            call(key)


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=40))
def test_no_accepted_key_leaves_the_root(key: str) -> None:
    try:
        check_key(key)
    except StateError:
        return
    assert os.path.normpath(f"/root/{key}") == f"/root/{key}"
    assert key.isascii()


def test_probe_accepts_and_leaves_nothing(store: Store) -> None:
    store.probe()
    assert store.list("") == []


def test_probe_refuses_a_store_where_two_creators_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(tmp_path)
    monkeypatch.setattr(store, "put_if_absent", lambda key, data: store.put(key, data) or True)
    with pytest.raises(StorageError, match="two writers"):
        store.probe()


def test_fsync_of_what_a_library_wrote(store: Store, store_url: str) -> None:
    if store.local_path("x") is not None:
        (Path(store_url) / "table" / "log").mkdir(parents=True)
        (Path(store_url) / "table" / "log" / "0.json").write_text("{}")
    store.fsync(["table/log/0.json"])
    if store.local_path("x") is not None:
        with pytest.raises(StorageError, match=r"1\.json"):
            store.fsync(["table/log/1.json"])


@pytest.mark.parametrize("url", ["ftp://x/y", "s3://", "s3://key:secret@bucket/x", "s3://bucket?x=1", "a%20b", "a\nb"])
def test_urls_that_are_no_store(url: str) -> None:
    with pytest.raises(UsageError) as error:
        open_store(url)
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)


def test_without_create_a_missing_directory_is_refused_and_stays_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        open_store(tmp_path / "typo", create=False)
    assert not (tmp_path / "typo").exists()


def test_local_files_are_private(tmp_path: Path) -> None:
    store = open_store(tmp_path / "run")
    store.put("a/b/c", b"x")
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "run").rglob("*")]
    assert modes == [0o700, 0o700, 0o600]
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/etc/hostname", path)])
def test_local_pipes_folders_and_links_are_not_objects(tmp_path: Path, make: Callable[[Path], None]) -> None:
    store = open_store(tmp_path)
    make(tmp_path / "key")
    with pytest.raises(StateError, match="key"):
        store.get("key")


def test_local_symlinked_folder_does_not_lead_out(tmp_path: Path) -> None:
    store = open_store(tmp_path / "run")
    (tmp_path / "outside").mkdir()
    (tmp_path / "run" / "folder").symlink_to(tmp_path / "outside")
    with pytest.raises(StateError, match="symbolic link"):
        store.put("folder/key", b"x")
    assert list((tmp_path / "outside").iterdir()) == []


def test_local_root_removed_under_the_user_is_not_made_anew(tmp_path: Path) -> None:
    store = open_store(tmp_path / "run")
    (tmp_path / "run").rmdir()
    for use in (lambda: store.put_if_absent("a/b", b"x"), lambda: store.list("a"), lambda: store.get("a/b")):
        with pytest.raises(StorageError, match="No such file"):
            use()
    with pytest.raises(StorageError, match="it is gone, or"):
        join_store(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_local_write_beyond_the_file_size_limit_leaves_nothing(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    store = open_store(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"key: File too large; \d+ bytes free") as error:
            store.put_if_absent("key", b"x" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []
    assert store.put_if_absent("key", b"x" * 2000)


def test_local_failed_fsync_is_not_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(tmp_path)
    calls = []

    def fail(descriptor: int) -> None:
        calls.append(descriptor)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(local_store.os, "fsync", fail)  # type: ignore[attr-defined]
    with pytest.raises(StorageError, match="Input/output error"):
        store.put_if_absent("key", b"x")
    assert len(calls) == 1
    assert list(tmp_path.iterdir()) == []


def test_local_many_objects_are_durable_with_one_look_at_their_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path)
    store.put_if_absent("folder/0", b"")
    synced = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    monkeypatch.setattr(local_store.os, "fsync", note)  # type: ignore[attr-defined]
    assert store.put_all_if_absent([(f"folder/{number}", b"x") for number in (1, 2, 3)]) == 3
    assert [name.split(".")[1] if name.startswith(".") else name for name in synced] == ["1", "2", "3", "folder"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.s3
def test_wrong_secret_is_a_storage_error_without_the_secret(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "FORAGERCANARY")
    for call in (lambda s: s.get("x"), lambda s: s.put("x", b""), lambda s: s.put_if_absent("x", b"")):
        with pytest.raises(StorageError) as error:
            call(open_store(f"{s3_server}/x"))
        assert "FORAGERCANARY" not in str(error.value)


@pytest.mark.s3
def test_missing_bucket_is_not_an_empty_store(s3_server: str) -> None:
    with pytest.raises(StorageError, match="bucket does not exist"):
        open_store("s3://no-such-bucket/run").get("journal/0")
