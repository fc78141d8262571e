"""The report of a large run in a real browser: quick, quiet, for every reader, and alive where it is served."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from orchestrator import serving
from orchestrator.report import report
from orchestrator.serving import listening
from telemetry.report.page import render_comparison
from tests.orchestrator.small_run import state_at
from tests.system.large_run import large_run

playwright = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

GENERATIONS, INDIVIDUALS = 50, 64
MOST_SECONDS, MOST_BYTES = 15.0, 10_000_000
PATIENCE = 120_000
"""Milliseconds that a browser may take for what is done at once on an idle machine."""
THEMES = ("light", "dark")


class Visit:
    """A page in a browser, what it logged, and what it asked for."""

    def __init__(self, page: Any, address: str) -> None:
        self.page, self.logged, self.asked = page, list[str](), list[str]()
        page.on("console", lambda message: self.logged.append(message.text))
        page.on("pageerror", lambda error: self.logged.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(address)

    def findings(self) -> list[str]:
        """What axe-core finds that is serious or critical."""
        self.page.evaluate((Path(axe.__file__).parent / "axe.min.js").read_text())
        found = self.page.evaluate("axe.run()")
        assert len(found["passes"]) > 10
        return [
            f"{one['id']}: {one['nodes'][0]['html'][:200]}"
            for one in found["violations"]
            if one["impact"] in ("serious", "critical")
        ]

    def overflow(self) -> int:
        """Pixels by which the page is wider than its window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - innerWidth"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as tool:
        opened = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@contextmanager
def visiting(browser: Any, address: str, theme: str = "light", width: int = 1180) -> Iterator[Visit]:
    context = browser.new_context(color_scheme=theme, viewport={"width": width, "height": 900})
    context.set_default_timeout(PATIENCE)
    yield Visit(context.new_page(), address)
    context.close()


def apart(task: Callable[..., None], *arguments: object) -> None:
    """Does it in a thread of its own: in this one the browser's event loop runs."""
    with ThreadPoolExecutor(1) as pool, pytest.MonkeyPatch.context() as patch:
        # What the run is made for does not outlive the test, and the disk would take longer than all the rest.
        patch.setattr("os.fsync", lambda _: None)
        pool.submit(task, *arguments).result()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run of many."""
    place = tmp_path_factory.mktemp("large")
    apart(large_run, place / "run", GENERATIONS, INDIVIDUALS)
    store, state = state_at(place / "run")
    # Of the processor's time: others may be at work on the machine.
    started = time.process_time()
    html = report(store, state).encode()
    seconds = time.process_time() - started
    assert seconds <= MOST_SECONDS
    assert len(html) <= MOST_BYTES
    (place / "page.html").write_bytes(html)
    return place / "page.html"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run: axe takes minutes over thousands of marks that are all alike."""
    place = tmp_path_factory.mktemp("small") / "run"
    apart(large_run, place, 4, 12)
    return place


def test_a_large_run_is_shown_without_an_error_or_a_request(browser: Any, large: Path) -> None:
    with visiting(browser, large.as_uri()) as visit:
        assert visit.page.locator("#tree svg circle.node").count() == GENERATIONS * INDIVIDUALS
        assert visit.page.locator("#tree svg").bounding_box()["width"] <= 1060
        assert visit.overflow() <= 0
        assert visit.asked == [large.as_uri()]
        assert visit.logged == []


def test_a_lineage_is_picked_out_with_the_keyboard_and_kept_in_the_address(browser: Any, large: Path) -> None:
    with visiting(browser, large.as_uri()) as visit:
        first, second = (visit.page.locator("button[data-lineage]").nth(number) for number in range(2))
        own = visit.page.locator(f"#tree g[data-lineage='{first.get_attribute('data-lineage')}']").last
        other = visit.page.locator(f"#tree g[data-lineage='{second.get_attribute('data-lineage')}']").last
        opacity = "(one) => Number(getComputedStyle(one).opacity)"
        first.focus()
        visit.page.keyboard.press("Enter")
        assert first.get_attribute("aria-pressed") == "true"
        assert (own.evaluate(opacity), other.evaluate(opacity)) == (1, 0.07)
        assert first.inner_text().strip() in visit.page.locator("#lineage-now").inner_text()
        visit.page.reload()
        assert first.get_attribute("aria-pressed") == "true"
        visit.page.keyboard.press("Tab")
        second.press("Space")
        assert (first.get_attribute("aria-pressed"), second.get_attribute("aria-pressed")) == ("false", "true")
        second.press("Space")
        assert other.evaluate(opacity) == own.evaluate(opacity) == 1
        assert "#" not in visit.page.url
        assert visit.logged == []


def test_a_life_is_played(browser: Any, large: Path) -> None:
    with visiting(browser, large.as_uri()) as visit:
        now, play = visit.page.locator("#replay-now"), visit.page.locator("#replay-play")
        visit.page.clock.install(time=0)
        visit.page.clock.pause_at(3_600_000)
        visit.page.reload()
        assert now.inner_text().startswith("step 1 of")
        play.click()
        visit.page.clock.run_for(650)
        assert now.inner_text().startswith("step 3 of")
        play.click()
        visit.page.clock.run_for(650)
        assert now.inner_text().startswith("step 3 of")
        assert play.inner_text() == "Play"
        assert visit.page.locator(".replay-panel .did").first.inner_text()
        assert visit.logged == []


def test_dark_and_narrow_windows_are_served_as_well(browser: Any, large: Path) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    with (
        visiting(browser, large.as_uri(), "dark", 375) as dark,
        visiting(browser, large.as_uri(), "light", 375) as light,
    ):
        assert dark.page.evaluate(colour) != light.page.evaluate(colour)
        assert dark.overflow() <= 0
        box = dark.page.locator("button[data-lineage]").first.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 375


@pytest.mark.parametrize("theme", THEMES)
def test_everybody_can_read_the_report(browser: Any, small: Path, tmp_path: Path, theme: str) -> None:
    store, state = state_at(small)
    (tmp_path / "page.html").write_text(report(store, state))
    with visiting(browser, (tmp_path / "page.html").as_uri(), theme) as visit:
        for details in visit.page.locator("details").all():
            details.evaluate("(one) => { one.open = true; }")
        visit.page.locator("button[data-lineage]").first.click()
        assert visit.findings() == []


@pytest.mark.parametrize("theme", THEMES)
def test_everybody_can_read_an_experiment(browser: Any, tmp_path: Path, theme: str) -> None:
    row = {"fitness": {"value": 9.0, "low": 8.0, "high": 10.0}, "by_seed": [9.0], "decisions": 1, "training_tokens": 2}
    row |= {"generations": 3, "verdict": "no difference shown"}
    data = {"name": "arms", "environment": "forage", "model": "scripted", "fitness_kind": "rmst", "worlds": 6}
    rows = [
        {**row, "arm": "evolution", "difference": None, "p": None},
        {**row, "arm": "rules-only", "difference": row["fitness"], "p": 0.5},
    ]
    (tmp_path / "page.html").write_text(render_comparison({**data, "seeds": [1], "rows": rows}))
    with visiting(browser, (tmp_path / "page.html").as_uri(), theme, 375) as visit:
        assert visit.findings() == []
        assert visit.overflow() <= 0
        assert visit.logged == []


def test_a_served_page_moves_on_with_its_run_and_stays_where_the_reader_is(
    browser: Any, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "PAUSE", 0.0)
    copy = Path(shutil.copytree(small, tmp_path / "run"))
    entries = sorted((copy / "journal").glob("*.json"))
    finish = next(path for path in reversed(entries) if json.loads(path.read_bytes())["kind"] == "finish")
    later = [(path, path.read_bytes()) for path in entries[entries.index(finish) :]]
    for path, _ in later:
        path.unlink()
    with listening(str(copy), 0) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            with visiting(browser, f"http://localhost:{server.server_port}/") as visit:
                assert "not finished" in visit.page.locator("header").inner_text()
                visit.page.locator("button[data-lineage]").nth(1).click()
                visit.page.locator("details").last.evaluate("(one) => { one.open = true; }")
                visit.page.evaluate("scrollTo(0, 700)")
                for path, data in later:
                    path.write_bytes(data)
                playwright.expect(visit.page.locator("header")).not_to_contain_text("not finished", timeout=PATIENCE)
                visit.page.wait_for_load_state()
                assert abs(visit.page.evaluate("scrollY") - 700) < 2
                assert visit.page.locator("button[data-lineage]").nth(1).get_attribute("aria-pressed") == "true"
                assert visit.page.locator("details").last.evaluate("(one) => one.open")
                assert visit.logged == []
                assert {url.partition("/")[0] for url in visit.asked} == {"http:"}
                assert all(f"//localhost:{server.server_port}/" in url for url in visit.asked)
        finally:
            server.shutdown()
            thread.join()
