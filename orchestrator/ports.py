"""Which processes of Ray and forager on this machine listen beyond it."""

import ipaddress
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import psutil

RAY_BINARIES = ("gcs_server", "raylet")


@dataclass(frozen=True, slots=True)
class Listener:
    """A process with ports that other machines can reach."""

    pid: int
    process: str
    addresses: tuple[str, ...]
    """`address:port`, sorted."""
    ray: bool
    """Part of a Ray cluster, so that who reaches it and is let in runs code."""
    token: bool
    """Its Ray demands a token."""


def exposed() -> list[Listener] | None:
    """Listeners of Ray and forager that are not on loopback; None where the system does not show them."""
    ports: defaultdict[int, set[str]] = defaultdict(set)
    try:
        for socket in psutil.net_connections("tcp"):
            if socket.status == psutil.CONN_LISTEN and socket.pid and not is_loopback(socket.laddr.ip):
                ports[socket.pid].add(f"{socket.laddr.ip}:{socket.laddr.port}")
    except psutil.AccessDenied:
        return None
    return [listener for pid in sorted(ports) if (listener := _ours(pid, tuple(sorted(ports[pid]))))]


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach an IPv4 or IPv6 address."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    return (mapped or ip).is_loopback


def _ours(pid: int, addresses: tuple[str, ...]) -> Listener | None:
    try:
        process = psutil.Process(pid)
        words = process.cmdline()
        name = _name(words)
        if name is None:
            return None
        token = process.environ().get("RAY_AUTH_MODE", "").lower() == "token"
    except psutil.Error:
        return None
    return Listener(pid, name, addresses, name != "forager", token)


def _name(words: list[str]) -> str | None:
    """What a command line of Ray or forager is called, None for all others."""
    first = Path(words[0]).name if words else ""
    if first in RAY_BINARIES or first.startswith(("ray::", "ray-")):
        return first
    if "orchestrator.cli" in words or any(Path(word).name == "forager" for word in words[:2]):
        return "forager"
    scripts = [word for word in words[1:] if word.endswith(".py") and "/ray/" in word]
    return f"ray {Path(scripts[0]).stem}" if scripts else None
