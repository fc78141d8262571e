"""What endpoints have done and cost, for Prometheus and for the log."""

import logging
from collections.abc import Iterator, Sequence
from time import monotonic

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from telemetry.foreign import Family, Teller
from workers.engines.remote_endpoint import Endpoint, State

log = logging.getLogger(__name__)

SHOWN = 100
"""Endpoints with metrics of their own; all further ones are summed up."""
EVERY = 600.0
"""Seconds between two summaries in the log, at least."""
METRICS = {
    "requests": "Decisions answered.",
    "failures": "Calls and probes without a usable answer.",
    "hedges": "Calls that came here because another endpoint was slow.",
    "checks": "Decisions that were asked of a trusted endpoint as well.",
    "prompt_tokens": "Tokens of the prompts answered.",
    "completion_tokens": "Tokens decoded.",
    "dollars": "What was answered costs, by the prices of the run file.",
    "seconds": "Spent in calls that were answered.",
}
"""Members of an account and what they are."""


class Books:
    """Of all endpoints of a pool."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = endpoints
        self._logged = monotonic()
        registry = CollectorRegistry()
        registry.register(self)
        self._teller = Teller(registry, "forager_endpoint_")

    def families(self) -> tuple[Family, ...]:
        """As EngineStats.own."""
        return self._teller()

    def collect(self) -> Iterator[Metric]:
        """One series for each endpoint, up to SHOWN of them."""
        names = [endpoint.name if place < SHOWN - 1 else "other" for place, endpoint in enumerate(self._endpoints)]
        for member, text in METRICS.items():
            totals = dict.fromkeys(names, 0.0)
            for name, endpoint in zip(names, self._endpoints, strict=True):
                totals[name] += getattr(endpoint.account, member)
            family = CounterMetricFamily(f"forager_endpoint_{member}", text, labels=["endpoint"])
            for name, total in totals.items():
                family.add_metric([name], total)
            yield family
        standing = dict.fromkeys(names, 0.0)
        for name, endpoint in zip(names, self._endpoints, strict=True):
            standing[name] += endpoint.state is State.STANDING
        text = "1 for one that is asked, 0 for one that is not."
        up = GaugeMetricFamily("forager_endpoint_up", text, labels=["endpoint"])
        for name, number in standing.items():
            up.add_metric([name], number)
        yield up

    def log_now_and_then(self) -> None:
        """As `log`, unless that was done lately."""
        if monotonic() - self._logged > EVERY:
            self.log()

    def log(self) -> None:
        """A line for each endpoint, as a warning: nothing less gets into an actor's log."""
        self._logged = monotonic()
        for endpoint in self._endpoints:
            one = endpoint.account
            log.warning(
                "%s: %s, %d decisions in %.0f s, %d + %d tokens, %.4f dollars, %d failures, %d hedges, %d checks",
                *(endpoint.name, endpoint.state, one.requests, one.seconds, one.prompt_tokens, one.completion_tokens),
                *(one.dollars, one.failures, one.hedges, one.checks),
            )
