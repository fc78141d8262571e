"""An MLflow server, real or of few lines: what its REST API says of runs, kept in memory to be looked at."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.conftest import free_ports


@dataclass
class TrackedRun:
    """What one run was told."""

    name: str
    experiment: str
    tags: dict[str, str]
    status: str = "RUNNING"
    statuses: list[str] = field(default_factory=list)
    metrics: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)


@dataclass
class Server:
    """The few calls that the tracker makes; an unknown one is a 404 without a word."""

    uri: str = ""
    experiments: dict[str, str] = field(default_factory=dict)
    runs: dict[str, TrackedRun] = field(default_factory=dict)
    authorizations: set[str | None] = field(default_factory=set)
    refuse: list[int] = field(default_factory=list)
    """Status codes of the next answers; 0 hangs up without one."""

    def answer(self, call: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if call == "experiments/get-by-name":
            if body["experiment_name"] not in self.experiments:
                return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST"}
            return 200, {"experiment": {"experiment_id": self.experiments[body["experiment_name"]]}}
        if call == "experiments/create":
            self.experiments[body["name"]] = str(len(self.experiments))
            return 200, {"experiment_id": self.experiments[body["name"]]}
        if call == "runs/search":
            wanted = body["filter"].partition("'")[2].rstrip("'")
            return 200, {"runs": [self._show(key) for key, one in self.runs.items() if wanted in one.tags.values()]}
        if call == "runs/create":
            tags = {one["key"]: one["value"] for one in body["tags"]}
            self.runs["run-1"] = TrackedRun(body["run_name"], body["experiment_id"], tags)
            return 200, {"run": {"info": {"run_id": "run-1"}}}
        if call == "runs/update":
            run = self.runs[body["run_id"]]
            run.status = body["status"]
            run.statuses.append(run.status)
            return 200, {"run_info": {}}
        if call == "runs/log-batch":
            run = self.runs[body["run_id"]]
            for one in body.get("metrics", ()):
                run.metrics.setdefault(one["key"], []).append((one["step"], one["value"]))
            run.params |= {one["key"]: one["value"] for one in body.get("params", ())}
            return 200, {}
        return 404, {}

    def _show(self, key: str) -> dict[str, Any]:
        metrics = [
            {"key": name, "value": points[-1][1], "step": points[-1][0]}
            for name, points in self.runs[key].metrics.items()
        ]
        return {"info": {"run_id": key}, "data": {"metrics": metrics}}


@contextmanager
def serve() -> Iterator[Server]:
    """A server on this machine."""
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply({key: value[0] for key, value in parse_qs(urlsplit(self.path).query).items()})

        def do_POST(self) -> None:
            self._reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _reply(self, body: dict[str, Any]) -> None:
            state.authorizations.add(self.headers["Authorization"])
            refused = state.refuse.pop(0) if state.refuse else 200
            if refused == 0:
                return
            if refused != 200:
                self.send_response(refused)
                self.send_header("Location", state.uri)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            code, answer = state.answer(urlsplit(self.path).path.removeprefix("/api/2.0/mlflow/"), body)
            data = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Tests are quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.uri = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def real(place: Path) -> Iterator[str]:
    """The address of MLflow's own server on a database in a file."""
    port = free_ports("mlflow")["mlflow"]
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{place}/mlflow.db", "--artifacts-destination", str(place)]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with open(place / "mlflow.log", "wb") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            for _ in range(600):  # it needs half a minute on a machine with nothing else to do
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                        break
                except OSError:
                    time.sleep(0.3)
            else:
                raise RuntimeError((place / "mlflow.log").read_text()[-2000:])
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
