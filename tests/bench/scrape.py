"""What a scrape takes: milliseconds and series of /metrics over HTTP, with 10 and with 100,000 lineages.

Milliseconds of the median scrape, and of the processor, client included; of the page of 64 engines once.
"""

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
    results = {}
    for lineages in LINEAGES:
        metrics = crowded(lineages)
        results[f"{lineages}_lineages"] = scrape(metrics, "/metrics", SCRAPES)
    results[f"{ENGINES}_engines"] = scrape(metrics, "/metrics/engines", 1)
    print(json.dumps(results))


def scrape(metrics: Metrics, path: str, times: int) -> dict[str, float]:
    """Scrapes a page so many times."""
    taken, text = [], ""
    with serve(metrics, HOST, 0) as port:
        used = time.process_time()
        for _ in range(times):
            start = time.perf_counter()
            with urllib.request.urlopen(f"http://{HOST}:{port}{path}", timeout=60) as reply:
                text = reply.read().decode()
            taken.append(time.perf_counter() - start)
        used = time.process_time() - used
    series = sum(not line.startswith("#") for line in text.splitlines())
    return {"series": series, "milliseconds": 1000 * median(taken), "cpu_milliseconds": 1000 * used / times}


if __name__ == "__main__":
    main()
