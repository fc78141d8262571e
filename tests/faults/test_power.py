"""Power cuts: what a disk holds if the machine stops dead is mounted elsewhere, and the run goes on from there.

The disk is an ext4 image. While a driver is held at a system call, the image is copied: the copy has what the file
system has written out, and nothing that only lay in memory. Every entry that was acknowledged by then must be there.
"""

import errno
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path

import pytest

from tests.faults import gate, mounts
from tests.faults.harness import (
    Calm,
    Outcome,
    calm,
    drive,
    every,
    finish,
    judge,
    spread,
    start,
    workspace,
)
from tests.faults.witness import look

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not gate.available(), reason="needs seccomp notifications on x86-64"),
    pytest.mark.skipif(not mounts.available("loop"), reason="needs root and loop devices, to mount an ext4 image"),
]

SIZE = "24M"
MODES = ("data=ordered", "data=writeback")


@dataclass
class Cutter:
    """Copies the image before some calls; knows what was acknowledged by then."""

    image: Path
    points: frozenset[int]
    calls: list[gate.Call] = field(default_factory=list)
    cuts: list[tuple[Path, list[str], gate.Call]] = field(default_factory=list)

    def __call__(self, call: gate.Call) -> None:
        if call.index in self.points:
            copy = self.image.with_suffix(f".{call.index}")
            _copy_quietly(self.image, copy)
            self.cuts.append((copy, list(gate.acknowledged([*self.calls, call])), call))
        self.calls.append(call)


def cut_power(expected: Calm, points: tuple[str, tuple[int, ...]]) -> list[Outcome]:
    """One run with the power cut before each of the given calls, and each cut's recovery."""
    mode, indices = points
    with workspace() as place:
        image = place / "image"
        mounts.command("truncate", "-s", SIZE, image)
        mounts.command("mkfs.ext4", "-q", "-E", "lazy_itable_init=0", image)
        cutter = Cutter(image, frozenset(indices))
        with mounts.mounted(image, place / "disk", "-o", f"loop,{mode}") as disk:
            ended = drive(start(disk), at=cutter, root=disk)
            assert ended.code == 0, ended.err
        return [_recover(expected, place / "disk", mode, *cut) for cut in cutter.cuts]


def _recover(expected: Calm, at: Path, mode: str, image: Path, acknowledged: list[str], call: gate.Call) -> Outcome:
    point = f"call {call.index} {call.name} {call.path.parent.name}/{call.path.name}, {mode}"
    with mounts.mounted(image, at, "-o", f"loop,{mode}") as disk:
        before = look(disk / "tiny")
        problems = [f"{name}: acknowledged, but lost" for name in acknowledged if name not in before.entries]
        problems += finish(disk, expected.digest, [before])
    image.unlink()
    return Outcome("power cut", point, 1, tuple(problems))


def _copy_quietly(image: Path, copy: Path) -> None:
    """A copy during which nothing was written to the image: the file system also writes on its own."""
    for _ in range(100):
        before = _writes(image)
        mounts.command("cp", "--sparse=always", image, copy)
        if _writes(image) == before:
            return
    raise OSError(errno.EBUSY, "the image never was quiet", str(image))


def _writes(image: Path) -> list[str]:
    """Write counters of the loop device on the image."""
    for device in Path("/sys/block").glob("loop*"):
        with suppress(OSError):
            if (device / "loop" / "backing_file").read_text().strip() == str(image):
                return (device / "stat").read_text().split()[4:8]
    raise OSError(errno.ENODEV, "no loop device", str(image))


def cuts(expected: Calm, count: int) -> list[tuple[str, tuple[int, ...]]]:
    """About `count` cuts, in as many runs as there are modes of the file system."""
    indices = spread(range(len(expected.calls)), count)
    return [(mode, tuple(indices[number :: len(MODES)])) for number, mode in enumerate(MODES)]


@pytest.fixture(scope="module")
def undisturbed() -> Calm:
    return calm()


def test_power_cut_once(undisturbed: Calm) -> None:
    judge(chain.from_iterable(every(partial(cut_power, undisturbed), cuts(undisturbed, 2))), landed=2)


@pytest.mark.faults
def test_power_cuts(undisturbed: Calm) -> None:
    judge(chain.from_iterable(every(partial(cut_power, undisturbed), cuts(undisturbed, 60))), landed=50)
