"""Fixtures of more than one fault campaign."""

import os
from collections.abc import Iterator

import pytest

from telemetry import object_store
from tests.faults.s3_proxy import Proxy, running


@pytest.fixture
def proxy(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """In front of the S3 server: stores opened from now on go through it, and repeat failed requests fast."""
    with running(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        monkeypatch.setattr(object_store, "FIRST_PAUSE", 0.01)
        monkeypatch.setattr(object_store, "LONGEST_PAUSE", 0.1)
        yield proxy


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> float:
    """Stores opened from now on give up soon; the most seconds that any of their calls may take."""
    monkeypatch.setattr(object_store, "REQUEST_SECONDS", 0.5)
    monkeypatch.setattr(object_store, "RETRY_SECONDS", 0.3)
    return 0.3 + 2 * 0.5 + 1.0
