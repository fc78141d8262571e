"""A served report is of the latest, for this machine alone, and changes nothing."""

import http.client
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from orchestrator import serving
from orchestrator.serving import listening
from telemetry.failures import UsageError
from tests.inprocess import files, forager_here, refused


@contextmanager
def served(place: Path) -> Iterator[int]:
    with listening(str(place), 0) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def get(port: int, path: str = "/", host: str = "", method: str = "GET") -> tuple[int, str, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, headers={"Host": host} if host else {})
    reply = connection.getresponse()
    body = reply.read().decode()
    connection.close()
    return reply.status, body, reply.headers


def test_the_page_says_which_version_it_is_and_where_to_ask_for_newer(finished: Path) -> None:
    before = {path: path.read_bytes() for path in files(finished)}
    with served(finished) as port:
        status, page, headers = get(port)
        assert status == 200
        assert headers["Content-Type"] == "text/html; charset=utf-8"
        assert headers["Cache-Control"] == "no-store"
        assert f'data-version="{get(port, "/version")[1]}"' in page
        assert "connect-src 'self'" in page
        assert get(port)[1] == page
        assert get(port, "/journal")[0] == 404
        assert get(port, method="POST")[0] == 501
    assert {path: path.read_bytes() for path in files(finished)} == before


@pytest.mark.parametrize(
    "host", ["evil.invalid", "evil.invalid:{port}", "127.0.0.1:1", "127.0.0.1.evil.invalid:{port}"]
)
def test_a_page_of_another_name_gets_nothing(finished: Path, host: str) -> None:
    """A name that its owner points at this machine (DNS rebinding)."""
    with served(finished) as port:
        status, body, _ = get(port, host=host.format(port=port))
        assert status == 421
        assert "<" not in body
        assert get(port, "/version", host=host.format(port=port))[0] == 421
        assert get(port, "/version", host=f"localhost:{port}")[0] == 200


def test_only_this_machine_can_reach_it(finished: Path) -> None:
    with listening(str(finished), 0) as server:
        assert server.server_address[0] == "127.0.0.1"


def test_the_page_follows_the_journal(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "PAUSE", 0.0)
    copy = Path(shutil.copytree(finished, tmp_path / "run"))
    entries = sorted((copy / "journal").glob("*.json"))
    later = entries[len(entries) // 2 :]
    kept = [(path, path.read_bytes()) for path in later]
    for path in later:
        path.unlink()
    with served(copy) as port:
        first, page = get(port, "/version")[1], get(port)[1]
        assert "not finished" in page
        assert get(port, "/version")[1] == first
        for path, data in kept:
            path.write_bytes(data)
        assert get(port, "/version")[1] != first
        assert "not finished" not in get(port)[1]


def test_between_two_pages_the_run_has_its_rest(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "PAUSE", 1e6)
    copy = Path(shutil.copytree(finished, tmp_path / "run"))
    last = sorted((copy / "journal").glob("*.json"))[-1]
    data = last.read_bytes()
    last.unlink()
    with served(copy) as port:
        page = get(port)[1]
        last.write_bytes(data)
        assert get(port)[1] == page


def test_a_port_in_use_and_options_that_contradict_each_other_are_refused(finished: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused(forager_here("report", finished, "--serve", "--port", str(port)), 2, "--port", str(port), "in use")
    refused(forager_here("report", finished, "--serve", "--out", "x.html"), 2, "--serve")
    refused(forager_here("report", finished, "--serve", "--figure", "tree"), 2, "--serve")
    refused(forager_here("report", finished, "--port", "5"), 2, "--port", "--serve")
    with pytest.raises(UsageError, match="branch-1"), listening(f"{finished}@branch-1", 0):
        pass


def test_a_place_without_a_run_is_refused_before_anything_listens(tmp_path: Path) -> None:
    refused(forager_here("report", tmp_path / "none", "--serve"), 2, "no such run directory")
