"""The site of the documentation: built without a warning, complete, and asking the network for nothing."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from orchestrator.schema import run_file_schema
from tests.forager import ROOT, environment
from tests.system.documentation import COMMANDS

pytest.importorskip("material", reason="mkdocs-material is not installed")
pytest.importorskip("mkdocstrings", reason="mkdocstrings is not installed")
CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", place]
    variables = {**environment(), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(build, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return place


def test_every_command_and_every_key_has_its_place(site: Path) -> None:
    page = (site / "reference" / "commands.html").read_text()
    for name in COMMANDS:
        assert f'id="forager-{name}"' in page, name
    page, schema = (site / "reference" / "run-file.html").read_text(), run_file_schema()
    for shape in (schema, *schema["$defs"].values()):
        for key in shape["properties"]:
            assert f"<code>{key}</code>" in page, key
    for where in ("trainer.objective", "engine.endpoints[]", "population.founders[]", "selection.halving"):
        assert f"<code>{where}</code>" in page, where


def test_nothing_but_pages_is_published(site: Path) -> None:
    assert not list(site.rglob("*.py"))
    assert not [path for path in site.rglob("*.html") if ".venv" in str(path.relative_to(site))]
    assert {"index.html", "tutorial.html", "recovery.html", "changelog.html"} <= {
        path.name for path in site.glob("*.html")
    }


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_pages_ask_for_nothing_elsewhere_and_fit_a_telephone(address: str) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM)
        page = browser.new_page(viewport={"width": 375, "height": 800})
        page.set_default_timeout(120_000)
        asked, errors = list[str](), list[str]()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        for path in ("index", "tutorial", "reference/run-file", "reference/commands", "reference/python", "monitoring"):
            page.goto(f"{address}/{path}.html")
            assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path
        page.goto(f"{address}/index.html")
        page.evaluate("document.querySelector('#__search').checked = true")
        page.fill("input[name=query]", "take-over")
        page.wait_for_selector(".md-search-result__item a[href*='recovery']", state="attached")
        browser.close()
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    assert errors == []
