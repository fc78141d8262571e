"""The tools that judge what deploy/ ships, and the published schemas that the tools lack.

schemas.json.gz holds the schemas of KubeRay's and Prometheus's custom resources and of SkyPilot's tasks, without their
descriptions (Apache-2.0); its key `sources` names projects and versions.
"""

import gzip
import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.forager import ROOT

DEPLOY = ROOT / "deploy"
RUN_FILE = DEPLOY / "runs" / "cluster.yaml"
Document = dict[str, Any]


def tool(name: str) -> str:
    """A program beside this interpreter or on the path; skips the test where there is none."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed; `pip install 'forager[dev]'` brings it")
    return found


def judged(name: str, *arguments: str | Path) -> str:
    """What a tool prints that must find no fault."""
    done = subprocess.run([tool(name), *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{name}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def document(path: Path) -> Document:
    """A file with one YAML document."""
    found = yaml.safe_load(path.read_text())
    assert isinstance(found, dict)
    return found


@cache
def schemas() -> Document:
    """Schemas by kind."""
    found = json.loads(gzip.decompress(Path(__file__).with_name("schemas.json.gz").read_bytes()))
    assert isinstance(found, dict)
    return found


def faults(kind: str, found: Document) -> list[str]:
    """Where a document departs from its published schema; a key that the schema lacks is a fault, never pruned."""
    validator = Draft202012Validator(_closed(schemas()[kind]))
    return [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(found)]


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    named = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    if named and "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        closed["additionalProperties"] = False
    return closed
