"""Event files as TensorBoard reads them, written without its package.

A file is a sequence of TFRecords (length, checksum, data, checksum), its data protocol buffers of the message Event
(https://github.com/tensorflow/tensorboard/blob/master/tensorboard/compat/proto/event.proto). Only what scalars and one
text need is written; TensorBoard itself is the judge in the tests.
"""

import json
import os
import socket
import struct
import time
from collections.abc import Iterable
from pathlib import Path

from telemetry.config_trackers import TensorboardConfig
from telemetry.trackers import About, Row

PREFIX = "events.out.tfevents."
HEADERS = 2
"""Events at the beginning of a file that are no row: the format's version, and the run file."""
MOST = 1 << 24
"""Bytes of a record that can be ours."""


class Tensorboard:
    """A directory of one run; every driver adds a file. Rows are told by their number among all events."""

    def __init__(self, config: TensorboardConfig, about: About) -> None:
        folder = Path(config.directory) / f"{about.name}-{about.id}"
        folder.mkdir(parents=True, exist_ok=True)
        self._next = sum(max(0, count(path) - HEADERS) for path in folder.glob(f"{PREFIX}*"))
        # TensorBoard reads files in the order of their names.
        name = f"{PREFIX}{time.time_ns() // 10**6:013d}.{socket.gethostname()}.{os.getpid()}"
        self._file = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        document = {"run": about.name, "version": about.version, "model": about.model, "config": about.config}
        page = "\n".join(f"    {line}" for line in json.dumps(document, indent=2, ensure_ascii=False).splitlines())
        self._write(_bytes(3, b"brain.Event:2"), 0)
        self._write(_bytes(5, _text("run_file", page)), 0)

    def write(self, row: Row) -> None:
        if row.number == self._next:
            self._write(_bytes(5, b"".join(_scalar(name, value) for name, value in row.values.items())), row.step)
            self._next += 1

    def close(self, finished: bool) -> None:
        os.close(self._file)

    def _write(self, what: bytes, step: int) -> None:
        event = _key(1, 1) + struct.pack("<d", time.time()) + _key(2, 0) + _varint(step) + what
        data = record(event)
        if os.write(self._file, data) != len(data):
            raise OSError("the disk is full")


def record(data: bytes) -> bytes:
    """One TFRecord."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", _checksum(length)) + data + struct.pack("<I", _checksum(data))


def count(path: Path) -> int:
    """Whole records in a file; one that a crash cut short is none, and TensorBoard passes over it too."""
    number = 0
    with path.open("rb") as file:
        while len(head := file.read(12)) == 12:
            length, checksum = struct.unpack("<QI", head)
            if checksum != _checksum(head[:8]) or length > MOST or len(file.read(length + 4)) < length + 4:
                break
            number += 1
    return number


def _table() -> Iterable[int]:
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        yield value


_CRC32C = tuple(_table())


def _checksum(data: bytes) -> int:
    """CRC-32C, masked as TFRecords have it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC32C[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return (crc >> 15 | crc << 17) + 0xA282EAD8 & 0xFFFFFFFF


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def _key(field: int, wire: int) -> bytes:
    return _varint(field << 3 | wire)


def _bytes(field: int, data: bytes) -> bytes:
    return _key(field, 2) + _varint(len(data)) + data


def _scalar(tag: str, value: float) -> bytes:
    """Summary.value with tag and simple_value."""
    return _bytes(1, _bytes(1, tag.encode()) + _key(2, 5) + struct.pack("<f", value))


def _text(tag: str, text: str) -> bytes:
    """Summary.value with a tensor of one string, for the plugin that shows text."""
    tensor = _key(1, 0) + _varint(7) + _bytes(2, _bytes(2, _key(1, 0) + _varint(1))) + _bytes(8, text.encode())
    return _bytes(1, _bytes(1, tag.encode()) + _bytes(8, tensor) + _bytes(9, _bytes(1, _bytes(1, b"text"))))
