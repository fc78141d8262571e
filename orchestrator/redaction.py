"""Redaction: a function of the user's own that rewrites texts before they are published.

Law: a text is rewritten wherever it stands, the same way, so that what was legal and what was done still fit each
other; and tokens that spell the original are left out, because whoever has them has the text.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from importlib import import_module

import pyarrow as pa
import pyarrow.compute as pc

from telemetry.failures import UsageError
from workers.guard import blame

TEXTS = {
    "steps": ("observation", "legal", "action", "state"),
    "lives": ("cause", "result"),
    "individuals": ("strategy",),
    "training": ("reason",),
    "held_out": ("cause", "result"),
}
"""Columns with text from worlds, agents and users; all other strings are names that Forager gives."""
SPELLED = ("prompt_ids", "completion_ids", "choice_ids")
"""Columns of `steps` that say in tokens what others say in text."""

Function = Callable[[str, pa.Array], pa.Array]
"""(`table.column`, distinct texts) -> the texts to publish, as many and in the same order."""


class Redaction:
    """Applies one function to all texts, and counts what it changed."""

    def __init__(self, path: str) -> None:
        """path: `module:function`. Raises UsageError when it cannot be loaded."""
        self.path = path
        self.changed: Counter[str] = Counter()
        """Values changed by `table.column`."""
        module, colon, name = path.partition(":")
        if not (module and colon and name):
            raise UsageError(f"--redact: got {path!r}, expected module:function")
        try:
            function = getattr(import_module(module), name)
        except (Exception, SystemExit) as error:
            raise UsageError(f"--redact: {path!r} cannot be loaded: {blame(error)}") from error
        if not callable(function):
            raise UsageError(f"--redact: got {type(function).__name__} at {path!r}, expected a function")
        self._function: Function = function

    def batch(self, table: str, rows: pa.RecordBatch) -> pa.RecordBatch:
        """The rows with every text rewritten. Raises UsageError when the function misbehaves."""
        for name in TEXTS.get(table, ()):
            index, field = rows.schema.get_field_index(name), rows.schema.field(name)
            rows = rows.set_column(index, field, self._column(f"{table}.{name}", rows.column(index)))
        for name in SPELLED if table == "steps" else ():
            index, field = rows.schema.get_field_index(name), rows.schema.field(name)
            nothing = pa.array([[]] * rows.num_rows, field.type)
            rows = rows.set_column(index, field, nothing)
        return rows

    def text(self, column: str, text: str) -> str:
        """One text rewritten as those of a `table.column` are; not counted."""
        return str(self._call(column, pa.array([text]))[0].as_py())

    def ends(self, ends: Mapping[str, int]) -> dict[str, int]:
        """Numbers of lives by how they ended, causes of death rewritten."""
        found: Counter[str] = Counter()
        for end, number in ends.items():
            kind, colon, cause = end.partition(":")
            found[f"{kind}:{self.text('lives.cause', cause)}" if colon else end] += number
        return dict(found)

    def _column(self, column: str, values: pa.Array) -> pa.Array:
        if pa.types.is_list(values.type):
            texts = self._column(column, values.flatten())
            return pa.ListArray.from_arrays(_offsets(values), texts)
        coded = values.dictionary_encode()
        fresh = self._call(column, coded.dictionary).take(coded.indices)
        self.changed[column] += pc.sum(pc.not_equal(values, fresh)).as_py() or 0
        return fresh

    def _call(self, column: str, texts: pa.Array) -> pa.Array:
        try:
            fresh = self._function(column, texts)
        except (Exception, SystemExit) as error:  # foreign code may raise anything; what it raised is the message
            raise UsageError(f"--redact: {self.path!r} raised {blame(error)} on {column}") from error
        if not isinstance(fresh, pa.Array) or fresh.type != pa.string() or len(fresh) != len(texts) or fresh.null_count:
            kind = f"{fresh.type}[{len(fresh)}]" if isinstance(fresh, pa.Array) else type(fresh).__name__
            raise UsageError(
                f"--redact: {self.path!r} returned {kind} for {column}, expected a string array of {len(texts)}"
            )
        return fresh


def _offsets(lists: pa.ListArray) -> pa.Array:
    """Offsets from 0, whatever slice of another array the lists are."""
    lengths = pc.list_value_length(lists)
    return pa.concat_arrays([pa.array([0], pa.int32()), pc.cumulative_sum(lengths).cast(pa.int32())])
