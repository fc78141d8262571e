"""What a whole run opens, writes and shows, looked at from outside: nothing for strangers, no secret for anybody."""

import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from orchestrator.ports import is_loopback
from tests import tiny
from tests.conftest import free_ports
from tests.forager import IN_PROCESS, ROOT, SMOKE, command, environment, forager
from tests.system.test_real import RUN_FILE
from tests.system.test_security import mode

CANARIES = {
    name: f"FORAGERCANARY{name.replace('_', '')}"
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_STORAGE_ACCOUNT_KEY", "HF_TOKEN", "WANDB_API_KEY")
}


@dataclass
class Observed:
    """A run as others on the machine see it."""

    driver: int = 0
    code: int = -1
    run: Path = Path()
    home: Path = Path()
    texts: list[str] = field(default_factory=list)
    """Standard output, standard error, every scrape."""
    listening: set[tuple[str, str]] = field(default_factory=set)
    """(process, address) of everything that listened at any time."""
    strangers: set[str] = field(default_factory=set)
    """What the head answered to calls without, with a wrong and with the right token."""


def observe(folder: Path, *overrides: str, file: Path = SMOKE) -> Observed:
    """Runs a file in a fresh home, under a careless umask and with secrets in the environment."""
    seen = Observed(run=folder / "runs" / file.stem, home=folder / "home")
    seen.home.mkdir()
    port = free_ports("metrics")["metrics"]
    small = ("generations=2", "population.lives=8", "evaluation.lives=1", f"metrics.port={port}")
    arguments = [part for override in (*small, *overrides) for part in ("--set", override)]
    environ = {name: value for name, value in environment().items() if not name.startswith("RAY_")}
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        driver = subprocess.Popen(
            command("run", file, "--store", folder / "runs", *arguments),
            cwd=ROOT,
            env={**environ, **CANARIES, "HOME": str(seen.home)},
            stdout=out,
            stderr=err,
            umask=0o022,
        )
        seen.driver = driver.pid
        try:
            while driver.poll() is None:
                look(driver.pid, port, seen)
                time.sleep(0.5)
        finally:
            driver.kill()
    seen.code = driver.wait()
    seen.texts += [(folder / "out").read_text(), (folder / "err").read_text()]
    return seen


def look(pid: int, port: int, seen: Observed) -> None:
    try:
        driver = psutil.Process(pid)
        for process in [driver, *driver.children(recursive=True)]:
            name = Path((process.cmdline() or ["?"])[0]).name
            for socket in process.net_connections("tcp"):
                if socket.status == psutil.CONN_LISTEN:
                    seen.listening.add((name, socket.laddr.ip))
                    if name == "gcs_server" and not seen.strangers:
                        seen.strangers = knock(socket.laddr.port, seen.home / ".ray" / "auth_token")
    except psutil.Error:
        pass
    for path in ("metrics", "health"):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=5) as reply:
                seen.texts.append(reply.read().decode())
        except OSError:
            pass


def knock(port: int, token: Path) -> set[str]:
    """Calls the head of a cluster as three strangers would."""
    import grpc

    answers = set()
    tokens = {"none": None, "wrong": "0" * 64, "right": token.read_text()}
    for kind, text in tokens.items():
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
            call = channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")
            metadata = [("authorization", f"Bearer {text}")] if text else None
            try:
                call(b"", metadata=metadata, timeout=10)
                answers.add(f"{kind} OK")
            except grpc.RpcError as error:
                answers.add(f"{kind} {error.code().name}")
    return answers


@pytest.fixture(scope="module", params=["inprocess", pytest.param("ray", marks=pytest.mark.cluster)])
def observed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Observed:
    seen = observe(tmp_path_factory.mktemp("observed"), f"ray.executor={request.param}")
    assert seen.code == 0, seen.texts[-1]
    return seen


def test_everything_listens_on_loopback_only(observed: Observed) -> None:
    assert observed.listening, "nothing was seen listening"
    assert {one for one in observed.listening if not is_loopback(one[1])} == set()


def test_a_run_is_for_its_owner_only(observed: Observed) -> None:
    entries = [observed.run, *observed.run.rglob("*")]
    assert any(path.name.endswith(".parquet") for path in entries)
    assert any("_delta_log" in path.parts for path in entries)
    loose = [f"{path} {mode(path)}" for path in entries if mode(path) != ("700" if path.is_dir() else "600")]
    assert loose == []


def produced(observed: Observed) -> Iterator[tuple[str, str]]:
    """(place, text) of every byte that the run left or showed."""
    yield from (("shown", text) for text in observed.texts)
    sessions = Path("/tmp/ray").glob(f"session_*_{observed.driver}")
    for folder in (observed.run, observed.home, *sessions):
        for path in folder.rglob("*"):
            if path.is_symlink() or not path.is_file():
                continue
            if path.suffix == ".parquet":
                yield str(path), str(pq.ParquetFile(path).read().to_pydict())
            elif path.name != "auth_token":
                yield str(path), path.read_bytes().decode("latin-1")


def leaks(observed: Observed) -> set[tuple[str, str]]:
    """(place, beginning) of every secret that the run left or showed anywhere."""
    token = observed.home / ".ray" / "auth_token"
    secrets = [*CANARIES.values(), *([token.read_text()] if token.exists() else [])]
    places = list(produced(observed))
    assert any("forager_generation" in text for _, text in places), "no scrape came through"
    return {(place, secret[:16]) for place, text in places for secret in secrets if secret in text}


def test_no_secret_is_written_or_shown(observed: Observed) -> None:
    assert leaks(observed) == set()


@pytest.mark.parametrize("observed", [pytest.param("ray", marks=pytest.mark.cluster)], indirect=True)
def test_a_cluster_lets_nobody_in_without_the_token(observed: Observed) -> None:
    token = observed.home / ".ray" / "auth_token"
    assert (mode(token), mode(token.parent)) == ("600", "700")
    assert {name for name, _ in observed.listening} >= {"gcs_server", "raylet"}
    assert observed.strangers == {"none UNAUTHENTICATED", "wrong UNAUTHENTICATED", "right OK"}


def test_a_failing_run_shows_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "breaking.py").write_text(
        "from workers.environments.forage import Forage\n"
        "class World(Forage):\n"
        "    name = 'breaking-v1'\n"
        "    def step(self, action):\n"
        "        raise RuntimeError('the world ends')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)
    settings = ("--set", "environment={name: 'breaking:World'}")
    result = forager("run", SMOKE, "--store", tmp_path / "runs", *IN_PROCESS, *settings)
    assert result.code == 2
    assert "the world ends" in result.err
    shown = result.out + result.err + "".join(path.read_text() for path in tmp_path.rglob("*.json"))
    assert not [value for value in CANARIES.values() if value in shown]


@pytest.mark.real
@pytest.mark.cluster
@pytest.mark.faults
def test_vllm_and_trl_expose_no_more_than_the_scripted_engine(tmp_path: Path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(RUN_FILE.format(generations=2, model=tiny.build(tmp_path / "model"), serving="merged"))
    seen = observe(tmp_path, file=file)
    assert seen.code == 0, seen.texts[-1]
    assert any(name.startswith("ray::") for name, _ in seen.listening)
    assert {one for one in seen.listening if not is_loopback(one[1])} == set()
    assert leaks(seen) == set()


@pytest.mark.faults
def test_a_store_out_of_reach_shows_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**CANARIES, "AWS_ACCESS_KEY_ID": "key", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}.items():
        monkeypatch.setenv(name, value)
    result = forager("run", SMOKE, "--store", "s3://bucket/runs", *IN_PROCESS)
    assert result.code == 5
    assert result.err.count("\n") == 1
    assert not [value for value in CANARIES.values() if value in result.out + result.err]
