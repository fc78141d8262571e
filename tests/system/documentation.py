"""The pages of the documentation as programs: their blocks, and who executes which.

A block without a title is executed, in the order of its page, in one directory of the page: `sh` by the shell, `python`
as a program, `yaml` as a run file or a part of one, `toml` and `json` by their parsers. A title means that a reader has
to do something else than that, and is shown on the page: a `python` block whose title is a file's name is written into
the directory; a `sh` block that needs an hour, a GPU, a terminal or another machine is only parsed, and so is `yaml`
that is no run file.
"""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from orchestrator.cli import app
from tests.forager import ROOT

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
LANGUAGES = {"", "text", "sh", "python", "yaml", "toml", "json", "diff", "promql", "sql"}
CLICK = typer.main.get_group(app)
COMMANDS = CLICK.commands
_FENCE = re.compile(r"^( *)```(\w*)(?: title=\"([^\"\n]*)\")?\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
_SPECIAL = re.compile(r"[|<>;&$`]|^\w+=")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    title: str
    """Empty for what is executed as it stands."""
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text, found = page.read_text(), []
    for match in _FENCE.finditer(text):
        indent, language, title, body = match.groups()
        dedented = "".join(line.removeprefix(indent) for line in body.splitlines(keepends=True))
        found.append(Block(page, text.count("\n", 0, match.start()) + 1, language, title or "", dedented))
    return found


def commands(script: str) -> Iterator[str]:
    """The commands of a shell block, comments left out: one per line, unless a quote or a backslash goes on."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        try:
            words = shlex.split(pending.replace("\\\n", " "), comments=True)
        except ValueError:
            continue
        if line.endswith("\\\n"):
            continue
        if words:
            yield pending.replace("\\\n", " ").strip()
        pending = ""
    if pending:
        raise ValueError(f"a quote is never closed: {pending!r}")


def plain(command: str) -> list[str] | None:
    """Arguments of a `forager` command that needs no shell; None for any other command."""
    words = shlex.split(command, comments=True)
    quoted = re.sub(r"'[^']*'|\"[^\"$`]*\"|#.*", "", command)
    return words[1:] if words[0] == "forager" and not _SPECIAL.search(quoted) else None


def foragers(command: str) -> Iterator[list[str]]:
    """Arguments of every `forager` in a shell command."""
    words = shlex.split(command, comments=True)
    starts = [index for index, word in enumerate(words) if word == "forager"]
    for start in starts:
        end = next((at for at in range(start, len(words)) if words[at] in ("|", "||", "&&", ";", "<", ">", "&")), None)
        yield words[start + 1 : end]


def parse(arguments: Sequence[str]) -> None:
    """Raises unless `forager` takes these arguments; runs nothing."""
    if not arguments or arguments[0] == "--version":
        return
    command, context = COMMANDS[arguments[0]], typer.Context(CLICK, info_name="forager")
    command.make_context(arguments[0], list(arguments[1:]), parent=context)


def inline(page: Path) -> list[str]:
    """Every `forager ...` that a page mentions in running text."""
    prose = _FENCE.sub("", page.read_text())
    return [" ".join(found.split()) for found in re.findall(r"`(forager [^`]+)`", prose)]
