"""`labkit label` with two people at once: each under a name of their own, all votes in one store, none lost and none doubled."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import asked
import pytest

from browser.harness import Tab
from browser.servers import Server, free_port
from labkit.lab import Lab

pytestmark = pytest.mark.slow
VOTES = 6
QUESTION = "() => document.querySelector('.lab-view[data-item]:not([data-item=\"\"])')"
HEARS_KEYS = "() => document.activeElement.matches('.lab-view[data-item]')"


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return asked.preferences(tmp_path / "outputs", asked.plain(12))[0]


@pytest.fixture
def voila(lab: Lab, tmp_path: Path) -> Iterator[Server]:
    port = free_port()
    words = [sys.executable, "-m", "labkit", "label", "--recipe", "smoke", "--outputs", str(lab.outputs)]
    server = Server(tmp_path, [*words, "--port", str(port)], port=port, token="secret", env={"JUPYTER_TOKEN": "secret"})
    server.wait("/voila/static/none")
    yield server
    server.stop()


def test_two_people_judge_at_once(chromium: str, lab: Lab, voila: Server, tab) -> None:
    ada, ben = tab(voila.base), tab(voila.base, theme="dark")
    began = time.monotonic()
    for one in (ada, ben):  # both kernels start at the same time
        one.page.goto(f"{voila.base}/?token={voila.token}", wait_until="commit")
    for one in (ada, ben):
        one.wait("() => document.querySelector('.lab-view input')", 60)
        assert one.axe() == []
    print(f"\ntwo pages painted after {time.monotonic() - began:.1f} s")
    ben.shot("name")
    _enter(ada, "Ada")
    _enter(ben, "")
    ben.wait("() => document.querySelector('.lab-warn').textContent.includes('Type a name')")
    _enter(ben, "Ben")
    for one in (ada, ben):
        one.wait(QUESTION)
        one.wait(HEARS_KEYS)
    for _ in range(VOTES):
        ada.page.keyboard.press("a")
        ben.page.keyboard.press("t")
    assert _stored(lab, 2 * VOTES) == {"Ada": VOTES, "Ben": VOTES}
    votes = lab.votes.votes(source="person")
    assert len({v.id for v in votes}) == len({(v.rater, v.run, v.prompt.id) for v in votes}) == 2 * VOTES
    assert {v.ranks for v in votes if v.rater == "Ben"} == {(1, 1)}
    assert {v.run.removeprefix("repeat:") for v in votes} == {lab.plan("preferences").id}

    for one, name in ((ada, "voila"), (ben, "voila")):
        assert one.axe(".lab-view[data-item]") == []
        one.shot(name, ".lab-view[data-item]")
    ada.page.reload(wait_until="commit")  # another kernel: the page goes on as Ada, where she was
    ada.wait(QUESTION, 60)
    ada.wait(HEARS_KEYS)
    ada.page.keyboard.press("b")
    assert _stored(lab, 2 * VOTES + 1) == {"Ada": VOTES + 1, "Ben": VOTES}
    assert not ada.errors and not ben.errors


def _enter(tab: Tab, name: str) -> None:
    field = tab.page.get_by_role("textbox", name="Your name")
    field.fill(name)
    field.press("Enter")


def _stored(lab: Lab, at_least: int) -> dict[str, int]:
    """Who has how many votes, once there are so many; a moment later, so that one too many would be seen."""
    deadline = time.monotonic() + 20
    while lab.votes.count(source="person") < at_least and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    return dict(Counter(v.rater for v in lab.votes.votes(source="person")))
