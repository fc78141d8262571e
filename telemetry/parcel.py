"""Arrow tables and lists of structs on their way to another process: packed, and there what they were.

Ray would send a table buffer by buffer, and what is above 100 kB through its object store: for the rows of sixteen
short lives that takes longer than the lives.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
from msgspec import Struct

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


class Sheaf:
    """Pickled, it is the list of structs that it holds, all of one type.

    Ray's pickler calls back into Python for every object that is not built in; here it meets the fields alone.
    """

    __slots__ = ("_structs",)

    def __init__(self, structs: Sequence[Struct]) -> None:
        self._structs = structs

    def __reduce__(self) -> tuple[Any, ...]:
        reduced: list[Any] = [one.__reduce__() for one in self._structs]
        return unbind, (reduced[0][0], [fields for _, fields in reduced])


def unbind(make: Callable[..., Any], rows: Sequence[tuple[Any, ...]]) -> list[Any]:
    """The structs of a sheaf."""
    return [make(*fields) for fields in rows]


def packed(value: Any) -> Any:
    """What goes to another process: tables as parcels, lists of one kind of struct as sheaves, all else as it is."""
    if isinstance(value, pa.Table):
        return Parcel(value)
    if type(value) is list and value and isinstance(value[0], Struct) and len({*map(type, value)}) == 1:
        return Sheaf(value)
    return value
