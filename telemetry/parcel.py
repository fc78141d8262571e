"""Arrow tables on their way to another process: one compressed stream each, which arrives as the table.

Ray would send a table buffer by buffer, and what is above 100 kB through its object store: for the rows of sixteen
short lives that takes longer than the lives.
"""

from typing import Any

import pyarrow as pa

OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4")


class Parcel:
    """Pickled, it is the table that it holds."""

    __slots__ = ("_table",)

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __reduce__(self) -> tuple[Any, ...]:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self._table.schema, options=OPTIONS) as writer:
            writer.write_table(self._table.combine_chunks())  # each would be compressed by itself
        return unpack, (sink.getvalue().to_pybytes(),)


def unpack(stream: bytes) -> pa.Table:
    """The table in a stream."""
    return pa.ipc.open_stream(stream).read_all()


def packed(argument: Any) -> Any:
    """What a call hands to another process: tables as parcels, everything else as it is."""
    return Parcel(argument) if isinstance(argument, pa.Table) else argument
