"""What the code may not do, what guards the cluster, what engines and listeners are started with."""

import ast
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator import credentials
from orchestrator.config import RayConfig
from telemetry.exporter import serve
from telemetry.failures import UsageError
from telemetry.metrics import Metrics
from tests.forager import IN_PROCESS, ROOT, SMOKE, forager
from tests.test_imports import SOURCES, short, tree_of
from workers import engines
from workers.config import ScriptedEngineConfig, VllmEngineConfig

DANGEROUS_CALLS = {"os.system", "os.popen", "torch.jit.load", "tempfile.mktemp", "compile", "__import__"}
DANGEROUS_WORDS = {"shell": True, "trust_remote_code": True, "weights_only": False, "verify": False}
LISTENERS = {"bind", "create_server", "start_server", "start_http_server", "make_server", "run_app", "serve"}


# What the code may not do.


def dangers(tree: ast.AST) -> Iterator[str]:
    """Checks that vanish under `python -O`, shells, loaders that run what they load, listeners without a host."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            yield f"line {node.lineno}: assert"
        if isinstance(node, ast.Constant) and node.value in ("0.0.0.0", "::"):
            yield f"line {node.lineno}: listens everywhere"
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in DANGEROUS_CALLS:
                yield f"line {node.lineno}: {name}"
            for word in node.keywords:
                if word.arg in DANGEROUS_WORDS and ast.unparse(word.value) == str(DANGEROUS_WORDS[word.arg]):
                    yield f"line {node.lineno}: {word.arg}={ast.unparse(word.value)}"
            if name.split(".")[-1] in LISTENERS and not _has_host(node):
                yield f"line {node.lineno}: {name} without a host"


def _has_host(call: ast.Call) -> bool:
    arguments = [*call.args, *(word.value for word in call.keywords if word.arg in ("host", "addr", "address"))]
    texts = [ast.unparse(argument) for argument in arguments]
    return any("host" in text or "address" in text for text in texts)


@pytest.mark.parametrize("path", SOURCES, ids=short)
def test_sources_are_free_of_dangers(path: Path) -> None:
    assert list(dangers(tree_of(path))) == []


@pytest.mark.parametrize(
    "bad",
    [
        "assert user.is_admin",
        "subprocess.run(text, shell=True)",
        "os.system(text)",
        "torch.jit.load(path)",
        "load(path, weights_only=False)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "server.bind(('', 80))",
        "start_http_server(9464)",
        "host = '0.0.0.0'",
    ],
)
def test_the_check_itself_finds(bad: str) -> None:
    assert list(dangers(ast.parse(bad)))


@pytest.mark.faults
def test_what_is_refused_stays_refused_without_asserts() -> None:
    """pytest keeps the asserts of test files alive under `-O`; those of the code under test would be gone."""
    names = ("orchestrator/test_runfile", "telemetry/test_adapters", "telemetry/test_journal")
    suites = [f"tests/{name}.py" for name in names]
    quiet = ["-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestConfigWarning"]
    done = subprocess.run(
        [sys.executable, "-O", "-m", "pytest", *quiet, *suites], cwd=ROOT, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout


# The Ray token.


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory without a token, in an environment that says nothing about Ray; both restored afterwards."""
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    # What `prepare` sets is taken away again.
    for name in ("RAY_AUTH_MODE", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):03o}"


def planted(path: Path, text: str = "secret" * 8, file_mode: int = 0o644, folder_mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(file_mode)
    path.parent.chmod(folder_mode)
    return path


def test_the_token_is_made_for_its_owner_only(home: Path) -> None:
    before = os.umask(0o000)
    try:
        credentials.prepare(RayConfig())
    finally:
        os.umask(before)
    token = home / ".ray" / "auth_token"
    assert (mode(token), mode(token.parent)) == ("600", "700")
    assert len(bytes.fromhex(token.read_text())) == 32
    assert os.environ["RAY_AUTH_MODE"] == "token"
    first = token.read_text()
    credentials.prepare(RayConfig())
    assert token.read_text() == first


def test_drivers_that_start_together_share_one_token(home: Path) -> None:
    path = home / ".ray" / "auth_token"

    def create(_: int) -> str:
        credentials._create(path)
        return path.read_text()

    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(create, range(64)))) == 1
    assert [file.name for file in path.parent.iterdir()] == ["auth_token"]


def test_a_token_that_ray_left_readable_is_made_private(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    token = planted(home / ".ray" / "auth_token")
    credentials.prepare(RayConfig())
    assert (mode(token), mode(token.parent)) == ("600", "700")
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {token}: the Ray token had mode 644, now 600")
    assert "secret" not in line
    credentials.prepare(RayConfig())
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("file_mode", "folder_mode", "words"),
    [(0o644, 0o755, "got mode 644"), (0o640, 0o700, "got mode 640"), (0o600, 0o777, "others can replace")],
)
def test_a_token_of_the_users_own_that_is_no_secret_is_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch, file_mode: int, folder_mode: int, words: str
) -> None:
    token = planted(home / "mine" / "token", file_mode=file_mode, folder_mode=folder_mode)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    with pytest.raises(UsageError, match=words) as refusal:
        credentials.prepare(RayConfig())
    assert "secret" not in str(refusal.value)
    assert mode(token) == f"{file_mode:03o}"


def test_joining_uses_the_users_token_and_makes_none(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    joining = RayConfig(address="10.0.0.1:6379")
    with pytest.raises(UsageError, match="no Ray token there"):
        credentials.prepare(joining)
    assert list(home.iterdir()) == []
    planted(home / ".ray" / "auth_token", file_mode=0o600, folder_mode=0o700)
    credentials.prepare(joining)
    assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in os.environ, "a joined cluster spans machines"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "from the environment")
    (home / ".ray" / "auth_token").unlink()
    credentials.prepare(joining)


def test_an_empty_token_is_refused(home: Path) -> None:
    planted(home / ".ray" / "auth_token", text="\n", file_mode=0o600, folder_mode=0o700)
    with pytest.raises(UsageError, match="is empty"):
        credentials.prepare(RayConfig())


def test_authentication_is_switched_off_only_aloud(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    credentials.prepare(RayConfig())
    assert "every user of this machine can run code" in capsys.readouterr().err
    assert not (home / ".ray").exists()


@pytest.mark.parametrize("name", credentials.UNPICKLING)
def test_variables_that_run_code_from_data_are_refused(home: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    for config in (RayConfig(), RayConfig(executor="inprocess")):
        with pytest.raises(UsageError, match=f"{name}: .* unset it"):
            credentials.prepare(config)
    monkeypatch.setenv(name, "0")
    credentials.prepare(RayConfig())


def test_a_refusal_is_one_line_and_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_DATA_AUTOLOAD_PYEXTENSIONTYPE", "1")
    result = forager("run", SMOKE, "--store", tmp_path / "runs", *IN_PROCESS)
    assert (result.code, result.err.count("\n")) == (2, 1), result.err
    assert result.err.startswith("error: RAY_DATA_AUTOLOAD_PYEXTENSIONTYPE: ")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


# Engines and the metrics listener.


def test_engine_processes_get_a_safe_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    safe = engines.environment(VllmEngineConfig())
    assert safe.items() >= {
        ("VLLM_PLUGINS", ""),
        ("VLLM_HOST_IP", "127.0.0.1"),
        ("VLLM_NO_USAGE_STATS", "1"),
        ("HF_HUB_OFFLINE", "1"),
        ("VLLM_ENABLE_V1_MULTIPROCESSING", "0"),
    }
    assert engines.environment(ScriptedEngineConfig()) == {}
    for name in (*engines.UNSAFE, *safe):
        monkeypatch.setenv(name, "1")
    engines.secure(VllmEngineConfig())
    assert not set(engines.UNSAFE) & os.environ.keys()
    assert os.environ.items() >= safe.items()


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True)])
def test_a_metrics_listener_beyond_loopback_is_announced(
    capsys: pytest.CaptureFixture[str], host: str, warned: bool
) -> None:
    with serve(Metrics("run"), host, 0):
        pass
    lines = capsys.readouterr().err.splitlines()
    assert [line.startswith(f"warning: metrics.host: got {host}") for line in lines] == [True] * warned
