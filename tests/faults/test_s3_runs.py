"""Whole scripted runs in a bucket in trouble: the digest of the run without faults, or exit 5 and a resume to it."""

import io
import random
import subprocess
import sys
import time
import uuid
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from orchestrator import cli, places
from telemetry import object_store
from telemetry.store import open_store
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
)
from tests.faults.test_s3 import TROUBLE, commits, some
from tests.forager import ROOT, command, environment

pytestmark = [pytest.mark.s3, pytest.mark.timeout(300)]

RUN = Path(__file__).with_name("tiny.yaml")

JOURNAL = r"/journal/\d+\.json"
LEDGER = r"/_delta_log/\d+\.json"
DATA = r"\.parquet|/adapters/"


def here(*arguments: str | Path) -> int:
    """Exit code of a `forager` command in this process, where time-outs and pauses are the test's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["forager", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 0
    return 0


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Digest of the run on a local disk."""
    folder = tmp_path_factory.mktemp("calm")
    assert here("run", RUN, "--store", folder) == 0
    with redirect_stdout(io.StringIO()) as out:
        assert here("digest", folder / "tiny") == 0
    return out.getvalue()


@pytest.fixture
def bucket(proxy: Proxy, s3_server: str) -> str:
    return f"{s3_server}/{uuid.uuid4().hex}"


def check(run: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The run is whole, true to the ledger, equal to the one without faults, and nothing was committed twice."""
    assert here("verify", run) == 0
    assert here("audit", run) == 0
    capsys.readouterr()
    assert here("digest", run) == 0
    assert capsys.readouterr().out == expected
    for table in ("steps", "lives"):
        transactions = commits(open_store(run), table)
        assert len(transactions) == len(set(transactions)) >= 2


def test_run_in_every_trouble_at_once(
    proxy: Proxy, bucket: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    acts = list(TROUBLE.values())
    faults = [proxy.inject(act, "PUT", JOURNAL, nth=1 + 2 * nth) for nth, act in enumerate(acts)]
    faults += [
        proxy.inject(act, "PUT", LEDGER, nth=1 + 2 * nth) for nth, act in enumerate([drop_answer, lose_answer(500)])
    ]
    faults += [proxy.inject(act, "PUT", DATA, nth=1 + 2 * nth) for nth, act in enumerate([refuse(409), drop_answer])]
    faults += [proxy.inject(truncate, "GET", times=5, nth=5), proxy.inject(refuse(503), "LIST", times=3)]
    assert here("run", RUN, "--store", bucket) == 0, capsys.readouterr().err
    assert all(fault.hits == fault.times for fault in faults), faults
    proxy.faults.clear()
    check(f"{bucket}/tiny", expected, capsys)


@some(TROUBLE, always=())
def test_run_in_one_trouble_again_and_again(
    proxy: Proxy, bucket: str, expected: str, capsys: pytest.CaptureFixture[str], act: Act
) -> None:
    """Every third creation of each kind is hurt."""
    faults = [proxy.inject(act, "PUT", key, nth=nth) for key in (JOURNAL, LEDGER, DATA) for nth in range(1, 31, 3)]
    assert here("run", RUN, "--store", bucket) == 0, capsys.readouterr().err
    for first in (0, 10, 20):
        assert sum(fault.hits for fault in faults[first : first + 10]) >= 2
    proxy.faults.clear()
    check(f"{bucket}/tiny", expected, capsys)


def outages(count: int) -> list[object]:
    """When the store goes away, as a part of all requests of a run, and how."""
    acts = [refuse(503), drop_answer, hang, reset_upload]
    draw = random.Random(0)
    return [(draw.random(), acts[number % len(acts)]) for number in range(count)]


@pytest.fixture(scope="module")
def requests() -> list[int]:
    """How many requests a run takes; measured by the first test that needs it."""
    return []


@pytest.mark.faults
@pytest.mark.parametrize(("when", "act"), outages(6))
def test_store_gone_for_longer_than_the_budget(
    proxy: Proxy,
    bucket: str,
    expected: str,
    requests: list[int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    when: float,
    act: Act,
) -> None:
    if not requests:
        assert here("run", RUN, "--store", f"{bucket}-calm") == 0
        requests.append(len(proxy.requests))
    run = f"{bucket}/tiny"
    with monkeypatch.context() as patch:
        patch.setattr(object_store, "REQUEST_SECONDS", 1.0)
        patch.setattr(object_store, "RETRY_SECONDS", 0.5)
        fault = proxy.inject(act, ".*", nth=1 + int(when * requests[0]), times=UNTIL_THE_END)
        before = time.monotonic()
        capsys.readouterr()
        assert here("run", RUN, "--store", bucket) == 5
        error = capsys.readouterr().err
        assert error.startswith("error: s3://")
        assert error.count("\n") == 1
        assert time.monotonic() - before < 30
        assert fault.hits >= 1
    proxy.faults.clear()
    if open_store(run).exists(places.GENESIS):
        assert here("resume", run, "--take-over") == 0
    else:
        assert here("run", RUN, "--store", bucket) == 0
    check(run, expected, capsys)


def half_done(proxy: Proxy, bucket: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run whose driver lost its store in the middle."""
    with monkeypatch.context() as patch:
        patch.setattr(object_store, "RETRY_SECONDS", 0.2)
        gone = proxy.inject(refuse(503), "PUT", JOURNAL, nth=8, times=UNTIL_THE_END)
        assert here("run", RUN, "--store", bucket) == 5
        assert gone.hits >= 1
    proxy.faults.clear()
    return f"{bucket}/tiny"


@pytest.mark.faults
@pytest.mark.parametrize("hidden", [r"_delta_log/0+[2-9]"])
def test_resume_with_old_listings(
    proxy: Proxy,
    bucket: str,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    hidden: str,
) -> None:
    """What a listing does not show is found by its key; an append waits until the end of its log is listed."""
    run = half_done(proxy, bucket, monkeypatch)
    proxy.inject(hide(hidden), "LIST", times=5)
    assert here("resume", run, "--take-over") == 0, capsys.readouterr().err
    assert proxy.hidden
    proxy.faults.clear()
    check(run, expected, capsys)


def start(*arguments: str | Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command(*arguments),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.faults
def test_of_two_drivers_that_take_over_together_one_wins(
    proxy: Proxy,
    bucket: str,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = half_done(proxy, bucket, monkeypatch)
    # Slow commits, so that both are at work at the same time.
    slow = proxy.inject(delay(0.5), "PUT", JOURNAL, times=UNTIL_THE_END)
    drivers = [start("resume", run, "--take-over") for _ in range(2)]
    try:
        ends = [(driver.communicate(timeout=120)[1], driver.returncode) for driver in drivers]
    finally:
        for driver in drivers:
            driver.kill()
    assert sorted(code for _, code in ends) == [0, 4], ends
    for error, code in ends:
        assert code == 0 or (error.startswith("error: s3://") and "another driver" in error), error
    assert slow.hits >= 2
    proxy.faults.clear()
    check(run, expected, capsys)
