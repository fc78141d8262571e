"""Displays tell what happened, in plain text whatever the text says, and never hurt the run."""

import io
import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from orchestrator.console import print_lineage, print_summary
from orchestrator.display import Display, LiveDisplay, PlainDisplay, open_display
from orchestrator.events import BirthCommitted
from orchestrator.lineage import lineage_rows
from orchestrator.lines import describe
from orchestrator.plain import clean, duration, print_mapping
from orchestrator.progress import advance as advance_progress
from orchestrator.progress import progress_of
from orchestrator.runfile import load
from orchestrator.summary import status, summarize
from tests.forager import SMOKE
from tests.orchestrator.builders import add, advance, finished_run, newborn_run, run_config
from trainer.job import TrainingResult

HOSTILE = "[bold red]x[/] \x1b[2J\x1b]0;owned\x07\u202e\nforged line"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def terminal() -> Console:
    return Console(file=Terminal(), force_terminal=True, width=120, height=50)


def shown(display: LiveDisplay) -> str:
    """What the panel looks like now, without colours."""
    console = Console(width=120, file=io.StringIO())
    console.print(display._draw())
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_a_run_without_a_model_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    config = load(SMOKE)
    with PlainDisplay(config, newborn_run(config)):
        pass
    assert capsys.readouterr().out.splitlines()[0].endswith("world forage  model scripted")


def test_plain_lines_tell_the_whole_run(capsys: pytest.CaptureFixture[str]) -> None:
    config = run_config()
    state = newborn_run(config)
    with PlainDisplay(config, state) as display:
        for number, _ in enumerate(advance(state, config, display)):
            display.tick(32, number * 40)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "run first-run  4 generations of 6 x 32 lives  world forage  model smollm2-135m-instruct"
    assert sum(line.startswith("birth g") for line in lines) == 15
    assert [line.split()[1] for line in lines if " best " in line] == ["0", "1", "2", "3"]
    assert "lineages 3 alive, 3 culled (timid, scout-2, timid-2)" in lines[6]
    assert lines[-1].startswith(f"finished  champion {state.history[-1].selection.survivors[0]}")


def test_progress_lines_come_at_most_every_fifteen_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("orchestrator.display.monotonic", lambda: now)
    config = run_config()
    state = newborn_run(config)
    with PlainDisplay(config, state) as display:
        next(advance(state, config, display))
        for second in range(61):
            now = 1000.0 + second
            display.tick(32, second * 40)
    lines = capsys.readouterr().out.splitlines()[1:]
    assert len(lines) == 4
    assert all(line.startswith("generation 0 (1 of 4)  lives 96/192  alive 32  ") for line in lines)


def test_plain_lines_are_ascii_and_nothing_in_them_moves_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    config = run_config()
    state = newborn_run(config)
    failed = TrainingResult(individual="g001-001", adapter=None, status="failed", reason=HOSTILE + "é")
    with PlainDisplay(config, state) as display:
        display(BirthCommitted(generation=0, result=failed), state)
        display.note(HOSTILE)
    out = capsys.readouterr().out
    assert out.isascii()
    assert out.count("\n") == 3
    assert out.replace("\n", "").isprintable()
    assert "[bold red]x[/]" in out


def test_a_closed_pipe_silences_the_display_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    pipe = os.fdopen(writer, "w")
    monkeypatch.setattr(sys, "stdout", pipe)
    state, _ = finished_run(None, PlainDisplay(run_config(), newborn_run(run_config())))
    assert state.finished
    with pytest.raises(BrokenPipeError):
        pipe.close()


def test_the_panel_follows_the_run() -> None:
    config = run_config()
    state = newborn_run(config)
    console = terminal()
    events = advance(state, config)
    with LiveDisplay(config, state, console) as display:
        display.note("starting engines and agents")
        assert "starting engines and agents" in shown(display)
        display(next(events), state)
        display.tick(32, 0)
        text = shown(display)
        assert "generation 0" in text
        assert "1 of 4" in text
        assert "living" in text
        assert "96/192" in text
        assert "32 alive" in text
        for event in events:
            display(event, state)
            if state.generation == 1 and state.births:
                break
        text = shown(display)
        assert "2 of 4" in text
        assert "survived" in text
        assert "culled" in text
        assert "to the evaluation" in text
        for event in events:
            display(event, state)
        assert "done" in shown(display)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "held-out  champion" in printed
    assert printed.count("best") == 4


def test_the_panel_is_bounded_however_large_the_population() -> None:
    config = run_config(population={**run_config().population.model_dump(), "size": 500})
    state = newborn_run(config)
    display = LiveDisplay(config, state, terminal())
    for event in advance(state, config):
        display(event, state)
        if state.generation == 1:
            break
    text = shown(display)
    assert "and 488 more" in text
    assert len(text.splitlines()) < 30


def test_the_panel_shows_hostile_text_as_text() -> None:
    config = run_config()
    state = newborn_run(config)
    display = LiveDisplay(config, state, terminal())
    display.note(HOSTILE)
    text = shown(display)
    assert "[bold red]x[/]" in text
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_a_pipe_gets_lines_and_a_terminal_the_panel(monkeypatch: pytest.MonkeyPatch) -> None:
    config = run_config()
    state = newborn_run(config)
    assert isinstance(open_display(config, state), PlainDisplay)
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm-256color")
    panel: Display = open_display(config, state)
    assert isinstance(panel, LiveDisplay)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(open_display(config, state), PlainDisplay)


def test_progress_after_a_resume_is_the_progress_before_it() -> None:
    config = run_config()
    state = newborn_run(config)
    live = progress_of(state, config, 0.0)
    for event in advance(state, config):
        live = advance_progress(live, event, config, 0.0)
        assert live == progress_of(state, config, 0.0)
    assert live.phase == "done"


def test_the_time_left_is_judged_by_past_generations() -> None:
    config = run_config()
    state = newborn_run(config)
    progress = progress_of(state, config, 100.0)
    assert progress.remaining(100.0) is None
    for event in advance(state, config):
        progress = advance_progress(progress, event, config, 100.0)
        if progress.generation == 1:
            break
    assert progress.remaining(100.0) == pytest.approx(3 * 141.0)
    assert progress.remaining(141.0) == pytest.approx(3 * 141.0 - 41.0)
    assert progress.remaining(1e9) == 0.0


def test_a_failed_birth_says_why() -> None:
    state = newborn_run(run_config())
    event = BirthCommitted(
        generation=0,
        result=TrainingResult(individual="g001-001", adapter=None, status="failed", reason="timed out after 60 s"),
    )
    add(state, event)
    [line] = describe(event, state)
    assert line == "birth g001-001  failed: timed out after 60 s; it keeps its first parent's weights"


@given(st.text(max_size=500), st.integers(4, 300))
def test_clean_text_is_one_printable_line(text: str, width: int) -> None:
    cleaned = clean(text, width)
    assert cleaned.isprintable()
    assert len(cleaned) <= width


def test_durations() -> None:
    assert [duration(seconds) for seconds in (0.2, 29, 59.6, 250, 7500)] == [
        "0 s",
        "29 s",
        "1 min 00 s",
        "4 min 10 s",
        "2 h 05 min",
    ]


def test_the_final_tables(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    state, config = finished_run()
    print_summary(summarize(state, config), "runs/first-run/report.html")
    out = capsys.readouterr().out
    assert "25.9 [23.7, 28.2]" in out
    assert "lives 2.14 times as long as its founder" in out
    assert "no clear gain" not in out
    assert "report  runs/first-run/report.html" in out
    print_lineage(lineage_rows(state))
    out = capsys.readouterr().out
    assert all(one in out for one in state.everyone)
    print_mapping(status(state))
    assert "totals.lives" in capsys.readouterr().out


def test_a_gain_within_the_noise_is_not_called_one(capsys: pytest.CaptureFixture[str]) -> None:
    state, config = finished_run()
    assert state.evaluation is not None
    rows = tuple(row.model_copy(update={"low": 5.0} if row.who == "champion" else {}) for row in state.evaluation.rows)
    state.evaluation = state.evaluation.model_copy(update={"rows": rows})
    print_summary(summarize(state, config), "report.html")
    assert "no clear gain" in " ".join(capsys.readouterr().out.split())
