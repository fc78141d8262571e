"""A trainer made of several processes: the same job for all of them, one result."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pyarrow as pa

from trainer.job import Trained, TrainingJob


async def join(names: Sequence[str], start: Callable[[str], Awaitable[Any]], host: str | None) -> "Team":
    """Starts a peer per name and has them join one group. host: the address of rank 0; None if it knows better.

    Raises what a start or a joining raised; then no peer is left.
    """
    outcomes = await asyncio.gather(*map(start, names), return_exceptions=True)
    peers: list[Any] = [one for one in outcomes if not isinstance(one, BaseException)]
    team = Team(peers)
    try:
        for failure in outcomes:
            if isinstance(failure, BaseException):
                raise failure
        address, port = await peers[0].listen(host)
        await asyncio.gather(*(peer.join(address, port, rank, len(peers)) for rank, peer in enumerate(peers)))
    except BaseException:
        team.kill()
        raise
    return team


class Team:
    """Peers that have joined one group, rank 0 first. Whoever fails takes the others with it."""

    def __init__(self, peers: Sequence[Any]) -> None:
        self._peers = tuple(peers)

    async def run(self, job: TrainingJob, steps: pa.Table) -> Trained:
        """What rank 0 came to. Raises what the first peer to fail raised; the team is then of no further use."""
        calls = [asyncio.ensure_future(peer.run(job, steps)) for peer in self._peers]
        try:
            await asyncio.wait(calls, return_when=asyncio.FIRST_EXCEPTION)
            for call in calls:
                if call.done():
                    call.result()
            trained: Trained = calls[0].result()
            return trained
        finally:
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)

    def kill(self) -> None:
        """Ends every peer."""
        for peer in self._peers:
            if hasattr(peer, "kill"):
                peer.kill()
