"""Who failed: decided at one boundary, carried as a type, turned into an exit code in one place.

    ForagerError               one line for the user, an exit code for the shell
    |-- UsageError         2   a bad run file, argument, plugin or model
    |-- StateError         3   a corrupt or incompatible run
    |-- FencedError        4   another driver owns the run
    |-- StorageError       5   the store is full, read-only, broken or out of reach
    |-- NoProgressError    6   retry or restart budgets are spent
    |-- ClusterLostError   7   the Ray cluster is gone
    `-- Stopped      130/143   a signal ended the run

A failure of the infrastructure under a life is not a death: it is raised as one of the errors above or
retried by the worker pool, and never reaches fitness as a score.
"""

LINE = 1000
"""Characters of an error's text; what a file or a plugin said may be longer."""


def one_line(text: str, most: int = LINE) -> str:
    """The text without line breaks, control and other invisible characters, for terminals and logs."""
    line = " ".join("".join(one if one.isprintable() else " " for one in text[: 4 * most]).split())
    return line if len(line) <= most else f"{line[: most - 3]}..."


class ForagerError(Exception):
    """Base of every error that a user can act on; its text is one printable line, whoever's words it repeats."""

    exit_code = 1

    def __init__(self, text: str) -> None:
        super().__init__(one_line(text))


class UsageError(ForagerError):
    """Bad run file, argument, plugin or model: `<where>: got <x>, expected <y>; <what to do>`."""

    exit_code = 2


class StateError(ForagerError):
    """A run directory that is corrupt, foreign or of another version."""

    exit_code = 3


class FencedError(ForagerError):
    """Another driver owns the run."""

    exit_code = 4


class StorageError(ForagerError):
    """The store refused or lost a write, or cannot be reached."""

    exit_code = 5


class NoProgressError(ForagerError):
    """Retry or restart budgets are spent."""

    exit_code = 6


class ClusterLostError(ForagerError):
    """The Ray cluster is gone."""

    exit_code = 7


class Stopped(ForagerError):
    """A signal ended the run; what had finished is committed."""

    def __init__(self, signum: int) -> None:
        super().__init__("stopped by a signal; finished lives are committed, `forager resume RUN` goes on from there")
        self.exit_code = 128 + signum
