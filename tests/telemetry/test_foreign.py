"""What other libraries say of themselves is passed on as it is, bounded, and from memory alone."""

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from telemetry.exporter import serve
from telemetry.foreign import EVERY, MOST, Teller, read
from telemetry.metrics import Metrics
from tests.telemetry.test_metrics import HOST, fetch, opened


def library(answered: int = 3) -> CollectorRegistry:
    """A registry as a serving library has it, with an engine label of its own."""
    registry = CollectorRegistry()
    labels = ("model_name", "engine")
    Counter("lib:answered", "Requests.", labels, registry=registry).labels("tiny", "0").inc(answered)
    Gauge("lib:cache_usage", "Share.", labels, registry=registry).labels("tiny", "0").set(0.25)
    Histogram("lib:seconds", "Of a request.", labels, registry=registry, buckets=(0.1, 1.0)).labels("tiny", "0")
    Gauge("other", "Of somebody else.", registry=registry)
    return registry


def scraped(metrics: Metrics) -> dict[tuple[str, str], float]:
    """Value by (sample and bucket, engine)."""
    with serve(metrics, HOST, 0) as port:
        status, text = fetch(port, "/metrics/engines")
        assert status == 200
        assert "lib:" not in fetch(port, "/metrics")[1]
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families), "a family is one group of lines"
    return {
        (sample.name + sample.labels.get("le", ""), sample.labels["engine"]): sample.value
        for family in families
        for sample in family.samples
    }


def test_names_and_values_stay_and_the_engine_is_named() -> None:
    metrics = opened()
    metrics.foreign.heard({"engine-0.0": read(library(3), "lib:"), "engine-1.4": read(library(5), "lib:")})
    found = scraped(metrics)
    assert found["lib:answered_total", "engine-0"] == 3
    assert found["lib:answered_total", "engine-1"] == 5
    assert found["lib:cache_usage", "engine-1"] == 0.25
    assert found["lib:seconds_bucket+Inf", "engine-0"] == 0
    assert not [name for name, _ in found if name.endswith("_created") or name == "other"]


def test_silence_changes_nothing_and_a_successor_takes_the_place() -> None:
    metrics = opened()
    metrics.foreign.heard({"engine-0.0": read(library(3), "lib:"), "engine-1.0": read(library(5), "lib:")})
    before = scraped(metrics)
    metrics.foreign.heard({"engine-0.0": ()})
    metrics.foreign.heard({})
    assert scraped(metrics) == before
    metrics.foreign.heard({"engine-0.1": read(library(1), "lib:")})
    assert scraped(metrics) == before | {("lib:answered_total", "engine-0"): 1.0}


def test_a_registry_is_read_often_at_first_and_every_ten_seconds_later_on() -> None:
    now = 100.0
    teller = Teller(library(), "lib:", lambda: now)
    assert {family.name for family in teller()} == {"lib:answered", "lib:cache_usage", "lib:seconds"}
    for pause in (1.0, 2.0, 4.0, 8.0, EVERY, EVERY):
        now += pause - 0.1
        assert teller() == ()
        now += 0.2
        assert teller()


@pytest.mark.parametrize("accept", ["*/*", "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"])
def test_names_are_those_of_the_library_whatever_the_scraper_prefers(accept: str) -> None:
    metrics = opened()
    metrics.foreign.heard({"engine-0.0": read(library(), "lib:")})
    with serve(metrics, HOST, 0) as port:
        _, text = fetch(port, "/metrics/engines", Accept=accept)
    assert 'lib:cache_usage{engine="engine-0"' in text
    assert "lib_" not in text


@pytest.mark.parametrize("engines", [1, 3])
def test_a_library_that_never_ends_is_cut_off(engines: int) -> None:
    registry = library()
    endless = Gauge("lib:adapters", "One series per set of adapters.", ("adapters",), registry=registry)
    for number in range(MOST + 1):
        endless.labels(str(number)).set(1)
    families = read(registry, "lib:")
    assert "lib:adapters" not in {family.name for family in families}
    metrics = opened()
    metrics.foreign.heard({f"engine-{number}.0": families for number in range(engines)})
    assert len(scraped(metrics)) <= engines * MOST


def test_with_nothing_to_say_there_is_an_empty_page_once_the_run_is_open() -> None:
    metrics = Metrics(run="first-run")
    with serve(metrics, HOST, 0) as port:
        assert fetch(port, "/metrics/engines")[0] == 503
        metrics.open(version="1", model="m", environment="e", population=1, lineages=1)
        assert fetch(port, "/metrics/engines") == (200, "")
