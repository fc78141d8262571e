"""What the library says of a log in trouble becomes one line that names the object and the cause."""

import shutil
from pathlib import Path

import pytest

from telemetry import object_store
from telemetry.delta_log import WORDS, in_words
from telemetry.failures import StateError, StorageError
from telemetry.ledger import Ledger
from telemetry.store import open_store
from tests.telemetry.rows import life


@pytest.mark.parametrize("lost", [[4], [3, 4], range(5)])
def test_a_log_that_loses_entries_under_its_appender_is_a_failing_store(tmp_path: Path, lost: list[int]) -> None:
    ledger = Ledger(open_store(tmp_path))
    for number in range(4):
        ledger.append(*life(life=number), f"t{number}")
    for version in lost:
        (tmp_path / "ledger" / "steps" / "_delta_log" / f"{version:020d}.json").unlink()
    with pytest.raises(StorageError, match=r"ledger/steps/_delta_log/0{19}4\.json: gone, it was there before"):
        ledger.append(*life(life=9), "t9")


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(b"\0" * 99)])
def test_a_damaged_log_names_the_first_bad_entry(tmp_path: Path, spoil) -> None:
    for number in range(3):
        Ledger(open_store(tmp_path)).append(*life(life=number), f"t{number}")
    spoil(tmp_path / "ledger" / "steps" / "_delta_log" / f"{2:020d}.json")
    with pytest.raises(StateError, match=r"ledger/steps/_delta_log/0{19}2\.json: missing or damaged; restore"):
        Ledger(open_store(tmp_path)).append(*life(life=9), "t9")


def test_a_store_that_is_gone_is_no_damaged_log(tmp_path: Path) -> None:
    ledger = Ledger(open_store(tmp_path / "run"))
    ledger.append(*life(), "t0")
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(StorageError, match=f"{tmp_path / 'run'}.*No such file"):
        ledger.read("steps", 1)


def test_a_bucket_out_of_reach_is_named_with_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "RETRY_SECONDS", 0.2)
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StorageError) as failed:
        Ledger(open_store("s3://bucket/run")).read("steps", 0)
    line = str(failed.value)
    assert line.startswith("s3://bucket/run/ledger/steps: ")
    assert "_delta_log" in line
    assert line.endswith("Connection refused (os error 111)")
    assert "max_retries" not in line


def test_a_long_chain_keeps_both_ends_and_loses_its_stack() -> None:
    chain = "Generic S3 error\n  \x1b[31m↳\x1b[0m GET key\n" + "  ↳ padding\n" * 99 + "  ↳ the cause\n  0: <unknown>\n"
    line = in_words(OSError(chain))
    assert line.startswith("Generic S3 error: GET key: padding")
    assert line.endswith("padding: the cause")
    assert line.isascii()
    assert len(line) <= WORDS
