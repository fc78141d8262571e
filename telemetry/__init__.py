"""Remembers: records, store, journal, ledger, adapters, metrics, reports."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from telemetry.analysis import RunTables

__version__ = "0.1.0"


def open_run(place: str) -> "RunTables":
    """The tables of a run directory or store URL, for analysis.

    `open_run("runs/demo").query("select cause, count(*) from lives group by 1").to_pandas()`. Raises UsageError or
    StateError where there is no run, or a damaged one.
    """
    from telemetry import analysis

    return analysis.open_run(place)
