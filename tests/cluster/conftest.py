"""The machines of these tests, their network and their bucket."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.nodes import INSIDE, SWITCH, Site, site
from tests.cluster.scripted import TEXT
from tests.conftest import bucket_at
from tests.forager import IN_PROCESS
from tests.inprocess import output


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("site")


@pytest.fixture(scope="session")
def bridge(folder: Path) -> Iterator[Site]:
    """The network alone."""
    if INSIDE not in os.environ:
        pytest.skip("machines are made out of namespaces: run `make cluster-test`")
    with site(folder) as made:
        yield made


@pytest.fixture(scope="session")
def bucket(bridge: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of the only thing that all nodes can write to; nodes that are added from now on know its credentials."""
    with bucket_at(SWITCH, tmp_path_factory.mktemp("s3")) as url:
        yield url


@pytest.fixture(scope="session")
def nodes(bridge: Site, bucket: str) -> Site:
    """A head and two more nodes; tests may take nodes away and add others, but leave three."""
    for node in [bridge.add() for _ in range(3)]:
        node.ready()
    return bridge


@pytest.fixture(scope="session")
def digest(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of the run in one process, on this disk."""
    place = tmp_path_factory.mktemp("calm")
    (place / "chaos.yaml").write_text(TEXT)
    output("run", place / "chaos.yaml", "--store", place, *IN_PROCESS)
    return output("digest", place / "chaos")
