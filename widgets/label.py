"""The labeller: which answer is better, which order is right, is this one good? By keys, blind, and nothing gets lost.

The page holds some questions in advance and moves on by itself, so that a fast key never waits and never meets the wrong item.
Every label lies in an outbox of the browser until the store has it on the disk; only then does Python say `saved`.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from labkit import show
from labkit.errors import LabError
from labkit.feedback.session import Question, Session, item_from_answers
from labkit.records import Answer, Vote
from widgets.view import Handler, View

AHEAD = 48  # questions that the page holds: so far can the keys run ahead of a busy kernel
REASONS = ("correct", "on topic", "kind", "clear", "short", "safe")
HINT = "To label, open this page in JupyterLab: labkit lab."
BOX = "flex:1 1 190px;border:1px solid rgba(128,128,128,0.35);border-radius:6px;padding:6px 10px;white-space:pre-wrap"
FAINT = "opacity:.75;font-size:12px"


class LabelView(View):
    """One session, shown. `ask(text)` answers a typed prompt several times (texts, or records whose prompt is then the item's).

    `reasons` are tags to begin with; the person can change them. `on_vote(vote)` is told of every vote and retraction after it
    is stored, on whichever thread the kernel hears messages: keep it quick, the next label waits for it. `renames=False` is
    for a page that has asked for the name already.
    """

    front = "ranking labelface label"

    def __init__(
        self, session: Session, *, ask: Callable[[str], Sequence[str | Answer]] | None = None,
        reasons: Sequence[str] = REASONS, on_vote: Callable[[Vote], Any] | None = None, renames: bool = True,
    ) -> None:  # fmt: skip
        self.session, self.ask, self.reasons, self.on_vote = session, ask, tuple(reasons), on_vote
        self.renames = renames
        self.asking: threading.Thread | None = None
        self._given, self._told = session.rater, set[str]()
        session.typing = ask is not None

    def handlers(self) -> Mapping[str, Handler]:
        heard: dict[str, Handler] = {"letters": self._letters, "mode": self._mode}
        return heard | ({"rater": self._rater} if self.renames else {}) | ({"ask": self._ask} if self.ask else {})

    def snapshot(self) -> dict[str, Any]:
        self._told.clear()
        return {
            "name": self.session.name, "rater": self.session.rater, "given": self._given, "mode": self.session.mode,
            "modes": self.session.modes, "renames": self.renames, "reasons": list(self.reasons), "asks": self.ask is not None, **self._news(),
        }  # fmt: skip

    def _news(self) -> dict[str, Any]:
        """What changes with each label. A question is told once: after that its id is enough."""
        window, recent = self.session.window(AHEAD), self.session.recent(8)
        asked: list[Question] = [*window, *(q for _, q in recent)]
        fresh = {q.id: q for q in asked if q.id not in self._told}
        self._told |= set(fresh)
        return {
            "order": [q.id for q in window],
            "items": [self.session.wire(q) for q in fresh.values()],
            "recent": [[vote.id, question.id] for vote, question in recent],
            "progress": self.session.progress(),
        }

    def _letters(self, message: dict[str, Any]) -> None:
        """Labels and undos in the order in which they were made; what is stored is acknowledged, what is not is told why."""
        saved, refused, votes = [], [], []
        letters = message.get("letters")
        for letter in letters if isinstance(letters, list) else []:
            if not isinstance(letter, dict):
                continue
            try:
                votes.append(self._store(letter))
                saved.append(letter.get("id"))
            except LabError as error:
                refused.append({"id": letter.get("id"), "text": str(error)})
        self.say("saved", ids=saved, refused=refused, **self._news())
        for vote in votes if self.on_vote else []:
            try:
                self.on_vote(vote)  # type: ignore[misc]
            except Exception as error:  # the label is safe; what the page does with it is another matter
                self.say("told", text=f"The page could not draw this vote ({type(error).__name__}: {error}).")

    def _store(self, letter: dict[str, Any]) -> Vote:
        if letter.get("kind") == "undo":
            return self.session.undo(str(letter.get("vote") or "?"), str(letter.get("rater") or ""))
        return self.session.take(letter)

    def _rater(self, message: dict[str, Any]) -> None:
        try:
            self.session.rater = message.get("name", "")
        finally:  # also after a name that is none: the page waits for an answer
            self.say("snapshot", **self.snapshot())

    def _mode(self, message: dict[str, Any]) -> None:
        try:
            self.session.mode = str(message.get("mode", ""))
        finally:
            self.say("snapshot", **self.snapshot())

    def _ask(self, message: dict[str, Any]) -> None:
        text = str(message.get("text") or "").strip()
        assert self.ask  # or there is no such handler
        if not text:
            raise LabError("There is nothing to ask yet: type a prompt first.")
        if self.asking and self.asking.is_alive():
            raise LabError("The model is still answering the last prompt: one moment.")
        self.say("told", text="The model is answering …")
        self.asking = threading.Thread(target=self._sample, args=(self.ask, text, self.session.mode), daemon=True)
        self.asking.start()

    def _sample(self, ask: Callable[[str], Sequence[str | Answer]], text: str, mode: str) -> None:
        try:
            item = item_from_answers(text, ask(text), mode, run=self.session.run)
        except LabError as error:
            self.say("told", text=str(error), failed=True)
            return
        except Exception as error:  # a view must outlive whatever a model does
            self.say(
                "told", text=f"The model failed ({type(error).__name__}: {error}): try another prompt.", failed=True
            )
            return
        with self.lock:
            self.session.add(item, mode)
            self.say("saved", ids=[], refused=[], **self._news())
            self.say("told", text="Your prompt comes next.")

    def static(self) -> show.Html:
        """One item as it would be asked, how many votes there are and whose, and where one can label."""
        parts = [_example(q) for q in self.session.window(1)] or [show.Html("", "Everything here is judged.")]
        votes = self.session.store.votes(run=self.session.run or None, source="person")
        people = [f"{n:,} by {who}" for who, n in Counter(v.rater for v in votes).most_common()]
        simulated = self.session.store.count(run=self.session.run or None, source="simulated")
        people += [f"{simulated:,} by simulated annotators"] if simulated else []
        said = f"Votes so far: {', '.join(people) or 'none'}. {HINT}"
        return show.together([*parts, show.Html(f'<div style="{FAINT}">{show.esc(said)}</div>', said)])


def _example(question: Question) -> show.Html:
    told = {"pair": "Which answer is better?", "ranking": "From best to worst?", "thumb": "Good or bad?"}
    asked, head = question.item.prompt.text, told[question.mode]
    texts = [question.item.answers[i] or "(an empty answer)" for i in question.shown]
    named = [(chr(65 + i) if len(texts) > 1 else "", t) for i, t in enumerate(texts)]
    cards = "".join(
        f'<div style="{BOX}"><div style="{FAINT}">{name}</div>{show.esc(text)}</div>' for name, text in named
    )
    html = (
        f'<div style="{FAINT}">{head}</div><div style="white-space:pre-wrap;margin:4px 0"><b>{show.esc(asked)}</b></div>'
        f'<div style="display:flex;flex-wrap:wrap;gap:8px;margin:4px 0">{cards}</div>'
    )
    return show.Html(html, "\n".join([head, asked, *(f"  {name} | {text}" for name, text in named)]))
