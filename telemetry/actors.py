"""The one way in which any room turns a plain class into a supervised Ray actor.

Actors never restart or retry by themselves: a repeated call may already have taken effect, so the caller, who holds
the idempotency key, decides. No actor is detached or named: when the driver dies, Ray ends them all.
"""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from telemetry.remote import Remote, settle


@dataclass(frozen=True)
class Place:
    """Where an actor runs and what it may use."""

    cpus: float = 0.0
    gpus: float = 0.0
    environment: Mapping[str, str] = field(default_factory=dict)
    """Environment variables, set before the process imports anything."""
    log: Path | None = None
    """File that takes the process's standard output and error; None leaves them to Ray's session logs."""
    concurrency: int = 1000
    """Calls under way at the same time."""


class _Shell:
    """Hosts an object built inside the actor's own process and passes calls on to it."""

    def __init__(self, build: Callable[[], Any], log: str | None) -> None:
        if log is not None:
            _redirect_output(Path(log))
        self._object = build()

    async def ready(self) -> int:
        """Process id; answers once the object stands."""
        return os.getpid()

    async def call(self, method: str, *args: Any) -> Any:
        """Result of an async method of the object."""
        return await getattr(self._object, method)(*args)


class Actor(Remote):
    """Handle of a hosted object: `await actor.method(*args)`; picklable, so actors can be handed to each other."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        async def call(*args: Any) -> Any:
            return await settle(self.handle.call.remote(name, *args), self.timeout, name)

        return call

    def __reduce__(self) -> tuple[type["Actor"], tuple[Any, float]]:
        return Actor, (self.handle, self.timeout)

    def kill(self) -> None:
        """Ends the actor's process at once. Calls under way raise RemoteLost."""
        import ray

        ray.kill(self.handle)


async def start(build: Callable[[], Any], place: Place, *, start_timeout: float, call_timeout: float) -> Actor:
    """An actor hosting what `build` returns. Raises RemoteLost, or what `build` raised."""
    import ray

    options: dict[str, Any] = {
        "num_cpus": place.cpus,
        "num_gpus": place.gpus,
        "max_restarts": 0,
        "max_task_retries": 0,
        "max_concurrency": place.concurrency,
        "runtime_env": {"env_vars": dict(place.environment)},
    }
    log = None if place.log is None else str(place.log)
    handle = ray.remote(_Shell).options(**options).remote(build, log)
    await settle(handle.ready.remote(), start_timeout, "start")
    return Actor(handle, call_timeout)


def _redirect_output(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
