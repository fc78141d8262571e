"""`forager compare` and `transplant`: runs that are about other runs."""

import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()

Address = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Ray cluster to drive it on, in place of the run file's; `auto` is the one that this machine is a node of,"
        " `local` one of its own.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@app.command(epilog="Example: `forager compare deploy/experiments/forage.yaml`")
def compare(
    file: Annotated[Path, typer.Argument(metavar="EXPERIMENT", help="Experiment file (YAML).")],
    store: Annotated[str, typer.Option(help="Directory or URL that holds experiments.")] = "runs",
    json: Json = False,
    address: Address = None,
) -> None:
    """Run evolution and its controls at equal compute, several seeds each, and say which of them is better."""
    from json import dumps

    from orchestrator.compare import load_experiment, print_comparison, run_experiment

    experiment, config = load_experiment(file)
    # What the runs themselves have to say must not mix with what programs read.
    with redirect_stdout(sys.stderr) if json else nullcontext():
        rows = run_experiment(experiment, config, store, address)
    if json:
        typer.echo(dumps([row.model_dump(mode="json") for row in rows], indent=2, allow_nan=False))
    else:
        print_comparison(rows, config.fitness.kind, store, experiment.name)


@app.command(epilog="Example: `forager transplant runs/demo --base ./qwen3-0.6b`")
def transplant(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run directory or store URL, e.g. runs/demo.")],
    base: Annotated[str, typer.Option(help="The other base model: a local directory or a Hugging Face id.")],
    name: Annotated[str | None, typer.Option(help="Name of the new run.")] = None,
    store: Annotated[str, typer.Option(help="Directory or URL that holds runs.")] = "runs",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override one key of the new run's file.")
    ] = None,
    address: Address = None,
) -> None:
    """Found a run on another base model: living lineages learn it anew from all that the ledger holds."""
    from orchestrator.places import open_new, open_run
    from orchestrator.transplant import plan
    from orchestrator.transplant import transplant as transplant_run

    source, state = open_run(run)
    config = plan(state, base, name or f"{state.created.run}-transplanted", overrides or ())
    place = open_new(f"{store.rstrip('/')}/{config.name}", "adapters/")
    for result in transplant_run(source, state, config, place, address):
        typer.echo(f"{result.individual}  {result.examples} examples  {result.seconds:.0f} s  {result.adapter}")
    typer.echo(f"founded {place}; `forager resume {place}` goes on with its evolution")
