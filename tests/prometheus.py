"""A real Prometheus server beside a test, if this machine has one: Debian's package, or `make prometheus`."""

import json
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.conftest import free_ports, stop
from tests.forager import ROOT

RULES = ROOT / "deploy" / "prometheus" / "rules.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "forager.json"


def find(tool: str) -> str | None:
    """`prometheus` or `promtool`: beside this interpreter or on the path."""
    beside = Path(sys.executable).with_name(tool)
    return str(beside) if beside.exists() else shutil.which(tool)


@dataclass(frozen=True)
class Server:
    """Answers queries over everything it has scraped."""

    port: int
    started: float

    def series(self, expression: str) -> list[dict[str, object]]:
        """Series that the expression has had since the server started, a point a second."""
        question = {"query": expression, "start": self.started, "end": time.time(), "step": "1"}
        url = f"http://127.0.0.1:{self.port}/api/v1/query_range?{urllib.parse.urlencode(question)}"
        with urllib.request.urlopen(url, timeout=30) as reply:
            answer = json.load(reply)
        assert answer["status"] == "success", answer
        found: list[dict[str, object]] = answer["data"]["result"]
        return found


@contextmanager
def scraping(place: Path, port: int) -> Iterator[Server | None]:
    """A server that scrapes this machine's port twice a second under the shipped rules; None without Prometheus."""
    program = find("prometheus")
    if program is None:
        yield None
        return
    place.mkdir()
    own = next(one for one in free_ports("own", "other").values() if one != port)
    config = {
        "global": {"scrape_interval": "500ms", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {"job_name": name, "metrics_path": path, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
            for name, path in (("forager", "/metrics"), ("forager-engines", "/metrics/engines"))
        ],
    }
    (place / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [program, f"--config.file={place}/prometheus.yml", f"--storage.tsdb.path={place}/data"]
    with (place / "log").open("wb") as log:
        server = subprocess.Popen(
            [*command, f"--web.listen-address=127.0.0.1:{own}"], stdout=log, stderr=subprocess.STDOUT
        )
        try:
            yield Server(own, time.time())
        finally:
            stop(server)


def panels() -> dict[str, list[str]]:
    """Expressions of every panel of the dashboard, for all runs, by its title."""
    found = {}
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        if panel["type"] != "row":
            found[panel["title"]] = [target["expr"].replace("$instance", ".*") for target in panel["targets"]]
    return found


def recorded() -> list[str]:
    """Names of the recording rules."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule["record"] for group in groups for rule in group["rules"] if "record" in rule]


def alerts() -> dict[str, str]:
    """Expressions of the alerts."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"] if "alert" in rule}
