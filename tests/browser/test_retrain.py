"""Label thirty pairs by a rule, retrain, look: in a real page that stays usable meanwhile; and a Stop that leaves nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from browser.harness import ROOT

pytestmark = pytest.mark.slow

OPEN = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import voted_lab
from labkit.board import Board
from labkit.loop import Loop
from widgets.label import LabelView
from widgets.retrain import RetrainView
lab = voted_lab.voted(Path({outputs!r}))
loop = Loop(lab, "Ada")
view = RetrainView(loop)
"""
LABEL = "LabelView(loop.session, on_vote=loop.hear)"
LOOP = ".loop"
# The prompt and the two answers that the exercise's labeller asks about: it is the last view of the page.
TEXTS = "[...[...document.querySelectorAll('.lab-view')].at(-1).querySelectorAll('.lab-text')].map(n => n.textContent)"
MANIFESTS = "sorted(p.parent.name.split('-')[0] for p in lab.folder.glob('*_yours-*/run.json'))"


def opened(notebook: Callable, tmp_path: Path, *cells: str):
    return notebook([OPEN.format(tests=str(ROOT / "tests"), outputs=str(tmp_path)), *cells, "view"])


def by_the_rule(book, n: int) -> None:
    """Judge `n` pairs by keys: the shorter answer wins."""
    labeller = book.page.locator(".lab-view").last
    labeller.click(position={"x": 4, "y": 4})
    for done in range(1, n + 1):
        book.wait(f"() => {TEXTS}.length === 3")
        _, first, second = book.page.evaluate(f"() => {TEXTS}")
        book.page.keyboard.press("a" if len(first.split()) <= len(second.split()) else "b")
        book.wait(f"() => document.querySelector('{LOOP} .loop-task').textContent.includes('{done} of ')")


def test_an_exercise_is_labelled_learned_from_and_looked_at(notebook: Callable, tmp_path: Path) -> None:
    book = opened(notebook, tmp_path)
    view = book.page.locator(LOOP)
    view.get_by_role("button", name="Retrain and look").click()
    book.wait(f"() => document.querySelector('{LOOP} .lab-warn')?.textContent.includes('label some more')")
    view.get_by_role("button", name="Vote for the short answers").click()
    view.get_by_role("button", name="Judge the pairs below").click()
    book.wait("() => document.querySelectorAll('.lab-view').length === 2")
    by_the_rule(book, 12)
    assert not view.locator(".lab-warn").count(), "what was missing is there now: the complaint goes"
    book.shot("retrain-exercise", LOOP)

    clicked = time.monotonic()
    view.get_by_role("button", name="Retrain and look").click()
    view.get_by_role("button", name="Stop").wait_for()
    asked = time.monotonic()
    assert book.eval("loop.counts('short')['votes']") == "12"
    answered = time.monotonic() - asked
    book.wait(f"() => document.querySelector('{LOOP} .loop-title')", 120)
    print(f"{time.monotonic() - clicked:.1f} s from click to before and after; the kernel answered in {answered:.2f} s")
    assert answered < 5, "the page stays usable while it trains"
    said = view.inner_text()
    assert "Words in an answer" in said and "Held-out pairs" in said and "dpo_yours-" in said
    assert view.locator(".loop-example").count() == 6 and view.locator("ins, del").count() > 0
    assert book.eval(MANIFESTS) == "['dpo_yours', 'reward_yours']"
    book.look("retrain", LOOP)
    assert not book.errors


def test_votes_of_another_cell_are_counted_and_a_stop_keeps_nothing(notebook: Callable, tmp_path: Path) -> None:
    """Keys stay in the view; after Stop the button is there again, and no run is."""
    book = opened(notebook, tmp_path, LABEL, "Board(loop)")
    cells = book.page.evaluate("() => jupyterapp.shell.currentWidget.content.widgets.length")
    labeller, view = book.page.locator(".lab-view").first, book.page.locator(LOOP)
    labeller.click(position={"x": 4, "y": 4})
    for _ in range(10):
        book.page.keyboard.press("a")
        book.page.wait_for_timeout(80)
    book.wait(f"() => / pairs to train on/.test(document.querySelector('{LOOP} .loop-stands').textContent)")
    book.wait(
        "() => [...document.querySelectorAll('.jp-OutputArea table caption')].some(c => c.textContent.startsWith('Ada, '))"
    )
    book.run("from labkit import retrain\nretrain.STEPS = dict.fromkeys(retrain.STEPS, 4000)")
    view.get_by_role("button", name="your own judgement").click()
    book.page.keyboard.press("r")
    view.get_by_role("button", name="Stop").click()
    book.wait(f"() => document.querySelector('{LOOP} .lab-status').textContent.includes('othing of it is kept')", 60)
    view.get_by_role("button", name="Retrain and look").wait_for()
    book.page.keyboard.press("d")
    book.page.keyboard.press("d")
    book.wait("() => true")
    assert book.page.evaluate("() => jupyterapp.shell.currentWidget.content.widgets.length") == cells
    book.run("import labkit.background as b\nb._now.thread.join(60)")
    assert book.eval(MANIFESTS) == "[]"
    assert not book.errors
