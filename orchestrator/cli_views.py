"""`forager watch`, `report` and `query`: ways to see a run."""

import sys
from typing import Annotated, get_args

import typer

from orchestrator.places import open_existing, open_run
from telemetry.failures import UsageError
from telemetry.report.names import FigureFormat, FigureName

app = typer.Typer()

PORT = 9480
"""Where a report is served."""

RunPlace = Annotated[str, typer.Argument(metavar="RUN", help="Run directory or store URL, e.g. runs/demo.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@app.command(epilog="Example: `forager watch runs/demo`")
def watch(run: RunPlace) -> None:
    """Watch a run live in the terminal, from its store alone: also from another machine, also when it is over."""
    if not sys.stdout.isatty():
        raise UsageError("watch: needs a terminal; `forager status RUN` prints how far the run is")
    from orchestrator.watch import watch as watch_run

    watch_run(open_existing(run))


@app.command(
    epilog="Example: `forager report runs/demo --out demo.html`, `forager report runs/demo --figure tree --format png`"
)
def report(
    run: RunPlace,
    out: Annotated[str, typer.Option(help="File to write; without it, report.html or FIGURE.FORMAT of the run.")] = "",
    figure: Annotated[FigureName | None, typer.Option(help="Write this figure alone.")] = None,
    form: Annotated[
        FigureFormat | None, typer.Option("--format", help="Of the figure; without it, by the ending of --out, or svg.")
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Show the page on this machine, always of the latest.")
    ] = False,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="To serve it at; 0 takes a free one.  [default: 9480]")
    ] = None,
) -> None:
    """Write the page of a run, living or over: fitness, survival, behaviour, family tree, lives to replay."""
    if form and not figure:
        raise UsageError("--format: expected --figure with it; the page itself is HTML")
    if port is not None and not serve:
        raise UsageError("--port: expected --serve with it")
    if serve and (figure or out):
        raise UsageError("--serve: writes nothing; leave out --figure and --out")
    if serve:
        from orchestrator.serving import serve as serve_report

        serve_report(run, PORT if port is None else port)
        return
    store, state = open_run(run)
    from orchestrator.finish import write_figure, write_report

    if figure is None:
        typer.echo(write_report(store, state, out))
    else:
        typer.echo(write_figure(store, state, figure, form or _format_of(out), out))


def _format_of(out: str) -> FigureFormat:
    """What the ending of a file's name says."""
    endings: tuple[FigureFormat, ...] = get_args(FigureFormat)
    return next((ending for ending in endings if out.lower().endswith(f".{ending}")), "svg")


@app.command(epilog='Example: `forager query runs/demo "select cause, count(*) from lives group by 1"`')
def query(
    run: RunPlace,
    sql: Annotated[str, typer.Argument(metavar="SQL", help="A statement in DuckDB's SQL; - reads it from here.")],
    json: Json = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    rows: Annotated[int, typer.Option(min=1, help="Rows of a table on the terminal.")] = 100,
) -> None:
    """Ask the run in SQL. Tables: steps, lives, individuals, generations, training, evaluation."""
    if json and csv:
        raise UsageError("query: got both --json and --csv, expected one of them")
    from orchestrator.answers import print_answer
    from telemetry import open_run as open_tables

    with open_tables(run) as tables:
        answer = tables.query(sys.stdin.read() if sql == "-" else sql)
    print_answer(answer, "json" if json else "csv" if csv else "table", rows)
