"""Runs that were written by each format there was: still read and resumed, or refused in one line that names both.

`tests/golden/format-N.tar.gz` is what `forager run tests/faults/tiny.yaml --store .` left behind when N was the format;
`format-N-rewound.tar.gz` is what `forager resume tiny --at-generation 0` made of another; `.digest` is what `forager
digest` said of each. None is ever made again for an old N, and every released version leaves one behind.
"""

import json
import tarfile
from pathlib import Path

import pytest

from orchestrator.events import BODIES, FORMAT
from telemetry import __version__
from tests.inprocess import forager_here

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = sorted(path.name.removesuffix(".tar.gz") for path in GOLDEN.glob("*.tar.gz"))


def format_of(name: str) -> int:
    return int(name.split("-")[1])


def unpacked(name: str, place: Path) -> Path:
    with tarfile.open(GOLDEN / f"{name}.tar.gz") as archive:
        archive.extractall(place, filter="data")
    return place / "tiny"


def entries(run: Path) -> list[Path]:
    return sorted((run / "journal").glob("*.json"))


def test_this_version_and_every_kind_of_entry_have_one_of_the_current_format(tmp_path: Path) -> None:
    assert max(map(format_of, NAMES)) == FORMAT
    kinds, versions = set(), set()
    for name in NAMES:
        if format_of(name) == FORMAT:
            documents = [json.loads(path.read_bytes()) for path in entries(unpacked(name, tmp_path / name))]
            kinds |= {document["kind"] for document in documents}
            versions.add(documents[0]["body"]["version"])
    assert kinds == {*BODIES, "lives"}
    assert __version__ in versions


@pytest.mark.parametrize("name", NAMES)
def test_a_finished_run_reads_as_it_did(name: str, tmp_path: Path) -> None:
    run, number = unpacked(name, tmp_path), format_of(name)
    if number < FORMAT:
        refused = forager_here("status", run)
        assert refused.code == 3
        assert f"format {number} (written by" in refused.err
        assert refused.err.count("\n") == 1
        return
    assert forager_here("verify", run).out.splitlines()[-1].startswith("ok")
    assert forager_here("audit", run).out.startswith("ok")
    assert forager_here("digest", run).out == (GOLDEN / f"{name}.digest").read_text()


def test_what_was_left_behind_reads_as_it_did(tmp_path: Path) -> None:
    run = unpacked(f"format-{FORMAT}-rewound", tmp_path)
    assert "yes" in forager_here("status", f"{run}@branch-1").out.splitlines()[2]
    assert forager_here("digest", f"{run}@branch-1").out == (GOLDEN / f"format-{FORMAT}-rewound.digest").read_text()


@pytest.mark.parametrize("kind", ["lives", "birth", "generation", "evaluation"])
def test_a_run_that_stopped_there_is_resumed_to_the_same_end(kind: str, tmp_path: Path) -> None:
    run = unpacked(f"format-{FORMAT}", tmp_path)
    written = entries(run)
    last = next(number for number, path in enumerate(written) if json.loads(path.read_bytes())["kind"] == kind)
    for path in written[last + 1 :]:
        path.unlink()
    resumed = forager_here("resume", run)
    assert resumed.code == 0, resumed.err
    assert len(entries(run)) > last + 1
    assert forager_here("verify", run).out.splitlines()[-1].startswith("ok")
    assert forager_here("digest", run).out == (GOLDEN / f"format-{FORMAT}.digest").read_text()
