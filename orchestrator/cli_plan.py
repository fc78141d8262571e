"""`forager plan`: what a run will take, and how fast it will be on a cluster that is not there yet."""

from pathlib import Path
from typing import Annotated

import typer

from telemetry.failures import UsageError

app = typer.Typer()


@app.command(
    epilog="Example: `forager plan deploy/runs/demo.yaml`, `forager plan FILE --nodes 100 --engines-per-node 8`"
)
def plan(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Run file (YAML).")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override one key of the run file.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
    nodes: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="Simulate a generation on so many nodes as well.")
    ] = None,
    engines_per_node: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Agents and trainers grow with them; else as in the run file.")
    ] = None,
    gpus_per_node: Annotated[float, typer.Option(min=0, max=64, help="GPUs of a node.")] = 0.0,
    dollars_per_node_hour: Annotated[float | None, typer.Option(min=0, help="Price of a node.")] = None,
    hazard: Annotated[
        float, typer.Option(min=0, max=1, help="Probability of death at each step; 0: all live to the horizon.")
    ] = 0.0,
    spread: Annotated[float, typer.Option(min=0, max=0.9, help="Engines are so much faster or slower, at most.")] = 0.0,
    unit_costs: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Your own figures (YAML) in place of the shipped ones.")
    ] = None,
) -> None:
    """Validate a run file and show what it will take, without starting anything; with --nodes, how long it takes there
    and at what price, which part holds up the others, and which key of the run file moves it."""
    from orchestrator.plan import estimate
    from orchestrator.runfile import load

    config = load(file, overrides or ())
    found = estimate(config)
    if nodes is not None:
        from orchestrator.scale import Site, predict
        from orchestrator.scale_costs import load as load_costs

        site = Site(nodes, engines_per_node, gpus_per_node, dollars_per_node_hour, hazard, spread)
        found |= predict(config, site, load_costs(unit_costs))
    elif engines_per_node or gpus_per_node or dollars_per_node_hour is not None or hazard or spread or unit_costs:
        raise UsageError("--nodes: missing; the other options say more of these nodes")
    if json:
        from json import dumps

        typer.echo(dumps(found, indent=2, allow_nan=False))
    else:
        from orchestrator.plain import print_mapping

        print_mapping(found)
