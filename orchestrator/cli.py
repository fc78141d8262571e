"""`forager`: one thin command per verb. Heavy modules are imported inside the commands that need them."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator import cli_experiments, cli_files, cli_plan, cli_publish, cli_views, cli_worlds
from orchestrator.address import driven_at
from orchestrator.places import branch_of, open_existing, open_new, open_run
from telemetry import __version__
from telemetry.failures import ForagerError, StateError, UsageError

app = typer.Typer(
    name="forager",
    help="Evolves LLM agents that must survive: live, die, select, fine-tune the survivors' weights, repeat.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)

app.add_typer(cli_files.app)
app.add_typer(cli_plan.app)
app.add_typer(cli_views.app)
app.add_typer(cli_worlds.app)
app.add_typer(cli_experiments.app)
app.add_typer(cli_publish.app)

RunFile = Annotated[Path, typer.Argument(metavar="FILE", help="Run file (YAML).")]
RunPlace = Annotated[str, typer.Argument(metavar="RUN", help="Run directory or store URL, e.g. runs/demo.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override one key of the run file.")
]
Address = cli_experiments.Address
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def main() -> None:
    """Entry point: turns every failure with a name into one line and its exit code."""
    # Whatever a run writes, libraries included, is for its owner only.
    os.umask(0o077)
    try:
        app()
    except ForagerError as error:
        if os.environ.get("FORAGER_DEBUG"):
            import traceback

            traceback.print_exc()
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@app.command(epilog="Example: `forager run deploy/runs/smoke.yaml --set seed=7`")
def run(
    file: RunFile,
    store: Annotated[str, typer.Option(help="Directory or URL (s3://, gs://, az://) that holds runs.")] = "runs",
    overrides: Overrides = None,
    address: Address = None,
) -> None:
    """Start a new run and drive it to its end."""
    from orchestrator.runfile import load

    config = load(file, overrides or ())
    from orchestrator import driver
    from orchestrator.finish import conclude

    if not store or store.endswith("://"):
        raise UsageError(f"--store: got {store!r}, expected a directory or URL that holds runs")
    place = open_new(f"{store.rstrip('/')}/{config.name}")
    conclude(place, driver.start(place, config, address))


@app.command(epilog="Example: `forager resume runs/demo`")
def resume(
    run: RunPlace,
    overrides: Overrides = None,
    take_over: Annotated[bool, typer.Option(help="Fence a driver that seems alive and go on in its place.")] = False,
    at_generation: Annotated[
        int | None, typer.Option(metavar="G", help="Go on from right after generation G; keep the rest as a branch.")
    ] = None,
    address: Address = None,
) -> None:
    """Finish a run that was interrupted; a finished one is left as it is."""
    if branch_of(run):
        raise UsageError(f"{run}: a branch can only be read; resume the run itself")
    store, state = open_run(run)
    from orchestrator import driver
    from orchestrator.finish import conclude
    from orchestrator.runfile import override

    config = driven_at(override(state.created.config, overrides or ()), address)
    conclude(store, driver.resume(store, state, config, take_over=take_over, at_generation=at_generation))


@app.command(epilog="Example: `forager status runs/demo --json`")
def status(run: RunPlace, json: Json = False) -> None:
    """How far a run is, and how fit its population."""
    _, state = open_run(run)
    from orchestrator.summary import status as status_of

    _print(status_of(state), json)


@app.command(epilog="Example: `forager lineage runs/demo`")
def lineage(run: RunPlace, json: Json = False) -> None:
    """Who descends from whom, who was culled, who is the champion."""
    _, state = open_run(run)
    from orchestrator.console import print_lineage
    from orchestrator.lineage import lineage_rows

    rows = lineage_rows(state)
    if json:
        _print([row.model_dump(mode="json") for row in rows], True)
    else:
        print_lineage(rows)


@app.command(epilog="Example: `forager replay runs/demo champion/3`, `forager replay runs/demo --check`")
def replay(
    run: RunPlace,
    life: Annotated[str, typer.Argument(metavar="LIFE", help="g002-001/5 or champion/5.")] = "",
    check: Annotated[
        bool, typer.Option("--check", help="Live it again from its recorded actions and compare.")
    ] = False,
    json: Json = False,
) -> None:
    """Print a committed life step by step, or prove that its world leads to the same states again."""
    store, state = open_run(run)
    if check:
        from orchestrator.relive import relive_all

        findings, count = relive_all(store, state, life)
        _report(findings, json, f"{count} instances lived again from their recorded actions, every state equal")
        return
    from orchestrator.replay import print_life

    print_life(store, state, life or "champion", as_json=json)


@app.command(epilog="Example: `forager evaluate runs/demo --who champion --lives 128`")
def evaluate(
    run: RunPlace,
    who: Annotated[str, typer.Option(help="founder, champion, random, heuristic or an id.")] = "champion",
    lives: Annotated[int, typer.Option(min=1, max=100_000, help="Held-out worlds to live in.")] = 64,
    json: Json = False,
    address: Address = None,
) -> None:
    """Survival on held-out worlds that no run ever learned from."""
    store, state = open_run(run)
    from orchestrator.finish import evaluate_one

    row = evaluate_one(store, state, who, lives, address)
    _print(row if json else {name: value for name, value in row.items() if name != "values"}, json)


@app.command(epilog="Example: `forager verify runs/demo`")
def verify(run: RunPlace, json: Json = False) -> None:
    """Check hash chain, references, checksums, density and duplicates of a run, read-only."""
    from orchestrator.inspection import verify as findings_of

    _report(findings_of(open_existing(run)), json, "every check passed")


@app.command(epilog="Example: `forager gc runs/demo --dry-run`")
def gc(
    run: RunPlace,
    grace_hours: Annotated[float, typer.Option(min=0, help="Leave alone what is younger.")] = 1.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False,
) -> None:
    """Remove what a crash left behind and no reader of the run will ever see."""
    from orchestrator.garbage import find_garbage, remove
    from telemetry.journal import Journal
    from telemetry.lock import check_dead, exclusive

    store, state = open_run(run)
    with exclusive(store):
        check_dead(store, state.epochs)
        garbage = find_garbage(store, Journal(store).read(), grace_hours * 3600)
        if not dry_run:
            remove(store, garbage)
    for one in garbage:
        typer.echo(f"{one.key}  {one.size} bytes")
    verb = "would be removed" if dry_run else "removed"
    typer.echo(f"{len(garbage)} objects, {sum(one.size for one in garbage)} bytes {verb}")


@app.command(epilog="Example: `forager digest runs/demo`")
def digest(run: RunPlace) -> None:
    """Print one sha256 of what matters in a run: equal runs have equal digests."""
    store, state = open_run(run)
    from orchestrator.digest import digest as digest_of
    from telemetry.ledger import Ledger

    typer.echo(digest_of(state, Ledger(store)))


@app.command(epilog="Example: `forager audit runs/demo`")
def audit(run: RunPlace, json: Json = False) -> None:
    """Recompute every fitness, selection and birth from the ledger alone and compare with the journal."""
    store, state = open_run(run)
    from orchestrator.audit import audit as findings_of
    from orchestrator.state import config_of
    from telemetry.ledger import Ledger

    _report(findings_of(state, Ledger(store), config_of(state)), json, "every number follows from the ledger")


@app.command(epilog="Example: `forager doctor --store s3://bucket/runs`")
def doctor(
    store: Annotated[str, typer.Option(help="Directory or URL where runs are to live.")] = "runs", json: Json = False
) -> None:
    """Look at this machine before a run: versions, hardware, open ports, token, environment, disk, store."""
    from orchestrator.doctor import examine, print_checks

    checks = examine(store)
    if json:
        _print([{"level": check.level, "what": check.what, "found": check.found} for check in checks], True)
    else:
        print_checks(checks)
    if any(check.level == "problem" for check in checks):
        sys.exit(UsageError.exit_code)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"forager {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of `forager` itself."""


def _print(value: Any, as_json: bool) -> None:
    import json

    if as_json:
        typer.echo(json.dumps(value, indent=2, allow_nan=False))
    else:
        from orchestrator.plain import print_mapping

        print_mapping(value)


def _report(findings: list[Any], as_json: bool, praise: str) -> None:
    """Prints findings; exits 3 when any of them is an error."""
    errors = [finding for finding in findings if finding.severity == "error"]
    if as_json:
        _print([{"severity": f.severity, "where": f.where, "what": f.what} for f in findings], True)
    else:
        for finding in findings:
            typer.echo(f"{finding.severity}: {finding.where}: {finding.what}")
        typer.echo(f"{len(errors)} errors" if errors else f"ok: {praise}")
    if errors:
        sys.exit(StateError.exit_code)


if __name__ == "__main__":
    main()
