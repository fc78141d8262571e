"""The documentation's own code: shown as it stands in the file, as short as promised, and fit for a run."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from telemetry import open_run
from tests.forager import ROOT, SMOKE, smoke
from tests.inprocess import forager_here

WELL = ROOT / "docs" / "examples" / "well.py"
MOST_LINES = 60
QUERIES = ROOT / "docs" / "queries.md"


def test_the_worlds_page_shows_a_whole_world_that_is_fit_and_short() -> None:
    code = WELL.read_text()
    assert len(code.splitlines()) <= MOST_LINES
    assert code.strip() in (ROOT / "docs" / "worlds.md").read_text()
    result = forager_here("check-world", "docs.examples.well:Well")
    assert result.code == 0, result
    assert "fail" not in result.out


def test_the_world_of_the_worlds_page_can_be_evolved_in(tmp_path: Path) -> None:
    settings = [
        "environment.name=docs.examples.well:Well",
        "environment.settings={}",
        "ray.executor=inprocess",
        "name=well",
    ]
    result = forager_here("run", SMOKE, "--store", tmp_path, *(part for one in settings for part in ("--set", one)))
    assert result.code == 0, result
    assert "heuristic" in result.out
    assert forager_here("replay", tmp_path / "well", "--check").code == 0


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return smoke(tmp_path_factory.mktemp("docs"), "ray.executor=inprocess")


def test_the_questions_of_the_queries_page_have_answers(run: Path) -> None:
    words = shlex.split("".join(re.findall(r"```sh\n(.*?)```", QUERIES.read_text(), re.DOTALL)))
    starts = [index for index, word in enumerate(words) if word == "forager"]
    commands = [words[start:end] for start, end in zip(starts, [*starts[1:], len(words)], strict=True)]
    assert len(commands) == 4
    for _, _, _, sql, *options in commands:
        if sql != "-":
            result = forager_here("query", run, sql, *options)
            assert result.code == 0, result
            assert result.out.strip()


def test_the_python_of_the_queries_page_runs(run: Path) -> None:
    [code] = re.findall(r"```python\n(.*?)```", QUERIES.read_text(), re.DOTALL)
    program = code.replace("runs/demo", str(run)) + "\nprint(len(lives), steps.num_rows)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert all(int(count) > 0 for count in done.stdout.split())


def test_every_column_that_the_queries_page_names_is_there(run: Path) -> None:
    rows = re.findall(r"^\| `(\w+)` \| [^|]* \| (.*) \|$", QUERIES.read_text(), re.MULTILINE)
    with open_run(str(run)) as tables:
        assert {name for name, _ in rows} == set(tables.names)
        for name, columns in rows:
            assert set(re.findall(r"`(\w+)`", columns)) <= set(tables.table(name).column_names)
