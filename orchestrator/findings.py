"""What an inspection or an audit found: one line each."""

from dataclasses import dataclass
from typing import Literal

from telemetry.failures import one_line


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
    """A finding that makes the run untrustworthy; both texts are cut to one printable line."""
    return Finding("error", one_line(where, 400), one_line(what, 400))


def note(where: str, what: str) -> Finding:
    """A harmless finding."""
    return Finding("note", one_line(where, 400), one_line(what, 400))
