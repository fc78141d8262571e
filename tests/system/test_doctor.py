"""`forager doctor` finds what is planted, changes nothing, and is quick."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator import doctor
from orchestrator.doctor import Check, examine
from tests.forager import ROOT, environment, forager
from tests.system.test_security import mode, planted
from tests.test_imports import HEAVY
from workers.engines import UNSAFE

LISTEN = (
    "import socket, sys; listener = socket.create_server((sys.argv[1], 0));"
    "print(listener.getsockname()[1], flush=True); input()"
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory without a token and an environment without anything risky."""
    for name in [name for name in os.environ if name.startswith(("RAY_", "VLLM_", "TORCH_", "PYTHONOPT"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def level(what: str, checks: list[Check] | None = None) -> str:
    [found] = {check.level for check in checks or examine("/tmp") if check.what == what}
    return found


def test_a_table_for_people_and_json_for_programs(tmp_path: Path) -> None:
    shown = forager("doctor", "--store", tmp_path)
    rows = json.loads((told := forager("doctor", "--store", tmp_path, "--json")).out)
    expected = 2 if any(row["level"] == "problem" for row in rows) else 0
    assert told.code == expected
    assert {"forager", "ray", "torch", "processor", "gpus", "ray token", "clock", "disk", "store"} <= {
        row["what"] for row in rows
    }
    *lines, verdict = shown.out.splitlines()
    assert {line.split()[0] for line in lines} <= {"ok", "warning", "problem"}
    assert len({line.index(line.split(maxsplit=1)[1]) for line in lines}) == 1, "columns are not aligned"
    assert verdict.startswith("ok: ") or "problem" in verdict
    assert list(tmp_path.iterdir()) == [], "it left something behind"


def test_it_loads_no_heavy_library_and_takes_less_than_two_seconds(tmp_path: Path) -> None:
    program = (
        "import sys, time; from orchestrator.doctor import examine;"
        f"examine({str(tmp_path)!r}); print(time.process_time(), *set({HEAVY!r}) & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    seconds, *heavy = done.stdout.split()
    assert heavy == []
    assert float(seconds) < 2


def test_a_risky_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert level("environment") == "ok"
    monkeypatch.setenv("RAY_DATA_AUTOLOAD_PYEXTENSIONTYPE", "1")
    monkeypatch.setenv(UNSAFE[0], "1")
    checks = examine("/tmp")
    assert level("RAY_DATA_AUTOLOAD_PYEXTENSIONTYPE", checks) == "problem"
    assert level(UNSAFE[0], checks) == "warning"


def test_a_token_that_others_can_read(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert level("ray token") == "ok"
    assert not (home / ".ray").exists()
    token = planted(home / ".ray" / "auth_token")
    assert level("ray token") == "warning", "the next run mends it"
    assert mode(token) == "644", "it changes nothing"
    token.chmod(0o600)
    assert level("ray token") == "ok"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "elsewhere"))
    assert level("ray token") == "problem"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "from-the-environment")
    [check] = [check for check in examine("/tmp") if check.what == "ray token"]
    assert check.level == "ok"
    assert "from-the-environment" not in check.found


@contextmanager
def listening(name: str, host: str, auth: str | None) -> Iterator[tuple[int, str]]:
    """A process that calls itself `name` and listens on `host`: (pid, port)."""
    environ = {name: value for name, value in environment().items() if name != "RAY_AUTH_MODE"}
    with subprocess.Popen(
        [name, "-c", LISTEN, host],
        executable=os.path.realpath(sys.executable),
        env={**environ, "PYTHONHOME": sys.base_prefix} | ({"RAY_AUTH_MODE": auth} if auth else {}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process.pid, process.stdout.readline().strip() if process.stdout else ""
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("name", "host", "auth", "expected"),
    [
        ("gcs_server", "0.0.0.0", None, "problem"),
        ("ray::Shell", "0.0.0.0", "token", "warning"),
        ("raylet", "127.0.0.1", None, None),
        ("somebody", "0.0.0.0", None, None),
    ],
)
def test_open_ports(name: str, host: str, auth: str | None, expected: str | None) -> None:
    with listening(name, host, auth) as (pid, port):
        assert port
        found = [check for check in doctor._ports() if f"pid {pid}" in check.found]
    assert [check.level for check in found] == ([expected] if expected else [])
    assert all(f"{host}:{port}" in check.found for check in found)


def test_versions_are_held_against_what_forager_requires(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "orchestrator.doctor.metadata.requires", lambda _: ["ray>=999", "nothing-of-that-name>=1", "numpy>=1"]
    )
    checks = {check.what: check for check in doctor._versions()}
    assert checks["ray"].level == "problem"
    assert "expected >=999" in checks["ray"].found
    assert "not installed" in checks["nothing-of-that-name"].found
    assert "numpy" not in checks


def test_a_store_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    assert level("store", list(doctor._store(str(tmp_path / "new" / "runs")))) == "ok"
    assert level("store", list(doctor._store(str(tmp_path / "file")))) == "problem"
    assert level("store", list(doctor._store("ftp://bucket/runs"))) == "problem"
    monkeypatch.setattr(doctor, "STORE_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        [check] = doctor._store("s3://bucket/runs")
    assert check.level == "problem"
    assert "no answer in 1 s" in check.found


def test_a_problem_is_exit_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(planted(tmp_path / "token" / "file")))
    result = forager("doctor", "--store", tmp_path)
    assert result.code == 2
    assert "got mode 644" in result.out
