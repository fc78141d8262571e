"""Calls across a process border, with a time-out on every wait and one exception for a peer that is gone.

    RemoteLost         the peer is gone, or nobody knows
    |-- ReplyLost      the connection broke under the call, the peer may be well
    `-- NoAnswer       the call took longer than it may

Ray itself is imported only when an actor is called.
"""

import asyncio
from typing import Any


class RemoteLost(Exception):
    """The peer died, hung, or its node is gone. The call may or may not have taken effect."""

    def __init__(self, reason: str, *, preempted: bool = False) -> None:
        super().__init__(reason)
        self.preempted = preempted
        """Its node was taken away with notice: nobody's fault, and charged to no budget."""


def preempted(error: Any, peer: Any) -> bool:
    """True when the node of the peer that was lost was taken away with notice, whoever found the loss."""
    # Looked up in the class: handles take any other name for a method of what they host.
    leaving = getattr(type(peer), "leaving", None)
    return getattr(error, "preempted", False) or (leaving is not None and leaving(peer))


class ReplyLost(RemoteLost):
    """The connection broke under the call. Whoever knows that a repetition is harmless may ask again."""


class NoAnswer(RemoteLost):
    """The call did not end within its time-out; what it does there goes on."""


async def settle(reference: Any, timeout: float | None, what: str) -> Any:
    """Value of a Ray object reference. Raises RemoteLost, or the exception the remote code itself raised.

    timeout: seconds; None where the caller bounds the wait.
    """
    from ray import exceptions

    try:
        return await asyncio.wait_for(asyncio.wrap_future(reference.future()), timeout)
    except exceptions.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, Exception) else error) from None
    except exceptions.ActorUnavailableError as error:
        raise ReplyLost(f"{what}: {_first_line(error)}") from error
    except exceptions.RayError as error:
        raise RemoteLost(f"{what}: {_first_line(error)}", preempted=getattr(error, "preempted", False)) from error
    except TimeoutError as error:
        raise NoAnswer(f"{what}: no answer in {timeout:g} s") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
