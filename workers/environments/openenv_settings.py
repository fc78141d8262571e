"""The dials of the OpenEnv world: where the server is, and how its JSON becomes words, texts and energy."""

import ipaddress
import re
from urllib.parse import urlsplit

from pydantic import Field, JsonValue, ValidationInfo, field_validator

from telemetry.config import Config

PLACE = re.compile(r"\{([\w.]*)\}")
"""Where a template takes a field: `{text}`, `{board.0.name}`; `{}` is the whole observation."""


class OpenEnvSettings(Config):
    """How an OpenEnv environment is told to agents, and what its rewards are worth."""

    remote: bool = False
    """Allow a server that is not on this machine."""
    url: str = Field(default="http://127.0.0.1:8000", max_length=500, validate_default=True)
    """Base URL of the server: http, https, ws or wss."""
    timeout: float = Field(default=10.0, gt=0, le=25)
    """Seconds that one reset or step may take, the connection included; less than an agent's `hang_timeout`."""
    reset: dict[str, JsonValue] = Field(default_factory=dict)
    """What else the server's reset is given, beside the seed."""
    rules: str = Field(default="Survive.", min_length=1, max_length=2000)
    """What agents are told of the environment."""
    words: list[str] = Field(default_factory=list, max_length=128)
    """Answers to choose from; empty: free text of at most `max_tokens` tokens."""
    actions: dict[str, dict[str, JsonValue]] = Field(default_factory=dict)
    """The action that a word stands for; for words that are not here, `template`."""
    template: dict[str, JsonValue] = Field(default={"message": "{answer}"})
    """The action of an answer: `{answer}` in its strings is replaced."""
    max_tokens: int = Field(default=32, ge=1, le=1024)
    """Longest free-text answer, in tokens."""
    text: str = Field(default="{}", min_length=1, max_length=2000)
    """What agents see; `{a.b}` is a field of the observation, `{}` all of it as JSON."""
    max_chars: int = Field(default=1500, ge=50, le=50_000)
    """Longest text in characters."""
    legal: str = ""
    """Field of the observation that lists the words that may be said now; empty: all may."""
    energy: str = ""
    """Field of the observation that is the energy; empty: energy is made of rewards as below."""
    cause: str = ""
    """Field of the observation that holds the cause of death when the episode is done, and is empty or missing for one
    that was survived."""
    fatal_end: float | None = None
    """Without `cause`: an episode that ends with a reward up to this is a death; null: none is."""
    horizon: int = Field(default=40, ge=1, le=100_000)
    """Answers after which a life that still goes on has survived."""
    start_energy: float = Field(default=10.0, gt=0, le=1e6)
    """Energy at birth."""
    max_energy: float = Field(default=20.0, gt=0, le=1e6)
    """Energy that a body can hold."""
    upkeep: float = Field(default=1.0, ge=0, le=1e6)
    """Energy that every answer costs."""
    reward_scale: float = Field(default=1.0, ge=-1e6, le=1e6)
    """Energy for a reward of 1."""

    @field_validator("url")
    @classmethod
    def _is_allowed(cls, value: str, info: ValidationInfo) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https", "ws", "wss") or not parts.hostname:
            raise ValueError("expected a URL such as http://127.0.0.1:8000")
        if not info.data.get("remote") and not _is_loopback(parts.hostname):
            raise ValueError("this server is not on this machine; set remote: true to allow it")
        return value.rstrip("/")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
