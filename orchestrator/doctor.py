"""`forager doctor`: what this machine offers a run, and what stands open on it.

The law: it changes nothing, loads no heavy library and prints no secret.
"""

import ctypes
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from threading import Thread
from time import time
from typing import Literal

from packaging.requirements import Requirement
from rich.console import Console
from rich.text import Text

from orchestrator import credentials
from orchestrator.config import RayConfig
from orchestrator.plain import clean
from orchestrator.ports import exposed
from telemetry import __version__
from telemetry.config import LedgerConfig
from telemetry.failures import ForagerError
from telemetry.store import open_store
from workers.engines import UNSAFE

SHOWN = ("ray", "torch", "transformers", "trl", "peft", "pyarrow", "deltalake")
"""Libraries with a row of their own; others appear only when they are not as they should be."""
RISKY = {
    "PYTHONOPTIMIZE": "libraries that check their input by `assert` no longer do",
    "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "torch runs code that it finds in weight files",
    **dict.fromkeys(UNSAFE, "removed from our engines; other vLLM servers of yours obey it"),
}
"""Variables that weaken what a run relies on, and how."""
VECTORS = ("amx_bf16", "avx512_bf16", "bf16", "avx512f", "avx2", "asimd")
"""Instructions that make vLLM and torch fast, best first."""
STORE_SECONDS = 10.0
"""A store that does not answer in this time will not do for a run."""
RELEASED = 1_790_000_000
"""Unix time before which no clock that runs this can be right (September 2026)."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at."""

    level: Literal["ok", "warning", "problem"]
    """`problem`: a run will fail, or strangers can harm it. `warning`: worth knowing."""
    what: str
    """What was looked at."""
    found: str
    """What it is like and, unless ok, what to do about it; one line."""


def examine(store: str) -> list[Check]:
    """Every check, for runs that are to live in `store` (a directory or URL)."""
    return [
        *_versions(),
        *_hardware(),
        *_ports(),
        *_token(),
        *_environment(),
        _clock(),
        *_store(store),
    ]


def print_checks(checks: list[Check]) -> None:
    """One aligned line per check, and a verdict."""
    console, width = Console(), max(len(check.what) for check in checks)
    for check in checks:
        style = {"ok": "green", "warning": "yellow", "problem": "red"}[check.level]
        line = Text.assemble((check.level.ljust(7), style), "  ", (check.what.ljust(width), "dim"), "  ")
        console.print(line.append(clean(check.found, 400)), soft_wrap=True)
    levels = [check.level for check in checks]
    bad = [f"{levels.count(level)} {level}{'s'[: levels.count(level) != 1]}" for level in ("problem", "warning")]
    console.print(Text("ok: nothing is in the way" if set(levels) == {"ok"} else ", ".join(bad)), soft_wrap=True)


def _versions() -> Iterator[Check]:
    yield Check("ok", "forager", f"{__version__}, Python {platform.python_version()}")
    try:
        requirements = [Requirement(line) for line in metadata.requires("forager") or ()]
    except metadata.PackageNotFoundError:
        yield Check("warning", "installation", "forager is not installed as a package; `pip install -e .`")
        return
    engines = []
    for requirement in requirements:
        if requirement.marker is None:
            check = _version(requirement)
            if check.level != "ok" or requirement.name in SHOWN:
                yield check
        elif requirement.name.startswith("vllm") and _installed(requirement.name):
            engines.append(_version(requirement))
    missing = Check("warning", "vllm", "not installed, so only scripted engines run; `pip install 'forager[cpu]'`")
    yield from engines or [missing]


def _version(requirement: Requirement) -> Check:
    version = _installed(requirement.name)
    if version is None:
        return Check("problem", requirement.name, f"not installed, expected {requirement.specifier}")
    if not requirement.specifier.contains(version, prereleases=True):
        return Check("problem", requirement.name, f"got {version}, expected {requirement.specifier}")
    return Check("ok", requirement.name, version)


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _hardware() -> Iterator[Check]:
    flags = _processor_flags()
    fast = [name for name in VECTORS if name in flags]
    level: Literal["ok", "warning"] = "ok" if fast or not flags else "warning"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Check(level, "processor", f"{cores} cores, {' '.join(fast) or 'no vector instructions that vLLM knows'}")
    gpus = _gpu_names()
    if gpus and _installed("vllm") is None:
        yield Check("warning", "gpus", f"{', '.join(gpus)}; unused without `pip install 'forager[gpu]'`")
    else:
        yield Check("ok", "gpus", ", ".join(gpus) or "none; engines and trainers use the processor")
    yield from _shared_memory()


def _processor_flags() -> set[str]:
    info = Path("/proc/cpuinfo")
    lines = re.findall(r"^(?:flags|Features)\s*:(.*)$", info.read_text(), re.MULTILINE) if info.exists() else []
    return set(lines[0].split()) if lines else set()


def _gpu_names() -> list[str]:
    """Models of the NVIDIA GPUs that the kernel driver knows."""
    files = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    found = [re.search(r"^Model:\s*(.*)$", file.read_text(), re.MULTILINE) for file in files]
    return [match[1] for match in found if match]


def _shared_memory() -> Iterator[Check]:
    if not Path("/dev/shm").is_dir():
        return
    free, needed = shutil.disk_usage("/dev/shm").free >> 20, RayConfig().object_store_mib
    if free < needed:
        advice = f"Ray wants {needed} MiB and will use the disk; enlarge /dev/shm"
        yield Check("warning", "shared memory", f"{free} MiB free, {advice}")
    else:
        yield Check("ok", "shared memory", f"{free} MiB free")


def _ports() -> Iterator[Check]:
    listeners = exposed()
    if listeners is None:
        yield Check("warning", "ports", "this system does not tell who listens where")
        return
    for one in listeners:
        where = f"{one.process} (pid {one.pid}) listens on {', '.join(one.addresses)}"
        if not one.ray:
            yield Check("warning", "ports", f"{where}; who reaches this machine can read its metrics")
        elif one.token:
            yield Check("warning", "ports", f"{where}, with a token; keep these ports inside a private network")
        else:
            yield Check("problem", "ports", f"{where} without a token: who reaches it runs code here; end that cluster")
    if not listeners:
        yield Check("ok", "ports", "no process of Ray or forager listens beyond this machine")


def _token() -> Iterator[Check]:
    mode = os.environ.get("RAY_AUTH_MODE", "token").lower()
    if mode == "disabled":
        yield Check("warning", "ray token", "RAY_AUTH_MODE=disabled: every user here can run code on it; unset it")
        return
    path = credentials.token_file()
    try:
        if path is None:
            yield Check("ok", "ray token", "in RAY_AUTH_TOKEN")
        elif weak := credentials.weakness(path):
            # Ray leaves its own default so, and the next run mends it; it would refuse a file that the user chose.
            level: Literal["warning", "problem"] = "problem" if "RAY_AUTH_TOKEN_PATH" in os.environ else "warning"
            yield Check(level, "ray token", f"{path}: {weak}")
        else:
            yield Check("ok", "ray token", f"{path}, for its owner only")
    except FileNotFoundError:
        if "RAY_AUTH_TOKEN_PATH" in os.environ:
            yield Check("problem", "ray token", f"{path} (RAY_AUTH_TOKEN_PATH) does not exist")
        else:
            yield Check("ok", "ray token", f"{path}, made by the first run")
    except OSError as error:
        yield Check("problem", "ray token", f"{path}: {(error.strerror or str(error)).lower()}")


def _environment() -> Iterator[Check]:
    unpickling = "Ray runs code that it finds in data files; unset it"
    found = [Check("problem", name, unpickling) for name in credentials.dangerous_variables()]
    found += [Check("warning", name, f"set: {why}") for name, why in RISKY.items() if os.environ.get(name)]
    yield from found or [Check("ok", "environment", "no variable weakens a run")]


def _clock() -> Check:
    if time() < RELEASED:
        return Check("problem", "clock", "it is years behind, so stores and certificates will be refused; set it")
    if sys.platform == "linux":
        # adjtimex(2) with no mode changes nothing and returns TIME_ERROR, 5, for a clock that nobody keeps right.
        if ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512)) == 5:
            return Check("warning", "clock", "not kept right by a time server, as far as this system can tell")
    return Check("ok", "clock", "plausible" if sys.platform != "linux" else "kept right by a time server")


def _store(place: str) -> Iterator[Check]:
    if "://" in place:
        yield _probe(place, place)
        return
    folder = Path(place).expanduser().absolute()
    ground = next(path for path in (folder, *folder.parents) if path.exists())
    free, needed = shutil.disk_usage(ground).free / 2**30, LedgerConfig().min_free_gib
    if free < needed:
        yield Check("problem", "disk", f"{free:.1f} GiB free, no generation starts below {needed:g} GiB; make room")
    else:
        yield Check("ok" if free >= 10 * needed else "warning", "disk", f"{free:.1f} GiB free")
    try:
        with tempfile.TemporaryDirectory(prefix=".forager-doctor-", dir=ground) as scratch:
            yield _probe(scratch, str(folder))
    except OSError as error:
        yield Check("problem", "store", f"{folder}: {(error.strerror or str(error)).lower()}; choose another --store")


def _probe(url: str, name: str) -> Check:
    """Whether a store writes, reads, and lets only one of two creators win; in a thread, because it may never say."""
    answers: list[Check] = []

    def ask() -> None:
        try:
            open_store(url).probe()
            answers.append(Check("ok", "store", f"{name}: conditional writes work"))
        except ForagerError as error:
            answers.append(Check("problem", "store", str(error)))

    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(STORE_SECONDS)
    return answers[0] if answers else Check("problem", "store", f"{name}: no answer in {STORE_SECONDS:g} s")
