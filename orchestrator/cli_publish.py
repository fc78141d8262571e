"""`forager export`, `import` and `merge-ledgers`: what runs give to others, and take from them."""

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli_experiments import Address
from telemetry.failures import UsageError

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


@app.command(epilog="Example: `forager merge-ledgers published/pool runs/one runs/two published/theirs`")
def merge_ledgers(
    out: Out,
    sources: Annotated[
        list[str], typer.Argument(metavar="RUN|EXPORT ...", help="Runs, exports, and what this command wrote.")
    ],
    licence: Licence = "unknown",
) -> None:
    """Pool the telemetry of many runs of one world into one data set to learn from; every row says where it is from."""
    from orchestrator.pool import merge

    for one in merge(out, sources, licence):
        typer.echo(f"{one.source}  {one.run}  {one.generations} generations  {one.lives} lives  {one.steps} steps")
    typer.echo(f"merged into {out}; `forager import FILE --telemetry {out}` founds a run that learns from it")


@app.command(
    "import", epilog="Example: `forager import mine.yaml --adapter scout=./adapter --telemetry published/demo`"
)
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Run file (YAML) of the new run.")],
    adapters: Annotated[
        list[str] | None,
        typer.Option("--adapter", metavar="FOUNDER=DIR", help="A founder begins with this PEFT LoRA adapter."),
    ] = None,
    telemetry: Annotated[
        list[str] | None,
        typer.Option(metavar="RUN|EXPORT", help="All other founders learn from the survivors in it."),
    ] = None,
    store: Annotated[str, typer.Option(help="Directory or URL that holds runs.")] = "runs",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override one key of the run file.")
    ] = None,
    address: Address = None,
) -> None:
    """Found a run that begins with what others made: their adapters, and their telemetry to learn from."""
    if not adapters and not telemetry:
        raise UsageError("import: expected --adapter or --telemetry; `forager run FILE` begins with nothing")
    given = dict(_pair(one) for one in adapters or ())
    if len(given) != len(adapters or ()):
        raise UsageError("--adapter: got a founder twice, expected each once")
    from orchestrator.places import open_new
    from orchestrator.runfile import load

    config = load(file, overrides or ())
    from orchestrator.founding import found_with

    place = open_new(f"{store.rstrip('/')}/{config.name}", "adapters/")
    for one in found_with(config, given, telemetry or (), place, address):
        typer.echo(f"{one.individual}  {one.how}  {one.adapter}")
    typer.echo(f"founded {place}; `forager resume {place}` starts its evolution")


def _pair(text: str) -> tuple[str, Path]:
    name, sign, directory = text.partition("=")
    if not (name and sign and directory):
        raise UsageError(f"--adapter: got {text!r}, expected FOUNDER=DIR")
    return name, Path(directory)
