"""Text for people without tables: loads nothing that takes time, so that small commands answer at once.

The law: text from outside passes `clean`.
"""

from collections.abc import Mapping
from typing import Any

import typer


def clean(text: str, width: int = 200) -> str:
    """Printable characters on one line, at most `width` of them: nothing here can move a terminal's cursor."""
    line = "".join(character if character.isprintable() else " " for character in text).strip()
    return line if len(line) <= width else line[: width - 3] + "..."


def duration(seconds: float) -> str:
    """`29 s`, `4 min 10 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def ends_text(ends: Mapping[str, int]) -> str:
    """`survived 22, starved 40, wolf 2`: survivors first, then causes of death, commonest first."""
    ordered = sorted(ends.items(), key=lambda item: (item[0] != "survived", -item[1], item[0]))
    return ", ".join(f"{clean(end.removeprefix('died:'), 40)} {number}" for end, number in ordered)


def print_mapping(value: Mapping[str, Any]) -> None:
    """A JSON object as two aligned columns; inner objects are flattened into dotted keys."""
    rows = _flat(value, "")
    width = max((len(key) for key, _ in rows), default=0)
    for key, text in rows:
        typer.echo(f"{typer.style(key.ljust(width), dim=True)}  {text}")


def _flat(value: Mapping[str, Any], prefix: str) -> list[tuple[str, str]]:
    rows = []
    for key, item in value.items():
        name = f"{prefix}{clean(str(key))}"
        if isinstance(item, Mapping):
            rows += _flat(item, f"{name}.")
        else:
            rows.append((name, _plain(item)))
    return rows


def _plain(item: object) -> str:
    if item is None:
        return "-"
    if isinstance(item, bool):
        return "yes" if item else "no"
    if isinstance(item, float):
        return f"{item:.2f}"
    if isinstance(item, (list, tuple)):
        return ", ".join(_plain(part) for part in item) or "-"
    return clean(str(item))
