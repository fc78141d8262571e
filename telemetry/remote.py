"""Calls across a process border, with a time-out on every wait and one exception for a peer that is gone.

`Remote(handle)` gives a Ray actor the calling form of a local object: `await remote.method(*args)`. Code written
for the local object therefore runs unchanged in process and on a cluster. Ray itself is imported only when an
actor is called.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class RemoteLost(Exception):
    """The peer died, hung past its time-out, or its node is gone. The call may or may not have taken effect."""


class Remote:
    """A Ray actor called like a local object with async methods."""

    def __init__(self, handle: Any, timeout: float) -> None:
        self.handle = handle
        self.timeout = timeout

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        if name.startswith("__"):
            raise AttributeError(name)

        async def call(*args: Any) -> Any:
            return await settle(getattr(self.handle, name).remote(*args), self.timeout, name)

        return call

    def __reduce__(self) -> tuple[type["Remote"], tuple[Any, float]]:
        return Remote, (self.handle, self.timeout)


async def settle(reference: Any, timeout: float, what: str) -> Any:
    """Value of a Ray object reference. Raises RemoteLost, or the exception the remote code itself raised."""
    from ray import exceptions

    try:
        return await asyncio.wait_for(asyncio.wrap_future(reference.future()), timeout)
    except TimeoutError as error:
        raise RemoteLost(f"{what}: no answer in {timeout:g} s") from error
    except exceptions.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, Exception) else error) from None
    except (exceptions.RayActorError, exceptions.ObjectLostError, exceptions.RaySystemError) as error:
        raise RemoteLost(f"{what}: {str(error).splitlines()[0]}") from error
