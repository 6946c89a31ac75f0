"""The button and what it shows: messages, states, exercises and the twin, over a loop that trains nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from labkit import show
from labkit.errors import LabError
from labkit.feedback.session import Item, Session
from labkit.feedback.store import VoteStore
from labkit.records import Prompt
from widgets.retrain import SOON, RetrainView

XSS = "<img src=x onerror=alert(1)>"
TOLD = {
    "title": "Words in an answer: 9.0 → 4.0", "said": "The difference is −5.0 [−6.0, −4.0].", "wins": "",
    "rows": [{"measure": "words in an answer", "before": "9.0", "after": "4.0", "difference": "−5.0 [−6.0, −4.0]", "clear": True}],
    "held_out": [{"judge": "reward model", "on": "your pairs", "n": 6, "before": "–", "after": "83 % [50, 100]"}],
    "examples": [{"prompt": "Who sleeps?", "before": "The old badger sleeps.", "after": "The badger."}],
    "runs": ["dpo_yours-0a1b2c", "reward_yours-3d4e5f"],
}  # fmt: skip


class FakeTraining:
    """A training whose rows and state a test sets; listeners are told as a `Background` tells them."""

    def __init__(self) -> None:
        self.state, self.said, self.rows, self.listeners = "running", "Training.", [], list[Callable[[], None]]()
        self.discarded = 0

    def left(self) -> float | None:
        return 12.0 if self.rows else None

    def discard(self) -> None:
        self.discarded += 1
        self.become("stopped", "Retraining was stopped, and nothing of it is kept.")

    def become(self, state: str, said: str = "") -> None:
        self.state, self.said = state, said
        for listen in self.listeners:
            listen()


class FakeLoop:
    """Thirty votes of Ada's, two exercises, and a training that does what the test says."""

    methods = {"dpo": "DPO", "kto": "KTO"}
    mixes = {"mine": "alone", "mixed": "mixed"}

    def __init__(self, folder: Path) -> None:
        self.rater, self.last, self.listeners = "Ada", None, list[Callable[[Any], None]]()
        self.store = VoteStore(f"sqlite:///{folder / 'votes.sqlite'}")
        self.started: list[dict[str, Any]] = []
        self.training, self.warmed, self.votes = FakeTraining(), 0, 30

    def exercises(self) -> list[dict[str, Any]]:
        rows = [("short", "Short", "Take the shorter.", "words", "dpo"), ("place", XSS, "Name it.", "stories", "kto")]
        return [{**dict(zip(("name", "title", "rule", "measure", "method"), r, strict=True)), "of": 30} for r in rows]

    def practice(self, exercise: str) -> Session:
        return Session(
            self.store, [Item.of(Prompt.of("Who?"), ("a", "b"), f"exercise:{exercise}:p")], self.rater, repeats=0
        )

    def counts(self, exercise: str = "") -> dict[str, int]:
        own = {"votes": self.votes, "pairs": 24, "thumbs": 0, "edits": 1, "simulated": 0, "held_out": 6}
        return dict.fromkeys(own, 0) if exercise else own

    def start(self, **how: Any) -> FakeTraining:
        if self.votes < 5:
            raise LabError("There are 3 votes to train on, and 5 are needed: label some more.")
        self.started.append(how)
        return self.training

    def warm(self) -> None:
        self.warmed += 1

    def hear(self, vote: Any) -> None:
        for listen in self.listeners:
            listen(vote)


@pytest.fixture
def loop(tmp_path: Path) -> FakeLoop:
    return FakeLoop(tmp_path)


@pytest.fixture
def view(loop: FakeLoop) -> RetrainView:
    """With `told`, the messages that a page would have got."""
    made = RetrainView(loop)
    made.told = []  # type: ignore[attr-defined]
    made.widget.send = lambda content, **_: made.told.append(json.loads(json.dumps(content)))  # type: ignore[attr-defined]
    return made


def last(view: Any) -> dict[str, Any]:
    return view.told[-1]


def test_ready_is_answered_with_all_that_is_shown(view: RetrainView) -> None:
    view.hear({"kind": "ready"})
    told = last(view)
    assert told["kind"] == "snapshot" and told["methods"] == [["dpo", "DPO"], ["kto", "KTO"]]
    assert (told["method"], told["mix"], told["exercise"], told["state"], told["result"]) == (
        "dpo",
        "mine",
        "",
        "idle",
        None,
    )
    assert (
        told["counts"]["pairs"] == 24
        and told["rater"] == "Ada"
        and [e["name"] for e in told["exercises"]] == ["short", "place"]
    )


def test_what_is_chosen_is_what_is_started(view: RetrainView, loop: FakeLoop) -> None:
    """Only what there is can be chosen."""
    view.hear({"kind": "choose", "method": "kto", "mix": "mixed"})
    view.hear({"kind": "choose", "method": "ppo", "mix": ["mine"].__repr__()})
    view.hear({"kind": "start"})
    assert loop.started == [{"method": "kto", "mix": "mixed", "exercise": ""}] and last(view)["state"] == "running"


def test_an_exercise_brings_its_method_and_its_pairs_and_can_be_left(view: RetrainView, loop: FakeLoop) -> None:
    view.hear({"kind": "begin"})
    assert last(view)["kind"] == "error" and "Choose an exercise" in last(view)["text"]
    view.hear({"kind": "exercise", "name": "place"})
    assert (last(view)["exercise"], last(view)["method"], last(view)["counts"]["votes"]) == ("place", "kto", 0)
    view.hear({"kind": "begin"})
    assert len(view.box.children) == 2 and view.box.children[0] is view.widget
    view.hear({"kind": "start"})
    assert loop.started[-1]["exercise"] == "place"
    view.hear({"kind": "exercise", "name": "nothing"})
    assert last(view)["exercise"] == "" and len(view.box.children) == 1


def test_too_few_votes_are_said_in_the_page(view: RetrainView, loop: FakeLoop) -> None:
    loop.votes = 3
    view.hear({"kind": "start"})
    assert last(view)["kind"] == "error" and "5 are needed" in last(view)["text"] and view.training is None


def test_progress_is_told_at_most_four_times_a_second_and_the_end_at_once(
    view: Any, loop: FakeLoop, monkeypatch: Any
) -> None:
    clock = [0.0]
    monkeypatch.setattr("widgets.retrain.time", SimpleNamespace(monotonic=lambda: clock[0]))
    view.hear({"kind": "start"})
    n = len(view.told)
    for step in range(1, 41):
        clock[0] += 0.05
        loop.training.rows.append({"step": step, "of": 100, "seconds": clock[0], "part": "dpo_yours"})
        loop.training.become("running")
    assert 7 <= len(view.told) - n <= 9, "two seconds"
    assert last(view)["left"] == 12.0 and 0.3 < last(view)["share"] <= 0.4 and "DPO" in last(view)["doing"]
    loop.last = SimpleNamespace(told=lambda: json.loads(json.dumps(TOLD)))
    loop.training.become("finished")
    told = last(view)
    assert told["state"] == "finished" and told["result"]["title"] == TOLD["title"]
    [example] = told["result"]["examples"]
    assert "".join(text for op, text in example["before"] if op != "gone") == "The old badger sleeps."
    assert [text.strip() for op, text in example["before"] if op == "new"] == ["old", "sleeps"]
    assert "".join(text for op, text in example["after"] if op != "gone") == "The badger."


def test_stop_gives_the_training_up_and_says_so(view: Any, loop: FakeLoop) -> None:
    view.hear({"kind": "stop"})
    assert not loop.training.discarded, "nothing runs yet"
    view.hear({"kind": "start"})
    view.hear({"kind": "stop"})
    assert (
        loop.training.discarded == 1
        and last(view)["state"] == "stopped"
        and "nothing of it is kept" in last(view)["said"]
    )


def test_figures_that_cannot_be_drawn_do_not_leave_the_page_waiting(view: Any, loop: FakeLoop) -> None:
    view.hear({"kind": "start"})
    loop.last = SimpleNamespace(told=lambda: 1 / 0)
    loop.training.become("finished")
    assert last(view)["state"] == "failed" and "ZeroDivisionError" in last(view)["said"]


def test_votes_from_another_cell_are_counted_and_after_some_the_imports_begin(view: Any, loop: FakeLoop) -> None:
    for n in range(SOON):
        assert loop.warmed == 0
        loop.hear(object())
        assert len(view.told) == n + 1
    assert loop.warmed == 1
    view.hear({"kind": "look"})
    assert last(view)["kind"] == "news"


def test_the_twin_says_what_there_is_and_then_what_came_of_it(loop: FakeLoop, monkeypatch: Any) -> None:
    """Untrusted words stand in it as words only."""
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    view = RetrainView(loop)
    twin = view.static()
    assert "30 votes by Ada" in twin.text and "labkit lab" in twin.text and "Take the shorter." in twin.text
    assert XSS in twin.text and XSS not in twin.html and show.esc(XSS) in twin.html
    told = json.loads(json.dumps(TOLD))
    told["examples"][0]["after"] = XSS
    loop.last = SimpleNamespace(told=lambda: told)
    bundle = view._repr_mimebundle_()
    assert set(bundle) == {"text/html", "text/plain"} and XSS not in bundle["text/html"]
    assert "9.0 → 4.0" in bundle["text/plain"] and "83 % [50, 100]" in bundle["text/html"]
    loop.last, loop.votes = None, 0
    assert "Nobody has voted here yet" in RetrainView(loop).static().text
