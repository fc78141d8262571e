"""Processes of this machine and their descendants. What has ended meanwhile is nobody's error."""

from collections.abc import Iterable
from contextlib import suppress

import psutil


def find(pid: int | None) -> psutil.Process | None:
    """The process of that number, if there is one."""
    with suppress(psutil.Error):
        return None if pid is None else psutil.Process(pid)
    return None


def families(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """These processes and all their descendants."""
    found = list(processes)
    for process in tuple(found):
        with suppress(psutil.Error):
            found += process.children(recursive=True)
    return found


def kill(processes: Iterable[psutil.Process]) -> None:
    """SIGKILL to each; psutil spares who has only inherited a number."""
    for process in processes:
        with suppress(psutil.Error):
            process.kill()
