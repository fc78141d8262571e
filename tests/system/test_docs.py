"""The documentation does what it says: every block of every page is executed, or parsed where a title says why not."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator import runfile
from orchestrator.config import RunConfig
from orchestrator.experiment import ExperimentConfig
from orchestrator.scale_costs import load as load_costs
from telemetry import open_run
from telemetry.failures import UsageError
from tests.forager import ROOT, SMOKE, environment, smoke
from tests.inprocess import forager_here
from tests.system.documentation import (
    COMMANDS,
    DOCS,
    LANGUAGES,
    PAGES,
    Block,
    blocks,
    commands,
    foragers,
    inline,
    parse,
    plain,
)

WELL = DOCS / "examples" / "well.py"
MOST_LINES = 60
DEMO = ROOT / "deploy" / "runs" / "demo.yaml"
IN_PROCESS = ["--set", "ray.executor=inprocess"]
"""Added to every run of a page: a cluster for each would take the suite minutes and show nothing new."""
SHIM = """#!/bin/sh
case "$1" in run) set -- "$@" --set ray.executor=inprocess ;; esac
exec "{python}" -m orchestrator.cli "$@"
"""
BLOCKS = [block for page in PAGES for block in blocks(page)]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run called demo, without a model."""
    return smoke(tmp_path_factory.mktemp("docs"), "ray.executor=inprocess", "name=demo").with_name("demo")


@pytest.fixture
def desk(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the reader of a page sits: a checkout's run files, a finished run, `forager` on the path."""
    desk = tmp_path / "desk"
    shutil.copytree(demo, desk / "runs" / "demo")
    for name in ("deploy", "docs"):
        (desk / name).symlink_to(ROOT / name)
    (desk / "question.sql").write_text("select count(*) as lives from lives")
    (tmp_path / "bin").mkdir()
    shim = tmp_path / "bin" / "forager"
    shim.write_text(SHIM.format(python=sys.executable))
    shim.chmod(0o700)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
    monkeypatch.setenv("PATH", f"{shim.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(desk)
    return desk


def execute(command: str) -> None:
    """Runs one command of a page; here if it is Forager's alone, else in a shell."""
    arguments = plain(command)
    if arguments is not None:
        result = forager_here(*arguments, *(IN_PROCESS if arguments[0] in ("run", "import") else []))
        assert result.code == 0, f"{command}\n{result.err}"
        return
    # The page's own PYTHONPATH, if it sets one, must not hide where the rooms are.
    script = command.replace("PYTHONPATH=", f"PYTHONPATH={ROOT}:")
    variables = {"PYTHONPATH": str(ROOT), **environment()}
    done = subprocess.run(["bash", "-euc", script], env=variables, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"{command}\n{done.stderr}"


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=name_of)
def test_the_blocks_of_a_page_run_in_their_order(page: Path, desk: Path) -> None:
    for block in blocks(page):
        if block.language == "python" and block.title.endswith(".py") and "/" not in block.title:
            (desk / block.title).write_text(block.text)
        if block.title:
            continue
        if block.language == "sh":
            for command in commands(block.text):
                execute(command)
        if block.language == "python":
            variables = {**environment(), "PYTHONPATH": str(ROOT)}
            program = [sys.executable, "-c", block.text]
            done = subprocess.run(program, env=variables, capture_output=True, text=True, timeout=240)
            assert done.returncode == 0, f"{block}\n{done.stderr}"


@pytest.mark.parametrize("block", [one for one in BLOCKS if one.language == "sh"], ids=str)
def test_commands_have_the_arguments_that_are_shown(block: Block) -> None:
    for command in commands(block.text):
        for arguments in foragers(command):
            parse(arguments)


def parts(block: Block) -> Iterator[dict[str, Any]]:
    """What a block says of a run file; where it shows several ways to say the same, each line is one."""
    try:
        yield runfile.parse(block.text.encode(), str(block))
    except UsageError as error:
        if "duplicate key" not in str(error):
            raise
        for line in block.text.splitlines():
            yield runfile.parse(line.encode(), str(block))


def completed(part: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """A whole run file with this part in it; `...` in a part stands for what is left out."""
    if set(part) == {"founders"}:
        part = {"population": {"founders": part["founders"], "size": len(part["founders"])}}
    whole = runfile.read(base)
    for section, value in part.items():
        inner = {key: one for key, one in value.items() if key != "..."} if isinstance(value, dict) else value
        joined = isinstance(inner, dict) and "kind" not in inner and section in whole
        whole[section] = whole[section] | inner if joined else inner
    return whole


@pytest.mark.parametrize("block", [one for one in BLOCKS if one.language == "yaml" and not one.title], ids=str)
def test_run_files_and_their_parts_are_valid(block: Block) -> None:
    for part in parts(block):
        if "population" in part and "name" in part:
            runfile.validate_as(RunConfig, part, str(block))
            continue
        refusals = []
        for base in (DEMO, SMOKE):
            try:
                runfile.validate(completed(part, base), str(block))
            except UsageError as error:
                refusals.append(str(error))
        assert len(refusals) < 2, refusals


@pytest.mark.parametrize("block", [one for one in BLOCKS if one.language in ("toml", "json", "yaml")], ids=str)
def test_data_can_be_parsed(block: Block, tmp_path: Path) -> None:
    if block.language == "toml":
        assert tomllib.loads(block.text)
    elif block.language == "json":
        assert json.loads(block.text)
    elif block.title:
        documents = list(yaml.safe_load_all(block.text))
        assert documents
        if "arms" in documents[0]:
            runfile.validate_as(ExperimentConfig, documents[0], str(block))
        if block.title == "costs.yaml":
            (tmp_path / block.title).write_text(block.text.replace(": 0", ": 1"))
            load_costs(tmp_path / block.title)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_has_a_language_that_somebody_checks(page: Path) -> None:
    assert {block.language for block in blocks(page)} <= LANGUAGES
    text = page.read_text()
    assert len(re.findall(r"^ *```", text, re.MULTILINE)) == 2 * len(blocks(page)), "a fence that is not understood"
    for block in blocks(page):
        first = block.text.split()[:1]
        assert block.language or first not in (["forager"], ["make"], ["pip"], ["python"]), f"{block} is a command"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_in_running_text_exist(page: Path) -> None:
    for mention in inline(page):
        name = mention.split()[1]
        command = COMMANDS.get(name)
        assert command is not None or name.startswith("-"), mention
        known = {option for one in command.params for option in one.opts} if command else set()
        assert set(re.findall(r"(?<=[ \[])--[a-z][a-z-]*", mention)) - {"--help"} <= known | {"--version"}, mention


def test_the_worlds_page_shows_a_whole_world_that_is_fit_and_short() -> None:
    code = WELL.read_text()
    assert len(code.splitlines()) <= MOST_LINES
    assert code.strip() in (DOCS / "worlds.md").read_text()
    result = forager_here("check-world", "docs.examples.well:Well")
    assert result.code == 0, result
    assert "fail" not in result.out


def test_every_column_that_the_queries_page_names_is_there(demo: Path) -> None:
    rows = re.findall(r"^\| `(\w+)` \| [^|]* \| (.*) \|$", (DOCS / "queries.md").read_text(), re.MULTILINE)
    with open_run(str(demo)) as tables:
        assert {name for name, _ in rows} == set(tables.names)
        for name, columns in rows:
            assert set(re.findall(r"`(\w+)`", columns)) <= set(tables.table(name).column_names)
