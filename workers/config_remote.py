"""The part of a run file that names endpoints: OpenAI-compatible servers anywhere that answer the agents' prompts."""

import ipaddress
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from telemetry.config import Config


class EndpointConfig(Config):
    """One server. The machine under it may come and go."""

    url: str = Field(pattern=r"^https?://[!-~]{1,500}$")
    """Where its API is, without `/v1`: `https://host:port`, with a path if it has one."""
    key: str = Field(default="", pattern=r"^([A-Za-z_][A-Za-z0-9_]{0,127})?$")
    """Name of the environment variable that holds its API key; empty: it asks for none. Never the key itself."""
    model: str = Field(default="", pattern=r"^[!-~]{0,500}$")
    """Name under which it serves the run's base model; empty: the first that it lists."""
    requests: int = Field(default=64, ge=1, le=4096)
    """Decisions it is asked for at once."""
    price_prompt: float = Field(default=0.0, ge=0, le=1e6)
    """Dollars per million prompt tokens."""
    price_completion: float = Field(default=0.0, ge=0, le=1e6)
    """Dollars per million tokens decoded."""
    trusted: bool = False
    """What it answers is believed; the answers of others are checked against it."""
    adapter_root: str = Field(default="", pattern=r"^(/[ -~]{0,500})?$")
    """Directory in which it finds the run's adapters, each under its id; empty: where they are on this machine."""
    insecure: bool = False
    """Allows plain http to another machine: whoever is in between can read and change everything, the key as well."""

    @property
    def name(self) -> str:
        """The URL without its scheme."""
        return self.url.partition("://")[2]

    @model_validator(mode="after")
    def _check(self) -> "EndpointConfig":
        try:
            parts = urlsplit(self.url)
            host = parts.hostname if parts.port != 0 else None
        except ValueError:
            host = None
        if not host or parts.username is not None or parts.query or parts.fragment or self.url.endswith(("/", "/v1")):
            raise ValueError(
                "expected a url such as https://host:port, without user, query, `/v1` or a slash at the end"
            )
        if parts.scheme == "http" and not (self.insecure or _is_loopback(host)):
            raise ValueError("got plain http to another machine, expected https; or add `insecure: true`")
        return self


class RemoteEngineConfig(Config):
    """A pool of endpoints, held by one actor."""

    kind: Literal["remote"] = "remote"
    endpoints: tuple[EndpointConfig, ...] = Field(min_length=1, max_length=1000)
    """Who answers."""
    count: Literal[1] = 1
    """One actor holds all endpoints."""
    context: int = Field(default=512, ge=64, le=1_000_000)
    """Longest prompt plus completion, in tokens; no endpoint may serve less."""
    timeout: float = Field(default=60.0, gt=0, le=3600)
    """Seconds that one call to an endpoint may take."""
    hedge: float = Field(default=0.95, ge=0, lt=1)
    """Once a call has taken longer than this share of the endpoint's calls before, another endpoint is asked as well;
    0: never. At most one call in twenty is."""
    patience: float = Field(default=120.0, gt=0, le=86_400)
    """Seconds without any answer after which the engine fails; at least `timeout`, less than `workers.call_timeout`."""
    checks: float = Field(default=0.05, ge=0, le=1)
    """Share of the decisions of endpoints without trust that a trusted one is asked for as well."""
    tolerance: float = Field(default=0.1, gt=0, le=1)
    """Total variation distance between two answers beyond which one of them is wrong: arithmetic differs a little from
    one kind of machine to the next."""
    adapters: Literal["path", "none"] = "path"
    """`path`: endpoints load adapters from files that they can see; `none`: the base model alone is served."""
    max_adapters: int = Field(default=8, ge=1, le=1024)
    """Adapters in one batch (`--max-loras` of the servers)."""
    max_rank: Literal[8, 16, 32, 64, 128, 256] = 16
    """Largest adapter rank served (`--max-lora-rank` of the servers)."""

    @model_validator(mode="after")
    def _check(self) -> "RemoteEngineConfig":
        names = [endpoint.name for endpoint in self.endpoints]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"engine.endpoints: got {twice} twice, expected every endpoint once")
        if self.patience < self.timeout:
            raise ValueError(
                f"engine.patience: got {self.patience:g}, expected at least engine.timeout {self.timeout:g}"
            )
        if self.checks and not any(endpoint.trusted for endpoint in self.endpoints):
            raise ValueError(
                "engine.endpoints: got none with `trusted: true`, expected one to check the others by; or set"
                " engine.checks to 0"
            )
        return self


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
