"""One live driver per run, on a disk and in a bucket."""

from pathlib import Path

import pytest

from telemetry.failures import FencedError
from telemetry.lock import beating, check_dead, exclusive
from telemetry.store import open_store

PERIOD = 0.2


def test_lock_holds_until_it_is_released(tmp_path: Path) -> None:
    store = open_store(tmp_path / "run")
    with exclusive(store), pytest.raises(FencedError, match=r"alive here .*pid"), exclusive(store):
        pass
    with exclusive(store):
        pass


def test_take_over_leaves_the_old_lock_and_holds_a_new_one(tmp_path: Path) -> None:
    store = open_store(tmp_path / "run")
    first = exclusive(store)
    first.__enter__()
    with exclusive(store, take_over=True):
        with pytest.raises(FencedError), exclusive(store):
            pass
        first.__exit__(None, None, None)
        # The first holder's end must not set free what is not its own.
        with pytest.raises(FencedError), exclusive(store):
            pass
    with exclusive(store):
        pass


@pytest.mark.s3
def test_bucket_has_a_heartbeat(s3_server: str, tmp_path: Path) -> None:
    store = open_store(f"{s3_server}/{tmp_path.name}")
    check_dead(store, 1, period=PERIOD)
    with beating(store, 1, period=PERIOD):
        while not store.list("heartbeat"):
            pass
        with pytest.raises(FencedError, match=r"epoch 1.*--take-over"):
            check_dead(store, 1, period=PERIOD)
    assert store.list("heartbeat") == []


@pytest.mark.s3
def test_heartbeat_that_stands_still_is_dead(s3_server: str, tmp_path: Path) -> None:
    store = open_store(f"{s3_server}/{tmp_path.name}-dead")
    store.put("heartbeat/000001.json", b'{"host": "elsewhere", "pid": 1, "beat": 7}')
    check_dead(store, 1, period=PERIOD)
    with beating(store, 2, period=PERIOD):
        while "heartbeat/000002.json" not in store.list("heartbeat"):
            pass
        assert store.list("heartbeat") == ["heartbeat/000002.json"]
