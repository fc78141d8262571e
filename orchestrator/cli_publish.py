"""`forager export`, `import` and `merge-ledgers`: what runs give to others, and take from them."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()

RunPlace = Annotated[str, typer.Argument(metavar="RUN", help="Run directory or store URL, e.g. runs/demo.")]
Out = Annotated[Path, typer.Argument(metavar="OUT", help="Directory to write; nothing may be there yet.")]
Licence = Annotated[
    str, typer.Option("--license", metavar="ID", help="Licence on the cards, e.g. apache-2.0 or cc-by-4.0.")
]


@app.command(epilog="Example: `forager export runs/demo published/demo --merged --license apache-2.0`")
def export(
    run: RunPlace,
    out: Out,
    who: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Whose weights: champion or an id; without it the champion and its line."),
    ] = None,
    merged: Annotated[
        bool, typer.Option("--merged", help="Also whole models: of those named, or the champion.")
    ] = False,
    licence: Licence = "unknown",
    redact: Annotated[
        str, typer.Option(metavar="MODULE:FUNCTION", help="Rewrites texts before they are written.")
    ] = "",
    push: Annotated[
        str, typer.Option(metavar="USER/NAME", help="Upload it all to private repositories of the Hugging Face hub.")
    ] = "",
) -> None:
    """Publish a finished run: a data set, adapters, models and their cards, results, and how to do it again."""
    from orchestrator.export import Request
    from orchestrator.export import export as write
    from orchestrator.places import open_run
    from orchestrator.push import check_name, upload

    if push:
        check_name(push)
    store, state = open_run(run)
    write(store, state, out, Request(tuple(who or ()), merged, licence, redact))
    typer.echo(f"exported {out}")
    if licence == "unknown":
        typer.echo("its cards say that its licence is unknown; --license gives it one")
    for address in upload(out, push) if push else ():
        typer.echo(f"uploaded {address}")
