"""Spot checks: some decisions of endpoints without trust are asked of a trusted one as well, and liars are expelled.

Law: which decisions are checked is drawn from the system's own randomness after they were answered, so that nobody can
know; and nobody is expelled whom a second trusted endpoint, where there is one, agrees with. At a share `q` of checked
decisions an endpoint that lies in a share `s` of `n` decisions is found with probability 1 - (1 - qs)^n.

Of free text its probabilities are checked, at some of its tokens; not that the tokens were drawn by them.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import exp
from secrets import SystemRandom

from workers.config_remote import RemoteEngineConfig
from workers.engines.remote_endpoint import Endpoint, State
from workers.engines.remote_http import Row
from workers.engines.remote_pool import EndpointPool
from workers.engines.remote_roster import Roster
from workers.engines.remote_server import Job, distance, probabilities

log = logging.getLogger(__name__)

POSITIONS = 8
"""Tokens of a text that are checked."""


@dataclass(frozen=True)
class Question:
    """What a trusted endpoint is asked, and how to compare."""

    job: Job
    far: Callable[[Sequence[Row]], float]
    """Total variation distance between what was answered and these rows, or a lower bound; the largest of all."""


class SpotChecks:
    """Checks under way, and their verdicts."""

    def __init__(self, pool: EndpointPool, roster: Roster, config: RemoteEngineConfig) -> None:
        self._pool = pool
        self._roster = roster
        self._share = config.checks
        self._tolerance = config.tolerance
        self._random = SystemRandom()
        self._under_way: dict[str, set[asyncio.Task[None]]] = {}
        """By name of the endpoint; with those that failed."""

    def maybe(self, endpoint: Endpoint, job: Job, rows: Sequence[Row]) -> None:
        """Draws which of these answers are checked, and begins with it."""
        if endpoint.trusted:
            return
        picked = [index for index in range(job.size) if self._random.random() < self._share]
        if not picked:
            return
        endpoint.account.checks += len(picked)
        question = self._of_choices(job, rows, picked) if job.ids else self._of_text(job, rows[0])
        task = asyncio.create_task(self._check(endpoint, question))
        mine = self._under_way.setdefault(endpoint.name, set())
        mine.add(task)
        task.add_done_callback(lambda done: None if done.cancelled() or done.exception() else mine.discard(done))

    async def expelled(self, names: Sequence[str]) -> list[str]:
        """Who of these is expelled, once all checks of their answers so far are done.

        Raises EngineFailure when nobody could be asked.
        """
        await asyncio.gather(*(task for name in names for task in self._under_way.get(name, ())))
        return [one.name for one in self._roster.endpoints if one.name in names and one.state is State.EXPELLED]

    async def done(self) -> None:
        """Returns when no check is under way, however they ended."""
        await asyncio.gather(*self._tasks(), return_exceptions=True)

    async def close(self) -> None:
        """Ends the checks under way."""
        for task in self._tasks():
            task.cancel()
        await self.done()

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [task for mine in self._under_way.values() for task in mine]

    async def _check(self, accused: Endpoint, question: Question) -> None:
        witness, rows = await self._pool.ask(question.job, trusted=True)
        far = question.far(rows)
        if far <= self._tolerance:
            return
        others = (one for one in self._roster.endpoints if one.trusted and one.state is State.STANDING)
        if any(one is not witness for one in others):
            second, rows = await self._pool.ask(question.job, trusted=True, not_of=witness.name)
            if second is not witness and question.far(rows) <= self._tolerance:
                log.warning(
                    "%s and %s, which are trusted, disagree (distance %.3g): %s agrees with the second",
                    *(witness.name, second.name, far, accused.name),
                )
                return
        if accused.state is not State.EXPELLED:
            self._roster.expel(accused, f"its answer is {far:.3g} from that of {witness.name}")

    @staticmethod
    def _of_choices(job: Job, rows: Sequence[Row], picked: Sequence[int]) -> Question:
        told = [probabilities(rows[index][1]) for index in picked]

        def far(other: Sequence[Row]) -> float:
            return max(distance(one, probabilities(row[1])) for one, row in zip(told, other, strict=True))

        return Question(replace(job, prompts=tuple(job.prompts[index] for index in picked)), far)

    def _of_text(self, job: Job, row: Row) -> Question:
        """Weighs some of the tokens anew, each behind what stands before it."""
        [prompt], (tokens, scores) = job.prompts, row
        places = sorted(self._random.sample(range(len(tokens)), min(POSITIONS, len(tokens))))
        ids = tuple(dict.fromkeys(tokens[place] for place in places))

        def far(other: Sequence[Row]) -> float:
            # The difference in one probability is at most the distance of the distributions.
            return max(
                abs(exp(scores[place]) - exp(weights[ids.index(tokens[place])]))
                for place, (_, weights) in zip(places, other, strict=True)
            )

        prompts = tuple((*prompt, *tokens[:place]) for place in places)
        return Question(Job(job.adapter, prompts, ids, temperature=job.temperature), far)
