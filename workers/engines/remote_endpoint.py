"""One endpoint: whether it can be asked now, how long it takes, and what it has done and cost so far.

Law: an endpoint that failed several times in a row is left alone for a time that doubles, and comes back through one
probe that asks it for everything it was asked for at first (circuit breaker: Nygard, "Release It!"): the machine behind
a URL may have become another one.
"""

import math
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from time import monotonic

from workers.config_remote import EndpointConfig
from workers.engines.remote_http import Busy, CallFailed, Row
from workers.engines.remote_server import Job, Server

FAILURES = 3
"""In a row, after which it is left alone."""
FIRST_PAUSE = 1.0
MOST_PAUSE = 60.0
"""Seconds for which it is left alone; the jitter takes up to half of them."""
KEPT = 200
"""Latencies remembered of each kind of call."""
ENOUGH = 20
"""Latencies without which none counts as slow."""
SMOOTHING = 0.2
"""Weight of the newest latency in the average."""
HALF_LIFE = 30.0
"""Seconds after which half of an average is forgotten, so that one slow hour does not count for ever."""


class State(StrEnum):
    """Whether it is asked."""

    AWAY = "away"
    """Not probed yet, or left alone after failures."""
    STANDING = "standing"
    """It holds the working set and is asked."""
    EXPELLED = "expelled"
    """It lied; it is never asked again."""


@dataclass
class Account:
    """What an endpoint has done since the engine stands."""

    requests: int = 0
    """Decisions answered, those of checks included."""
    failures: int = 0
    """Calls without a usable answer."""
    hedges: int = 0
    """Calls that came here because another endpoint was slow."""
    checks: int = 0
    """Decisions of its own that were checked."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    dollars: float = 0.0
    """By the prices in the run file, for what was answered."""
    seconds: float = 0.0
    """Spent in calls that were answered; calls at the same time count each."""


@dataclass(eq=False)
class Endpoint:
    """A server, as the engine knows it."""

    config: EndpointConfig
    server: Server
    state: State = State.AWAY
    reason: str = "not probed yet"
    """Why it is away, or expelled."""
    misfit: bool = False
    """It is away because it is not what it should be."""
    account: Account = field(default_factory=Account)
    in_flight: int = 0
    """Decisions it is asked for now."""
    resting_until: float = 0.0
    """By the monotonic clock: it asked to be left alone until then."""
    pauses: int = 0
    """Since it last answered."""
    _failures: int = 0
    """In a row."""
    _seconds: float = 0.0
    """Average of its latencies, the newest most, ..."""
    _taken_at: float = 0.0
    """... as of then."""
    _latencies: dict[bool, deque[float]] = field(
        default_factory=lambda: {weighs: deque(maxlen=KEPT) for weighs in (True, False)}
    )

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def trusted(self) -> bool:
        return self.config.trusted

    def free_for(self, decisions: int) -> bool:
        """It can be asked for them now. More than it takes at once wait until nothing else is there."""
        room = not self.in_flight or self.in_flight + decisions <= self.config.requests
        return room and self.state is State.STANDING and monotonic() >= self.resting_until

    def wait(self, decisions: int) -> tuple[float, float]:
        """What they would have to wait for, in seconds; of equals, the emptier one comes first."""
        load = (self.in_flight + decisions) / self.config.requests
        return load * self._seconds * 0.5 ** ((monotonic() - self._taken_at) / HALF_LIFE), load

    def slow_after(self, job: Job, quantile: float) -> float | None:
        """Seconds that this share of its calls of the same kind took at most; None while too few are known."""
        known = self._latencies[bool(job.ids)]
        if not quantile or len(known) < ENOUGH:
            return None
        return sorted(known)[math.ceil(quantile * len(known)) - 1]

    def answered(self, job: Job, rows: Sequence[Row], seconds: float) -> None:
        """Books an answer."""
        self._failures = self.pauses = 0
        self._latencies[bool(job.ids)].append(seconds)
        self.smooth(seconds)
        prompt = sum(map(len, job.prompts))
        decoded = sum(len(tokens) or 1 for tokens, _ in rows)
        account, prices = self.account, self.config
        account.requests += job.size
        account.seconds += seconds
        account.prompt_tokens += prompt
        account.completion_tokens += decoded
        account.dollars += (prompt * prices.price_prompt + decoded * prices.price_completion) / 1e6

    def smooth(self, seconds: float) -> None:
        """Takes a latency into the average."""
        self._seconds += (seconds - self._seconds) * (SMOOTHING if self._seconds else 1.0)
        self._taken_at = monotonic()

    def failed(self, error: CallFailed) -> bool:
        """Books a failure; True when it is the last straw."""
        self.account.failures += 1
        if isinstance(error, Busy):
            self.resting_until = monotonic() + error.seconds
            return False
        self._failures += 1
        return self._failures >= FAILURES

    def pause(self) -> float:
        """Seconds to leave it alone for now; longer each time."""
        self.pauses += 1
        longest = min(MOST_PAUSE, FIRST_PAUSE * 2.0 ** min(self.pauses - 1, 10))
        return longest * (0.5 + random.random() / 2)
