"""Worlds without a run: the list, a life in the terminal, the conformance suite, and lives lived again."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from telemetry.ledger import Ledger
from tests.corpus import unfit, worlds
from tests.forager import ROOT, SMOKE, command, environment
from tests.inprocess import forager_here, refused
from workers.registry import known


def checked(name: str, *arguments: str) -> list[dict[str, str]]:
    """Verdicts of `forager check-world`."""
    result = forager_here("check-world", name, "--json", *arguments)
    verdicts: list[dict[str, str]] = json.loads(result.out)
    assert result.code == (2 if any(one["level"] == "fail" for one in verdicts) else 0), result
    return verdicts


def failed(name: str, *arguments: str) -> dict[str, str]:
    [verdict] = [one for one in checked(name, *arguments) if one["level"] == "fail"]
    return verdict


@pytest.mark.parametrize("name", sorted(unfit.VERDICTS))
def test_an_unfit_world_gets_its_verdict(name: str) -> None:
    check, words = unfit.VERDICTS[name]
    verdict = failed(f"tests.corpus.unfit:{name}", "--timeout", "8" if name.startswith("Hangs") else "30")
    assert verdict["check"] == check
    assert words in verdict["found"]


@pytest.mark.parametrize(("name", "words"), [("NaN", "finite"), ("Novel", "characters"), ("Nowhere", "legal")])
def test_a_world_that_breaks_its_contract_gets_its_verdict(name: str, words: str) -> None:
    assert name in worlds.AT_STEP
    verdict = failed(f"tests.corpus.worlds:{name}")
    assert verdict["check"] == "contract"
    assert words in verdict["found"]


@pytest.mark.parametrize("name", ["tests.corpus.nothing_here:World", "nowhere", "json:dumps"])
def test_what_is_no_world_gets_its_verdict(name: str) -> None:
    assert failed(name)["check"] == "loading"


def test_a_world_that_shouts_or_dawdles_passes() -> None:
    assert {one["level"] for one in checked("tests.corpus.unfit:Shouts")} == {"ok", "note"}
    [speed] = [one for one in checked("tests.corpus.unfit:Sleepy") if one["check"] == "speed"]
    assert speed["level"] == "note"


def test_the_suite_leaves_no_process(tmp_path: Path) -> None:
    with subprocess.Popen(
        command("check-world", "tests.corpus.unfit:Hangs", "--timeout", "3"),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        assert process.wait(60) == 2
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)


def test_registered_worlds_are_listed_and_described() -> None:
    rows = json.loads(forager_here("worlds", "--json").out)
    assert [row["name"] for row in rows] == list(known())
    assert not [row for row in rows if "broken" in row]
    text = forager_here("worlds").out
    for row in rows:
        assert row["about"] in text
        about = json.loads(forager_here("worlds", row["name"], "--json").out)
        assert about["settings"]
        assert all(dial["description"] for dial in about["settings"].values())


def test_a_person_lives_a_life(monkeypatch: pytest.MonkeyPatch) -> None:
    result = subprocess.run(
        command("play", "forage", "--seed", "3"),
        cwd=ROOT,
        env=environment(),
        input="n\nfly\neat\nq\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.count("Energy 9.") == 1
    assert "Energy 16." in result.stdout
    assert result.stdout.rstrip().endswith("left")


def test_a_scripted_player_lives_a_life() -> None:
    out = forager_here("play", "forage", "--player", "heuristic", "--set", "horizon=5").out
    assert out.count("\n> ") == 5
    assert "@" not in out
    assert "@" in forager_here("play", "forage", "--player", "heuristic", "--reveal").out
    assert out.rstrip().splitlines()[-1].startswith("survived after 5 steps")
    refused(forager_here("play", "forage", "--player", "nobody"), 2, "--player", "heuristic")
    refused(forager_here("play", "forage", "--set", "horizon=no"), 2, "--set")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("runs")
    settings = ["generations=2", "ray.executor=inprocess", "population.lives=3", "evaluation.lives=2"]
    forager_here("run", SMOKE, "--store", place, *(part for one in settings for part in ("--set", one)))
    return place / "smoke"


def test_every_life_leads_to_the_same_states_again(run: Path) -> None:
    lives = json.loads(forager_here("status", run, "--json").out)["totals"]["lives"]
    assert f"{lives} instances lived again" in forager_here("replay", run, "--check").out
    assert "1 instances lived again" in forager_here("replay", run, "champion/2", "--check").out


def test_a_life_that_does_not_follow_from_its_actions_is_found(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recall = Ledger.recall

    def tampered(self, table, *arguments):  # type: ignore[no-untyped-def]
        found = recall(self, table, *arguments)
        if table == "steps":
            column = found["state"].to_pylist()
            column[1] = column[1].replace('"energy":', '"energy":1')
            found = found.set_column(found.schema.get_field_index("state"), "state", [column])
        return found

    monkeypatch.setattr(Ledger, "recall", tampered)
    result = forager_here("replay", run, "--check")
    assert result.code == 3
    assert "step 1: state: lived again it is" in result.out
