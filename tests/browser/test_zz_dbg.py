import sys
from browser.test_retrain import *


def test_dbg(notebook, tmp_path):
    book = opened(notebook, tmp_path, LABEL, "Board(loop)")
    labeller, view = book.page.locator(".lab-view").first, book.page.locator(LOOP)
    labeller.click(position={"x": 4, "y": 4})
    for _ in range(10):
        book.page.keyboard.press("a")
        book.page.wait_for_timeout(80)
    book.page.wait_for_timeout(1000)
    print(view.inner_text())
    book.run("from labkit import retrain\nretrain.STEPS = dict.fromkeys(retrain.STEPS, 4000)")
    view.get_by_role("button", name="your own judgement").click()
    book.page.keyboard.press("r")
    book.page.wait_for_timeout(500)
    print("--1", view.inner_text()[-200:], book.eval("view.training and view.training.state"))
    view.get_by_role("button", name="Stop").click()
    for _ in range(6):
        book.page.wait_for_timeout(2000)
        print("--2", view.inner_text()[-160:], book.eval("(view.training.state, view.training.said, view._told)"))
