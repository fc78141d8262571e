"""Runs the tests of this directory in namespaces of their own: `python -m tests.cluster`, or `make cluster-test`.

Network, processes and mounts of the tests are then nobody else's: no packet leaves, no address is taken, and the kernel
ends and removes all of it with the first process, however that ends. Where a machine refuses, says why and exits 0.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

from tests.cluster.nodes import INSIDE

TOOLS = ("unshare", "nsenter", "ip", "mount", "bash")
ENTER = ("unshare", "--net", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc")
PROBE = (
    "ip link add probe type bridge && ip link add one type veth peer name two && mount -t tmpfs none /mnt"
    " && unshare --net --pid --mount --uts --ipc --fork --mount-proc hostname other"
)
"""All that the tests ask of the kernel."""


def refusal(enter: Sequence[str]) -> str | None:
    """Why this machine lets nobody make such namespaces; None if it does."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (Debian: util-linux, iproute2)"
    tried = subprocess.run([*enter, "bash", "-c", PROBE], capture_output=True, text=True)
    if tried.returncode == 0:
        return None
    last = (tried.stderr.strip().splitlines() or [f"exit code {tried.returncode}"])[-1]
    return f"this machine does not allow network, process and mount namespaces: {last}"


def main(arguments: Sequence[str]) -> None:
    enter = [*ENTER, *(() if os.geteuid() == 0 else ("--user", "--map-root-user"))]
    if reason := refusal(enter):
        print(f"skipped: {reason}")
        return
    tests = [sys.executable, "-m", "pytest", "-m", "namespaces", "--durations", "10", *(arguments or ["tests/cluster"])]
    # The shell is the first process there, so that somebody takes leave of the processes that nobody waits for.
    shell = ["bash", "-c", '"$@"; exit $?', "init", *tests]
    # In this process's place: whoever kills it kills all.
    os.execvpe(enter[0], [*enter, *shell], {**os.environ, INSIDE: "1"})


if __name__ == "__main__":
    main(sys.argv[1:])
