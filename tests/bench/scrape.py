"""What a scrape takes: milliseconds and series of /metrics over HTTP, with 10 and with 100,000 lineages."""

import json
import time
import urllib.request
from statistics import median

from telemetry.exporter import serve
from telemetry.metrics import Metrics
from tests.orchestrator.crowd import ENGINES, crowded

LINEAGES = (10, 100_000)
SCRAPES = 50
HOST = "127.0.0.1"


def main() -> None:
    results: dict[str, object] = {}
    for lineages in LINEAGES:
        metrics = crowded(lineages)
        for name, path in (("", "/metrics"), ("engines_", "/metrics/engines")):
            series, seconds = scrape(metrics, path)
            results[f"{name}{lineages}_lineages"] = {"series": series, "milliseconds": 1000 * seconds}
    print(json.dumps({"engines": ENGINES, **results}))


def scrape(metrics: Metrics, path: str) -> tuple[int, float]:
    """Series of a page, and seconds of the median scrape."""
    taken, text = [], ""
    with serve(metrics, HOST, 0) as port:
        for _ in range(SCRAPES):
            start = time.perf_counter()
            with urllib.request.urlopen(f"http://{HOST}:{port}{path}", timeout=60) as reply:
                text = reply.read().decode()
            taken.append(time.perf_counter() - start)
    return sum(not line.startswith("#") for line in text.splitlines()), median(taken)


if __name__ == "__main__":
    main()
