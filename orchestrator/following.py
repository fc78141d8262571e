"""Following a run from its store alone, on any machine that sees it: what is new since the last look.

The law: what the journal says is known at once; the ledger, which takes longer, is asked with the first `refresh`.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from orchestrator.config import RunConfig
from orchestrator.progress import Progress, progress_of
from orchestrator.state import RunState, apply, config_of, fold
from telemetry.failures import StateError
from telemetry.journal import Entry, Journal, key_of
from telemetry.store import Store

TICKER = 50
"""Lives remembered."""
RECENT = 60.0
"""Seconds of work over which a rate is taken."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A life that was committed lately."""

    individual: str
    lineage: str
    life: int
    end: str
    cause: str
    steps: int


class Follower:
    """The state of a run, and what its last commits were about. Raises StateError where there is no run."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._journal = Journal(store)
        self._entries = self._journal.read()
        self._asked = 0
        """Entries whose lives were looked up."""
        self.state: RunState = fold(self._entries)
        self.config: RunConfig = config_of(self.state)
        self.ended: deque[Ended] = deque(maxlen=TICKER)
        """Lives, the last one last."""

    @property
    def progress(self) -> Progress:
        """How far the generation is that lives now."""
        return progress_of(self.state, self.config, 0.0)

    def refresh(self) -> bool:
        """Takes in what was committed since, and which lives ended; False if nothing was committed."""
        known = len(self._entries)
        self._journal.follow(self._entries)
        new = self._entries[known:]
        for entry in new:
            apply(self.state, entry)
        asked, self._asked = self._asked, len(self._entries)
        self._remember(self._entries[asked:])
        return bool(new)

    def committed_at(self) -> float:
        """Unix time of the last commit, by the store's clock."""
        return self.store.size_and_time(key_of(self._entries[-1].seq))[1]

    def rates(self) -> tuple[float, float]:
        """Decisions and tokens per second over the last minute of living."""
        seconds, decisions, tokens = 0.0, 0, 0
        for commit in reversed(self.state.commits):
            seconds += commit.seconds
            decisions += commit.decisions
            tokens += commit.prompt_tokens + commit.completion_tokens
            if seconds >= RECENT:
                break
        return (decisions / seconds, tokens / seconds) if seconds else (0.0, 0.0)

    def _remember(self, entries: list[Entry]) -> None:
        """The last lives of these entries: of the newest commits, and no more files than needed."""
        found: list[list[Ended]] = []
        for entry in islice(_commits_backwards(entries), TICKER):
            found.append(list(self._lives_of(entry)))
            if sum(map(len, found)) >= TICKER:
                break
        for lives in reversed(found):
            self.ended.extend(lives)

    def _lives_of(self, entry: Entry) -> Iterator[Ended]:
        # Not above: it takes longer to load than a first picture of the run may take.
        from telemetry.ledger import Ledger

        body = entry.body
        attempts = {attempt for _, _, attempt in body["lives"]}
        columns = ("individual", "lineage", "life", "end", "cause", "steps")
        try:
            rows = Ledger(self.store).recall("lives", body["generation"], entry.refs, attempts, columns)
        except StateError:  # what is damaged is for `forager verify` to name; the run can be watched all the same
            return
        yield from (Ended(**row) for row in rows.to_pylist())


def _commits_backwards(entries: list[Entry]) -> Iterator[Entry]:
    return (entry for entry in reversed(entries) if entry.kind == "lives")
