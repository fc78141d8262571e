"""`forager watch`, `report` and `query`: ways to see a run."""

import sys
from typing import Annotated

import typer

from orchestrator.places import open_existing, open_run
from telemetry.failures import UsageError

app = typer.Typer()

RunPlace = Annotated[str, typer.Argument(metavar="RUN", help="Run directory or store URL, e.g. runs/demo.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@app.command(epilog="Example: `forager watch runs/demo`")
def watch(run: RunPlace) -> None:
    """Watch a run live in the terminal, from its store alone: also from another machine, also when it is over."""
    if not sys.stdout.isatty():
        raise UsageError("watch: needs a terminal; `forager status RUN` prints how far the run is")
    from orchestrator.watch import watch as watch_run

    watch_run(open_existing(run))


@app.command(epilog="Example: `forager report runs/demo --out demo.html`")
def report(
    run: RunPlace,
    out: Annotated[str, typer.Option(help="File to write; without it, report.html of the run.")] = "",
) -> None:
    """Write the page of a run, living or over: fitness, survival, family tree, lives to replay."""
    store, state = open_run(run)
    from orchestrator.finish import write_report

    typer.echo(write_report(store, state, out))


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
