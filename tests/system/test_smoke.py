"""A whole run through the command line with the scripted engine: what a user sees, and what stays behind."""

import json
import shutil
from pathlib import Path

import pytest

from tests.forager import IN_PROCESS, SMOKE, forager, ok, smoke
from tests.inprocess import output


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return smoke(tmp_path_factory.mktemp("store"), "ray.executor=inprocess")


def tree(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and "logs" not in path.parts
    }


def test_run_leaves_a_verified_audited_run(finished: Path) -> None:
    assert output("verify", finished).startswith("ok")
    assert output("audit", finished).startswith("ok")
    assert len(output("digest", finished).strip()) == 64


def test_status_json_is_stable(finished: Path) -> None:
    status = json.loads(output("status", finished, "--json"))
    assert status["finished"] is True
    assert status["generation"] == status["generations"] == 3
    assert status["population"] == 4
    assert status["lineages_alive"]


def test_report_is_one_file_without_network(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    assert "<svg" in page
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert "https://" not in page


def test_lineage_and_replay_show_the_champion(finished: Path) -> None:
    rows = json.loads(output("lineage", finished, "--json"))
    assert {row["generation"] for row in rows} == {0, 1, 2}
    champion = json.loads(output("status", finished, "--json"))["champion"]
    assert champion in {row["id"] for row in rows if row["generation"] == 2}
    frames = json.loads(output("replay", finished, "champion/0", "--json"))
    assert [frame["step"] for frame in frames] == list(range(len(frames)))
    assert "Energy" in output("replay", finished, "champion/0")


def test_resume_of_a_finished_run_changes_nothing(finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "smoke"
    shutil.copytree(finished, copy)
    before = tree(copy)
    ok("resume", copy)
    assert tree(copy) == before


def test_second_run_of_the_same_name_is_refused(finished: Path) -> None:
    before = tree(finished)
    result = forager("run", SMOKE, "--store", finished.parent, *IN_PROCESS)
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert "forager resume" in result.err
    assert tree(finished) == before


def test_moved_run_is_the_same_run(finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(finished, copy)
    assert output("digest", copy) == output("digest", finished)
    assert output("verify", copy).startswith("ok")


def test_evaluate_repeats_the_journaled_rows(finished: Path) -> None:
    entries = (json.loads(path.read_text()) for path in sorted((finished / "journal").glob("*.json")))
    [event] = [entry["body"] for entry in entries if entry["kind"] == "evaluation"]
    for row in event["rows"]:
        again = json.loads(output("evaluate", finished, "--who", row["who"], "--lives", f"{row['lives']}", "--json"))
        assert again["mean"] == row["mean"], row["who"]
    means = {row["who"]: row["mean"] for row in event["rows"]}
    assert len({means["champion"], means["champion-likeliest"], means["champion-exploring"]}) == 3
    assert json.loads(output("status", finished, "--json"))["gap"] is not None


def test_another_seed_is_another_run(finished: Path, tmp_path: Path) -> None:
    other = smoke(tmp_path, "ray.executor=inprocess", "seed=2")
    assert output("digest", other) != output("digest", finished)


@pytest.mark.cluster
@pytest.mark.parametrize("agents", [*(pytest.param(few, marks=pytest.mark.faults) for few in (1, 2)), 4])
def test_digest_does_not_depend_on_actors(finished: Path, tmp_path: Path, agents: int) -> None:
    """The same run on Ray with 1, 2 and 4 agent actors, jobs of one process or two, and in process: one digest."""
    several = max(1, agents // 2)
    run = smoke(tmp_path, f"workers.agents={agents}", f"engine.count={several}", f"trainer.workers={several}")
    assert output("digest", run) == output("digest", finished)
    assert output("verify", run).startswith("ok")
    assert (run / "logs" / "trainer-0-1.log").exists() == (several > 1)
