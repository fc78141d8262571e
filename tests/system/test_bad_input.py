"""What a user can get wrong: one line on standard error, the right exit code, nothing left behind."""

import json
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.forager import IN_PROCESS, SMOKE, Result, forager, ok, smoke


def files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()] if directory.exists() else []


def refused(result: Result, code: int, *words: str) -> None:
    assert result.code == code, result.err
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1, result.err
    for word in words:
        assert word in result.err


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("population.sise=3", ["population.sise", 'did you mean "size"']),
        ("generations=many", ["generations", "many"]),
        ("selection.survivors=0", ["selection.survivors"]),
        ("environment.name=narnia", ["environment.name", "narnia", "forage"]),
        ("environment.name=json:nothing", ["environment.name", "nothing"]),
        ("environment.name=json:JSONDecoder", ["environment.name", "lacks"]),
        ("environment.settings={bushes: many}", ["environment.settings.bushes"]),
        ("fitness={kind: custom, function: 'nowhere:f'}", ["fitness.function", "nowhere"]),
        ("name=../escape", ["name"]),
    ],
)
def test_bad_run_files_start_nothing(tmp_path: Path, override: str, words: list[str]) -> None:
    result = forager("run", SMOKE, "--store", tmp_path / "runs", *IN_PROCESS, "--set", override)
    refused(result, 2, *words)
    assert not files(tmp_path)


def test_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = forager("run", SMOKE, "--store", tmp_path, *IN_PROCESS, "--set", f"metrics.port={port}")
    refused(result, 2, "metrics.port", str(port))
    assert not files(tmp_path)


def test_broken_plugin_stops_with_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "broken_world.py").write_text(
        "from workers.environments.forage import Forage\n"
        "class Broken(Forage):\n"
        "    name = 'broken-v1'\n"
        "    def step(self, action):\n"
        "        raise ZeroDivisionError('by design')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "plugins"))
    result = forager(
        "run", SMOKE, "--store", tmp_path / "runs", *IN_PROCESS, "--set", "environment.name=broken_world:Broken"
    )
    refused(result, 2, "broken-v1", "ZeroDivisionError", "by design")


def test_unwritable_store() -> None:
    refused(forager("run", SMOKE, "--store", "/proc/forager", *IN_PROCESS), 5, "/proc/forager")


def test_no_free_space_is_seen_before_anything_is_written(tmp_path: Path) -> None:
    result = forager("run", SMOKE, "--store", tmp_path / "runs", *IN_PROCESS, "--set", "ledger.min_free_gib=1000000")
    refused(result, 5, "min_free_gib")
    assert not files(tmp_path / "runs")


def test_full_store_stops_and_resumes(tmp_path: Path) -> None:
    """A small file system fills up in mid-run; after it has grown, resume ends in the same run."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", disk], check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting a small file system needs root")
    try:
        settings = (*IN_PROCESS, "--set", "ledger.min_free_gib=0", "--set", "ledger.commit_seconds=0.05")
        refused(forager("run", SMOKE, "--store", disk, *settings), 5)
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        ok("resume", disk / "smoke", *settings)
        assert ok("verify", disk / "smoke").splitlines()[-1].startswith("ok")
        calm = smoke(tmp_path, "ray.executor=inprocess")
        assert ok("digest", disk / "smoke") == ok("digest", calm)
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.parametrize("verb", ["resume", "status", "lineage", "verify", "digest", "audit"])
def test_foreign_directories(tmp_path: Path, verb: str) -> None:
    (tmp_path / "note.txt").write_text("not a run")
    refused(forager(verb, tmp_path), 3, str(tmp_path), "not a run")
    refused(forager(verb, tmp_path / "missing"), 2, "missing")
    assert [path.name for path in files(tmp_path)] == ["note.txt"]


def test_run_of_another_version(tmp_path: Path) -> None:
    run = smoke(tmp_path, "ray.executor=inprocess", "generations=1")
    copy = tmp_path / "other"
    shutil.copytree(run, copy)
    genesis = copy / "journal" / f"{0:020d}.json"
    entry = json.loads(genesis.read_text())
    entry["format"] = 99
    genesis.write_text(json.dumps(entry))
    refused(forager("status", copy), 3)


def test_resume_refuses_to_change_what_comes_out(tmp_path: Path) -> None:
    run = smoke(tmp_path, "ray.executor=inprocess", "generations=1")
    refused(forager("resume", run, "--set", "population.lives=99"), 2, "population.lives", "16", "99")


def test_unknown_player_and_life(tmp_path: Path) -> None:
    run = smoke(tmp_path, "ray.executor=inprocess", "generations=1")
    refused(forager("evaluate", run, "--who", "nobody"), 2, "nobody")
    refused(forager("replay", run, "g000-000/999"), 2, "999")
