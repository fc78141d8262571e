"""The base model of a run on each of its machines: fetched and read through once per machine, not once per process.

Law: an actor works on the very files that the run's model card names, or not at all; who has others is named.
"""

import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from telemetry import models
from telemetry.failures import ForagerError, StateError, UsageError
from telemetry.records import BaseModelCard


def name_for_all(name: str, directory: Path) -> str:
    """What other machines are to call a resolved model: one that is a directory, by its whole path."""
    return str(directory) if models.is_directory(name) else name


def here(name: str, card: BaseModelCard) -> Path:
    """Local directory with the files of this card, fetched if this machine lacks them.

    Of the processes that ask on one machine, one fetches while the others wait. Raises UsageError when there is no such
    model for this machine, StateError when its files are others.
    """
    with _alone(name):
        with suppress(OSError, UsageError):  # not there, or in parts
            directory = models.on_disk(name)
            if directory is not None and models.card(directory, name).sha256 == card.sha256:
                return directory
        directory = _fetch(name)
        found = models.card(directory, name).sha256
    if found != card.sha256:
        raise StateError(
            f"model {name} on {socket.gethostname()}: its files have sha256 {found[:12]}, the driver's have"
            f" {card.sha256[:12]}; give both machines the same files"
        )
    return directory


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Holds this machine's lock of a model; none, where there is nowhere to put it."""
    path = models.cache() / "locks" / f"{sha256(name.encode()).hexdigest()}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        yield
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _fetch(name: str) -> Path:
    """Resolves a model in a child process, since engines may not use the network themselves. Raises UsageError."""
    allowed = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    done = subprocess.run([sys.executable, "-m", __name__, name], env=allowed, capture_output=True, text=True)
    last = (done.stdout if done.returncode == 0 else done.stderr).strip().rpartition("\n")[2]
    if done.returncode != 0 or not last:
        raise UsageError(f"on {socket.gethostname()}: {last or f'exit code {done.returncode}'}")
    return Path(last)


if __name__ == "__main__":
    try:
        print(models.resolve(sys.argv[1]))
    except ForagerError as error:
        sys.exit(str(error))
