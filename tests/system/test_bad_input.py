"""What a user, a plugin or a disk can get wrong: one line on standard error, the right exit code, nothing harmed."""

import json
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from telemetry.seeds import world_seed
from tests.corpus import worlds
from tests.forager import IN_PROCESS, SMOKE, forager, ok, smoke
from tests.inprocess import committed_steps, files, forager_here, refused

QUICK = (*IN_PROCESS, "--set", "generations=2", "--set", "ledger.commit_seconds=0.01", "--set", "metrics.enabled=false")


def of_world(name: str) -> tuple[str, str]:
    return "--set", f"environment={{name: 'tests.corpus.worlds:{name}'}}"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one generation; not to be changed."""
    store = tmp_path_factory.mktemp("runs")
    assert forager_here("run", SMOKE, "--store", store, *QUICK, "--set", "generations=1").code == 0
    return store / "smoke"


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
        ("fitness={kind: custom, function: 'this.is.none:f'}", ["fitness.function", "ModuleNotFoundError"]),
        ("fitness={kind: custom, function: 'json:__doc__'}", ["fitness.function", "expected a function"]),
        ("name=../escape", ["name"]),
    ],
)
def test_bad_run_files_start_nothing(tmp_path: Path, override: str, words: list[str]) -> None:
    refused(forager_here("run", SMOKE, "--store", tmp_path / "runs", *IN_PROCESS, "--set", override), 2, *words)
    assert not files(tmp_path)


def test_the_real_command_says_it_in_one_line(tmp_path: Path) -> None:
    refused(forager("run", SMOKE, "--store", tmp_path / "runs", *IN_PROCESS, "--set", "generations=yes"), 2, "'yes'")
    assert not files(tmp_path)


def test_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = forager_here("run", SMOKE, "--store", tmp_path, *IN_PROCESS, "--set", f"metrics.port={port}")
    refused(result, 2, "metrics.port", str(port))
    assert not files(tmp_path)


@pytest.mark.parametrize("name", worlds.AT_START)
def test_worlds_that_are_broken_at_the_start_start_nothing(tmp_path: Path, name: str) -> None:
    result = forager_here("run", SMOKE, "--store", tmp_path / "runs", *QUICK, *of_world(name))
    refused(result, 2, f"environment {name}: ", worlds.AT_START[name][1])
    assert not files(tmp_path)


def test_the_plan_of_a_broken_world_is_a_line_too() -> None:
    refused(forager_here("plan", SMOKE, *of_world("NoReset")), 2, "environment NoReset: reset raised RuntimeError")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.faults] * (index % 10 != 0)) for index, name in enumerate(worlds.AT_STEP)],
)
def test_worlds_that_break_in_mid_life_stop_the_run_and_leave_it_whole(tmp_path: Path, name: str) -> None:
    result = forager_here("run", SMOKE, "--store", tmp_path, *QUICK, *of_world(name))
    refused(result, 2, f"environment {name}: ", worlds.AT_STEP[name][1])
    assert forager_here("verify", tmp_path / "smoke").code == 0
    assert json.loads(forager_here("status", tmp_path / "smoke", "--json").out)["lives_committed"] == 0


def test_a_broken_plugin_in_another_process_stops_with_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "broken_world.py").write_text(
        "from workers.environments.forage import Forage\n"
        "class Broken(Forage):\n"
        "    name = 'broken-v1'\n"
        "    def state(self):\n"
        "        raise SystemExit('by design')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "plugins"))
    result = forager(
        "run", SMOKE, "--store", tmp_path / "runs", *IN_PROCESS, "--set", "environment.name=broken_world:Broken"
    )
    refused(result, 2, "broken-v1", "SystemExit", "by design")


def test_a_world_that_breaks_in_some_lives_harms_no_other_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was committed before it broke is what a sound world gives; with the plugin mended the run ends the same."""
    settings = (*QUICK, *of_world("Sometimes"), "--set", "workers.lives_per_agent=16", "--set", "engine.capacity=1")
    with monkeypatch.context() as patch:
        patch.setattr(worlds.Sometimes, "divisor", 1 << 62)
        assert forager_here("run", SMOKE, "--store", tmp_path / "sound", *settings).code == 0
    seeds = [world_seed(1, 0, life) for life in range(16)]
    divisor = next(one for one in range(2, 1000) if 0 < sum(seed % one == 0 for seed in seeds) < 8)
    with monkeypatch.context() as patch:
        patch.setattr(worlds.Sometimes, "divisor", divisor)
        refused(forager_here("run", SMOKE, "--store", tmp_path / "broken", *settings), 2, "sometimes-v1", "a bad seed")
    sound, broken = committed_steps(tmp_path / "sound" / "smoke"), committed_steps(tmp_path / "broken" / "smoke")
    assert 8 < len(broken) < len(sound)
    assert broken == {key: sound[key] for key in broken}
    with monkeypatch.context() as patch:
        patch.setattr(worlds.Sometimes, "divisor", 1 << 62)
        assert forager_here("resume", tmp_path / "broken" / "smoke").code == 0
    digests = [forager_here("digest", tmp_path / name / "smoke").out for name in ("sound", "broken")]
    assert digests[0] == digests[1] != ""


def test_what_a_world_writes_never_reaches_a_terminal_raw(tmp_path: Path) -> None:
    result = forager_here("run", SMOKE, "--store", tmp_path, *QUICK, *of_world("Escaping"))
    assert result.code == 0
    shown = [result, *(forager_here(verb, tmp_path / "smoke") for verb in ("status", "lineage", "verify", "audit"))]
    shown.append(forager_here("replay", tmp_path / "smoke", "champion/0"))
    for one in shown:
        assert one.code == 0
        assert not set(one.out + one.err) & set("\x1b\x07\u202e")
    assert "owned" in shown[-1].out, "the text itself is shown"
    page = (tmp_path / "smoke" / "report.html").read_text()
    assert "<script>alert" not in page
    assert "<b>{x}" not in page
    assert not set(page) & set("\x1b\x07")


def test_unwritable_store() -> None:
    refused(forager_here("run", SMOKE, "--store", "/proc/forager", *IN_PROCESS), 5, "/proc/forager")


def test_no_free_space_is_seen_before_anything_is_written(tmp_path: Path) -> None:
    settings = (*IN_PROCESS, "--set", "ledger.min_free_gib=1000000")
    refused(forager_here("run", SMOKE, "--store", tmp_path / "runs", *settings), 5, "min_free_gib")
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
    refused(forager_here(verb, tmp_path), 3, str(tmp_path), "not a run")
    refused(forager_here(verb, tmp_path / "missing"), 2, "missing")
    refused(forager_here(verb, tmp_path / "note.txt"), 2, "note.txt")
    assert [path.name for path in files(tmp_path)] == ["note.txt"]


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("_SUCCESS", b""),
        ("checkpoint-3/optimizer.pt", b"half"),
        ("journal.json", b"{}"),
        ("ledger/steps/x.parquet", b"PAR1"),
    ],
)
def test_a_run_is_not_started_over_what_is_there(tmp_path: Path, name: str, left: bytes) -> None:
    place = tmp_path / "smoke" / name
    place.parent.mkdir(parents=True)
    place.write_bytes(left)
    refused(forager_here("run", SMOKE, "--store", tmp_path, *QUICK), 2, "not empty and not a run")
    assert files(tmp_path) == [place]


def test_run_of_another_version(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "other"))
    genesis = copy / "journal" / f"{0:020d}.json"
    entry = json.loads(genesis.read_text())
    entry["format"] = 99
    genesis.write_text(json.dumps(entry))
    refused(forager_here("status", copy), 3)


def test_resume_refuses_to_change_what_comes_out(run: Path) -> None:
    refused(forager_here("resume", run, "--set", "population.lives=99"), 2, "population.lives", "16", "99")
    refused(forager_here("resume", run, "--set", "generations=3"), 2, "generations: the run has 1, got 3")


def test_unknown_player_and_life(run: Path) -> None:
    refused(forager_here("evaluate", run, "--who", "nobody\x1b[31m"), 2, "nobody")
    refused(forager_here("replay", run, "g000-000/999"), 2, "999")
    refused(forager_here("replay", run, "../../etc/passwd"), 2, "expected INDIVIDUAL/LIFE")
