"""Memory that is freed and taken again is not fetched from the system each time."""

import os
import subprocess
import sys

from telemetry.allocation import TENSORS

PROGRAM = """
import resource
from threading import Thread

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def take():
    # In pieces larger than what is kept by default, and all freed at the end.
    held = [b"x" * (40 << 20) for _ in range(3)]

def measure():
    take()
    before = faults()
    for _ in range(5):
        take()
    print(faults() - before)

thread = Thread(target=measure)
thread.start()
thread.join()
"""


def faults(variables: dict[str, str]) -> int:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment | variables, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_a_thread_gets_back_the_memory_that_it_freed() -> None:
    assert faults(TENSORS) < 100
    assert faults({}) > 1000
