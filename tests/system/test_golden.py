"""Runs that were written by each format there was: still read and resumed, or refused in one line that names both.

`tests/golden/format-N.tar.gz` is what `forager run tests/faults/tiny.yaml --store .` left behind when N was the format;
`format-N.digest` is what `forager digest` said of it. Neither is ever made again for an old N.
"""

import json
import tarfile
from pathlib import Path

import pytest

from orchestrator.events import FORMAT
from tests.inprocess import forager_here

GOLDEN = Path(__file__).parents[1] / "golden"
FORMATS = sorted(int(path.name.split("-")[1].split(".")[0]) for path in GOLDEN.glob("format-*.tar.gz"))


def unpacked(number: int, place: Path) -> Path:
    with tarfile.open(GOLDEN / f"format-{number}.tar.gz") as archive:
        archive.extractall(place, filter="data")
    return place / "tiny"


def entries(run: Path) -> list[Path]:
    return sorted((run / "journal").glob("*.json"))


def test_there_is_one_of_the_current_format() -> None:
    assert FORMATS[-1:] == [FORMAT]


@pytest.mark.parametrize("number", FORMATS)
def test_a_finished_run_reads_as_it_did(number: int, tmp_path: Path) -> None:
    run = unpacked(number, tmp_path)
    if number < FORMAT:
        refused = forager_here("status", run)
        assert refused.code == 3
        assert f"format {number} (written by" in refused.err
        assert refused.err.count("\n") == 1
        return
    assert forager_here("verify", run).out.splitlines()[-1].startswith("ok")
    assert forager_here("audit", run).out.startswith("ok")
    assert forager_here("digest", run).out == (GOLDEN / f"format-{number}.digest").read_text()


@pytest.mark.parametrize("kind", ["lives", "birth", "generation", "evaluation"])
def test_a_run_that_stopped_there_is_resumed_to_the_same_end(kind: str, tmp_path: Path) -> None:
    run = unpacked(FORMAT, tmp_path)
    written = entries(run)
    last = next(number for number, path in enumerate(written) if json.loads(path.read_bytes())["kind"] == kind)
    for path in written[last + 1 :]:
        path.unlink()
    resumed = forager_here("resume", run)
    assert resumed.code == 0, resumed.err
    assert len(entries(run)) > last + 1
    assert forager_here("verify", run).out.splitlines()[-1].startswith("ok")
    assert forager_here("digest", run).out == (GOLDEN / f"format-{FORMAT}.digest").read_text()
