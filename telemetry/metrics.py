"""The metrics of one run, in a registry of their own. What there is, `catalogue` declares.

The law: whatever worlds and plugins say, the number of series is bounded, and every text is one that scrapers accept.
"""

import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from statistics import fmean, median
from time import monotonic, time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from telemetry.catalogue import MAX_CAUSES, MAX_PLAYERS, TABLE
from telemetry.foreign import Foreign

CAUSE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
"""What a cause may look like; any other text of a world is counted as `other`."""
STALE = 10.0
"""Seconds after which a number about work under way is no longer believed: nothing is under way."""


QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
COMMIT_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Seconds: a local disk needs milliseconds, a bucket tenths of a second, one in trouble its whole patience."""
_OF_ENGINES = {
    "answered": "forager_engine_requests_total",
    "prompt_tokens": "forager_engine_prompt_tokens_total",
    "cached_tokens": "forager_engine_cached_tokens_total",
    "recalled": "forager_engine_recalled_total",
    "busy_seconds": "forager_engine_busy_seconds_total",
    "switches": "forager_engine_switches_total",
}
"""Counters by member of an engine's statistics."""


class Rate:
    """Events per second over the last ten seconds, from a running total."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()

    def __call__(self, total: int) -> float:
        """Takes the total as of now. A total that fell (an actor was replaced) starts the window again."""
        now = self._clock()
        if self._seen and total < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((now, total))
        while len(self._seen) > 2 and self._seen[1][0] <= now - STALE:
            self._seen.popleft()
        begin, before = self._seen[0]
        return (total - before) / (now - begin) if now > begin else 0.0


class Metrics:
    """The registry of one run and the only way to change it. Methods take plain values and raise nothing.

    Nothing is served before `open`: a scrape between a resume and the replay of its journal would take counters
    that are still at zero for a reset.
    """

    def __init__(self, run: str) -> None:
        # A `_created` time would tell Prometheus that a counter which goes on after a resume began at zero again.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.foreign = Foreign()
        """What libraries say of themselves; apart, because how much that is grows with the number of engines."""
        self.ready = False
        self._run = run
        self._status = "starting"
        self._generation = 0
        self._last_commit: float | None = None
        self._causes: set[str] = set()
        self._decisions = Rate()
        self._in_flight = (float("-inf"), 0, 0.0)
        self._seen: dict[tuple[str, str], float] = {}
        """Running totals of others as they were last told: (whose, which)."""
        self._players: set[str] = set()
        self._gauges = {
            one.name: Gauge(one.name, one.help, one.labels, registry=self.registry)
            for one in TABLE
            if one.kind == "gauge"
        }
        self._counters = {
            one.name: Counter(one.name, one.help, one.labels, registry=self.registry)
            for one in TABLE
            if one.kind == "counter"
        }
        self._commits = Histogram(
            "forager_commit_seconds",
            next(one.help for one in TABLE if one.kind == "histogram"),
            buckets=COMMIT_BUCKETS,
            registry=self.registry,
        )
        for statistic in ("fitness_best", "fitness_best_low", "fitness_best_high", "fitness_mean", "fitness_median"):
            self._gauges[f"forager_{statistic}"].set(float("nan"))
        for unknown in ("fitness_worst", "held_out_gap"):
            self._gauges[f"forager_{unknown}"].set(float("nan"))
        self._gauges["forager_lives_in_flight"].set_function(lambda: self._under_way()[0])
        self._gauges["forager_decisions_per_second"].set_function(lambda: self._under_way()[1])

    def open(self, *, version: str, model: str, environment: str, population: int, lineages: int) -> None:
        """The run is known and its journal replayed: from here on there is something to see."""
        labels = [_label(text) for text in (self._run, version, model, environment)]
        self._gauges["forager_run_info"].labels(*labels).set(1)
        self._gauges["forager_population_size"].set(population)
        self._gauges["forager_lineages_alive"].set(lineages)
        self._status = "running" if self._status == "starting" else self._status
        self.ready = True

    def lives(
        self, ends: Mapping[str, int], *, steps: int, prompt_tokens: int, completion_tokens: int, seconds: float
    ) -> None:
        """Lives were committed. ends: number of lives by `died:<cause>`, `survived`, `censored`."""
        for end, number in sorted(ends.items()):
            reason, _, cause = end.partition(":")
            self._counters["forager_lives_total"].labels(reason, self._cause(cause)).inc(number)
        self._counters["forager_steps_total"].inc(steps)
        self._counters["forager_prompt_tokens_total"].inc(prompt_tokens)
        self._counters["forager_completion_tokens_total"].inc(completion_tokens)
        self._counters["forager_rollout_seconds_total"].inc(seconds)

    def training(
        self,
        status: str,
        *,
        tokens: int,
        seconds: float,
        examples: int = 0,
        losses: tuple[float | None, float | None] = (None, None),
    ) -> None:
        """A training job ended. status: `trained` or `failed`; losses: of its first and of its last updates."""
        self._counters["forager_training_jobs_total"].labels(status).inc()
        self._counters["forager_training_tokens_total"].inc(tokens)
        self._counters["forager_training_seconds_total"].inc(seconds)
        self._counters["forager_training_examples_total"].inc(examples)
        for when, loss in zip(("first", "last"), losses, strict=True):
            if loss is not None:
                self._gauges["forager_training_loss"].labels(when).set(loss)

    def generation(
        self,
        number: int,
        fitness: Sequence[float],
        *,
        population: int,
        lineages: int,
        culled: int,
        entropy: float,
        behaviour: float,
        interval: tuple[float, float] = (float("nan"), float("nan")),
        born: int = 0,
        unselected: int = 0,
        suspects: int = 0,
    ) -> None:
        """A generation ended.

        number: the generation that lives next; fitness: of every individual that lived and has one; population,
        lineages: alive now; culled: lineages that just lost their last member; entropy, behaviour: of its actions, in
        bits; interval: the fittest's; born, unselected, suspects: individuals.
        """
        for name, one in zip(("low", "high"), interval, strict=True):
            self._gauges[f"forager_fitness_best_{name}"].set(one)
        ordered = sorted(fitness)
        for share in QUANTILES:
            # The smallest value that this share does not exceed: always somebody's.
            value_at = ordered[max(0, ceil(share * len(ordered)) - 1)] if ordered else float("nan")
            self._gauges["forager_fitness_quantile"].labels(str(share)).set(value_at)
        self._counters["forager_individuals_born_total"].inc(born)
        self._counters["forager_individuals_culled_total"].inc(unselected)
        self._counters["forager_suspects_total"].inc(suspects)
        self._gauges["forager_action_entropy_bits"].set(entropy)
        self._gauges["forager_behaviour_divergence_bits"].set(behaviour)
        for statistic, value in (("best", max), ("mean", fmean), ("median", median), ("worst", min)):
            self._gauges[f"forager_fitness_{statistic}"].set(value(fitness))
        self._generation = number
        self._gauges["forager_generation"].set(number)
        self._gauges["forager_population_size"].set(population)
        self._gauges["forager_lineages_alive"].set(lineages)
        self._counters["forager_lineages_culled_total"].inc(culled)

    def held_out(self, means: Mapping[str, float], gap: float | None) -> None:
        """Held-out worlds were lived. means: fitness by player; gap: null if unknown."""
        for who, mean in means.items():
            if who in self._players or len(self._players) < MAX_PLAYERS:
                self._players.add(who)
                self._gauges["forager_held_out_fitness"].labels(_label(who)).set(mean)
        self._gauges["forager_held_out_gap"].set(float("nan") if gap is None else gap)

    def left(self, resources: Mapping[str, float]) -> None:
        """What the run may still take, by resource."""
        for resource, amount in resources.items():
            self._gauges["forager_budget_left"].labels(resource).set(amount)

    def stored(self, size: int) -> None:
        """Bytes vouched for so far."""
        self._counters["forager_stored_bytes_total"].inc(self._growth("store", "bytes", size))

    def committed(self, at: float, seconds: float | None = None) -> None:
        """A journal entry became durable. at: Unix time in seconds; seconds: what that took, if it was seen."""
        if seconds is not None:
            self._commits.observe(seconds)
        self._last_commit = at
        self._gauges["forager_last_commit_timestamp_seconds"].set(at)

    def live(self, alive: int, decisions: int, *, restarts: int = 0, retries: int = 0) -> None:
        """About once a second: lives under way; decisions, replaced actors and lost lives so far in this process."""
        self._in_flight = (monotonic(), alive, self._decisions(decisions))
        self._counters["forager_actor_restarts_total"].inc(self._growth("pool", "restarts", restarts))
        self._counters["forager_lives_lost_total"].inc(self._growth("pool", "retries", retries))

    def free(self, size: int | None) -> None:
        """Free space where the run is kept; None where there is no such thing."""
        self._gauges["forager_store_free_bytes"].set(float("nan") if size is None else size)

    def engines(self, stats: Mapping[str, Mapping[str, float]]) -> None:
        """About once a second: what each engine that answers has done since it stands. A name is never used again."""
        self._gauges["forager_engines"].set(len(stats))
        for state in ("running", "waiting"):
            total = sum(one[state] for one in stats.values())
            self._gauges[f"forager_engine_requests_{state}"].set(total)
        for name, one in stats.items():
            for member, counter in _OF_ENGINES.items():
                self._counters[counter].inc(self._growth(name, member, one[member]))

    def _growth(self, whose: str, which: str, total: float) -> float:
        """How much a running total has grown since it was told last; it never falls."""
        grown = max(0.0, total - self._seen.get((whose, which), 0.0))
        self._seen[whose, which] = max(total, self._seen.get((whose, which), 0.0))
        return grown

    def finish(self) -> None:
        """Nothing is left to do."""
        self._status = "finished"

    def health(self) -> dict[str, str | int | float | None]:
        """JSON of /health: status (`starting`, `running`, `finished`), run, generation, last_commit_age_seconds."""
        age = None if self._last_commit is None else round(max(0.0, time() - self._last_commit), 3)
        return {
            "status": self._status,
            "run": self._run,
            "generation": self._generation,
            "last_commit_age_seconds": age,
        }

    def _under_way(self) -> tuple[int, float]:
        at, alive, rate = self._in_flight
        return (alive, rate) if monotonic() - at < STALE else (0, 0.0)

    def _cause(self, cause: str) -> str:
        if not cause or cause in self._causes:
            return cause
        if len(self._causes) >= MAX_CAUSES or not CAUSE.fullmatch(cause):
            return "other"
        self._causes.add(cause)
        return cause


def _label(text: str) -> str:
    """A label value that every scraper accepts."""
    return "".join(character if character.isprintable() else "?" for character in text)[:128]
