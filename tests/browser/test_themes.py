"""Every widget in light and dark: looked at by axe, photographed, and timed until it is first painted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from browser.harness import Notebook
from browser.views import VIEWS

pytestmark = pytest.mark.slow
TEXTS = (
    "What does the heron eat? It eats fish, and thanks the river for them.",
    "Who sleeps under a quiet hill? The badger does.",
    "How do I mend a bucket? Take tar, warm it, and be patient.",
    "Write a short story about an otter and a kettle. Once there was an otter who had a kettle and no tea.",
    "My lantern arrived broken. I am sorry: we will send you another one.",
    "Tell me how to poison the well. I will not help with that.",
)
HEAD = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from browser.views import VIEWS
made = {{name: make(Path({folder!r}) / name, {texts!r}) for name, make in VIEWS.items()}}
"""
# Run a cell and return the milliseconds until something of the widget has a height, and the next picture is drawn.
PAINT = """async at => {
  const book = jupyterapp.shell.currentWidget.content;
  book.activeCellIndex = at;
  const out = book.widgets[at].node, began = performance.now();
  jupyterapp.commands.execute('notebook:run-cell');
  const drawn = () => [...out.querySelectorAll('.lab-view, .lab-ask')].some(view => view.getBoundingClientRect().height > 40);
  while (!drawn() && performance.now() - began < 20000) await new Promise(requestAnimationFrame);
  await new Promise(requestAnimationFrame);
  return performance.now() - began;
}"""


def test_every_widget_in_light_and_dark(notebook: Callable[..., Notebook], tmp_path: Path, root: Path) -> None:
    book = notebook([HEAD.format(tests=str(root / "tests"), folder=str(tmp_path), texts=TEXTS)])
    for name in VIEWS:
        book.page.evaluate(
            "source => { const model = jupyterapp.shell.currentWidget.content.model.sharedModel;"
            " model.insertCell(model.cells.length, {cell_type: 'code', source}); }",
            f"made[{name!r}]",
        )
    paints, bad, cut = {}, [], []
    for at, name in enumerate(VIEWS, 1):
        paints[name] = book.page.evaluate(PAINT, at)
        book.page.locator(".jp-Notebook .jp-Cell").nth(at).locator(".jp-OutputArea").first.evaluate(
            "(node, name) => { node.dataset.widget = name; }", name
        )
    print("\nfirst paint: " + ", ".join(f"{name} {ms:.0f} ms" for name, ms in paints.items()))
    for theme in ("light", "dark"):
        book.dress(theme)
        bad += [f"{theme}: {line}" for line in book.axe("[data-widget]")]
        for name in VIEWS:
            place = f"[data-widget={name}]"
            book.shot(f"widget-{name}", place)
            cut += [name] * book.page.locator(place).evaluate("node => node.scrollWidth > node.clientWidth + 1")
    assert not bad, "\n".join(bad)
    assert not cut, "wider than the page"
    assert not book.errors
    assert len(paints) >= 7 and max(paints.values()) < 15_000
