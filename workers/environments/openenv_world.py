"""Any OpenEnv environment as a world: a client of its WebSocket protocol, for servers in environments of their own.

The protocol (openenv 0.10): JSON messages over `/ws`. `{"type": "reset", "data": {...}}` and `{"type": "step", "data":
ACTION}` are answered with `{"type": "observation", "data": {"observation", "reward", "done"}}` or `{"type": "error"}`.
A connection is a session.

Law: whatever goes wrong with the server is an EnvironmentFailure that names it, and comes within `timeout` seconds.
"""

import json
import time
import weakref
from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn

from pydantic import BaseModel, JsonValue

from telemetry.failures import one_line
from telemetry.records import EndReason
from workers.environment import Observation, Outcome
from workers.environments.extras import need
from workers.environments.openenv_settings import PLACE, OpenEnvSettings
from workers.guard import EnvironmentFailure

MAX_MESSAGE = 1 << 20
"""Bytes of a server's message."""
CLOSING = 0.2
"""Seconds that saying goodbye may take."""


class OpenEnv:
    """A life is a session of its own at the server, opened by `reset`."""

    name: ClassVar[str] = "openenv-v1"
    Settings: ClassVar[type[BaseModel]] = OpenEnvSettings

    def __init__(self, settings: OpenEnvSettings) -> None:
        """Raises UsageError when the package `websockets` is not installed. Does not connect."""
        need("websockets", "openenv")
        self._settings = settings
        self.actions = tuple(dict.fromkeys([*settings.words, *settings.actions]))
        self.rules = settings.rules
        self._hang_up = weakref.finalize(self, lambda: None)
        self._socket: Any = None
        self._end: EndReason | None = None

    @property
    def horizon(self) -> int:
        return self._settings.horizon

    def reset(self, seed: int) -> Observation:
        """Opens a session and begins an episode; the server gets the lowest 32 bits of the seed."""
        self._hang_up()
        until = time.monotonic() + self._settings.timeout
        self._connect(until)
        data = self._call("reset", {**self._settings.reset, "seed": seed % 2**32}, until)
        self._step, self._end = 0, None
        self._energy = self._settings.start_energy
        self._take(data)
        if self._settings.energy:
            self._energy = self._told_energy()
        return self._observe()

    def step(self, action: str) -> Outcome:
        """Sends one answer. Raises RuntimeError when the life has ended."""
        if self._end is not None:
            raise RuntimeError("the life has ended; reset() begins the next one")
        settings = self._settings
        message = settings.actions.get(action)
        if message is None:
            message = {key: _filled(value, action) for key, value in settings.template.items()}
        self._take(self._call("step", message, time.monotonic() + settings.timeout))
        self._step += 1
        cause = ""
        if settings.energy:
            self._energy = self._told_energy()
        else:
            energy = self._energy + settings.reward_scale * self._reward - settings.upkeep
            self._energy = max(0.0, min(energy, settings.max_energy))
            cause = "" if self._energy else "exhausted"
        if self._done and settings.cause:
            cause = one_line(str(self._field(settings.cause) or ""), 64)
        elif self._done and settings.fatal_end is not None and self._reward <= settings.fatal_end:
            self._energy, cause = 0.0, "lost"
        if cause:
            self._end = EndReason.DIED
        elif self._done or self._step == settings.horizon:
            self._end = EndReason.SURVIVED
        if self._end is not None:
            self._hang_up()
        return Outcome(self._observe(), self._end, cause)

    def state(self) -> Mapping[str, Any]:
        """What the server said last: its observation, reward, and whether the episode is done."""
        return {
            "step": self._step,
            "energy": self._energy,
            "observation": self._seen,
            "reward": self._reward,
            "done": self._done,
        }

    @staticmethod
    def draw(state: Mapping[str, Any]) -> str:
        """The observation of a recorded state."""
        return f"step {state['step']}  energy {state['energy']:.1f}\n{json.dumps(state['observation'], indent=2)}"

    def _connect(self, until: float) -> None:
        from websockets.exceptions import WebSocketException
        from websockets.sync.client import connect

        address = self._settings.url.replace("http", "ws", 1) if self._settings.url.startswith("http") else ""
        try:
            socket = connect(
                f"{address or self._settings.url}/ws",
                open_timeout=until - time.monotonic(),
                close_timeout=CLOSING,
                max_size=MAX_MESSAGE,
                ping_interval=None,
                proxy=True if self._settings.remote else None,
            )
        except (OSError, WebSocketException) as error:
            self._fail("cannot be reached", error)
        self._socket, self._hang_up = socket, weakref.finalize(self, socket.close)

    def _call(self, kind: str, data: Mapping[str, Any], until: float) -> Mapping[str, Any]:
        """Asks the server once. Raises EnvironmentFailure for anything but an observation in time."""
        from websockets.exceptions import WebSocketException

        try:
            self._socket.send(json.dumps({"type": kind, "data": data}))
            answer = json.loads(self._socket.recv(timeout=max(0.0, until - time.monotonic())))
        except TimeoutError as error:
            self._fail(f"did not answer {kind} within {self._settings.timeout:g} s", error)
        except (OSError, WebSocketException) as error:
            self._fail(f"went away at {kind}", error)
        except ValueError as error:
            self._fail(f"answered {kind} with no JSON", error)
        told = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(told, dict):
            self._fail(f"answered {kind} with {one_line(json.dumps(answer), 100)}, which is not OpenEnv's protocol")
        if answer.get("type") != "observation" or not isinstance(told.get("observation"), dict):
            self._fail(f"refused {kind}: {one_line(str(told.get('message', answer.get('type'))), 200)}")
        return told

    def _fail(self, what: str, error: Exception | None = None) -> NoReturn:
        """Gives the session up: a late answer must not be taken for that to the next question."""
        self._hang_up()
        why = f" ({type(error).__name__}: {one_line(str(error), 100)})" if error else ""
        raise EnvironmentFailure(f"environment {self.name}: the server {self._settings.url} {what}{why}") from error

    def _take(self, data: Mapping[str, Any]) -> None:
        reward = data.get("reward")
        if reward is not None and not isinstance(reward, int | float):
            self._fail(f"gave the reward {one_line(repr(reward), 50)}, expected a number")
        self._seen: Mapping[str, JsonValue] = data["observation"]
        self._reward, self._done = float(reward or 0.0), bool(data.get("done"))

    def _field(self, path: str) -> Any:
        """A field of the observation, `a.b.0`; None where there is none."""
        found: Any = self._seen
        for part in path.split("."):
            if isinstance(found, dict):
                found = found.get(part)
            elif isinstance(found, list) and part.isdigit() and int(part) < len(found):
                found = found[int(part)]
            else:
                return None
        return found

    def _told_energy(self) -> float:
        energy = self._field(self._settings.energy)
        if not isinstance(energy, int | float):
            self._fail(f"has no number in {self._settings.energy!r}, got {one_line(repr(energy), 50)}")
        return float(energy)

    def _observe(self) -> Observation:
        def told(place: Any) -> str:
            value = self._field(place[1]) if place[1] else self._seen
            return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

        settings = self._settings
        text = PLACE.sub(told, settings.text)[: settings.max_chars]
        if not self.actions:
            return Observation(text, (), self._energy, settings.max_tokens)
        named = self._field(settings.legal) if settings.legal else None
        legal = tuple(word for word in self.actions if word in named) if isinstance(named, list) else self.actions
        return Observation(text, legal or self.actions, self._energy)


def _filled(template: JsonValue, answer: str) -> JsonValue:
    """A template with the answer in its strings."""
    if isinstance(template, str):
        return template.replace("{answer}", answer)
    if isinstance(template, list):
        return [_filled(one, answer) for one in template]
    if isinstance(template, dict):
        return {key: _filled(value, answer) for key, value in template.items()}
    return template
