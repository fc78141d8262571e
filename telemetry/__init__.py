"""Remembers: records, store, journal, ledger, adapters, metrics, reports."""

__version__ = "0.1.0"
