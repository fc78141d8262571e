"""Rules and dashboard as they are shipped: valid, alive, and about metrics that there are."""

import json
import re
import subprocess
import sys

import pytest
import yaml

from telemetry.catalogue import TABLE
from tests.forager import ROOT
from tests.prometheus import DASHBOARD, RULES, alerts, find, panels, recorded

PROMTOOL = find("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed; `make prometheus` fetches it")


@needs_promtool
@pytest.mark.parametrize(
    "command", ["check config prometheus.yml", "check rules rules.yml", "test rules rules_test.yml"]
)
def test_promtool_finds_no_fault(command: str) -> None:
    done = subprocess.run(
        [str(PROMTOOL), *command.split()], cwd=RULES.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout + done.stderr


def test_every_alert_fires_in_a_unit_test_and_says_what_to_do() -> None:
    document = (RULES.parent / "rules_test.yml").read_text()
    assert {name for name in alerts() if f'alertname="{name}"' in document} == set(alerts())
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                assert set(rule["annotations"]) == {"summary", "action"}
                assert rule["labels"]["severity"] in ("info", "warning", "critical")


def test_the_dashboard_is_what_its_source_builds() -> None:
    builder = pytest.importorskip("grafana_foundation_sdk")
    assert builder
    done = subprocess.run(
        [sys.executable, ROOT / "deploy" / "grafana" / "build.py"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert json.loads(done.stdout) == json.loads(DASHBOARD.read_text()), (
        "write it anew: python deploy/grafana/build.py > deploy/grafana/forager.json"
    )


def test_rules_and_dashboard_know_only_metrics_that_there_are_and_show_nearly_all() -> None:
    known = {one.name for one in TABLE} | {f"{one.name}_bucket" for one in TABLE if one.kind == "histogram"}
    expressions = [expression for queries in panels().values() for expression in queries]
    shown = set(re.findall(r"forager_\w+", " ".join(expressions)))
    asked = set(re.findall(r"forager_\w+", RULES.read_text()))
    assert shown | asked <= known
    unseen = {one.name for one in TABLE if one.name not in shown and f"{one.name}_bucket" not in shown}
    assert unseen == {"forager_run_info", "forager_fitness_median"}, "the first names runs, the other is a quantile"
    assert len(recorded()) == 3
