"""Ends what a killed driver leaves behind: a process of its own that sleeps until the driver's end of a pipe closes.

Ray's processes notice by themselves that their parent is gone, but some only after many seconds on a busy machine,
and a driver that was killed cannot see to it. The pipe closes however the driver ends.
"""

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

OVER = b"over"
"""Says that the driver has cleaned up itself."""
FIRST_PAUSE = 0.25
LAST_PAUSE = 5.0
"""Seconds between two looks at who descends from the driver: often while it starts, seldom later."""


@contextmanager
def reaped() -> Iterator[None]:
    """Should this process die inside the block, everything that it or its children have started is killed."""
    # In a session of its own, so that what ends the driver's terminal or process group does not end this too.
    with subprocess.Popen(
        [sys.executable, "-I", str(Path(__file__).resolve())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as reaper:
        try:
            yield
        finally:
            # It may have been killed itself; then there is nothing to call off.
            with suppress(OSError):
                reaper.communicate(OVER)


def main() -> None:
    """Watches the parent process until the pipe from it closes."""
    driver = psutil.Process(os.getppid())
    family: set[psutil.Process] = set()
    pause = FIRST_PAUSE
    while True:
        with suppress(psutil.Error):
            family |= set(driver.children(recursive=True))
        if select.select([sys.stdin], [], [], pause)[0]:
            break
        pause = min(LAST_PAUSE, 2 * pause)
    if os.read(sys.stdin.fileno(), len(OVER)) == OVER:
        return
    for process in list(family):
        with suppress(psutil.Error):
            family |= set(process.children(recursive=True))
    for process in family - {psutil.Process()}:
        # psutil does not kill who has only inherited the number.
        with suppress(psutil.Error):
            process.kill()


if __name__ == "__main__":
    main()
