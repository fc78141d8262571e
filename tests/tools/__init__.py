"""Commands for people who work on Forager."""
