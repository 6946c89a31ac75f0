"""The labeller's Python side: what it tells a page, when it says `saved`, and what stands where no page listens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from labkit.errors import LabError
from labkit.feedback.items import Item
from labkit.feedback.session import Session
from labkit.feedback.store import VoteStore
from labkit.records import Prompt, Vote
from widgets.label import AHEAD, LabelView
from widgets.view import sources

RUN = "preferences-0a1b2c"
NASTY = "<img src=x onerror=alert(1)><script>alert(2)</script>"


class Heard(LabelView):
    """A labeller whose words are kept instead of sent, as JSON would carry them."""

    def say(self, kind: str, **content: Any) -> None:
        if not hasattr(self, "said"):
            self.said: list[dict[str, Any]] = []
        self.said.append(json.loads(json.dumps({"kind": kind, **content})))

    def answer(self, kind: str, **content: Any) -> dict[str, Any]:
        """The last thing that was said in answer to a message."""
        self.hear({"kind": kind, **content})
        return self.said[-1]


@pytest.fixture
def store(tmp_path: Path) -> VoteStore:
    return VoteStore(f"sqlite:///{tmp_path / 'votes.sqlite'}")


def items(n: int, k: int = 2) -> list[Item]:
    return [Item.of(Prompt.of(f"Question {i}?"), [f"Answer {i}-{j}" for j in range(k)], RUN) for i in range(n)]


@pytest.fixture
def view(store: VoteStore) -> Heard:
    return Heard(Session(store, items(80), "ada", repeats=0))


def letter(question: dict[str, Any], name: str, rater: str = "ada", **more: Any) -> dict[str, Any]:
    keys = [a["key"] for a in question["answers"]]
    return {"kind": "label", "id": name, "item": question["id"], "rater": rater, "shown": keys, "ranks": [1, 2], **more}


def test_ready_is_answered_with_questions_that_name_nobody(view: Heard) -> None:
    told = view.answer("ready")
    assert told["kind"] == "snapshot" and told["rater"] == told["given"] == "ada"
    assert told["order"] == [q["id"] for q in told["items"]] and len(told["order"]) == AHEAD
    assert set(told["items"][0]) == {"id", "mode", "turns", "answers"}
    assert set(told["items"][0]["answers"][0]) == {"key", "text"}
    assert "sft" not in json.dumps(told["items"]) and "train" not in json.dumps(told["items"])


def test_saved_is_said_after_the_store_has_it(view: Heard, store: VoteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    questions = view.answer("ready")["items"]
    full = LabError("The vote store cannot be used (full): free some space.")

    def fails(*votes: Vote) -> int:
        raise full

    monkeypatch.setattr(store, "add", fails)
    told = view.answer("letters", letters=[letter(questions[0], "one")])
    assert told["ids"] == [] and told["refused"] == [{"id": "one", "text": str(full)}]
    assert told["order"][0] == questions[0]["id"]
    monkeypatch.undo()
    monkeypatch.setattr(view, "say", lambda kind, **content: seen.append((kind, content["ids"], store.count())))
    seen: list[Any] = []
    view.hear({"kind": "letters", "letters": [letter(questions[0], "one"), letter(questions[1], "two")]})
    assert seen == [("saved", ["one", "two"], 2)]


def test_a_question_is_told_once(view: Heard) -> None:
    questions = view.answer("ready")["items"]
    told = view.answer("letters", letters=[letter(q, q["id"]) for q in questions[:3]])
    assert len(told["items"]) == 3 and len(told["order"]) == AHEAD
    assert not {q["id"] for q in told["items"]} & {q["id"] for q in questions}
    assert told["recent"] == [[q["id"], q["id"]] for q in reversed(questions[:3])]
    assert told["progress"]["done"] == 3
    again = view.answer("ready")  # a reload
    assert {q["id"] for q in again["items"]} == {*again["order"], *(q["id"] for q in questions[:3])}


def test_label_undo_label_in_one_go_stands_as_the_last(view: Heard, store: VoteStore) -> None:
    """What a page sends after a reload: everything that waited, in its order; sent twice, because a word got lost."""
    question = view.answer("ready")["items"][0]
    undo = {"kind": "undo", "id": "undo-one", "vote": "one", "rater": "ada"}
    letters = [letter(question, "one"), undo, letter(question, "two", ranks=[2, 1])]
    for _ in range(2):
        assert view.answer("letters", letters=letters)["ids"] == ["one", "undo-one", "two"]
    assert [v.id for v in store.votes()] == ["two"] and len(store.history()) == 3


def test_damaged_letters_hold_nobody_up(view: Heard, store: VoteStore) -> None:
    question = view.answer("ready")["items"][0]
    wrong = [None, "x", 7, {}, {"kind": "undo", "id": "u"}, {"kind": "label", "id": "w", "item": "pair:nothing"}]
    told = view.answer("letters", letters=[*wrong, letter(question, "one")])
    assert told["ids"] == ["one"] and store.count() == 1
    assert [r["id"] for r in told["refused"]] == [None, "u", "w"] and all(len(r["text"]) > 20 for r in told["refused"])
    assert view.answer("letters", letters="nonsense")["ids"] == []
    assert view.answer("letters")["kind"] == "saved"
    assert view.answer("unheard-of")["kind"] == "saved"


def test_the_page_is_told_of_votes_and_cannot_break_the_labeller(view: Heard) -> None:
    heard: list[Vote] = []
    question = view.answer("ready")["items"][0]
    view.on_vote = heard.append
    view.hear({"kind": "letters", "letters": [letter(question, "one"), {"kind": "undo", "id": "u", "vote": "one"}]})
    assert [(v.id, v.retracts) for v in heard] == [("one", ""), ("undo-one", "one")]

    def breaks(vote: Vote) -> None:
        raise RuntimeError("no ink")

    view.on_vote = breaks
    told = view.answer("letters", letters=[letter(question, "two")])
    assert view.said[-2]["ids"] == ["two"] and "no ink" in told["text"]


def test_another_name_starts_its_own_queue(view: Heard, store: VoteStore) -> None:
    question = view.answer("ready")["items"][0]
    view.answer("letters", letters=[letter(question, "one")])
    told = view.answer("rater", name="bo")
    assert (told["kind"], told["rater"], told["given"], told["progress"]["done"]) == ("snapshot", "bo", "ada", 0)
    assert question["id"] in told["order"] and told["name"] == view.snapshot()["name"]
    view.answer("letters", letters=[letter(told["items"][0], "two", "bo"), letter(told["items"][1], "three", "ada")])
    assert store.raters() == {"bo": 1, "ada": 2}
    error = view.answer("rater", name="  ")
    assert error["kind"] == "error" and view.said[-2]["kind"] == "snapshot" and view.said[-2]["rater"] == "bo"


def test_a_page_that_has_asked_for_the_name_keeps_it(store: VoteStore) -> None:
    view = Heard(Session(store, items(3), "ada"), renames=False)
    assert view.answer("ready")["renames"] is False
    view.hear({"kind": "rater", "name": "bo"})
    assert view.session.rater == "ada" and len(view.said) == 1


def test_modes_change_only_where_there_are_items(store: VoteStore) -> None:
    view = Heard(Session(store, {"pair": items(3), "thumb": items(3, 1)}, "ada"))
    assert view.answer("ready")["modes"] == ["pair", "thumb"]
    told = view.answer("mode", mode="thumb")
    assert told["mode"] == "thumb" and {q["mode"] for q in told["items"]} == {"thumb"}
    assert view.answer("mode", mode="ranking")["kind"] == "error"
    assert view.session.mode == "thumb"


def test_a_typed_prompt_is_answered_beside_the_page_and_comes_next(store: VoteStore) -> None:
    view = Heard(Session(store, items(3), "ada"), ask=lambda text: [f"{text} yes", f"{text} no"])
    assert view.answer("ready")["asks"]
    view.hear({"kind": "ask", "text": " Who? "})
    assert view.asking
    view.asking.join(10)
    saved, told = view.said[-2:]
    assert told["text"] == "Your prompt comes next." and saved["order"][0] == saved["items"][0]["id"]
    assert saved["items"][0]["turns"] == [{"role": "user", "content": "Who?"}]
    assert view.answer("letters", letters=[letter(saved["items"][0], "one", whole=saved["items"][0]["whole"])])["ids"]
    assert store.votes()[0].prompt.kind == "typed" and store.votes()[0].run == RUN
    assert "type a prompt" in view.answer("ask", text=" ")["text"]


@pytest.mark.parametrize(
    ("error", "said"),
    [(LabError("Run page 02 first."), "Run page 02 first."), (KeyError("lost"), "The model failed (KeyError")],
)
def test_a_model_that_fails_is_a_sentence(store: VoteStore, error: Exception, said: str) -> None:
    def ask(text: str) -> Sequence[str]:
        raise error

    view = Heard(Session(store, items(3), "ada"), ask=ask)
    view.answer("ready")
    view.hear({"kind": "ask", "text": "Who?"})
    assert view.asking
    view.asking.join(10)
    assert view.said[-1]["text"].startswith(said) and view.said[-1]["failed"]
    assert len(view.session.window()) == 3


def test_without_a_model_nothing_can_be_asked(view: Heard) -> None:
    assert not view.answer("ready")["asks"]
    before = len(view.said)
    view.hear({"kind": "ask", "text": "Who?"})
    assert len(view.said) == before and view.asking is None


@pytest.mark.parametrize(
    ("mode", "k", "head"), [("pair", 2, "better"), ("ranking", 4, "best to worst"), ("thumb", 1, "Good or bad")]
)
def test_without_a_page_an_example_stands_there_escaped(
    store: VoteStore, mode: str, k: int, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    answers = [f"{NASTY}{i}" for i in range(k - 1)] + [""]
    session = Session(store, [Item.of(Prompt.of(NASTY), answers, RUN), *(items(1, k))], NASTY, mode)
    view = LabelView(session)
    shown = view._repr_mimebundle_()
    assert (
        set(shown) == {"text/html", "text/plain"} and head in shown["text/plain"] and "labkit lab" in shown["text/html"]
    )
    assert "<img" not in shown["text/html"] and "<script" not in shown["text/html"] and "&lt;img" in shown["text/html"]
    assert "(an empty answer)" in shown["text/html"] and "Votes so far: none." in shown["text/plain"]
    while window := session.window():
        q = window[0].wire()
        session.take({**letter(q, q["id"], NASTY), "flag": "skip"})
    assert f"2 by {NASTY}" in view.static().text and "Everything here is judged" in view.static().text
    assert "<img" not in view.static().html


def test_the_front_end_sets_no_html_and_asks_no_address() -> None:
    made = sources(LabelView.front)
    assert (
        "innerHTML" not in made["_esm"].replace("nothing here sets innerHTML", "")
        and "insertAdjacentHTML" not in made["_esm"]
    )
    assert "http" not in made["_esm"] + made["_css"] and "import " not in made["_esm"]
    assert made["_esm"].rstrip().endswith("export default { render };")
