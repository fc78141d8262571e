"""Serves metrics for Prometheus and /health for supervisors, read-only, from threads that cannot hurt the run."""

import errno
import ipaddress
import json
import socket
import socketserver
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

from telemetry.failures import UsageError
from telemetry.metrics import Metrics

IDLE_SECONDS = 10.0
"""A client that sends or takes nothing for this long is cut off."""

Reply = Callable[[str, list[tuple[str, str]]], Any]


class _Handler(WSGIRequestHandler):
    timeout = IDLE_SECONDS

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not worth a line on the run's console."""


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        # HTTPServer would ask the name service for the host's full name here, and wait for it.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up in mid-reply is its own affair."""


class _Server6(_Server):
    address_family = socket.AF_INET6


@contextmanager
def serve(metrics: Metrics, host: str, port: int) -> Iterator[int]:
    """Serves until the context ends; gives the bound port. Raises UsageError when it cannot listen there.

    Says so on standard error when other machines can reach it: there is no password.
    """
    server = _bind(host, port)
    if not ipaddress.ip_address(server.server_name.partition("%")[0]).is_loopback:
        print(
            f"warning: metrics.host: got {host}, so whoever reaches this machine can read the run's numbers;"
            " 127.0.0.1 keeps them here",
            file=sys.stderr,
            flush=True,
        )
    server.set_app(_application(metrics))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="metrics", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def _bind(host: str, port: int) -> _Server:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        kind = _Server6 if family == socket.AF_INET6 else _Server
        return kind((str(address[0]), port), _Handler)
    except OSError as error:
        field = "port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "host"
        got = port if field == "port" else repr(host)
        raise UsageError(
            f"metrics.{field}: got {got}, cannot listen there: {(error.strerror or str(error)).lower()};"
            " choose another, or set metrics.enabled=false"
        ) from error


def _application(metrics: Metrics) -> Callable[[dict[str, Any], Reply], Iterable[bytes]]:
    of_engines = CollectorRegistry()
    of_engines.register(metrics.foreign)
    expositions = {"/metrics": make_wsgi_app(metrics.registry), "/metrics/engines": make_wsgi_app(of_engines)}

    def application(environ: dict[str, Any], reply: Reply) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if environ["REQUEST_METHOD"] != "GET":
            return _answer(reply, "405 Method Not Allowed", "read-only: GET\n")
        if path == "/health":
            return _answer(reply, "200 OK", json.dumps(metrics.health()) + "\n", "application/json")
        if path in expositions and metrics.ready:
            if path == "/metrics/engines":
                # Asked for OpenMetrics, Prometheus's client writes underscores for the colons in vLLM's names.
                environ = {name: value for name, value in environ.items() if name != "HTTP_ACCEPT"}
            body: Iterable[bytes] = expositions[path](environ, reply)
            return body
        if path in expositions:
            return _answer(reply, "503 Service Unavailable", "starting: the journal is not replayed yet\n")
        return _answer(reply, "404 Not Found", "/metrics, /metrics/engines or /health\n")

    return application


def _answer(reply: Reply, status: str, text: str, kind: str = "text/plain; charset=utf-8") -> list[bytes]:
    body = text.encode()
    reply(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]
