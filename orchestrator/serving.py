"""`forager report RUN --serve`: the page of a run that lives, to its own machine alone and always of the latest.

Law: only reads, and gives way to the run: of the time, no more than one part in PAUSE goes into building pages.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from threading import Lock
from time import monotonic
from typing import Any

import typer

from orchestrator.following import Follower
from orchestrator.places import branch_of, open_existing
from orchestrator.report import report
from telemetry.failures import ForagerError, UsageError
from telemetry.store import Store

HOST = "127.0.0.1"
NAMES = ("127.0.0.1", "localhost")
"""What a browser on this machine calls it. Another name that leads here is a stranger's page asking."""
PAUSE = 10.0
"""Times as long as a page took to build, until the next one is."""
IDLE_SECONDS = 10.0
"""A client that sends or takes nothing for this long is cut off."""
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class LivePage:
    """The page of a run as of late. For use by several threads."""

    def __init__(self, store: Store) -> None:
        self._follower = Follower(store)
        self._lock = Lock()
        # Versions of an earlier server must not pass for this one's.
        self._server, self._number = os.urandom(4).hex(), 0
        self._page, self._built, self._rest = b"", -1, 0.0

    def version(self) -> str:
        """Changes when the page does. Raises StateError and StorageError as the Follower does."""
        with self._lock:
            self._look()
            return self._version()

    def page(self) -> bytes:
        """The page of that version."""
        with self._lock:
            self._look()
            if self._built != self._number:
                started = monotonic()
                self._page = report(self._follower.store, self._follower.state, self._version()).encode()
                self._built, self._rest = self._number, monotonic() + PAUSE * (monotonic() - started)
            return self._page

    def _look(self) -> None:
        if monotonic() >= self._rest and self._follower.refresh():
            self._number += 1

    def _version(self) -> str:
        return f"{self._server}-{self._number}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    live: LivePage

    def server_bind(self) -> None:
        # HTTPServer would ask the name service for the host's full name here, and wait for it.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up in mid-reply is its own affair."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = IDLE_SECONDS

    def do_GET(self) -> None:
        if self.headers.get("Host", "") not in {f"{name}:{self.server.server_port}" for name in NAMES}:
            self._answer(421, "text/plain", b"this server answers to 127.0.0.1 and localhost alone\n")
            return
        try:
            if self.path == "/":
                self._answer(200, "text/html", self.server.live.page())
            elif self.path == "/version":
                self._answer(200, "text/plain", self.server.live.version().encode())
            else:
                self._answer(404, "text/plain", b"/ or /version\n")
        except ForagerError as error:
            self._answer(503, "text/plain", f"{error}\n".encode())

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": f"{kind}; charset=utf-8", "Content-Length": len(body)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not worth a line on the console."""


@contextmanager
def listening(place: str, port: int) -> Iterator[_Server]:
    """A server of the page of the run at `place`, not yet answering. Raises UsageError when it cannot listen there."""
    if branch := branch_of(place):
        raise UsageError(f"--serve: {branch} does not change any more; `forager report {place}` writes its page")
    live = LivePage(open_existing(place))
    try:
        server = _Server((HOST, port), _Handler)
    except OSError as error:
        known = error.errno in (errno.EADDRINUSE, errno.EACCES)
        raise UsageError(
            f"--port: got {port}, cannot listen there: {(error.strerror or str(error)).lower()}"
            + ("; choose another, 0 takes a free one" if known else "")
        ) from error
    server.live = live
    with server:
        yield server


def serve(place: str, port: int) -> None:
    """Serves until it is interrupted. Raises UsageError, or StateError and StorageError where no run can be read."""
    with listening(place, port) as server:
        typer.echo(f"http://{HOST}:{server.server_port}/  (Ctrl-C ends it)")
        with suppress(KeyboardInterrupt):
            server.serve_forever()
