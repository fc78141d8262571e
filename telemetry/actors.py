"""The one way in which any room turns a plain class into a Ray actor.

Actors never restart or retry by themselves: a repeated call may already have taken effect, so the caller, who holds
the idempotency key, decides. No actor is detached or named: when the driver dies, Ray ends them all. What blocks for
long belongs into a thread of the hosted object: its event loop gives the signs of life that supervision asks for.
"""

import os
import socket
import sys
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from telemetry.models import cache
from telemetry.parcel import packed
from telemetry.remote import settle


@dataclass(frozen=True)
class Place:
    """Where an actor runs and what it may use."""

    name: str = "actor"
    """What logs and errors call it."""
    cpus: float = 0.0
    gpus: float = 0.0
    environment: Mapping[str, str] = field(default_factory=dict)
    """Environment variables, set before the process imports anything."""
    log: Path | None = None
    """File that takes the process's standard output and error; without, or where it cannot be made, Ray's do."""
    concurrency: int = 10_000
    """Calls under way at the same time; the sign of life is one of them."""
    together: tuple[str, ...] = ()
    """Names of actors that are of use only together, if it is one of them: they get what they ask for all at once."""

    @property
    def party(self) -> tuple[str, ...]:
        """Itself and those it is of no use without."""
        return self.together or (self.name,)

    @property
    def role(self) -> str:
        """What it is, such as engine."""
        return self.name.partition("-")[0]


class Shell:
    """Hosts an object built inside the actor's own process and passes calls on to it."""

    def __init__(self, build: Callable[[], Any], log: str | None) -> None:
        # As in the driver: what libraries write into the run is for its owner only.
        os.umask(0o077)
        if log is not None:
            with suppress(OSError):
                _redirect_output(Path(log))
        self._failure: Exception | None = None
        try:
            self._object = build()
        except Exception as error:  # noqa: BLE001 - `ready` raises it, where Ray leaves its type alone
            self._failure = error

    async def ready(self) -> tuple[str, int, str]:
        """(machine, process id, node id); answers once the object stands. Raises what building it raised."""
        if self._failure is not None:
            raise self._failure
        return machine(), os.getpid(), _node()

    async def call(self, method: str, args: tuple[Any, ...]) -> Any:
        """Result of an async method of the object."""
        return packed(await getattr(self._object, method)(*args))


class Actor:
    """Handle of a hosted object: `await actor.method(*args)`; picklable, so actors can be handed to each other."""

    def __init__(self, handle: Any, timeout: float) -> None:
        self.handle = handle
        self.timeout = timeout
        """Seconds a call may take."""

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        if name.startswith("_"):
            raise AttributeError(name)

        async def call(*args: Any) -> Any:
            return await self._settle(name, args)

        return call

    def __eq__(self, other: object) -> bool:
        """True for handles of the same actor."""
        return isinstance(other, Actor) and bool(self.handle == other.handle)

    def __hash__(self) -> int:
        return hash(self.handle)

    def __reduce__(self) -> tuple[type["Actor"], tuple[Any, float]]:
        return Actor, (self.handle, self.timeout)

    async def _settle(self, name: str, args: tuple[Any, ...]) -> Any:
        # One argument is pickled once; five, five times, with the same actors' handles in them.
        return await settle(self.handle.call.remote(name, tuple(map(packed, args))), self.timeout, name)


def create(build: Callable[[], Any], place: Place, node: str | None, group: Any = None) -> Any:
    """An actor that hosts what `build` returns, in its placement group or else on the node if that can be."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

    where: Any = "SPREAD"
    if group is not None:
        where = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=place.party.index(place.name))
    elif node:
        where = NodeAffinitySchedulingStrategy(node, soft=True)
    options: dict[str, Any] = {
        "num_cpus": place.cpus,
        "num_gpus": place.gpus,
        # A byte: what needs nothing goes to any node, whatever was asked for. A placement group reserves none.
        "memory": 0 if group is not None else 1,
        "max_restarts": 0,
        "max_task_retries": 0,
        "max_concurrency": place.concurrency,
        "scheduling_strategy": where,
        "runtime_env": {"env_vars": dict(place.environment)},
    }
    return ray.remote(Shell).options(**options).remote(build, None if place.log is None else str(place.log))


def _node() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


def own_address() -> str:
    """Of this node, as the others of its cluster know it."""
    import ray

    return str(ray.util.get_node_ip_address()) if ray.is_initialized() else "127.0.0.1"


def machine() -> str:
    """Equal for two processes to which process ids mean the same."""
    try:
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:  # not Linux: no two of its containers share a name
        namespace = 0
    return f"{socket.gethostname()}/{namespace}"


def _redirect_output(path: Path) -> None:
    # The directory of a run that somebody deletes must not come back for its logs.
    path.parent.mkdir(parents=path.is_relative_to(cache()), exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
