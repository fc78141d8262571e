"""A bucket in trouble: the store's contract and the ledger's exactly-once on a real S3 server behind a fault proxy."""

import threading
import time
import uuid
from collections.abc import Callable, Container, Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest

from telemetry import delta_log
from telemetry.failures import StorageError
from telemetry.ledger import Ledger
from telemetry.store import Store, open_store
from tests.faults.s3_proxy import (
    UNTIL_THE_END,
    Act,
    Proxy,
    delay,
    drop_answer,
    hang,
    hide,
    lose_answer,
    refuse,
    reset_upload,
    truncate,
    truncate_whole,
)
from tests.telemetry.rows import life, lives

pytestmark = pytest.mark.s3

BEFORE = {
    "409": refuse(409),
    "412": refuse(412),
    "500": refuse(500),
    "503": refuse(503),
    "reset in mid-upload": reset_upload,
    "slow": delay(0.3),
}
AFTER = {"500 after the effect": lose_answer(500), "503 after the effect": lose_answer(503)}
AFTER |= {"no answer after the effect": drop_answer}
TROUBLE = BEFORE | AFTER


def some(acts: dict[str, Act], always: Container[str]) -> pytest.MarkDecorator:
    """Every trouble; those that are not in `always` only with `make faults`."""
    marks = [[] if name in always else [pytest.mark.faults] for name in acts]
    return pytest.mark.parametrize(
        "act", [pytest.param(act, id=name, marks=mark) for (name, act), mark in zip(acts.items(), marks, strict=True)]
    )


@pytest.fixture
def url(s3_server: str) -> str:
    return f"{s3_server}/{uuid.uuid4().hex}"


@pytest.fixture
def store(proxy: Proxy, url: str) -> Store:
    return open_store(url)


@some(TROUBLE, always=TROUBLE)
def test_creation_in_trouble_happens_exactly_once(proxy: Proxy, store: Store, act: Act) -> None:
    fault = proxy.inject(act, "PUT")
    assert store.put_if_absent("key", b"mine, nonce 1")
    assert fault.hits == 1
    assert not store.put_if_absent("key", b"theirs, nonce 2")
    assert store.get("key") == b"mine, nonce 1"


@some(TROUBLE, always=TROUBLE)
def test_creation_in_trouble_leaves_what_is_there(proxy: Proxy, store: Store, act: Act) -> None:
    assert store.put_if_absent("key", b"theirs, nonce 1")
    fault = proxy.inject(act, "PUT")
    assert not store.put_if_absent("key", b"mine, nonce 2")
    assert fault.hits == 1
    assert store.get("key") == b"theirs, nonce 1"


@pytest.mark.parametrize("second", [refuse(503), truncate, drop_answer])
def test_refusal_of_the_second_try_after_a_lost_answer_is_our_own_success(
    proxy: Proxy, store: Store, second: Act
) -> None:
    """The answer is lost, and so is the look at what happened: the next try is told 412 because of ourselves."""
    faults = [proxy.inject(drop_answer, "PUT"), proxy.inject(second, "GET")]
    assert store.put_if_absent("key", b"mine, nonce 1")
    assert [fault.hits for fault in faults] == [1, 1]
    assert [method for method, _ in proxy.requests] == ["PUT", "GET", "PUT", "GET"]


def test_lost_answer_while_another_wins_is_no_success(proxy: Proxy, store: Store, url: str) -> None:
    """The other writer creates the object between our failed try and our look."""
    theirs = open_store(url)

    def lose_to_another(exchange: object) -> None:
        proxy.faults.clear()
        assert theirs.put_if_absent("key", b"theirs, nonce 2")
        refuse(500)(exchange)

    fault = proxy.inject(lose_to_another, "PUT")
    assert not store.put_if_absent("key", b"mine, nonce 1")
    assert fault.hits == 1


def test_sixteen_racing_creators_in_trouble_have_exactly_one_winner(proxy: Proxy, store: Store) -> None:
    for round_ in range(2):
        proxy.faults = []
        acts = [act for act in TROUBLE.values() for _ in range(2)]
        faults = [proxy.inject(act, "PUT", nth=1 + 2 * nth) for nth, act in enumerate(acts)]
        barrier = threading.Barrier(16)

        def create(writer: int, key: str = f"race/{round_}", barrier: threading.Barrier = barrier) -> bool:
            barrier.wait()
            return store.put_if_absent(key, f"writer {writer}".encode())

        with ThreadPoolExecutor(16) as pool:
            won = list(pool.map(create, range(16)))
        assert sum(won) == 1
        assert store.get(f"race/{round_}") == f"writer {won.index(True)}".encode()
        assert sum(fault.hits for fault in faults) >= 8


CALLS: dict[str, tuple[str, Callable[[Store], object], object]] = {
    "get": ("GET", lambda store: store.get("folder/old"), b"data" * 1000),
    "size_and_sha256": ("GET", lambda store: store.size_and_sha256("folder/old")[0], 4000),
    "exists": ("HEAD", lambda store: store.exists("folder/old"), True),
    "list": ("LIST", lambda store: store.list("folder"), ["folder/old"]),
    "put": ("PUT", lambda store: store.put("new", b"new"), None),
    "delete": ("POST", lambda store: store.delete("folder/old"), None),
}
FAILURES = {"500": refuse(500), "503": refuse(503), "no answer": drop_answer, "reset": reset_upload}
HANGS = {"503": refuse(503), "hang": hang, "no answer": drop_answer}
TRUNCATED = ["get", "size_and_sha256", "list", "delete"]


def each(calls: Iterable[str], acts: dict[str, Act]) -> pytest.MarkDecorator:
    """Every call in every trouble, and answers that break off where there is something to break off."""
    cases = [(call, act, f"{call}, {trouble}") for call in calls for trouble, act in acts.items()]
    cases += [(call, truncate, f"{call}, truncated") for call in TRUNCATED]
    return pytest.mark.parametrize(("call", "act"), [case[:2] for case in cases], ids=[case[2] for case in cases])


@each(CALLS, FAILURES)
def test_every_other_call_survives_two_failures(proxy: Proxy, store: Store, call: str, act: Act) -> None:
    store.put("folder/old", b"data" * 1000)
    method, run, expected = CALLS[call]
    fault = proxy.inject(act, method, times=2)
    assert run(store) == expected
    assert fault.hits == 2
    if call == "put":
        assert store.get("new") == b"new"
    assert store.exists("folder/old") == (call != "delete")


@pytest.mark.faults
@each([*CALLS, "put_if_absent"], HANGS)
def test_no_call_waits_for_ever(proxy: Proxy, impatient: float, url: str, call: str, act: Act) -> None:
    method, run, _ = CALLS.get(call, ("PUT|GET", lambda store: store.put_if_absent("new", b"new"), None))
    store = open_store(url)
    store.put("folder/old", b"data" * 1000)
    fault = proxy.inject(act, method, times=UNTIL_THE_END)
    before = time.monotonic()
    with pytest.raises(StorageError) as error:
        run(store)
    assert time.monotonic() - before < impatient
    assert fault.hits >= 1
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("act", [refuse(503), hang])
def test_creation_is_given_up_in_time(proxy: Proxy, impatient: float, url: str, act: Act) -> None:
    store = open_store(url)
    fault = proxy.inject(act, "PUT", times=UNTIL_THE_END)
    before = time.monotonic()
    with pytest.raises(StorageError, match="gave up at try"):
        store.put_if_absent("key", b"mine, nonce 1")
    assert time.monotonic() - before < impatient
    assert fault.hits >= 1
    proxy.faults.clear()
    assert not store.exists("key")


def test_half_a_listing_is_no_listing(proxy: Proxy, impatient: float, url: str) -> None:
    store = open_store(url)
    store.put("folder/one", b"1")
    fault = proxy.inject(truncate_whole, "LIST", times=UNTIL_THE_END)
    with pytest.raises(StorageError):
        store.list("folder")
    assert fault.hits >= 1


def commits(store: Store, table: str) -> list[str]:
    """Application transactions in a table's log, in order."""
    keys = [key for key in store.list(f"ledger/{table}/_delta_log") if key.endswith(".json")]
    actions = [action for key in keys for action in delta_log.parse(store.get(key))]
    return [action["txn"]["appId"] for action in actions if "txn" in action]


@some(TROUBLE, always=["no answer after the effect"])
def test_ledger_commits_once_in_trouble(proxy: Proxy, store: Store, url: str, act: Act) -> None:
    """The creation of the table, its data and its commits: the first request for each is hurt."""
    keys = [rf"_delta_log/0+{version}\.json" for version in range(3)] + [r"\.parquet"]
    faults = [proxy.inject(act, "PUT", f"ledger/{table}/.*{key}") for table in ("steps", "lives") for key in keys]
    ledger, batch = Ledger(store), lives(2)
    first = ledger.append(*batch, "t0")
    second = ledger.append(*life(life=7), "t1")
    assert [fault.hits for fault in faults] == [1] * 8
    assert first.versions == {"steps": 1, "lives": 1}
    assert second.versions == {"steps": 2, "lives": 2}
    assert ledger.append(*batch, "t0") == first
    assert Ledger(open_store(url)).append(*batch, "t0") == first
    for table, rows in (("steps", 9), ("lives", 3)):
        assert commits(store, table) == ["t0", "t1"]
        assert Ledger(store).read(table, 2).num_rows == rows


@pytest.mark.faults
def test_racing_appenders_in_trouble_all_get_in_once(proxy: Proxy, store: Store) -> None:
    acts = [*AFTER.values(), *BEFORE.values()]
    faults = [proxy.inject(act, "PUT", r"_delta_log/\d+.json", nth=2 + 2 * nth) for nth, act in enumerate(acts)]
    barrier = threading.Barrier(4)

    def append(writer: int) -> dict[str, int]:
        ledger, batch = Ledger(store), life(individual=f"g000-{writer:03}")
        barrier.wait()
        return [ledger.append(*batch, f"t{writer}").versions for _ in range(2)][1]

    with ThreadPoolExecutor(4) as pool:
        versions = list(pool.map(append, range(4)))
    assert sum(fault.hits for fault in faults) >= 5
    for table in ("steps", "lives"):
        assert sorted(version[table] for version in versions) == [1, 2, 3, 4]
        assert sorted(commits(store, table)) == ["t0", "t1", "t2", "t3"]
    assert Ledger(store).read("lives", 4).num_rows == 4


@some(HANGS, always=())
@pytest.mark.parametrize("nth", [1, 2, 4, 8, 16])
def test_ledger_without_a_store_is_a_storage_error(
    proxy: Proxy, impatient: float, url: str, nth: int, act: Act
) -> None:
    """Whatever the library calls it: a store out of reach is not a damaged table."""
    Ledger(open_store(url)).append(*life(), "t0")
    ledger, batch = Ledger(open_store(url)), life(life=1)
    fault = proxy.inject(act, ".*", nth=nth, times=UNTIL_THE_END)
    before = time.monotonic()
    with pytest.raises(StorageError) as error:
        ledger.append(*batch, "t1")
    assert time.monotonic() - before < 4 * impatient
    assert fault.hits >= 1
    assert "\n" not in str(error.value)
    proxy.faults.clear()
    receipt = ledger.append(*batch, "t1")
    assert Ledger(open_store(url)).read("lives", receipt.versions["lives"]).num_rows == 2
    assert commits(open_store(url), "lives") == ["t0", "t1"]


@pytest.mark.faults
def test_acknowledged_rows_are_read_by_key(proxy: Proxy, store: Store, url: str) -> None:
    """No listing is asked, so that none can mislead."""
    ledger = Ledger(store)
    receipts = [ledger.append(*life(life=number), f"t{number}") for number in range(3)]
    files = [ref for receipt in receipts for ref in receipt.files]
    attempts = [attempt for receipt in receipts for attempt in receipt.attempts]
    proxy.requests.clear()
    assert Ledger(open_store(url)).recall("lives", 0, files, attempts).num_rows == 3
    assert {method for method, _ in proxy.requests} == {"GET"}


@pytest.mark.faults
@pytest.mark.parametrize("hidden", [r"_delta_log/0+[12]\.json", r"_delta_log/0+2\.json"])
def test_ledger_commits_once_although_listings_are_old(proxy: Proxy, store: Store, url: str, hidden: str) -> None:
    """Old listings show neither the table's last commits nor, after a lost answer, our own."""
    for number in range(2):
        Ledger(store).append(*life(life=number), f"t{number}")
    old = proxy.inject(hide(hidden), "LIST", times=5)
    lost = proxy.inject(drop_answer, "PUT", r"_delta_log/0+3\.json")
    receipt = Ledger(open_store(url)).append(*life(life=2), "t2")
    assert [old.hits, lost.hits] == [5, 1]
    assert proxy.hidden
    for table in ("steps", "lives"):
        assert receipt.versions[table] == 3
        assert commits(store, table) == ["t0", "t1", "t2"]
