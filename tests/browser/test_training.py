"""A training in a real page: curves move while it runs, Stop is heard while a cell waits for it, and what it leaves stays."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

OPEN = """
import labkit
from labkit.background import train
from widgets.training import TrainingView
few = {{"pretrain.tokens": {tokens}, "pretrain.threads": 1}}
few |= {{"data.world.validation_prompts": {prompts}, "data.world.test_prompts": 8}}
lab = labkit.open("smoke", few, outputs={outputs!r})
"""
VIEW = 'view = TrainingView(train(lab, "pretrain"))\nview'
JOIN = "run = await view\nrun.id"
LONG, SHORT = 4_000_000, 40_000

EVIL = {"prompt": "<img src=x onerror=hacked=1>", "answer": "<script>hacked=1</script>", "gold": None}
VIEWED = ".jp-OutputArea .lab-view"
POINTS = f"document.querySelector('{VIEWED} .train-line')?.getAttribute('points').split(' ').length || 0"
DRAWN = ".jp-OutputArea img[alt^='curves of']"


def started(notebook: Callable, tmp_path: Path, *cells: str, tokens: int = LONG, prompts: int = 8):
    """The page with its cells all started; those that wait for the training are not waited for."""
    first = OPEN.format(tokens=tokens, prompts=prompts, outputs=str(tmp_path))
    page = notebook([first, *cells], run=False)
    page.page.evaluate("() => { jupyterapp.commands.execute('notebook:run-all-cells'); }")
    return page


def errors(page) -> str:
    return page.page.evaluate(
        "() => jupyterapp.shell.currentWidget.content.model.sharedModel.cells.flatMap(cell =>"
        " (cell.toJSON().outputs || []).filter(o => o.output_type === 'error').map(o => o.evalue)).join('\\n')"
    )


def test_curves_move_and_a_stop_is_heard_while_a_cell_waits(notebook: Callable, tmp_path: Path) -> None:
    page = started(notebook, tmp_path, VIEW, JOIN)
    page.wait(f"() => ({POINTS}) >= 5", 90)
    before = page.wait(f"() => {POINTS}")
    page.wait(f"() => ({POINTS}) > {before}", 30)
    page.wait(f"() => document.querySelectorAll('{VIEWED} .train-answers .lab-card').length === 2", 30)
    page.page.get_by_role("button", name="train/grad_norm").click()
    page.page.keyboard.press("ArrowLeft")
    page.wait(
        f"() => /^train.grad_norm .* at step \\d+$/.test(document.querySelector('{VIEWED} .train-readout').textContent)"
    )
    page.look("training")
    stop = page.page.get_by_role("button", name="Stop and keep")
    clicked = time.monotonic()
    stop.click()
    page.page.get_by_role("button", name="Discard").wait_for()
    heard = time.monotonic() - clicked
    page.page.locator(DRAWN).wait_for(timeout=60_000)
    print(f"heard after {heard * 1000:.0f} ms, kept after {time.monotonic() - clicked:.1f} s")
    page.idle()
    page.shot("training-stopped", ".jp-OutputArea:has(img)")
    assert page.page.locator(VIEWED).count() == 0, "the picture stands in the view's place"
    kept = page.eval("view.run.id").strip("'")
    assert ".stopped-" in kept and f"kept as {kept}. What follows needs the whole run" in errors(page)
    assert page.eval("lab.find('pretrain')") == "None"
    assert page.eval("view.run.stopped['step'] < view.run.stopped['of'] and len(view.run.answers()) > 9") == "True"
    assert not page.offsite and not page.errors
    page.save()


def test_the_view_is_whole_again_after_a_reload_and_what_is_discarded_is_gone(
    notebook: Callable, tmp_path: Path
) -> None:
    page = started(notebook, tmp_path, VIEW, prompts=400)  # so many that measuring leaves time to discard
    page.wait(f"() => ({POINTS}) >= 5", 90)
    before = page.wait(f"() => {POINTS}")
    page.run(f"view.training.sample = False\nview.training.samples.append({{'step': 1, 'answers': [{EVIL}]}})")
    page.reload()
    assert page.wait(f"() => ({POINTS}) >= {before} ? {POINTS} : 0", 30) >= before
    seen = page.page.locator(f"{VIEWED} .lab-card .lab-text").all_inner_texts()
    assert seen == ["<img src=x onerror=hacked=1>", "<script>hacked=1</script>"]
    assert page.page.evaluate("() => typeof hacked") == "undefined"
    page.page.get_by_role("button", name="Stop and keep").click()
    page.page.get_by_role("button", name="Discard").click()
    page.wait(f"() => document.querySelector('{VIEWED} .lab-status').textContent.includes('Nothing of it is kept')")
    page.run("view.training.thread.join()")
    assert page.eval("sorted(p.name for p in lab.folder.iterdir() if p.name.startswith('pretrain'))") == "[]"


def test_left_alone_it_ends_in_a_picture_and_the_next_cell_has_the_run(notebook: Callable, tmp_path: Path) -> None:
    page = started(notebook, tmp_path, VIEW, JOIN, tokens=SHORT)
    page.page.locator(DRAWN).wait_for(timeout=120_000)
    page.idle()
    assert not errors(page) and page.eval("run.id == lab.find('pretrain').id") == "True"
    page.save()
    saved = (page.server.home / "pages" / f"{page.name}.ipynb").read_text()
    print(f"the saved page has {len(saved)} bytes")
    assert "widget-view" not in saved and len(saved) < 40_000
