"""What is shipped works where there is no checkout: the source archive makes the wheel, and the wheel runs alone."""

import ast
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from pathlib import Path
from zipfile import ZipFile

import pytest

from orchestrator import shipped
from telemetry import __version__
from tests.forager import ROOT, environment
from tests.inprocess import forager_here, output, refused
from tests.test_imports import ROOMS, SOURCES, imported, tree_of

SDIST = "import sys; from setuptools import build_meta; print(build_meta.build_sdist(sys.argv[1]))"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def done(*command: str | Path, cwd: Path) -> str:
    """Output of a command that must succeed, away from this checkout."""
    clean = {name: value for name, value in environment().items() if name != "PYTHONPATH"}
    ended = subprocess.run(list(map(str, command)), cwd=cwd, env=clean, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, f"exit {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout


def tracked() -> list[str]:
    """Files that belong to the project, from git where there is one."""
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout: what belongs to the project is not known")
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [name for name in names if name and (ROOT / name).exists()]


@dataclass(frozen=True)
class Shipped:
    """The wheel, and what is in both archives."""

    belongs: frozenset[str]
    """What is the project's, with its links followed."""
    source: frozenset[str]
    wheel: Path
    names: frozenset[str]
    """Of the wheel's files."""


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Shipped:
    place, belongs = tmp_path_factory.mktemp("archives"), tracked()
    # In a copy: setuptools leaves files beside the sources, and takes what lies there from earlier builds.
    for name in belongs:
        (place / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, place / "tree" / name, follow_symlinks=False)
    archive = done(sys.executable, "-c", SDIST, place, cwd=place / "tree").split()[-1]
    with tarfile.open(place / archive) as packed:
        packed.extractall(place, filter="data")
    source = place / archive.removesuffix(".tar.gz")
    inside = frozenset(str(path.relative_to(source)) for path in source.rglob("*") if path.is_file())
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done(*build, "--wheel-dir", place, source, cwd=place)
    [wheel] = place.glob("*.whl")
    followed = [name for name in belongs if not (ROOT / name).is_dir()]
    followed += [f"orchestrator/runs/{name}.yaml" for name in shipped.names()]
    return Shipped(frozenset(followed), inside, wheel, frozenset(ZipFile(wheel).namelist()))


def test_the_source_archive_is_whole(archives: Shipped) -> None:
    expected = {name for name in archives.belongs if not name.startswith(".")}
    assert expected <= archives.source
    made = {name for name in archives.source - expected if not name.startswith("forager.egg-info/")}
    assert made == {"PKG-INFO", "setup.cfg"}


def test_the_wheel_holds_the_rooms_and_nothing_else(archives: Shipped) -> None:
    info = f"forager-{__version__}.dist-info"
    assert {name.split("/")[0] for name in archives.names} == {*ROOMS, info}
    assert f"{info}/licenses/LICENSE" in archives.names
    expected = {name for name in archives.belongs if name.startswith(tuple(f"{room}/" for room in ROOMS))}
    assert {name for name in archives.names if not name.startswith(info)} == expected


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_the_wheel_runs_away_from_the_checkout(archives: Shipped, tmp_path: Path) -> None:
    venv, scratch = tmp_path / "venv", tmp_path / "scratch"
    scratch.mkdir()
    done(sys.executable, "-m", "venv", "--without-pip", venv, cwd=scratch)
    python = venv / "bin" / "python"
    [site] = venv.glob("lib/python*/site-packages")
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index"]
    done(*install, archives.wheel, cwd=scratch)
    # The libraries of this environment, but not what only its start-up files bring in: an editable install.
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    home = "import orchestrator, telemetry, trainer, workers; print(orchestrator.__file__, workers.__file__)"
    assert all(Path(file).is_relative_to(site) for file in done(python, "-c", home, cwd=scratch).split())

    forager = venv / "bin" / "forager"
    assert done(forager, "--version", cwd=scratch) == f"forager {__version__}\n"
    done(forager, "init", "smoke", cwd=scratch)
    assert "champion" in done(forager, "run", "smoke.yaml", cwd=scratch)
    run = Path("runs", "smoke")
    assert done(forager, "verify", run, cwd=scratch).splitlines()[-1].startswith("ok")
    page = (scratch / run / "report.html").read_text()
    assert "<svg" in page
    assert "<script" in page
    done(forager, "plan", "smoke.yaml", "--nodes", "2", cwd=scratch)
    assert sorted(path.name for path in scratch.iterdir()) == ["runs", "smoke.yaml"]


def test_every_library_that_is_imported_is_declared() -> None:
    required = [
        *PROJECT["dependencies"],
        *(one for extra in PROJECT["optional-dependencies"].values() for one in extra),
    ]
    declared = {re.split(r"[<>=\[ ]", one)[0].lower().replace("_", "-") for one in required}
    homes = packages_distributions()
    names = {name for path in SOURCES for node in ast.walk(tree_of(path)) for name in imported(node)}
    foreign = names - sys.stdlib_module_names - set(ROOMS)
    assert "pyarrow" in foreign
    undeclared = {
        name for name in foreign if not declared & {home.lower().replace("_", "-") for home in homes.get(name, [name])}
    }
    assert undeclared == set()


def test_every_shipped_run_file_can_be_started_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    listed = output("init")
    for name in shipped.names():
        assert f"{name} " in listed
        output("init", name)
        assert Path(f"{name}.yaml").read_bytes() == (ROOT / "deploy" / "runs" / f"{name}.yaml").read_bytes()
    refused(forager_here("init", "smoke"), 2, "smoke.yaml", "--out")
    refused(forager_here("init", "nobody"), 2, "nobody", "smoke")
    refused(forager_here("init", "smoke", "--out", "no/such/folder.yaml"), 5, "no/such/folder.yaml")
