"""`--address`: another cluster for the driver, the same run; addresses that no driver can use are refused at once."""

from pathlib import Path

import pytest

from orchestrator.state import fold
from telemetry.journal import Journal
from telemetry.store import open_store
from tests.forager import IN_PROCESS, SMOKE
from tests.inprocess import forager_here, output, refused

ELSEWHERE = "192.0.2.1:6379"
"""An address for documentation: nobody answers there (RFC 5737)."""


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("ray://head:10001", ("--address: got ray://", "ray job submit", "--address auto")),
        ("http://head:8265", ("--address: got http://", "ray job submit")),
        ("head", ("--address: got 'head'", "auto or HOST:PORT")),
        ("head:0", ("auto or HOST:PORT",)),
        ("head:65536", ("auto or HOST:PORT",)),
        ("he ad:6379", ("auto or HOST:PORT",)),
    ],
)
def test_addresses_that_no_driver_can_join_are_refused(tmp_path: Path, address: str, words: tuple[str, ...]) -> None:
    refused(forager_here("run", SMOKE, "--store", tmp_path, "--address", address), 2, *words)
    assert not list((tmp_path / "smoke").iterdir())


def test_a_ray_client_in_a_run_file_is_refused(tmp_path: Path) -> None:
    settings = ("--set", "ray.address=ray://head:10001")
    refused(forager_here("run", SMOKE, "--store", tmp_path, *settings), 2, "ray.address: got ray://", "ray job submit")
    assert not list((tmp_path / "smoke").iterdir())


def test_a_run_without_ray_has_no_cluster_to_go_to(tmp_path: Path) -> None:
    result = forager_here("run", SMOKE, "--store", tmp_path, *IN_PROCESS, "--address", "auto")
    refused(result, 2, "--address: got auto", "ray.executor is inprocess")


@pytest.mark.cluster
def test_the_address_on_the_command_line_is_not_recorded_and_changes_nothing(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    output("run", SMOKE, "--store", here, *IN_PROCESS)
    output("run", SMOKE, "--store", there, "--set", f"ray.address={ELSEWHERE}", "--address", "local")
    genesis = fold(Journal(open_store(there / "smoke")).read()).created
    assert genesis.config["ray"]["address"] == ELSEWHERE
    assert output("digest", there / "smoke") == output("digest", here / "smoke")
    for command in (("evaluate", there / "smoke"), ("resume", there / "smoke", "--at-generation", "0")):
        assert output(*command, "--address", "local")
