"""Stops a process at every system call that changes files, before the kernel executes it.

A seccomp filter in the process hands such calls to a supervisor, who lets them happen, makes them fail, swallows them
or kills the process on the spot (seccomp_unotify(2)). It sees every thread and every library, whatever language they
are written in. Linux 5.19 or newer on x86-64.
"""

import ctypes
import errno
import fcntl
import os
import platform
import select
import signal
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

FD, PATH, AT = "fd", "path", "at"
CALLS = {
    # name: (number, whether an argument is a descriptor, a path, or a path below the directory before it, which one)
    "write": (1, FD, 0),
    "pwrite64": (18, FD, 0),
    "writev": (20, FD, 0),
    "sendfile": (40, FD, 0),
    "fsync": (74, FD, 0),
    "fdatasync": (75, FD, 0),
    "truncate": (76, PATH, 0),
    "ftruncate": (77, FD, 0),
    "rename": (82, PATH, 1),
    "mkdir": (83, PATH, 0),
    "rmdir": (84, PATH, 0),
    "creat": (85, PATH, 0),
    "link": (86, PATH, 1),
    "unlink": (87, PATH, 0),
    "symlink": (88, PATH, 1),
    "openat": (257, AT, 1),  # only with O_CREAT or O_TRUNC
    "mkdirat": (258, AT, 1),
    "unlinkat": (263, AT, 1),
    "renameat": (264, AT, 3),
    "linkat": (265, AT, 3),
    "symlinkat": (266, AT, 2),
    "fallocate": (285, FD, 0),
    "pwritev": (296, FD, 0),
    "renameat2": (316, AT, 3),
    "copy_file_range": (326, FD, 2),
    "pwritev2": (328, FD, 0),
}
NAMES = {number: name for name, (number, _, _) in CALLS.items()}
OPENAT = CALLS["openat"][0]

SYNC = frozenset({"fsync", "fdatasync"})
NAME = frozenset({"link", "linkat", "rename", "renameat", "renameat2"})
"""Calls that give a file its final name."""
REMOVE = frozenset({"unlink", "unlinkat", "rmdir"})
GROW = frozenset(CALLS) - SYNC - REMOVE
"""Calls that a full disk refuses."""

KILL = -signal.SIGKILL
LOST = 0

ARCHITECTURE = 0xC000003E
SECCOMP, SET_FILTER, NEW_LISTENER, WAIT_KILLABLE = 317, 1, 1 << 3, 1 << 5
NO_NEW_PRIVILEGES = 38
ALLOW, NOTIFY = 0x7FFF0000, 0x7FC00000
RECEIVE, SEND = 0xC0502100, 0xC0182101
NOTICE, REPLY = struct.Struct("=QIIiIQ6Q"), struct.Struct("=QqiI")
CONTINUE = 1
AT_FDCWD = 0xFFFFFF9C
SILENCE = 120
"""Seconds without a call after which a process counts as hung."""


@dataclass(frozen=True)
class Call:
    """A system call that is about to change a file below the root."""

    index: int
    """Position among all of the process, from 0."""
    name: str
    path: Path
    """The file it changes; the new name where it gives one."""
    answer: int | None = None
    """What became of it, see Answer."""


Answer = Callable[[Call], int | None]
"""None: it happens. An errno: it fails with that. LOST: it reports success and does nothing. -signal: the process
gets that signal instead."""


def available() -> bool:
    """Whether this kernel can do it."""
    return platform.machine() == "x86_64" and "user_notif" in _actions()


def install() -> int:
    """Puts this process and all it starts behind the gate; returns the descriptor that `supervise` needs.

    Every call waits from now on. Only for a process with one thread.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    code = _program()
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
    if libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0:
        listener = int(libc.syscall(SECCOMP, SET_FILTER, NEW_LISTENER | WAIT_KILLABLE, program))
        if listener >= 0:
            return listener
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def supervise(listener: int, pid: int, root: Path, answer: Answer) -> list[Call]:
    """Answers every call of process `pid` until it is gone; returns those below `root`. Raises TimeoutError."""
    calls: list[Call] = []
    poller = select.poll()
    poller.register(listener, select.POLLIN)
    while True:
        events = poller.poll(SILENCE * 1000)
        if not events:
            os.kill(pid, signal.SIGKILL)
            raise TimeoutError(f"no system call in {SILENCE} s after {calls[-1:]}")
        if not events[0][1] & select.POLLIN:
            return calls
        notice = bytearray(NOTICE.size)
        try:
            fcntl.ioctl(listener, RECEIVE, notice)
        except FileNotFoundError:
            continue  # it was killed in the meantime
        identity, thread, _, number, _, _, *arguments = NOTICE.unpack(notice)
        verdict = None
        path = _path(thread, NAMES[number], arguments)
        if path is not None and path.is_relative_to(root):
            call = Call(len(calls), NAMES[number], path)
            verdict = answer(call)
            calls.append(replace(call, answer=verdict))
        if verdict is not None and verdict < 0:
            os.kill(pid, -verdict)
        failing = verdict if verdict is not None and verdict > 0 else 0
        reply = REPLY.pack(identity, 0, -failing, CONTINUE if verdict is None else 0)
        with suppress(FileNotFoundError):
            fcntl.ioctl(listener, SEND, reply)


def acknowledged(calls: Sequence[Call]) -> Iterator[str]:
    """Names of the journal entries that were made durable: linked, the directory synced, and the next call seen."""
    linked = synced = ""
    for call in calls:
        folder, name = call.path.parent.name, call.path.name
        if folder == "journal" and call.name in NAME:
            linked, synced = name if call.answer is None else "", ""
        elif name == "journal" and call.name in SYNC:
            synced = linked if call.answer is None else ""
        elif call.name in REMOVE and synced and name.startswith(f".{synced}."):
            yield synced
            linked = synced = ""


def _path(thread: int, name: str, arguments: list[int]) -> Path | None:
    """File that a call changes; None if the descriptor is not open, or the thread is gone."""
    _, kind, position = CALLS[name]
    try:
        if kind == FD:
            return Path(os.readlink(f"/proc/{thread}/fd/{arguments[position] & 0xFFFFFFFF}"))
        path = _string(thread, arguments[position])
        above = arguments[position - 1] & 0xFFFFFFFF if kind == AT and not path.startswith("/") else AT_FDCWD
        return Path(os.readlink(f"/proc/{thread}/cwd" if above == AT_FDCWD else f"/proc/{thread}/fd/{above}"), path)
    except (FileNotFoundError, ProcessLookupError):
        return None


def _string(thread: int, address: int) -> str:
    with open(f"/proc/{thread}/mem", "rb", 0) as memory:
        memory.seek(address)
        # A string may end right before memory that cannot be read: never read beyond its page at once.
        data = memory.read(4096 - address % 4096)
        while b"\0" not in data:
            data += memory.read(4096)
    return os.fsdecode(data.partition(b"\0")[0])


def _program() -> bytes:
    """The filter in classic BPF: every call of the table notifies, opening a file only if that may change it."""
    load, equal, bits, give = 0x20, 0x15, 0x45, 0x06
    steps = [(load, 0, 0, 4), (equal, 1, 0, ARCHITECTURE), (give, 0, 0, ALLOW), (load, 0, 0, 0)]
    steps += [(equal, 0, 4, OPENAT), (load, 0, 0, 16 + 8 * 2), (bits, 0, 1, os.O_CREAT | os.O_TRUNC)]
    steps += [(give, 0, 0, NOTIFY), (give, 0, 0, ALLOW)]
    for number in sorted(set(NAMES) - {OPENAT}):
        steps += [(equal, 0, 1, number), (give, 0, 0, NOTIFY)]
    return b"".join(struct.pack("HBBI", *step) for step in [*steps, (give, 0, 0, ALLOW)])


def _actions() -> str:
    try:
        return Path("/proc/sys/kernel/seccomp/actions_avail").read_text()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "")
