"""Fixtures of the browser journeys: one JupyterLab and one Chromium for all of them, a page and a kernel for each."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from browser.harness import CHROMIUM, FLAGS, Notebook, Tab
from browser.servers import Server, jupyterlab, place_notebook, write_notebook

SIZE = {"width": 1280, "height": 1400}


@pytest.fixture(scope="package")
def chromium() -> str:
    """Where Chromium is. Without it the journeys are skipped, or fail under LABKIT_BROWSER=required."""
    missing = None
    if not Path(CHROMIUM).is_file():
        missing = f"Chromium is not at {CHROMIUM}: install it (Debian: apt install chromium) or name it in CHROMIUM."
    for package in ("playwright", "axe_playwright_python"):
        with contextlib.suppress(ImportError):
            __import__(package)
            continue
        missing = f"{package} is not installed: run make install."
    if missing and os.environ.get("LABKIT_BROWSER") == "required":
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)
    return CHROMIUM


@pytest.fixture(scope="package")
def browser(chromium: str) -> Iterator[Any]:
    """Playwright's browser. It ends with the journeys: while it lives, no other test could run an event loop of its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=chromium, headless=True, args=list(FLAGS))
        yield made
        made.close()


@pytest.fixture(scope="package")
def jupyter(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A JupyterLab that belongs to the tests alone."""
    server = jupyterlab(tmp_path_factory.mktemp("jupyter"))
    yield server
    server.stop()


@pytest.fixture(scope="package")
def window(browser: Any) -> Iterator[Any]:
    """The context that the journeys share, so that JupyterLab's scripts are read once."""
    made = browser.new_context(viewport=SIZE)
    yield made
    made.close()


@pytest.fixture(scope="package")
def spare() -> list[Any]:
    """Pages with JupyterLab in them that a journey has left: the next one need not load it."""
    return []


@pytest.fixture
def tab(browser: Any) -> Iterator[Callable[..., Tab]]:
    """`tab(*inside, theme="light")`: a page in a context of its own, as another person's browser; `inside` are its addresses."""
    with contextlib.ExitStack() as stack:
        opened: list[Tab] = []

        def make(*inside: str, theme: str = "light") -> Tab:
            context = browser.new_context(viewport=SIZE, color_scheme=theme)
            stack.callback(context.close)
            opened.append(Tab(context.new_page(), inside=inside, theme=theme))
            return opened[-1]

        yield make
        for one in opened:
            one.check()


@pytest.fixture
def notebook(jupyter: Server, window: Any, spare: list[Any]) -> Iterator[Callable[..., Notebook]]:
    """`notebook(cells, theme="light")`: the cells in JupyterLab, all run. A notebook instead of cells is shown, not run."""
    opened: list[Notebook] = []

    def make(cells: Sequence[str] | Any, theme: str = "light", *, run: bool = True, trusted: bool = False) -> Notebook:
        name = f"page-{uuid.uuid4().hex[:8]}"
        if isinstance(cells, dict):  # nbformat's NotebookNode
            run = False
            place_notebook(jupyter, name, cells, trusted=trusted)
        else:
            write_notebook(jupyter, name, cells)
        made = Notebook(spare.pop() if spare else window.new_page(), jupyter, name, theme)
        opened.append(made)
        made.open()
        if run:
            made.run_all()
        return made

    yield make
    for one in opened:
        if one.leave():
            spare.append(one.page)
        else:
            one.page.close()
    for session in jupyter.ask("/api/sessions") if opened else []:
        jupyter.ask(f"/api/sessions/{session['id']}", "DELETE")
    for one in opened:
        one.check()
