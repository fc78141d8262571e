"""Tables on their way between processes: they arrive as they were, in less room."""

from typing import Any

import pyarrow as pa
import pytest

from telemetry.parcel import packed
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


def test_everything_else_goes_as_it_is() -> None:
    thing = object()
    assert packed(thing) is thing
