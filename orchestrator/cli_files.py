"""`forager init` and `schema`: where run files come from."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command(epilog="Example: `forager init`, `forager init smoke`, `forager init demo --out mine.yaml`")
def init(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A run file that comes with Forager.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="File to write; without it, NAME.yaml.")] = None,
) -> None:
    """Write a run file to start from; without a name, list those there are."""
    from orchestrator import shipped

    if name is not None:
        target = out or Path(f"{name}.yaml")
        shipped.write(name, target)
        typer.echo(f"{target}  edit it, then: forager run {target}")
        return
    width = max(map(len, shipped.names()))
    for one in shipped.names():
        typer.echo(f"{typer.style(one.ljust(width), bold=True)}  {shipped.about(one)}")


@app.command(epilog="Example: `forager schema > run-file.json`")
def schema() -> None:
    """Print the JSON Schema of run files: editors complete and check keys with it."""
    from json import dumps

    from orchestrator.schema import run_file_schema

    typer.echo(dumps(run_file_schema(), indent=2, allow_nan=False))
