"""The documentation's own code: shown as it stands in the file, as short as promised, and fit for a run."""

from pathlib import Path

from tests.forager import ROOT, SMOKE
from tests.inprocess import forager_here

WELL = ROOT / "docs" / "examples" / "well.py"
MOST_LINES = 60


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
