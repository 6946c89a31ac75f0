"""The harness sees what it is there to see: a journey that finds nothing must have been able to find something."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow

BAD = """
from IPython.display import HTML, Javascript, display
display(HTML('<div class="bad"><button></button><span style="color:#999;background:#aaa">faint</span></div>'))
display(Javascript("fetch('http://elsewhere.invalid/x').catch(() => 0); console.error('oh'); setTimeout(() => alert('hi'))"))
"""


def test_what_leaves_opens_or_fails_is_written_down(notebook):
    book = notebook(["x = 1", BAD], theme="dark")
    book.wait("() => document.querySelector('.bad')")
    book.page.wait_for_timeout(200)
    assert book.offsite == ["http://elsewhere.invalid/x"] and book.dialogs == ["hi"]
    assert any(error.startswith("oh") for error in book.errors)
    assert {line.split(" ")[0] for line in book.axe(".bad")} == {"button-name", "color-contrast"}
    assert "Dark" in book.page.evaluate("() => document.body.dataset.jpThemeName")
    with pytest.raises(AssertionError, match="left the machine"):
        book.check()
    book.requests.clear()
    book.dialogs.clear()
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        book.eval("1/0")


def test_a_failed_cell_fails_the_journey(notebook):
    with pytest.raises(AssertionError, match="KeyError: 'none'"):
        notebook(["{}['none']"])


def test_a_kernel_outlives_a_reload_and_is_another_after_restart_and_kill(notebook):
    book = notebook(["import labkit, widgets\nx = 7"])
    first = book.pid
    book.reload()
    assert book.eval("x") == "7" and book.pid == first
    book.restart()
    second = book.pid
    book.kill()
    book.revive()
    assert len({first, second, book.pid}) == 3
    assert book.eval("'x' in globals()") == "False"
    assert not book.errors
