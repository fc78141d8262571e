"""`forager worlds`, `play` and `check-world`: worlds without a run."""

from typing import Annotated, Any

import typer

app = typer.Typer()
BOUNDS = (("from", "minimum"), ("above", "exclusiveMinimum"), ("to", "maximum"), ("below", "exclusiveMaximum"))

World = Annotated[str, typer.Argument(metavar="WORLD", help="A registered world such as forage, or module:Class.")]
Dials = Annotated[list[str] | None, typer.Option("--set", metavar="A=B", help="One of the world's settings.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@app.command(epilog="Example: `forager worlds` or `forager worlds forage`")
def worlds(world: Annotated[str | None, typer.Argument(metavar="[WORLD]")] = None, json: Json = False) -> None:
    """List the worlds there are, or the settings of one."""
    from json import dumps

    from orchestrator import play

    if world is not None:
        about = play.describe(world)
        typer.echo(dumps(about, indent=2) if json else _about(about))
        return
    rows = play.worlds()
    if json:
        typer.echo(dumps(rows, indent=2))
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        name = typer.style(row["name"].ljust(width), bold=True)
        if "broken" in row:
            typer.echo(f"{name}  cannot be loaded: {row['broken']}")
        else:
            typer.echo(f"{name}  {row['about']}")
            typer.echo(f"{' ' * width}  for {row['agents']}, {row['horizon']} steps, answers: {row['answers']}")


@app.command(epilog="Example: `forager play forage --seed 3`, `forager play forage --player heuristic`")
def play(
    world: World,
    seed: Annotated[int, typer.Option(min=0, help="Which life.")] = 1,
    player: Annotated[str | None, typer.Option(help="Let a scripted player live it: random, heuristic, ...")] = None,
    reveal: Annotated[bool, typer.Option("--reveal", help="Draw the hidden state too.")] = False,
    dials: Dials = None,
) -> None:
    """Live a life yourself: read what an agent would read, answer as it would."""
    from orchestrator.play import play as play_world

    play_world(world, _settings(dials), seed, player, reveal=reveal)


@app.command("check-world", epilog="Example: `forager check-world mypackage.worlds:Desert --set size=9`")
def check_world(
    world: World,
    dials: Dials = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that one check may take.")] = 60.0,
    json: Json = False,
) -> None:
    """Find out whether a world is fit for a run: contract, determinism, separation, ends, texts, speed."""
    from orchestrator.check_world import check_world as check

    check(world, _settings(dials), timeout, as_json=json)


def _about(world: dict[str, Any]) -> str:
    lines = [f"{world['version']}  {world['about']}"]
    width = max(map(len, world["settings"]), default=0)
    for name, dial in world["settings"].items():
        bounds = [f"{word} {dial[key]}" for word, key in BOUNDS if key in dial]
        bounds += [f"one of {', '.join(map(str, dial['enum']))}"] if "enum" in dial else []
        text = [str(dial.get("default", "")).ljust(10), " ".join(bounds).ljust(16), dial.get("description", "")]
        lines.append(f"  {name.ljust(width)}  {'  '.join(text)}".rstrip())
    return "\n".join(lines)


def _settings(dials: list[str] | None) -> dict[str, Any]:
    from orchestrator.runfile import assign

    settings: dict[str, Any] = {}
    for dial in dials or ():
        assign(settings, dial)
    return settings
