"""`forager compare`: every arm runs at equal compute, is resumed where it stopped, and is never mixed with another."""

import json
from pathlib import Path

import pytest

from orchestrator.experiment import arm_document
from orchestrator.runfile import load
from tests.forager import ROOT, SMOKE
from tests.inprocess import forager_here, output, refused

ARMS = ["rules-only", "random-cull", "no-crossover", "single-lineage", "untouched"]


def write(place: Path, **changes: object) -> Path:
    run = json.loads(load(SMOKE, ["ray.executor=inprocess", "generations=2", "population.lives=4"]).model_dump_json())
    run |= {"evaluation": {"lives": 6}, "metrics": {"enabled": False}}
    (place / "run.yaml").write_text(json.dumps(run))
    experiment = {"name": "arms", "run": "run.yaml", "seeds": [3]} | changes
    (place / "experiment.yaml").write_text(json.dumps(experiment))
    return place / "experiment.yaml"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("compare")
    result = forager_here("compare", write(directory), "--store", directory)
    assert result.code == 0, result.err
    assert "rules-only" in result.out
    assert "evolution is better by" in result.out
    return directory


def test_every_arm_has_a_row_and_a_run(place: Path) -> None:
    data = json.loads((place / "arms" / "comparison.json").read_text())
    assert [row["arm"] for row in data["rows"]] == ["evolution", *ARMS]
    runs = {path.name for path in (place / "arms").iterdir() if path.is_dir()}
    assert runs == {f"{arm}-3" for arm in ["evolution", *ARMS[:-1]]}
    for run in runs:
        assert output("verify", place / "arms" / run).splitlines()[-1].startswith("ok")
        assert output("audit", place / "arms" / run).startswith("ok")


def test_the_page_of_every_run_shows_the_arms(place: Path) -> None:
    for path in (place / "arms").glob("*/report.html"):
        page = path.read_text()
        assert all(f'<th scope="row">{arm}' in page for arm in ["evolution", *ARMS]), path


def test_no_arm_spends_more_than_evolution_but_for_its_last_generation(place: Path) -> None:
    def spent(run: str) -> tuple[int, int, int]:
        state = json.loads(output("status", place / "arms" / run, "--json"))
        return state["totals"]["decisions"], state["totals"]["training_tokens"], state["generation"]

    decisions, tokens, _ = spent("evolution-3")
    for arm in ARMS[:-1]:
        used, trained, generations = spent(f"{arm}-3")
        assert used <= 1.5 * decisions, arm
        assert trained <= tokens * 1.5, arm
        assert generations >= 1
    assert spent("rules-only-3")[1] == 0


def test_a_finished_experiment_is_only_read(place: Path) -> None:
    journals = {path: path.read_bytes() for path in place.rglob("journal/*.json")}
    rows = json.loads(output("compare", place / "experiment.yaml", "--store", place, "--json"))
    assert rows == json.loads((place / "arms" / "comparison.json").read_text())["rows"]
    assert {path: path.read_bytes() for path in place.rglob("journal/*.json")} == journals


def test_programs_read_nothing_but_the_table(place: Path, tmp_path: Path) -> None:
    """While runs are driven as well: what they say goes elsewhere."""
    result = forager_here("compare", write(tmp_path, arms=["untouched"]), "--store", tmp_path, "--json")
    assert [row["arm"] for row in json.loads(result.out)] == ["evolution", "untouched"]
    assert "generation 0" in result.err


def test_an_interrupted_experiment_goes_on(place: Path, tmp_path: Path) -> None:
    """One arm has not been run, one has not finished, the table is missing: all come back as they were."""
    import shutil

    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    wanted = (tmp_path / "arms" / "comparison.json").read_text()
    shutil.rmtree(tmp_path / "arms" / "no-crossover-3")
    for path in sorted((tmp_path / "arms" / "rules-only-3" / "journal").glob("*.json"))[4:]:
        path.unlink()
    (tmp_path / "arms" / "comparison.json").unlink()
    assert forager_here("compare", tmp_path / "experiment.yaml", "--store", tmp_path).code == 0
    assert (tmp_path / "arms" / "comparison.json").read_text() == wanted


def test_another_experiments_runs_are_not_mixed_in(place: Path, tmp_path: Path) -> None:
    path = write(tmp_path)
    changed = json.loads((tmp_path / "run.yaml").read_text()) | {"generations": 3}
    (tmp_path / "run.yaml").write_text(json.dumps(changed))
    refused(forager_here("compare", path, "--store", place), 2, "evolution-3", "another configuration")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seeds": [1, 1]}, ["seeds", "each once"]),
        ({"arms": ["magic"]}, ["arms"]),
        ({"seed": 1}, ["seed: unknown key", 'did you mean "seeds"']),
        ({"run": "nowhere.yaml"}, ["nowhere.yaml", "cannot be read"]),
    ],
)
def test_bad_experiments_get_one_line(tmp_path: Path, change: dict[str, object], words: list[str]) -> None:
    refused(forager_here("compare", write(tmp_path, **change), "--store", tmp_path), 2, *words)


def test_the_shipped_experiments_are_valid_and_every_arm_of_them_is_a_run_file() -> None:
    from orchestrator.compare import load_experiment
    from orchestrator.runfile import validate

    paths = sorted((ROOT / "deploy" / "experiments").glob("*.yaml"))
    assert paths
    for path in paths:
        experiment, config = load_experiment(path)
        for arm in experiment.arms:
            if arm != "untouched":
                document = arm_document(config, arm, 1, 0, {"decisions": 1000, "training_tokens": 1000})
                assert validate(document, arm).name == f"{arm}-1"
