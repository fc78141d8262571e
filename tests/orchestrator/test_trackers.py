"""Trackers: what their own readers find is what the run says, once, and nothing they do is noticed by the run."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.generation import run_generation
from orchestrator.run import create
from orchestrator.state import config_of
from orchestrator.summary import Summary, summarize
from orchestrator.trackers import Rows, TrackersListener, identity
from telemetry import trackers, trackers_mlflow
from telemetry.catalogue import RUN
from telemetry.config_trackers import MlflowConfig, WandbConfig
from telemetry.failures import StorageError
from telemetry.store import open_store
from telemetry.trackers import About, Row
from telemetry.trackers_mlflow import flat
from telemetry.trackers_wandb import records
from tests.forager import SMOKE
from tests.inprocess import Result, files, forager_here, output, refused
from tests.orchestrator.builders import advance, newborn_run, run_config
from tests.orchestrator.mlflow_server import Server, serve
from tests.orchestrator.small_run import small_config, state_at
from workers.engines.scripted import CARD

Series = dict[str, list[tuple[int, float]]]
"""(step, value) of every metric, in the order in which they were written."""

FAKE = """
import os, time, types
print("what libraries print is for the log")
def log(values, step, commit):
    how = open(os.environ["FAKE_WANDB"]).read()
    if how == "raise": raise ValueError("no\\nway")
    if how == "exit": os._exit(7)
    if how == "hang": time.sleep(3600)
    if how == "slow": time.sleep(3)
def init(**settings):
    with open(os.environ["FAKE_WANDB"] + ".pid", "w") as file:
        file.write(str(os.getpid()))
    with open(os.environ["FAKE_WANDB"] + ".key", "w") as file:
        file.write(os.environ.get("WANDB_API_KEY", "") + os.environ.get("MLFLOW_TRACKING_TOKEN", ""))
    nothing = lambda *args, **kwargs: None
    return types.SimpleNamespace(log=log, define_metric=nothing, finish=nothing)
Settings = dict
"""
"""A library that does what a file tells it to."""
SHORT = ("ray.executor=inprocess", "population.lives=4", "evaluation.lives=4", "evaluation.manners=2")
"""What makes the smoke run take a second or two."""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is late because the machine has other things to do."""
    monkeypatch.setattr(trackers, "START_SECONDS", 120.0)
    monkeypatch.setattr(trackers, "END_SECONDS", 120.0)


def run(store: Path, *sinks: dict[str, Any], command: tuple[str | Path, ...] = ()) -> Result:
    """Runs, or resumes, the smoke run with these trackers."""
    first = command or ("run", SMOKE, "--store", store)
    settings = [*SHORT, f"trackers={json.dumps(sinks)}"]
    return forager_here(*first, *(part for one in settings for part in ("--set", one)))


def good(result: Result) -> None:
    assert result.code == 0, result
    assert result.err == ""


def interrupted_and_resumed(store: Path, monkeypatch: pytest.MonkeyPatch, *sinks: dict[str, Any]) -> None:
    """A run whose driver fails before the last generation, and that another one finishes."""

    def failing(run: Any, *rest: Any) -> None:
        if run.generation == 2:
            raise StorageError("on purpose")
        run_generation(run, *rest)

    with monkeypatch.context() as patch:
        patch.setattr("orchestrator.driver.run_generation", failing)
        refused(run(store, *sinks), 5, "on purpose")
    good(run(store, *sinks, command=("resume", store / "smoke")))


def summary_of(place: Path) -> Summary:
    _, state = state_at(place)
    return summarize(state, config_of(state))


def expected(place: Path) -> Series:
    """What a tracker of this run must hold, from the numbers that reports and `forager status` show."""
    found: Series = {}
    summary, (_, state) = summary_of(place), state_at(place)
    for row in summary.history:
        commits = [one for one in state.commits if one.generation == row.generation]
        values = {
            "fitness/best": row.best,
            "fitness/best_low": row.low,
            "fitness/best_high": row.high,
            "fitness/mean": row.mean,
            "fitness/median": row.median,
            "fitness/worst": row.worst,
            "lineages/alive": len(row.alive),
            "lineages/culled": len(row.culled),
            "population_size": summary.population,
            "action_entropy_bits": row.diversity.entropy,
            "behaviour_divergence_bits": row.diversity.behaviour,
            "lives/all": row.lives,
            "steps": row.decisions,
            "prompt_tokens": sum(one.prompt_tokens for one in commits),
            "completion_tokens": sum(one.completion_tokens for one in commits),
            "rollout_seconds": sum(one.seconds for one in commits),
            **{f"lives/{end.replace(':', '/')}": number for end, number in row.ends.items()},
        }
        for name, value in values.items():
            found.setdefault(name, []).append((row.generation, value))
    for number, job in enumerate(summary.training):
        values = {f"jobs/{job.status}": 1, "tokens": job.tokens, "seconds": job.seconds, "examples": job.examples}
        for name, value in values.items():
            found.setdefault(f"training/{name}", []).append((number, value))
    last = len(summary.history) - 1
    for player in summary.evaluation:
        found[f"held_out/fitness/{player.who}"] = [(last, player.mean)]
    found["held_out/gap"] = [(last, summary.gap or 0.0)]
    return found


def in_tensorboard(folder: Path) -> tuple[Series, str]:
    """What TensorBoard reads, and the text it shows."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    reader = accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    reader.Reload()
    series = {name: [(one.step, one.value) for one in reader.Scalars(name)] for name in reader.Tags()["scalars"]}
    return series, reader.Tensors("run_file")[0].tensor_proto.string_val[0].decode()


def in_wandb(place: Path) -> Series:
    """What the files of wandb hold, oldest first."""
    messages = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    series: Series = {}
    for path in sorted(place.glob("wandb/offline-run-*/*.wandb")):
        for data in records(path.read_bytes()):
            record = messages.Record.FromString(data)
            if record.WhichOneof("record_type") != "history":
                continue
            values = {item.nested_key[0]: float(item.value_json) for item in record.history.item}
            axis = "job" if "job" in values else "generation"
            for name, value in values.items():
                if not name.startswith("_") and name != axis:
                    series.setdefault(name, []).append((round(values[axis]), value))
    return series


def test_a_resume_at_any_event_leads_to_the_rows_that_were_made_live() -> None:
    config = run_config()
    state = newborn_run(config)
    live: list[Row] = []

    class Sink:
        put = live.append

        def finish(self) -> None:
            """Nothing to do."""

    sink: Any = Sink()
    listener = TrackersListener([sink], Rows())
    for _ in advance(state, config, listener):
        assert list(Rows().all(state)) == live
        assert [row.number for row in live] == list(range(len(live)))
    assert [(row.axis, row.step) for row in live if row.axis == "job"] == [("job", number) for number in range(15)]
    assert live[0].values["training/loss/first"] == state.births[next(iter(state.births))].loss_first
    assert live[-1].values["held_out/fitness/champion"] == 25.9


def test_names_are_those_of_the_catalogue() -> None:
    config = run_config()
    state = newborn_run(config)
    for _ in advance(state, config):
        pass
    known = {one.name.removeprefix("forager_").removesuffix("_total") for one in RUN}
    names = {name for row in Rows().all(state) for name in row.values}
    for name in names:
        parts = name.split("/")
        assert {"_".join(parts[:count]) for count in (1, 2)} & known, name


def test_worlds_cannot_make_names_without_end() -> None:
    rows = Rows()
    names = {rows._known("cause", word, 3) for word in ("a", "b/c", "..", "", "x" * 64, "b", "c", "d", "e", "a")}
    assert names == {"a", "b", "c", "other"}


def test_tensorboard_shows_the_run_and_goes_on_after_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted_and_resumed(tmp_path, monkeypatch, {"kind": "tensorboard", "directory": str(tmp_path / "board")})
    store, state = state_at(tmp_path / "smoke")
    [folder] = (tmp_path / "board").iterdir()
    assert folder.name == f"smoke-{identity(store, state)}"
    assert len(list(folder.iterdir())) == 2, "one file for each driver"
    series, text = in_tensorboard(folder)
    assert series == {
        name: [(step, pytest.approx(value, rel=1e-6)) for step, value in points]
        for name, points in expected(tmp_path / "smoke").items()
    }
    assert '"name": "smoke"' in text


def test_a_tensorboard_file_that_a_crash_cut_short_is_completed(tmp_path: Path) -> None:
    board = {"kind": "tensorboard", "directory": str(tmp_path / "board")}
    good(run(tmp_path, board))
    [file] = (tmp_path / "board").glob("*/*")
    whole, _ = in_tensorboard(file.parent)
    os.truncate(file, file.stat().st_size - 700)
    assert in_tensorboard(file.parent)[0] != whole
    forget_the_end(tmp_path / "smoke")
    good(run(tmp_path, board, command=("resume", tmp_path / "smoke")))
    assert in_tensorboard(file.parent)[0] == whole


def forget_the_end(place: Path) -> None:
    """Takes the last entry away, so that there is something to resume."""
    sorted((place / "journal").iterdir())[-1].unlink()


def test_a_rewound_run_is_another_one(tmp_path: Path) -> None:
    board = {"kind": "tensorboard", "directory": str(tmp_path / "board")}
    good(run(tmp_path, board))
    [first] = (tmp_path / "board").iterdir()
    before = in_tensorboard(first)
    good(run(tmp_path, board, command=("resume", tmp_path / "smoke", "--at-generation", "0")))
    [second] = set((tmp_path / "board").iterdir()) - {first}
    assert in_tensorboard(first) == before
    assert in_tensorboard(second)[0].keys() == expected(tmp_path / "smoke").keys()


def test_trackers_that_come_late_are_told_what_was(tmp_path: Path) -> None:
    good(run(tmp_path))
    forget_the_end(tmp_path / "smoke")
    board = {"kind": "tensorboard", "directory": str(tmp_path / "board")}
    good(run(tmp_path, board, command=("resume", tmp_path / "smoke")))
    [folder] = (tmp_path / "board").iterdir()
    assert in_tensorboard(folder)[0].keys() == expected(tmp_path / "smoke").keys()


def test_wandb_files_hold_the_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="needs forager[wandb]")
    monkeypatch.setenv("HOME", str(tmp_path))
    interrupted_and_resumed(tmp_path, monkeypatch, {"kind": "wandb", "directory": str(tmp_path)})
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 2, "one for each driver"
    assert in_wandb(tmp_path) == expected(tmp_path / "smoke")


@pytest.fixture
def mlflow() -> Iterator[Server]:
    with serve() as server:
        yield server


def test_mlflow_is_told_the_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow: Server) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret word")
    interrupted_and_resumed(tmp_path, monkeypatch, {"kind": "mlflow", "uri": mlflow.uri})
    [one] = mlflow.runs.values()
    assert (one.status, one.name) == ("FINISHED", "smoke")
    assert one.statuses == ["KILLED", "RUNNING", "FINISHED"]
    assert mlflow.authorizations == {"Basic bWU6c2VjcmV0IHdvcmQ="}
    series = {name: points for name, points in one.metrics.items() if name != "forager/rows"}
    assert series == expected(tmp_path / "smoke")
    assert one.params["population.founders.0.name"] == "scout"
    assert one.tags["forager.model"] == "scripted"
    everything = b"".join(path.read_bytes() for path in (tmp_path / "smoke").rglob("*") if path.is_file())
    assert b"secret word" not in everything


def test_an_mlflow_server_in_trouble_is_asked_again(mlflow: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers_mlflow, "PAUSES", (0.0, 0.0, 0.0))
    sink = trackers_mlflow.Mlflow(MlflowConfig(uri=mlflow.uri), about())
    mlflow.refuse = [503, 0, 500]
    sink.write(Row(0, "generation", 0, {"steps": 3.0}))
    assert mlflow.runs["run-1"].metrics["steps"] == [(0, 3.0)]
    mlflow.refuse = [400]
    with pytest.raises(OSError, match="log-batch: the server answered 400"):
        sink.write(Row(1, "generation", 1, {"steps": 3.0}))
    mlflow.refuse = [503] * 4
    with pytest.raises(OSError, match="log-batch: the server answered 503"):
        sink.write(Row(1, "generation", 1, {"steps": 3.0}))
    mlflow.refuse = [302]
    with pytest.raises(OSError, match="log-batch: the server answered 302"):
        sink.write(Row(1, "generation", 1, {"steps": 3.0}))


def test_a_real_mlflow_server_is_told_the_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = pytest.importorskip("mlflow", reason="needs an MLflow server")
    pytest.importorskip("flask", reason="needs an MLflow server")
    from tests.orchestrator.mlflow_server import real

    with real(tmp_path) as uri:
        interrupted_and_resumed(tmp_path, monkeypatch, {"kind": "mlflow", "uri": uri})
        client = library.MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name("forager")
        [one] = client.search_runs([experiment.experiment_id])
        assert (one.info.status, one.info.run_name) == ("FINISHED", "smoke")
        series = {
            name: [(point.step, point.value) for point in client.get_metric_history(one.info.run_id, name)]
            for name in one.data.metrics
        }
        assert series.pop("forager/rows")
        assert series == expected(tmp_path / "smoke")
        assert one.data.params["population.founders.0.name"] == "scout"
        assert one.data.tags["forager.run"] == "smoke"


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that tells the fake library what to do."""
    package = tmp_path / "fakes" / "wandb"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setenv("FAKE_WANDB", str(tmp_path / "lever"))
    return tmp_path / "lever"


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("raise", "ValueError: no way"),
        ("exit", "its process ended with exit code 7"),
        ("hang", "not done when the run was"),
        ("slow", "not done when the run was"),
    ],
)
def test_whatever_a_tracker_does_the_run_is_the_same(
    tmp_path: Path, fake: Path, how: str, words: str, finished_digest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.write_text(how)
    if how in ("hang", "slow"):
        monkeypatch.setattr(trackers, "END_SECONDS", 0.5)
    result = run(tmp_path, {"kind": "wandb"})
    assert result.code == 0, result
    [line] = result.err.splitlines()
    assert line.startswith(f"warning: trackers.0 (wandb): {words}")
    assert output("digest", tmp_path / "smoke") == finished_digest
    assert_gone(fake)


@pytest.fixture(scope="module")
def finished_digest(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Digest of the smoke run without trackers."""
    place = tmp_path_factory.mktemp("without")
    good(run(place))
    return output("digest", place / "smoke")


def assert_gone(fake: Path) -> None:
    """The tracker's process has ended."""
    number = int(Path(f"{fake}.pid").read_text())
    deadline = time.monotonic() + 5
    while psutil.pid_exists(number) and psutil.Process(number).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_one_that_hangs_does_not_hold_up_the_others(
    tmp_path: Path, fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.write_text("hang")
    monkeypatch.setattr(trackers, "END_SECONDS", 10.0)
    result = run(tmp_path, {"kind": "wandb"}, {"kind": "tensorboard", "directory": str(tmp_path / "board")})
    assert len(result.err.splitlines()) == 1
    [folder] = (tmp_path / "board").iterdir()
    assert in_tensorboard(folder)[0].keys() == expected(tmp_path / "smoke").keys()


def about() -> About:
    return About("0" * 12, "small", "0.1.0", "scripted", {"seed": 1, "a": [{"b": None}]})


@pytest.mark.parametrize(
    ("lever", "value", "words"),
    [("LATE", 3, "it cannot keep up, 3 rows wait"), ("PATIENCE", 0.3, "it took more than 0.3 seconds for a row")],
)
def test_one_that_falls_behind_is_switched_off_at_once(
    tmp_path: Path,
    fake: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    lever: str,
    value: float,
    words: str,
) -> None:
    fake.write_text("hang")
    with trackers.tracked([WandbConfig()], about(), [], tmp_path) as [one]:
        wait_for(lambda: one._opened)
        monkeypatch.setattr(trackers, "END_SECONDS", 0.5)
        monkeypatch.setattr(trackers, lever, value)
        one._waiting.maxsize = trackers.LATE
        began = time.monotonic()
        for number in range(10):
            one.put(Row(number, "generation", number, {"steps": 1.0}))
        assert time.monotonic() - began < 0.2, "nobody waits for a tracker"
        wait_for(lambda: one._off)
        assert_gone(fake)
        one.put(Row(10, "generation", 10, {"steps": 1.0}))
    [line] = capsys.readouterr().err.splitlines()
    assert words in line


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_process_that_cannot_be_started_is_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "absent"))
    with trackers.tracked([WandbConfig()], about(), [], tmp_path) as [one]:
        one.put(Row(0, "generation", 0, {"steps": 1.0}))
    [line] = capsys.readouterr().err.splitlines()
    assert "trackers.0 (wandb): its process cannot be started: No such file or directory" in line


def test_secrets_reach_the_tracker_and_nobody_else(tmp_path: Path, fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.write_text("")
    monkeypatch.setenv("WANDB_API_KEY", "key")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "token")
    with trackers.tracked([WandbConfig()], about(), [], tmp_path) as [one]:
        wait_for(lambda: one._opened)
        child = subprocess.run(["env"], capture_output=True, text=True, check=True).stdout
        assert "WANDB_API_KEY" not in child
        assert "MLFLOW_TRACKING_TOKEN" not in child
    assert (os.environ["WANDB_API_KEY"], os.environ["MLFLOW_TRACKING_TOKEN"]) == ("key", "token")
    assert Path(f"{fake}.key").read_text() == "key"


def test_a_tracker_outlives_a_driver_that_was_killed_by_just_as_long_as_it_needs(tmp_path: Path) -> None:
    config = {"kind": "tensorboard", "directory": str(tmp_path)}
    messages = [
        {"config": config, "about": about().__dict__},
        {"row": {"number": 0, "axis": "generation", "step": 0, "values": {"steps": 3.0}}},
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "telemetry.trackers_process"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    out, _ = process.communicate("".join(f"{json.dumps(one)}\n" for one in messages), timeout=120)
    assert (out, process.returncode) == ("\n\n", 0)
    [folder] = tmp_path.iterdir()
    assert in_tensorboard(folder)[0] == {"steps": [(0, 3.0)]}


def test_a_missing_package_is_told_before_anything_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(trackers, "find_spec", lambda name: None if name == "wandb" else real(name))
    result = run(tmp_path, {"kind": "tensorboard"}, {"kind": "wandb"})
    line = refused(result, 2, "trackers.1: the package wandb is not installed; pip install 'forager[wandb]'")
    assert "\n" not in line
    assert not files(tmp_path)


@pytest.mark.parametrize(
    ("sink", "words"),
    [
        ({"kind": "comet"}, "does not match any of the expected tags"),
        ({"kind": "mlflow", "uri": "sqlite:///a.db"}, "`mlflow server` starts one"),
        ({"kind": "mlflow", "uri": "https://me:hunter2@host"}, "MLFLOW_TRACKING_PASSWORD"),
        ({"kind": "mlflow", "uri": "https://host?token=hunter2"}, "MLFLOW_TRACKING_TOKEN"),
        ({"kind": "wandb", "mode": "shared"}, "input should be 'offline' or 'online'"),
        ({"kind": "wandb", "project": "a/b"}, "string should match pattern"),
        ({"kind": "tensorboard", "directory": "a\nb"}, "string should match pattern"),
    ],
)
def test_what_is_no_tracker_is_refused(tmp_path: Path, sink: dict[str, Any], words: str) -> None:
    line = refused(run(tmp_path, sink), 2, "trackers.0", words)
    assert "hunter2" not in line.partition("--set")[0].partition("trackers=")[0]


def test_a_document_is_flattened() -> None:
    assert dict(flat({"a": {"b": [1, {"c": None}], "d": "x"}, "e": [], "f": {}})) == {
        "a.b.0": "1",
        "a.b.1.c": "null",
        "a.d": "x",
        "e": "[]",
        "f": "{}",
    }


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = [create(open_store(tmp_path / place), small_config(), CARD) for place in "ab"]
    assert len({identity(one.store, one.state) for one in runs}) == 2
