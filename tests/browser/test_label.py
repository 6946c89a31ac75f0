"""Labelling in a real page: fast keys meet the right items, and nothing is lost or doubled, whatever breaks meanwhile."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from browser.harness import KERNEL, Notebook
from labkit.feedback.items import Item
from labkit.feedback.session import Question, Session
from labkit.feedback.store import VoteStore
from labkit.records import Prompt, Vote

pytestmark = pytest.mark.slow
NASTY = "<img src=x onerror=alert(1)>"
SETUP = """
from labkit.feedback.items import Item
from labkit.feedback.session import Session
from labkit.feedback.store import VoteStore
from labkit.records import Prompt
from widgets.label import LabelView
def items(k):
    prompts = [Prompt.of("Question %d? {nasty}" % n) for n in range(60)]
    return [Item.of(p, ["Answer %d to: %s" % (i, p.text) for i in range(k)], "preferences-0a1b2c") for p in prompts]
modes = dict(pair=items(2), ranking=items(4), thumb=items(1))
session = Session(VoteStore("{address}"), modes, "ada", "{mode}", repeats=0)
view = LabelView(session, ask=lambda text: [text + " yes", text + " no"])
"""
TRAIN = """
import labkit
from labkit.background import train
few = {{"pretrain.tokens": 4_000_000, "pretrain.threads": 1}}
training = train(labkit.open("smoke", few, outputs={outputs!r}), "pretrain")
"""
TIMED = """async (keys) => {
  const root = document.querySelector('.lab-view'), times = [];
  for (const key of keys) {
    const begun = performance.now();
    root.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true, cancelable: true}));
    while (root.dataset.unsaved !== '0') await new Promise((done) => setTimeout(done, 1));
    times.push(performance.now() - begun);
  }
  return times;
}"""
VERDICTS = {"a": ((1, 2), ""), "b": ((2, 1), ""), "t": ((1, 1), ""), "x": ((1, 1), "both_bad"), "s": ((), "skip")}


class Page:
    """A notebook with the labeller in it, and the store behind it seen from outside."""

    def __init__(self, notebook: Callable[..., Notebook], tmp_path: Path, mode: str) -> None:
        self.folder, address = tmp_path, f"sqlite:///{tmp_path / 'votes.sqlite'}"
        self.store = VoteStore(address)
        self.book = notebook([SETUP.format(address=address, mode=mode, nasty=NASTY), "view"])
        self.keyboard = self.book.page.keyboard
        self.cells = self.count_cells()
        self.begin()

    def begin(self) -> None:
        """Wait for a question, and put the focus where the keys are heard."""
        self.book.wait("() => document.querySelector('.lab-view')?.dataset.item")
        self.book.front()
        self.book.page.locator(".label-prompt").click()

    def press(self, keys: str) -> None:
        for key in keys:
            self.keyboard.press(key)

    def at_once(self, keys: str) -> None:
        """All keys in one go: no message of Python comes in between."""
        down = "[...keys].forEach(key => root.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true, cancelable: true})))"
        self.book.page.evaluate(f"keys => {{ const root = document.querySelector('.lab-view'); {down}; }}", keys)

    def stop(self) -> int:
        """The kernel's process stands still and hears nothing; returns its id, to let it go on."""
        pid = self.book.pid
        os.kill(pid, signal.SIGSTOP)
        return pid

    def unsaved(self, n: int) -> None:
        self.book.wait(f"() => document.querySelector('.lab-view')?.dataset.unsaved === '{n}'", seconds=40)

    def votes(self, n: int) -> list[Vote]:
        """The `n` votes that stand, in the order in which they were given, once all are saved."""
        self.unsaved(0)
        stands = {v.id for v in self.store.votes(rater="ada")}
        votes = [v for v in self.store.history(rater="ada") if v.id in stands]
        assert len(votes) == n == len({v.id for v in self.store.history()}) - 2 * self.undone()
        return votes

    def undone(self) -> int:
        return sum(bool(v.retracts) for v in self.store.history())

    def questions(self, n: int) -> list[Question]:
        """What a fresh rater is asked, in order."""
        made = [Prompt.of(f"Question {i}? {NASTY}") for i in range(60)]
        items = [Item.of(p, [f"Answer {i} to: {p.text}" for i in range(2)], "preferences-0a1b2c") for p in made]
        empty = VoteStore(self.store.address.replace("votes.sqlite", "empty.sqlite"))
        return Session(empty, items, "ada", repeats=0).window(n)

    def meant(self, keys: str, questions: list[Question]) -> list[Any]:
        """What these keys say of these questions: prompt, ranks of the answers, flag."""
        found = []
        for key, question in zip(keys, questions, strict=True):
            ranks, flag = VERDICTS[key]
            by_answer = tuple(rank for _, rank in sorted(zip(question.shown, ranks, strict=False)))
            found.append((question.item.prompt.id, by_answer, flag))
        return found

    def count_cells(self) -> int:
        return self.book.page.evaluate("() => jupyterapp.shell.currentWidget.content.widgets.length")

    def texts(self, selector: str) -> list[str]:
        return self.book.page.locator(f".lab-view {selector}").all_inner_texts()

    def timed(self, keys: str) -> list[float]:
        """Milliseconds from each key until its vote is in the store, one key after the other."""
        return self.book.awaited(TIMED, list(keys))


def said(votes: list[Vote]) -> list[Any]:
    return [(v.prompt.id, v.ranks, v.flag) for v in votes]


@pytest.fixture
def labeller(notebook: Callable[..., Notebook], tmp_path: Path) -> Callable[..., Page]:
    return lambda mode="pair": Page(notebook, tmp_path, mode)


def test_twenty_keys_in_a_burst_meet_twenty_items(labeller: Callable[..., Page]) -> None:
    """All within one task of the page, then again key by key as fast as they come; no key reaches JupyterLab's command mode."""
    page, keys = labeller(), "abtxs" * 4
    page.at_once(keys)
    page.press(keys)
    votes = page.votes(40)
    assert said(votes) == page.meant(keys * 2, page.questions(40))
    assert all(0 <= v.seconds < 60 for v in votes)
    assert page.count_cells() == page.cells and not page.book.errors
    assert "40 of 60" in page.texts(".label-pace")[0]


def test_a_pair_with_reasons_and_a_better_answer_then_undo(labeller: Callable[..., Page]) -> None:
    page = labeller()
    assert page.book.page.locator(".lab-view img").count() == 0 and NASTY in page.texts(".label-prompt")[0]
    page.press("a13e")
    page.keyboard.type("dd, said <b>nobody</b>.")
    page.book.look("label-pair")
    page.keyboard.press("Control+Enter")  # neither runs the cell nor breaks a line
    page.press("x")
    page.keyboard.press("ArrowRight")
    first, second, third = page.votes(3)
    assert (second.flag, second.reasons, second.edit) == ("both_bad", ("correct", "kind"), "dd, said <b>nobody</b>.")
    assert (first.reasons, first.edit, third.edit) == ((), "", "")
    assert third.ranks[third.shown[1]] == 1
    page.press("uub")
    assert said(page.votes(2))[1] == page.meant("b", [page.questions(2)[1]])[0]
    page.book.page.get_by_role("button", name="Undo").click()
    page.press("a")  # the focus is back where keys are heard
    assert said(page.votes(2))[1] == page.meant("a", [page.questions(2)[1]])[0]
    assert page.count_cells() == page.cells and not page.book.errors


def test_a_ranking_by_keys_and_by_dragging(labeller: Callable[..., Page]) -> None:
    """B before A, D as good as C; then, by hand, the last card to the top."""
    page = labeller("ranking")
    for key in ["ArrowDown", " ", "ArrowUp", " ", "ArrowDown", "ArrowDown", "ArrowDown", "="]:
        page.keyboard.press(key)
    page.book.look("label-ranking")
    page.keyboard.press("Enter")
    [vote] = page.votes(1)
    assert [vote.ranks[i] for i in vote.shown] == [2, 1, 3, 3] and len(vote.pairs()) == 5

    grips = page.book.page.locator(".label-grip")
    start, goal = grips.nth(3).bounding_box(), grips.nth(0).bounding_box()
    page.book.page.mouse.move(start["x"] + 5, start["y"] + 5)
    page.book.page.mouse.down()
    page.book.page.mouse.move(goal["x"] + 5, goal["y"] - 2, steps=5)
    page.book.page.mouse.up()
    page.book.page.get_by_role("button", name="Save this order").click()
    vote = page.votes(2)[1]
    assert [vote.ranks[i] for i in vote.shown] == [2, 3, 4, 1]

    page.press("41")  # the first card to place 4, and back
    page.keyboard.press("ArrowDown")
    page.press("1")
    page.keyboard.press("Enter")
    vote = page.votes(3)[2]
    assert [vote.ranks[i] for i in vote.shown] == [2, 1, 3, 4]
    page.press("x")
    assert page.votes(4)[3].flag == "both_bad"
    assert page.count_cells() == page.cells and not page.book.errors


def test_thumbs_another_mode_and_another_rater(labeller: Callable[..., Page]) -> None:
    page = labeller("thumb")
    page.book.look("label-thumb")
    page.press("gbs")
    assert [(v.ranks, v.flag) for v in page.votes(3)] == [((1,), ""), ((2,), ""), ((), "skip")]
    page.book.page.get_by_role("button", name="Pairs").click()
    page.book.wait("() => document.querySelector('.lab-view').dataset.item.startsWith('pair')")
    page.press("a")
    assert page.votes(4)[3].mode == "pair"
    page.book.page.get_by_label("Your name").fill("bo")
    page.keyboard.press("Enter")
    page.book.wait("() => document.querySelector('.label-pace').textContent.startsWith('0 of 60')")
    page.book.page.locator(".label-prompt").click()
    page.press("b")
    page.unsaved(0)
    assert page.store.raters() == {"bo": 1, "ada": 4}
    page.book.restart()
    page.book.run_all()  # the cell says ada again, but it was bo who sat here
    page.book.wait("() => document.querySelector('.lab-view')?.dataset.item.startsWith('thumb')")
    assert page.book.page.get_by_label("Your name").input_value() == "bo"
    assert page.texts(".label-reasons button")[:2] == ["correct", "on topic"]


def test_a_typed_prompt_comes_after_the_one_on_the_screen(labeller: Callable[..., Page]) -> None:
    page = labeller()
    before = page.texts(".label-prompt")
    page.book.page.get_by_label("A prompt of your own").fill(f"Who? {NASTY}")
    page.keyboard.press("Enter")
    page.book.wait("() => document.querySelector('.label-news').textContent.includes('comes next')")
    assert page.texts(".label-prompt") == before
    page.press("a")
    assert page.texts(".label-prompt") == [f"Who? {NASTY}"]
    page.press("b")
    assert page.votes(2)[1].prompt.kind == "typed"


def test_a_refused_label_says_why_and_holds_nothing_up(labeller: Callable[..., Page]) -> None:
    """A label from elsewhere lies in the outbox; it waits until the person throws it away."""
    page = labeller()
    page.press("a")
    page.votes(1)
    stray = "{kind: 'label', id: 'stray', rater: 'ada', item: 'pair:elsewhere', shown: [], ranks: [1, 2]}"
    key = "Object.keys(localStorage).find(k => k.startsWith('labkit:label/'))"
    page.book.page.evaluate(f"() => localStorage.setItem({key}, JSON.stringify({{stray: {stray}}}))")
    page.press("b")
    page.book.wait("() => document.querySelector('.label-trouble').textContent.includes('not asked here')")
    page.unsaved(1)
    assert page.store.count() == 2 and page.texts(".label-unsaved") == ["1 not yet saved"]
    page.book.page.wait_for_timeout(500)  # until the warning has its colour
    assert not page.book.axe()
    page.book.page.get_by_role("button", name="Throw away").click()
    page.press("a")
    assert said(page.votes(3)) == page.meant("aba", page.questions(3))


def test_votes_that_the_kernel_has_not_heard_survive_a_reload(labeller: Callable[..., Page]) -> None:
    page = labeller()
    page.book.save()
    pid = page.stop()
    page.press("abxub")
    page.unsaved(5)  # four labels and an undo
    assert page.texts(".label-unsaved") == ["5 not yet saved"] and page.store.count() == 0
    threading.Timer(2, os.kill, (pid, signal.SIGCONT)).start()
    page.book.reload(save=False)
    page.begin()
    page.press("a")
    assert said(page.votes(4)) == page.meant("abba", page.questions(4))
    assert page.undone() == 1


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_votes_survive_the_kernels_end(labeller: Callable[..., Page], how: str) -> None:
    """Labels, a typed prompt's among them, are given to a kernel that dies; those it had not stored reach the next one."""
    page = labeller()
    page.press("ab")
    page.votes(2)
    page.book.page.get_by_label("A prompt of your own").fill("Who?")
    page.keyboard.press("Enter")
    page.book.wait("() => document.querySelector('.label-news').textContent.includes('comes next')")
    page.stop()
    page.press("abt")
    page.unsaved(3)
    if how == "restart":
        page.book.restart()
    else:
        page.book.kill()
        page.at_once("x")  # nobody is there to hear it
        page.book.revive()
    page.unsaved(3 if how == "restart" else 4)
    assert page.store.count() == 2
    page.book.run_all()
    page.begin()
    votes = page.votes(5 if how == "restart" else 6)
    assert votes[3].prompt.text == "Who?" and votes[3].prompt.kind == "typed"
    plain = [v for v in votes if v.prompt.kind != "typed"]
    keys = "abat" if how == "restart" else "abatx"
    assert said(plain) == page.meant(keys, page.questions(len(keys)))


def test_labels_are_saved_while_a_model_trains(labeller: Callable[..., Page]) -> None:
    """In the kernel that holds the labeller a model trains: its votes still reach the store, each before the next is given."""
    page, keys = labeller(), "abtxs" * 4
    idle = page.timed(keys)
    page.book.run(TRAIN.format(outputs=str(page.folder)))
    page.book.run("import time\nwhile len(training.rows) < 5:\n    time.sleep(.1)")
    busy = page.timed(keys)
    assert page.book.eval("training.thread.is_alive()") == "True"
    for when, times in (("idle", idle), ("while training", busy)):
        print(f"{when}: median {sorted(times)[len(times) // 2]:.0f} ms, worst {max(times):.0f} ms of {len(times)}")
    page.book.run("training.stop()\ntraining.discard()\ntraining.thread.join()")
    assert said(page.votes(40)) == page.meant(keys * 2, page.questions(40))


def test_votes_wait_while_the_connection_is_cut(labeller: Callable[..., Page]) -> None:
    page = labeller()
    page.book.page.context.set_offline(True)
    page.book.page.evaluate(f"() => {KERNEL}.session.kernel._ws.close()")
    page.press("abtxs")
    page.unsaved(5)
    assert page.store.count() == 0
    page.book.page.context.set_offline(False)
    page.book.awaited(f"async () => {{ await {KERNEL}.session.kernel.reconnect(); }}")
    page.press("a")
    assert said(page.votes(6)) == page.meant("abtxsa", page.questions(6))
