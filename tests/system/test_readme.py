"""What the README shows works as shown: its fitness function, its run file, its commands."""

import re
from pathlib import Path

import pytest

from tests.forager import IN_PROCESS, ROOT, SMOKE, forager, ok
from tests.inprocess import output

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_fitness_function_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [fitness] = blocks("python")
    (tmp_path / "my_module.py").write_text(fitness)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    settings = [
        "fitness={kind: custom, function: 'my_module:final_energy'}",
        "generations=2",
    ]
    overrides = [part for setting in settings for part in ("--set", setting)]
    ok("run", SMOKE, "--store", tmp_path / "runs", *IN_PROCESS, *overrides)
    assert ok("audit", tmp_path / "runs" / "smoke").startswith("ok")


def test_the_run_file_is_valid(tmp_path: Path) -> None:
    run_file = next(block for block in blocks("yaml") if "founders" in block)
    (tmp_path / "mine.yaml").write_text(run_file)
    assert "mine" in ok("plan", tmp_path / "mine.yaml")


def test_every_command_is_listed_and_has_an_example() -> None:
    listed = set(re.findall(r"^\| `forager ([\w-]+)", README, re.MULTILINE))
    shown = set(re.findall(r"^│ ([\w-]+) ", forager("--help").out.split("Commands")[1], re.MULTILINE))
    assert listed == shown
    for name in listed:
        assert "Example:" in output(name, "--help"), name
