"""Runs on an MLflow server, through its REST API (https://mlflow.org/docs/latest/rest-api.html), without its package.

Credentials are those of MLflow's own client: MLFLOW_TRACKING_USERNAME and _PASSWORD, or _TOKEN; _SERVER_CERT_PATH names
the certificates to trust. They are sent to the configured address alone: redirections are refused.
"""

import base64
import json
import os
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from telemetry.config_trackers import MlflowConfig
from telemetry.trackers import About, Row

IDENTITY = "forager.id"
"""The tag by which a run is found again."""
ROWS = "forager/rows"
"""A metric that goes with every row, so that what was written is known from the server itself."""
SECONDS = 10.0
"""That a request may take."""
PAUSES = (1.0, 4.0, 10.0)
"""Seconds before a request is made again that found no server, or one in trouble: in all less than trackers have."""
TROUBLE = (429, 500, 502, 503, 504)
MOST_PARAMS = 100
"""In one request."""
MOST_VALUE = 500
"""Characters of a parameter that every server takes."""


class Mlflow:
    """One run of an experiment."""

    def __init__(self, config: MlflowConfig, about: About) -> None:
        self._server = _Server(config.uri)
        experiment = self._experiment(config.experiment)
        found = self._server.post(
            "runs/search",
            {"experiment_ids": [experiment], "filter": f"tags.`{IDENTITY}` = '{about.id}'", "max_results": 1},
        ).get("runs")
        self._run, self._next = self._again(found[0]) if found else (self._create(experiment, about), 0)

    def write(self, row: Row) -> None:
        if row.number < self._next:
            return
        now = round(1000 * time.time())
        metrics = [
            {"key": name, "value": value, "timestamp": now, "step": row.step} for name, value in row.values.items()
        ]
        metrics.append({"key": ROWS, "value": row.number + 1, "timestamp": now, "step": row.number})
        self._server.post("runs/log-batch", {"run_id": self._run, "metrics": metrics})
        self._next = row.number + 1

    def close(self, finished: bool) -> None:
        self._update("FINISHED" if finished else "KILLED", end_time=round(1000 * time.time()))

    def _experiment(self, name: str) -> str:
        query = {"experiment_name": name}
        try:
            found = self._server.get("experiments/get-by-name", query)
        except FileNotFoundError:
            with suppress(OSError):  # another run may have been faster
                self._server.post("experiments/create", {"name": name})
            found = self._server.get("experiments/get-by-name", query)
        return str(found["experiment"]["experiment_id"])

    def _create(self, experiment: str, about: About) -> str:
        tags = {
            IDENTITY: about.id,
            "forager.run": about.name,
            "forager.version": about.version,
            "forager.model": about.model,
        }
        created = self._server.post(
            "runs/create",
            {
                "experiment_id": experiment,
                "run_name": about.name,
                "start_time": round(1000 * time.time()),
                "tags": [{"key": key, "value": value[:MOST_VALUE]} for key, value in tags.items()],
            },
        )
        run = str(created["run"]["info"]["run_id"])
        params = [{"key": key[:250], "value": value[:MOST_VALUE]} for key, value in flat(about.config)]
        for start in range(0, len(params), MOST_PARAMS):
            self._server.post("runs/log-batch", {"run_id": run, "params": params[start : start + MOST_PARAMS]})
        return run

    def _again(self, found: Mapping[str, Any]) -> tuple[str, int]:
        """The run of an earlier driver, and the first row that it lacks."""
        self._run = str(found["info"]["run_id"])
        self._update("RUNNING")
        metrics = found.get("data", {}).get("metrics", [])
        return self._run, round(max((one["value"] for one in metrics if one["key"] == ROWS), default=0))

    def _update(self, status: str, **changes: int) -> None:
        self._server.post("runs/update", {"run_id": self._run, "status": status, **changes})


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any) -> None:
        """Whoever answers instead of the server must not get its password."""


class _Server:
    """Requests to one MLflow server. Raises OSError for whatever it does not grant."""

    def __init__(self, uri: str) -> None:
        self._root = f"{uri.rstrip('/')}/api/2.0/mlflow/"
        self._headers = {"Content-Type": "application/json", **_authorization()}
        trusted = ssl.create_default_context(cafile=os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or None)
        self._opener = urllib.request.build_opener(_NoRedirect(), urllib.request.HTTPSHandler(context=trusted))

    def get(self, path: str, query: Mapping[str, str]) -> dict[str, Any]:
        """Raises FileNotFoundError if there is no such thing."""
        return self._ask(f"{path}?{urllib.parse.urlencode(query)}", None)

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._ask(path, json.dumps(body).encode())

    def _ask(self, path: str, data: bytes | None) -> dict[str, Any]:
        call = path.partition("?")[0]
        for pause in (*PAUSES, None):
            try:
                return self._ask_once(path, call, data)
            except urllib.error.HTTPError as error:
                said = error.read(300).decode("utf-8", "replace")
                if error.code == 404 and "RESOURCE_DOES_NOT_EXIST" in said:
                    raise FileNotFoundError(call) from error
                if pause is None or error.code not in TROUBLE:
                    raise OSError(f"{call}: the server answered {error.code}: {said}") from error
            except OSError as error:
                if pause is None:
                    raise OSError(f"{call}: {getattr(error, 'reason', error)}") from error
            time.sleep(pause)
        raise OSError(f"{call}: no answer")

    def _ask_once(self, path: str, call: str, data: bytes | None) -> dict[str, Any]:
        # The address has passed its configuration's check: http or https, and nothing else.
        request = urllib.request.Request(self._root + path, data, self._headers)
        with self._opener.open(request, timeout=SECONDS) as reply:
            answer = json.load(reply)
        if not isinstance(answer, dict):
            raise ValueError(f"{call}: the server answered something else than an object")
        return answer


def _authorization() -> dict[str, str]:
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    if user := os.environ.get("MLFLOW_TRACKING_USERNAME"):
        both = f"{user}:{os.environ.get('MLFLOW_TRACKING_PASSWORD', '')}"
        return {"Authorization": f"Basic {base64.b64encode(both.encode()).decode()}"}
    return {}


def flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """A document as dotted names and text."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from flat(inner, f"{name}.{key}".lstrip("."))
    elif isinstance(value, Sequence) and not isinstance(value, str) and value:
        for index, inner in enumerate(value):
            yield from flat(inner, f"{name}.{index}")
    else:
        yield name, value if isinstance(value, str) else json.dumps(value)
