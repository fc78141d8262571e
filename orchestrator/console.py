"""Text for people: tables of what a run has come to. Whatever agents, worlds and plugins wrote is shown as plain text.

The law: text from outside passes `clean`, and reaches rich only as `Text`, which knows no markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from orchestrator.plain import clean, duration, ends_text
from telemetry.numerals import interval, number

if TYPE_CHECKING:
    from orchestrator.events import EvaluationRow
    from orchestrator.lineage import LineageRow
    from orchestrator.summary import Summary

MEASURED = {"rmst": "mean survival", "energy": "mean final energy", "result": "mean score"}
"""By kind of fitness: what its mean over lives is."""


def print_summary(summary: Summary, report: str) -> None:
    """The end of a run on the console: generations, held-out comparison, where the report is."""
    console = Console()
    console.print()
    console.print(Rule(Text(f" {clean(summary.run)} ", style="bold"), style="dim", align="left"))
    if summary.history:
        console.print(_history_table(summary))
    if summary.evaluation:
        console.print(_evaluation_table(summary))
        models = [row for row in summary.evaluation if row.individual and row.measures]
        if models:
            console.print(_measures_table(models))
        console.print(_verdict(summary))
    console.print(Text.assemble(("report  ", "dim"), clean(report, 1000)), soft_wrap=True)


def print_lineage(rows: Sequence[LineageRow]) -> None:
    """The family tree: one branch per founder, children under their first parents."""
    branches: dict[str, Tree] = {}
    roots: list[Tree] = []
    for row in rows:
        parent = branches.get(row.parents[0]) if row.parents else None
        if parent is None:
            branches[row.id] = Tree(_individual_text(row), guide_style="dim")
            roots.append(branches[row.id])
        else:
            branches[row.id] = parent.add(_individual_text(row))
    Console().print(Group(*roots), soft_wrap=True)


def columns_of(*columns: str) -> Table:
    """An empty table. The first column and the last read as text, those between as numbers."""
    table = Table(box=box.SIMPLE_HEAD, header_style="dim", pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index in (0, len(columns) - 1) else "right")
    return table


def _history_table(summary: Summary) -> RenderableType:
    table = columns_of("generation", "best", "mean", "worst", "lives", "time", "how lives ended")
    for row in summary.history:
        table.add_row(
            Text(f"{row.generation}  {row.individual}  {clean(row.lineage)}"),
            interval(row.best, row.low, row.high),
            number(row.mean),
            number(row.worst),
            f"{row.lives:,}",
            duration(row.seconds.get("total", sum(row.seconds.values()))),
            Text(ends_text(row.ends), style="dim"),
        )
    return table


def _evaluation_table(summary: Summary) -> RenderableType:
    measured = MEASURED.get(summary.fitness_kind, "mean fitness")
    table = columns_of("held-out worlds", measured, "lives", "how lives ended")
    for row in summary.evaluation:
        name = "founder (untouched model)" if row.who == "founder" else clean(row.who)
        table.add_row(
            Text(name, style="bold" if row.who == "champion" else ""),
            Text(interval(row.mean, row.low, row.high), style="bold" if row.who == "champion" else ""),
            f"{row.lives:,}",
            Text(ends_text(row.ends), style="dim"),
        )
    return table


def _measures_table(rows: Sequence[EvaluationRow]) -> RenderableType:
    """What the world itself reports of the models' lives; of scripted players the report has it."""
    table = columns_of("the world reports", *(clean(row.who) for row in rows), "")
    for name in dict.fromkeys(name for row in rows for name in row.measures):
        found = [row.measures.get(name) for row in rows]
        cells = ["-" if one is None else interval(one.value, one.low, one.high) for one in found]
        table.add_row(Text(clean(name)), *cells, "")
    return table


def _verdict(summary: Summary) -> Text:
    text = Text.assemble(("champion  ", "dim"), (summary.champion or "-", "bold"))
    rows = {row.who: row for row in summary.evaluation}
    if {"champion", "founder"} <= rows.keys():
        clear, style = rows["champion"].low > rows["founder"].high, "green"
        if summary.fitness_kind == "rmst" and "founder" in summary.ratios:
            gain = f"  lives {summary.ratios['founder']:.2f} times as long as"
        else:
            difference = rows["champion"].mean - rows["founder"].mean
            gain = f"  scores {number(abs(difference))} {'more' if difference >= 0 else 'less'} than"
        text.append(gain, style=style if clear else "")
        text.append(" its founder, the untouched model")
        text.append("" if clear else " (no clear gain: the intervals overlap or the founder fares better)")
    if summary.gap is not None:
        gap = f"{number(abs(summary.gap))} {'more' if summary.gap >= 0 else 'less'}"
        text.append(f"\ngap       {gap} where it was selected than in held-out worlds", style="dim")
    return text.append(f"\nancestry  {' > '.join(summary.ancestry)}", style="dim")


def _individual_text(row: LineageRow) -> Text:
    unknown = "alive" if row.survived is None else "not scored"
    fitness = unknown if row.fitness is None else interval(row.fitness, row.low or 0.0, row.high or 0.0)
    fate = {True: "survived", False: "culled", None: ""}[row.survived]
    text = Text.assemble((row.id, "bold" if row.survived else ""), f"  {clean(row.lineage)}  {fitness}")
    text.append(f"  {fate}", style="green" if row.survived else "red")
    text.append(f"  {row.adapter or 'base model'}", style="dim")
    if len(row.parents) > 1:
        text.append(f"  x {row.parents[1]}", style="dim")
    return text
