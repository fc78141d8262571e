"""What an inspection or an audit found: one line each."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing worth knowing about a run."""

    severity: Literal["error", "note"]
    """`error`: the run must not be trusted as it is. `note`: harmless, for instance what a crash left behind."""
    where: str
    """Object of the store, table, generation or individual."""
    what: str
    """What is the matter, with both values where two disagree."""


def error(where: str, what: str) -> Finding:
    """A finding that makes the run untrustworthy; line breaks and lengths are cut to one line."""
    return Finding("error", where, _line(what))


def note(where: str, what: str) -> Finding:
    """A harmless finding."""
    return Finding("note", where, _line(what))


def _line(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 400 else f"{text[:397]}..."
