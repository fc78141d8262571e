"""Tables on their way between processes: they arrive as they were, in less room."""

from typing import Any

import pyarrow as pa
import pytest

from telemetry.parcel import packed
from telemetry.records import FileRef, LifeKey
from telemetry.tables import LIVES, STEPS
from tests.telemetry.rows import lives


def sent(table: pa.Table) -> tuple[bytes, Any]:
    """What travels, and what arrives."""
    arrive, [stream] = packed(table).__reduce__()
    return stream, arrive(stream)


@pytest.mark.parametrize("count", [1, 40])
def test_a_table_arrives_as_it_was(count: int) -> None:
    for table in lives(count):
        _, arrived = sent(table)
        assert isinstance(arrived, pa.Table)
        assert arrived.equals(table, check_metadata=True)


def test_a_table_without_rows_keeps_its_schema() -> None:
    for schema in (STEPS, LIVES):
        assert sent(schema.empty_table())[1].schema == schema


def test_rows_that_are_alike_take_little_room() -> None:
    steps, _ = lives(200)
    assert len(sent(steps)[0]) < steps.nbytes / 2


KEYS = [LifeKey(0, f"g000-{number:03}", number) for number in range(5)]


def test_structs_of_one_type_arrive_as_they_were() -> None:
    arrive, arguments = packed(KEYS).__reduce__()
    assert arrive(*arguments) == KEYS
    assert not any(isinstance(one, LifeKey) for one in arguments[1])


def test_everything_else_goes_as_it_is() -> None:
    for thing in (object(), [], KEYS[0], tuple(KEYS), [1, 2], [*KEYS, FileRef("key", 1, "0" * 64)], [KEYS[0], None]):
        assert packed(thing) is thing
