"""A scrape is of the same size however many lineages, causes, players and engines there are."""

from collections import Counter

from telemetry.exporter import serve
from tests.orchestrator.crowd import ENGINES, crowded
from tests.telemetry.test_metrics import HOST, fetch

MOST = 2000
"""Series that the main page may have."""


def series(lineages: int) -> Counter[str]:
    """Series of the main page by metric."""
    with serve(crowded(lineages), HOST, 0) as port:
        status, text = fetch(port, "/metrics")
        engines = fetch(port, "/metrics/engines")[1]
    assert status == 200
    assert all(f'engine="engine-{number}"' in engines for number in range(ENGINES))
    return Counter(line.partition(" ")[0].partition("{")[0] for line in text.splitlines() if not line.startswith("#"))


def test_a_scrape_is_flat_from_ten_to_a_hundred_thousand_lineages() -> None:
    few, many = series(10), series(100_000)
    assert few == many
    assert few["forager_lives_total"] > 30
    assert few["forager_held_out_fitness"] > 30
    assert many.total() <= MOST
