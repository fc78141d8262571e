"""The run files that come with Forager, also where there is no checkout: what `forager init` starts from."""

import re
from pathlib import Path

from telemetry.failures import StorageError, UsageError

RUNS = Path(__file__).with_name("runs")


def names() -> list[str]:
    """Of all shipped run files, in order."""
    return sorted(path.stem for path in RUNS.glob("*.yaml"))


def about(name: str) -> str:
    """What a shipped run file is, by the beginning of its first comment."""
    comment = []
    for line in _read(name).decode().splitlines():
        if not line.startswith("#"):
            break
        comment.append(line.removeprefix("#").strip())
    return re.split(r"[.:;](?: |$)| \(", " ".join(comment), maxsplit=1)[0]


def write(name: str, target: Path) -> None:
    """Copies a shipped run file to where no file is yet. Raises UsageError or StorageError."""
    data = _read(name)
    try:
        with target.open("xb") as file:
            file.write(data)
    except FileExistsError as error:
        raise UsageError(f"{target}: is there already; choose another name with --out") from error
    except OSError as error:
        raise StorageError(f"{target}: cannot be written: {error.strerror}; choose another place with --out") from error


def _read(name: str) -> bytes:
    if name not in names():
        raise UsageError(f"init: got {name!r}, expected one of {', '.join(names())}")
    return (RUNS / f"{name}.yaml").read_bytes()
