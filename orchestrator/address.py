"""Which Ray cluster a run is driven on: `--address` and `ray.address`, checked before Ray is asked.

The law: where a run is driven changes nothing of what is recorded of it, so an address given on the command line is
taken by the driver alone and never reaches the journal.
"""

import re

from orchestrator.config import RunConfig
from telemetry.failures import UsageError

HERE = "local"
"""What `--address` calls a cluster of this machine's own, which ends with the driver."""
_PORT = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):(\d{1,5})")


def driven_at(config: RunConfig, address: str | None) -> RunConfig:
    """The run file as this driver goes by it; without an address, as it stands.

    Raises UsageError for an address that no driver can use, or that this run cannot.
    """
    if address is None:
        return config
    if address != HERE:
        check(address, "--address")
        if config.ray.executor == "inprocess":
            raise UsageError(
                f"--address: got {address[:80]}, but ray.executor is inprocess, which knows no cluster;"
                " add --set ray.executor=ray"
            )
    joined = config.ray.model_copy(update={"address": None if address == HERE else address})
    return config.model_copy(update={"ray": joined})


def check(address: str, where: str = "ray.address") -> None:
    """Raises UsageError unless a driver can join a cluster at this address.

    A Ray client (`ray://`) is refused: it is no member of the cluster, so actors cannot be watched or ended through it,
    and the cluster keeps them for a while after the client is gone.
    """
    scheme, found, _ = address.partition("://")
    if found:
        raise UsageError(
            f"{where}: got {scheme[:20]}://, expected auto or HOST:PORT on a node of the cluster; from elsewhere:"
            " `ray job submit --address http://HEAD:8265 -- forager run FILE --store URL --address auto`"
        )
    match = _PORT.fullmatch(address)
    if address != "auto" and not (match and 0 < int(match[1]) < 1 << 16):
        raise UsageError(
            f"{where}: got {address[:80]!r}, expected auto or HOST:PORT, the address that `ray start` was given"
        )
