"""A reverse proxy in front of a real S3 server that hurts chosen requests, and counts every time it did.

Requests go on as they came, the Host header included, because the client's signature covers it: the server then
checks signatures against the proxy's address without knowing of the proxy. A listing has the method LIST and its
prefix as key; a bulk deletion has the method POST.
"""

import re
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

CODES = {403: "AccessDenied", 409: "ConditionalRequestConflict", 412: "PreconditionFailed"}
CODES |= {500: "InternalError", 503: "SlowDown"}
UNTIL_THE_END = 10**9
OWN_HEADERS = {"connection", "content-length", "transfer-encoding"}


class Exchange(BaseHTTPRequestHandler):
    """One request and its answer."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "Proxy"

    def serve(self) -> None:
        act = self.server.choose(*name(self.command, self.path))
        act(self)

    do_DELETE = do_GET = do_HEAD = do_POST = do_PUT = serve

    def body(self) -> bytes:
        """What the client sends."""
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def forward(self) -> tuple[HTTPResponse, bytes]:
        """Lets the request take effect; the server's answer."""
        upstream = HTTPConnection(self.server.upstream, timeout=60)
        try:
            headers = {key: value for key, value in self.headers.items() if key.lower() != "connection"}
            upstream.request(self.command, self.path, self.body(), headers)
            response = upstream.getresponse()
            return response, response.read()
        finally:
            upstream.close()

    def answer(self, response: HTTPResponse, body: bytes, declared: int | None = None) -> None:
        """Tells the client what the server said, in a body that may be shorter than declared."""
        self.send_response_only(response.status, response.reason)
        for key, value in response.getheaders():
            if key.lower() not in OWN_HEADERS:
                self.send_header(key, value)
        length = response.getheader("Content-Length", "0") if self.command == "HEAD" else len(body)
        self.send_header("Content-Length", str(length if declared is None else declared))
        self.end_headers()
        self.wfile.write(body)

    def refuse(self, status: int) -> None:
        """An error in the words of S3."""
        body = f"<Error><Code>{CODES[status]}</Code><Message>Injected.</Message></Error>".encode()
        self.send_response_only(status, CODES[status])
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def cut(self) -> None:
        """Resets the connection."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def setup(self) -> None:
        super().setup()
        self.server.open_connections.add(self.connection)

    def finish(self) -> None:
        self.server.open_connections.discard(self.connection)
        super().finish()

    def log_message(self, *args: object) -> None:
        pass


Act = Callable[[Exchange], None]
"""What is done to a request."""


def pass_on(exchange: Exchange) -> None:
    exchange.answer(*exchange.forward())


def refuse(status: int) -> Act:
    """An error, and nothing has happened."""

    def act(exchange: Exchange) -> None:
        exchange.body()
        exchange.refuse(status)

    return act


def lose_answer(status: int) -> Act:
    """An error, although everything has happened."""

    def act(exchange: Exchange) -> None:
        exchange.forward()
        exchange.refuse(status)

    return act


def drop_answer(exchange: Exchange) -> None:
    """No answer at all, although everything has happened."""
    exchange.forward()
    exchange.cut()


def reset_upload(exchange: Exchange) -> None:
    """The connection breaks while the request is being sent."""
    exchange.rfile.read(int(exchange.headers.get("Content-Length", 0)) // 2)
    exchange.cut()


def delay(seconds: float) -> Act:
    """A slow server."""

    def act(exchange: Exchange) -> None:
        exchange.server.over.wait(seconds)
        pass_on(exchange)

    return act


def hang(exchange: Exchange) -> None:
    """A black hole: nothing happens and nothing comes back, as long as the proxy stands."""
    exchange.server.over.wait()
    exchange.cut()


def truncate(exchange: Exchange) -> None:
    """The connection breaks in the middle of the answer's body."""
    response, body = exchange.forward()
    exchange.answer(response, body[: len(body) // 2], declared=len(body))
    exchange.cut()


def truncate_whole(exchange: Exchange) -> None:
    """Half of the answer, and a length that says it is all."""
    response, body = exchange.forward()
    exchange.answer(response, body[: len(body) // 2])


def hide(pattern: str) -> Act:
    """An old listing, from before the objects whose key matches were there."""

    def act(exchange: Exchange) -> None:
        response, body = exchange.forward()
        contents = re.compile(r"<Contents>.*?<Key>(.*?)</Key>.*?</Contents>", re.DOTALL)

        def keep(match: re.Match[str]) -> str:
            if not re.search(pattern, match[1]):
                return match[0]
            exchange.server.hidden.append(match[1])
            return ""

        exchange.answer(response, contents.sub(keep, body.decode()).encode())

    return act


@dataclass
class Fault:
    """What happens to matching requests: to the `nth` of them and those that follow, `times` times in all."""

    act: Act
    method: str
    """A regular expression, like the key."""
    key: str = ""
    nth: int = 1
    times: int = 1
    matches: int = 0
    """Requests that matched so far."""
    hits: int = 0
    """Requests that were hurt so far."""

    def is_due(self, method: str, key: str) -> bool:
        """Counts the request if it matches, and says whether it is to be hurt."""
        if not re.fullmatch(self.method, method) or not re.search(self.key, key):
            return False
        self.matches += 1
        return self.matches >= self.nth and self.hits < self.times


class Proxy(ThreadingHTTPServer):
    """Listens on a loopback port; `faults` may be changed at any time, and the first one that is due strikes."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream).netloc
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        """Method and key of every request so far."""
        self.hidden: list[str] = []
        """Keys left out of listings."""
        self.errors: list[BaseException] = []
        """What went wrong in the proxy itself."""
        self.open_connections: set[socket.socket] = set()
        self.over = threading.Event()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), Exchange)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def choose(self, method: str, key: str) -> Act:
        """What is done to the next request."""
        with self._lock:
            self.requests.append((method, key))
            # Every fault counts every request, but only one can hurt it.
            due = [fault for fault in self.faults if fault.is_due(method, key)]
            if not due:
                return pass_on
            due[0].hits += 1
            return due[0].act

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave are part of the game; anything else is a bug of the proxy."""
        error = sys.exception()
        if error is not None and not isinstance(error, ConnectionError):
            self.errors.append(error)

    def inject(self, act: Act, method: str, key: str = "", nth: int = 1, times: int = 1) -> Fault:
        """Adds a fault."""
        fault = Fault(act, method, key, nth, times)
        self.faults.append(fault)
        return fault


@contextmanager
def running(upstream: str) -> Iterator[Proxy]:
    """A proxy in front of the server at this URL."""
    with Proxy(upstream) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()
            proxy.over.set()
            for connection in list(proxy.open_connections):
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
    assert not proxy.errors, proxy.errors


def name(method: str, path: str) -> tuple[str, str]:
    """Method and key (without the bucket) of a request."""
    parts = urlsplit(path)
    query = parse_qs(parts.query, keep_blank_values=True)
    if method == "GET" and "list-type" in query:
        return "LIST", query.get("prefix", [""])[0]
    return method, unquote(parts.path).lstrip("/").partition("/")[2]
