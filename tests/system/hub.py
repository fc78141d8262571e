"""A model hub of few calls on loopback, kept in memory to be looked at: those that small files are uploaded with."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Hub:
    """What was created and committed."""

    endpoint: str = ""
    repositories: dict[str, dict[str, Any]] = field(default_factory=dict)
    """`dataset/user/name` -> what its creation asked for."""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """By repository and path."""
    authorizations: set[str | None] = field(default_factory=set)
    refuses: str = ""
    """Name of a repository that may not be created."""

    def answer(self, call: str, body: bytes) -> tuple[int, dict[str, Any]]:
        if call == "validate-yaml":
            return 200, {"warnings": [], "errors": []}
        if call == "repos/create":
            asked = json.loads(body)
            name = f"{asked.get('type', 'model')}/{asked['organization']}/{asked['name']}"
            if asked["name"] == self.refuses:
                return 403, {"error": "You may not do that"}
            self.repositories[name] = asked
            return 200, {"url": self._page(name)}
        kind, user, repository, verb, _ = call.split("/", 4)
        name = f"{kind.removesuffix('s')}/{user}/{repository}"
        if verb == "preupload":
            paths = [one["path"] for one in json.loads(body)["files"]]
            return 200, {"files": [{"path": one, "uploadMode": "regular", "shouldIgnore": False} for one in paths]}
        if verb == "commit":
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    files = self.files.setdefault(name, {})
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return 200, {"commitUrl": f"{self._page(name)}/commit/1", "commitOid": "1"}
        return 404, {}

    def _page(self, name: str) -> str:
        kind, _, repository = name.partition("/")
        return f"{self.endpoint}/{'datasets/' if kind == 'dataset' else ''}{repository}"


@contextmanager
def serving(refuses: str = "") -> Iterator[Hub]:
    """A hub that answers while the context lasts."""
    hub = Hub(refuses=refuses)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            hub.authorizations.add(self.headers.get("Authorization"))
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            code, answer = hub.answer(urlsplit(self.path).path.removeprefix("/api/"), body)
            data = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.endpoint = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield hub
        server.shutdown()
        thread.join()
