"""Runs of Weights & Biases, by its own library: in files that can be sent later, or as they come.

A run that is taken up again is the same run there. Which rows it has is read from its files, or asked of the server.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from telemetry.config_trackers import WandbConfig
from telemetry.trackers import About, Row

BLOCK = 1 << 15
IDENT = 7
"""Bytes of a file before its first record."""
FULL, LAST = 1, 4
"""Kinds of pieces that end a record."""


class Wandb:
    """One run; its steps are the rows' numbers, its axes `generation` and `job`."""

    def __init__(self, config: WandbConfig, about: About) -> None:
        import wandb

        Path(config.directory).mkdir(parents=True, exist_ok=True)
        had = [step for path in _files(config, about) for step in steps(path)] if config.mode == "offline" else []
        self._run: Any = wandb.init(
            project=config.project,
            entity=config.entity,
            dir=config.directory,
            id=about.id,
            name=about.name,
            resume="allow",
            config=dict(about.config),
            tags=[tag[:64] for tag in (f"run {about.name}", f"forager {about.version}", f"model {about.model}")],
            # The numbers of the run, and nothing about this machine or whoever works on it.
            settings=wandb.Settings(
                mode=config.mode,
                console="off",
                silent=True,
                disable_code=True,
                disable_git=True,
                x_disable_machine_info=True,
                x_disable_meta=True,
                x_disable_stats=True,
                x_save_requirements=False,
            ),
        )
        self._next = max([-1, *had]) + 1 if config.mode == "offline" else int(self._run.starting_step)
        self._drawn: set[str] = set()

    def write(self, row: Row) -> None:
        if row.number < self._next:
            return
        for name in row.values.keys() - self._drawn:
            self._run.define_metric(name, step_metric=row.axis, step_sync=False)
            self._drawn.add(name)
        self._run.log({row.axis: row.step, **row.values}, step=row.number, commit=True)

    def close(self, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)


def _files(config: WandbConfig, about: About) -> list[Path]:
    return sorted((Path(config.directory) / "wandb").glob(f"offline-run-*-{about.id}/run-{about.id}.wandb"))


def steps(path: Path) -> list[int]:
    """Steps in a file of wandb."""
    from wandb.proto import wandb_internal_pb2

    found = []
    for data in records(path.read_bytes()):
        message = wandb_internal_pb2.Record()
        message.ParseFromString(data)
        if message.WhichOneof("record_type") == "history":
            found.append(int(message.history.step.num))
    return found


def records(data: bytes) -> Iterator[bytes]:
    """Records of a log in LevelDB's format (https://github.com/google/leveldb/blob/main/doc/log_format.md).

    Ends at the first one that is not whole.
    """
    at, pieces = IDENT, b""
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:  # no room for a header: the rest of a block is empty
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        if kind == 0 or at + 7 + length > len(data):
            return
        pieces += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (FULL, LAST):
            yield pieces
            pieces = b""
