"""Small disks for cases: mounts that nobody else sees and that vanish with the worker, whatever happens to it."""

import ctypes
import functools
import os
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

NEW_MOUNTS = 0x00020000


def available(kind: str = "tmpfs") -> bool:
    """Whether this user may mount: a tmpfs, or a file as an ext4 disk (`loop`)."""
    if os.geteuid() != 0:
        return False
    tmpfs = "mount -t tmpfs none /mnt"
    ext4 = "cd /mnt && truncate -s 8M image && mkfs.ext4 -q image && mkdir disk && mount -o loop image disk"
    script = tmpfs if kind == "tmpfs" else f"{tmpfs} && {ext4} && umount disk"
    try:
        done = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


@contextmanager
def mounted(what: str | Path, at: Path, *options: str) -> Iterator[Path]:
    """`mount OPTIONS what at` inside the block. Raises CalledProcessError."""
    _own_mounts()
    at.mkdir(exist_ok=True)
    command("mount", *options, what, at)
    try:
        yield at
    finally:
        # Lazily: a case that failed may have left something open.
        command("umount", "--lazy", at)


def tmpfs(at: Path, **limits: int) -> AbstractContextManager[Path]:
    """A disk in memory with limits such as `size` in bytes and `nr_inodes`."""
    return mounted("none", at, "-t", "tmpfs", "-o", ",".join(f"{name}={value}" for name, value in limits.items()))


def remount(at: Path, options: str) -> None:
    """Changes a mounted disk's options."""
    command("mount", "-o", f"remount,{options}", at)


def command(*words: str | Path) -> None:
    """Runs a command that must succeed."""
    subprocess.run([str(word) for word in words], check=True, capture_output=True, timeout=60)


@functools.cache
def _own_mounts() -> None:
    """Gives this process mounts of its own."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEW_MOUNTS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    command("mount", "--make-rprivate", "/")
