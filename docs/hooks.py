"""What mkdocs makes of this project besides the pages that are written: all of it anew at every build.

The README is the front page; the reference of run files comes from their schema, that of commands from the commands.
"""

from collections.abc import Iterator
from json import dumps
from pathlib import Path
from typing import Any

import typer
import typer.cli
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from orchestrator.cli import app
from orchestrator.schema import run_file_schema

ROOT = Path(__file__).parents[1]
BOUNDS = (
    ("minimum", "≥ {}"),
    ("exclusiveMinimum", "> {}"),
    ("maximum", "≤ {}"),
    ("exclusiveMaximum", "< {}"),
    ("minLength", "at least {} characters"),
    ("maxLength", "at most {} characters"),
    ("minItems", "at least {} items"),
    ("maxItems", "at most {} items"),
    ("pattern", "like `{}`"),
)
"""Of JSON Schema, as people write them."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made from something else than a page."""
    for path, text in (
        (
            "index.md",
            (ROOT / "README.md").read_text().replace("](docs/", "](").replace("](deploy/README.md", "](deploy.md"),
        ),
        ("deploy.md", (ROOT / "deploy" / "README.md").read_text().replace("](../docs/", "](")),
        ("changelog.md", (ROOT / "CHANGELOG.md").read_text()),
        ("reference/run-file.md", run_file()),
        ("reference/commands.md", commands()),
    ):
        files.append(File.generated(config, path, content=text))
    return files


def commands() -> str:
    """Every command with its arguments and options, as a page in Markdown."""
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="forager")
    page = typer.cli.get_docs_for_click(obj=command, ctx=context, name="forager")
    first = page.index("## `forager ")
    about = "Exit codes are in [recovery](../recovery.md#exit-codes). `RUN` is a run directory or a store URL."
    return f"# Commands\n\n{command.help}\n\n{about}\n\n{page[first:]}"


def run_file() -> str:
    """Every key of a run file, as a page in Markdown."""
    schema = run_file_schema()
    lines = [
        "# Run file",
        "",
        "A run is one YAML file. Every key, with what it takes and what it is without being given; unknown keys are"
        " refused. `forager plan FILE` says in one line what is wrong with a file, rules that cross keys included;"
        " `forager schema > run-file.json` prints all this as JSON Schema for editors, for instance by a first line"
        " `# yaml-language-server: $schema=run-file.json`.",
        "",
        *table(schema),
    ]
    for where, shape in sections(schema, schema, ""):
        kind = shape["properties"].get("kind", {}).get("const")
        lines += ["", f"## `{where}`{f', kind `{kind}`' if kind else ''}", "", *shape["description"].split("\n"), ""]
        lines += table(shape)
    return "\n".join(lines) + "\n"


def sections(schema: dict[str, Any], shape: dict[str, Any], where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every mapping below a shape, with the key it stands under; one for each of its kinds."""
    for key, about in shape["properties"].items():
        many = "[]" if about.get("type") == "array" else ".NAME" if about.get("additionalProperties") else ""
        inner = about.get("items") or about.get("additionalProperties") or about
        choices = inner.get("oneOf") or inner.get("anyOf") or [inner] if isinstance(inner, dict) else []
        place = f"{where}{key}{many}"
        for found in (schema["$defs"][one["$ref"].split("/")[-1]] for one in choices if "$ref" in one):
            if place == "trainer.alternatives.NAME":
                continue  # as trainer.objective
            yield place, found
            yield from sections(schema, found, f"{place}.")


def table(shape: dict[str, Any]) -> list[str]:
    """Rows of a mapping's keys."""
    rows = ["| key | takes | default | meaning |", "|---|---|---|---|"]
    for key, about in shape["properties"].items():
        needed = key in shape.get("required", ())
        cells = [f"`{key}`", takes(about), "**required**" if needed else default(about), about.get("description", "")]
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return rows


def takes(about: dict[str, Any]) -> str:
    """What a value may be."""
    if "const" in about:
        return f"`{about['const']}`"
    if "enum" in about:
        return ", ".join(f"`{one}`" for one in about["enum"])
    if "oneOf" in about:
        return f"one of {', '.join(f'`{kind}`' for kind in about['discriminator']['mapping'])}, by its `kind`"
    if "anyOf" in about:
        return " or ".join(takes(one) for one in about["anyOf"])
    if "$ref" in about:
        return "section"
    bounds = [form.format(about[key]) for key, form in BOUNDS if key in about]
    words = {"null": "null", "array": "list", "object": "mapping"}.get(about["type"], about["type"])
    items = about.get("items") or about.get("additionalProperties")
    of = f" of {takes(items)}" if isinstance(items, dict) and items else ""
    return ", ".join([words + of, *bounds])


def default(about: dict[str, Any]) -> str:
    """What a value is that is not given."""
    value = about.get("default")
    if isinstance(value, dict) and value.get("kind"):
        return f"kind `{value['kind']}`"
    if isinstance(value, dict):
        return "its defaults" if value else "`{}`"
    if isinstance(value, str):
        return f"`{value}`" if value else "empty"
    return f"`{dumps(value)}`"
