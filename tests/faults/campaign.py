"""The long campaign, `make faults-long`: every fault at every place, and kills until there were enough of them.

Prints one line per kind of fault: how many cases, how many faults really happened, how many violations were found.
For flipped bits a case is a file and a fault is a bit.
Exits 1 on any violation, and when a kind of fault never happened. A kind that this machine cannot do is a line too.
"""

import argparse
import errno
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, count, islice

from tests.faults import bit_flips, gate, mounts, test_disk, test_kill, test_power, test_resume, test_syscalls
from tests.faults.harness import Calm, Outcome, calm, every, spread

BATCH = 100
Cases = Iterable[Outcome]


def random_kills(expected: Calm, settings: tuple[str, ...], wanted: int, seed: int) -> Iterator[Outcome]:
    """Cases with growing seeds until `wanted` kills have landed."""
    seeds = count(seed)
    while wanted > 0:
        case = partial(test_kill.kill_again_and_again, expected, settings)
        for outcome in every(case, islice(seeds, BATCH)):
            wanted -= outcome.landed
            yield outcome


def plans(expected: Calm, kills: int, seed: int) -> Iterator[tuple[str, str, Callable[[], Cases]]]:
    """(kind of fault, why it cannot be done here or "", cases)."""
    gated = "" if gate.available() else "needs seccomp notifications on x86-64"
    small = "" if mounts.available() else "needs root"
    loops = gated or ("" if mounts.available("loop") else "needs root and loop devices")
    indices = range(len(expected.calls))
    named = partial(test_syscalls.indices, expected)

    def at(case: Callable[..., Outcome], points: Iterable[object], *bound: object) -> Callable[[], Cases]:
        return lambda: every(partial(case, expected, *bound), points)

    yield "random kills", "", lambda: random_kills(expected, (), kills, seed)
    long = test_kill.LONG
    yield "random kills, longer run", "", lambda: random_kills(calm(long), long, kills // 20, seed)
    yield "kill at every system call", gated, at(test_syscalls.kill, indices)
    yield "EIO from every fsync", gated, at(test_syscalls.failed_sync, named(gate.SYNC))
    yield "every link or rename lost", gated, at(test_syscalls.lose, named(gate.NAME))
    for code in (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO):
        name = f"{errno.errorcode[code]} from every write on"
        yield name, gated, at(test_syscalls.refuse, spread(named(gate.GROW), 100), code)
    yield "disk full", small, at(test_disk.fill, [step / 100 for step in range(1, 99)])
    yield "no inodes left", small, at(test_disk.exhaust, [step / 20 for step in range(1, 20)])
    yield "file too large", "", at(test_disk.limit, range(1000, 6000, 250))
    yield "read-only disk", small or gated, at(test_disk.freeze, spread(indices, 20))
    yield "store deleted", gated, at(test_disk.delete, indices[test_disk.MADE : -3])
    cuts = test_power.cuts(expected, len(indices))
    cut = partial(test_power.cut_power, expected)
    yield "power cut at every call", loops, lambda: chain.from_iterable(every(cut, cuts))
    yield "moved run", gated, at(test_resume.move, spread(indices[20:], 50))
    yield "every bit of every file", "", bit_flips.cases


def main() -> int:
    """Runs the plans and prints what came of them; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.campaign", description=__doc__)
    parser.add_argument("--kills", type=int, default=1000, help="random kills that have to land")
    parser.add_argument("--seed", type=int, default=1000, help="first seed of the random kills")
    parser.add_argument("--only", default="", help="kinds of fault whose name contains this")
    asked = parser.parse_args()
    failed = False
    began = time.monotonic()
    expected = calm()
    print(f"{len(expected.calls)} file-changing system calls, digest {expected.digest[:16]}, first seed {asked.seed}\n")
    print(f"{'fault':32}{'cases':>8}{'landed':>9}{'violations':>12}{'seconds':>9}")
    for name, missing, cases in plans(expected, asked.kills, asked.seed):
        if asked.only not in name:
            continue
        if missing:
            print(f"{name:32}{'skipped: ' + missing}", flush=True)
            continue
        start = time.monotonic()
        done = landed = bad = 0
        for outcome in cases():
            done, landed, bad = done + 1, landed + outcome.landed, bad + bool(outcome.problems)
            if outcome.problems:
                print(f"  {name}, {outcome.point}: {'; '.join(outcome.problems)}", flush=True)
        print(f"{name:32}{done:8}{landed:9}{bad:12}{time.monotonic() - start:9.0f}", flush=True)
        failed |= bool(bad) or not landed
    print(f"\n{'FAILED' if failed else 'ok: no violations'}, {(time.monotonic() - began) / 60:.1f} min")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
