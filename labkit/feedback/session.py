"""A labelling session: what a rater is asked next, what a label from a page becomes, and how it is going.

The rater is blind: nothing says whose an answer is, and the sides are shuffled (and recorded in `shown`). A share of the
items comes back later with the sides swapped: the only way to know how often a rater agrees with themselves. Such a second
judgement is stored with run `repeat:<run>` in place of the run, so that it trains nothing: were it to count, one item in ten
would weigh double, and the next reward model would depend on who was asked twice.

Everything about a session can be made again from the items, the seed and the store: after a restart nobody is asked what
they have judged, and a label that waited in a browser meanwhile still finds its item. Neither torch nor a widget is needed.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import islice
from statistics import median
from typing import TYPE_CHECKING, Any

from labkit.errors import LabError
from labkit.feedback.book import Book
from labkit.feedback.items import MODES, Item, item_from_answers, items_from_file, items_from_run
from labkit.feedback.letters import REPEAT, Key, Question, judged, named, rebuilt, sides
from labkit.records import Vote, digest

if TYPE_CHECKING:
    from labkit.feedback.store import VoteStore

__all__ = ["REPEAT", "Item", "Question", "Session", "item_from_answers", "items_from_file", "items_from_run"]
APART = 5  # items between the two times, at least
RECENT = 20  # votes that the pace is measured by


class Session:
    """One store, items to judge, and a rater who can change. `items` is a list for one mode, or a list for each mode.

    `repeats` is the share of items that comes back. Methods raise LabError; nothing counts before the store has it.
    """

    def __init__(
        self, store: VoteStore, items: Sequence[Item] | Mapping[str, Sequence[Item]], rater: str, mode: str = "pair", *,
        repeats: float = 0.1, seed: int = 0,
    ) -> None:  # fmt: skip
        self.store, self.repeats, self.seed = store, repeats, seed
        given = items if isinstance(items, Mapping) else {mode: items}
        if unknown := set(given) - set(MODES):
            raise LabError(f"There is no way of judging called {min(unknown)!r}: choose among {', '.join(MODES)}.")
        self._items = {m: {i.id: i for i in given[m]} for m in MODES if given.get(m)}
        self.typing = False  # whether prompts are typed here: then a label may bring its item
        self._typed: dict[str, Item] = {}
        self._plans: dict[tuple[str, str], dict[Key, Question]] = {}
        self._books: dict[str, Book] = {}
        self._rater, self._mode = named(rater), mode if mode in self._items else next(iter(self._items), mode)
        runs = sorted({i.run for found in self._items.values() for i in found.values()})
        self.run = runs[0] if len(runs) == 1 else ""
        # The name of the outbox in a browser: one store's labels never go to another's, even on one port.
        self.name = f"{self.run or 'labels'}/{digest([store.address, runs], 8)}"

    @property
    def modes(self) -> list[str]:
        """The modes that there are items for."""
        return list(self._items)

    @property
    def mode(self) -> str:
        return self._mode

    @mode.setter
    def mode(self, mode: str) -> None:
        if mode not in self._items:
            raise LabError(
                f"There is nothing to judge as {mode!r} here: choose among {', '.join(self._items) or 'none'}."
            )
        self._mode = mode

    @property
    def rater(self) -> str:
        """Who is judging now; another name has another book, and goes on where that person stopped."""
        return self._rater

    @rater.setter
    def rater(self, name: str) -> None:
        self._rater = named(name)

    def window(self, n: int = 8) -> list[Question]:
        """The next `n` questions for the rater, in a fixed order; what the store already has is left out."""
        done = self.book().standing
        return list(islice((q for key, q in self._questions().items() if key not in done), n))

    def take(self, message: Mapping[str, Any]) -> Vote:
        """Store the label that a page sent; on the disk when this returns. Sent twice, it is stored once.

        The message has `id` (made by the page), `item` (a question's id), `shown` (the answers' keys by place), `ranks` (by
        place), and may have rater, flag, seconds, reasons, edit, time and `whole`. Raises LabError, with nothing stored, for
        an item that is unknown or judged already.
        """
        rater = named(message.get("rater") or self.rater)
        book, letter = self.book(rater), str(message.get("id") or "")
        if letter in book.known:
            return book.known[letter]
        question = self._asked(message)
        if question.key in book.standing:
            raise LabError(
                "This one is judged already, perhaps in another tab: the first vote stands. Throw this one away."
            )
        vote = judged(question, message, rater)
        if self.store.add(vote):
            book.note(vote)
        elif letter not in self.book(rater).known:
            raise LabError("A vote of somebody else has the id of this label: reload the page and judge it again.")
        return vote

    def undo(self, vote_id: str = "", rater: str = "") -> Vote:
        """Take back a vote of the rater, the latest unless one is named; its item comes back. Returns the retraction."""
        rater = named(rater or self.rater)
        book = self.book(rater)
        vote_id = vote_id or next((v.id for v, _ in self.recent(1, rater)), "")
        if not vote_id:
            raise LabError("There is nothing to take back yet.")
        if vote_id not in book.known:
            raise LabError(f"{rater} has given no vote {vote_id!r}: only a stored vote of one's own can be taken back.")
        retraction = self.store.retract(vote_id, rater=rater)
        book.note(retraction)
        return retraction

    def recent(self, n: int = 8, rater: str = "") -> list[tuple[Vote, Question]]:
        """The rater's latest votes that stand, newest first, among the questions of this session."""
        questions, standing = self._plan(rater or self.rater), self.book(rater, fresh=False).standing
        return list(islice(((v, questions[k]) for k, v in reversed(standing.items()) if k in questions), n))

    def progress(self) -> dict[str, Any]:
        """Plain numbers: done, of, pace (a minute), left (seconds), alike of twice (verdicts given a second time).

        Pace and time left go by the median of the latest votes, so that a pause does not count; None before there are three.
        """
        standing, questions = self.book(fresh=False).standing, self._questions()
        done = len(standing.keys() & questions.keys())
        took = [v.seconds for v, _ in self.recent(RECENT) if v.seconds > 0]
        each = median(took) if len(took) >= 3 else None
        alike, twice = self.consistency()
        return {
            "rater": self.rater, "mode": self.mode, "done": done, "of": len(questions),
            "pace": round(60 / each, 1) if each else None, "left": round(each * (len(questions) - done)) if each else None,
            "alike": alike, "twice": twice,
        }  # fmt: skip

    def consistency(self) -> tuple[int, int]:
        """Of the verdicts that the rater gave twice, how many were the same: (alike, all). A ranking of K has K(K−1)/2."""
        again = [key for key in self._plan(self.rater) if key[1].startswith(REPEAT)]
        return self.book(fresh=False).alike(((m, run.removeprefix(REPEAT), i), (m, run, i)) for m, run, i in again)

    def add(self, item: Item, mode: str = "") -> None:
        """Put an item that was just made before all others, in the present mode unless one is named."""
        self._typed[item.id] = item
        self._items[mode or self.mode] = {item.id: item} | self._items.get(mode or self.mode, {})
        self._plans.clear()

    def wire(self, question: Question) -> dict[str, Any]:
        """What a page is told of a question."""
        return question.wire(whole=question.item.id in self._typed)

    def book(self, rater: str = "", *, fresh: bool = True) -> Book:
        """The rater's book; `fresh` reads it again when another program has added to it."""
        rater = rater or self.rater
        book = self._books.get(rater)
        if not book or (fresh and self.store.count(rater=rater, source="person") != len(book.alive)):
            book = self._books[rater] = Book()
            for vote in self.store.history(rater=rater, source="person"):
                book.note(vote)
        return book

    def _questions(self) -> dict[Key, Question]:
        """The plan without second askings of what was skipped."""
        plan, standing = self._plan(self.rater), self.book(fresh=False).standing
        skipped = {(mode, REPEAT + run, i) for (mode, run, i), vote in standing.items() if vote.flag == "skip"}
        return {key: q for key, q in plan.items() if key not in skipped} if skipped else plan

    def _plan(self, rater: str) -> dict[Key, Question]:
        """Every question for a rater in order. The repeats stand at least `APART` items later, and so do not follow the last."""
        if (rater, self.mode) not in self._plans:
            items = list(self._items.get(self.mode, {}).values())
            fixed = [i for i in items if i.id not in self._typed]
            by_lot = sorted(fixed[:-APART], key=lambda i: digest([self.seed, rater, i.id, "again"]))
            twice = {i.id for i in by_lot[: round(self.repeats * len(fixed))]}
            due: dict[int, list[Question]] = {}
            plan = []
            for at, item in enumerate(items):
                plan += [self._question(item, rater), *due.get(at, [])]
                if item.id in twice:
                    later = min(len(items) - 1, at + APART + int(digest([rater, item.id], 2), 16) % APART)
                    due.setdefault(later, []).append(self._question(item, rater, again=True))
            self._plans[rater, self.mode] = {q.key: q for q in plan}
        return self._plans[rater, self.mode]

    def _question(self, item: Item, rater: str, *, again: bool = False) -> Question:
        shown = list(range(len(item.answers)))
        random.Random(f"{self.seed}/{rater}/{item.id}").shuffle(shown)
        return Question(item, self.mode, tuple(reversed(shown) if again else shown), again)

    def _asked(self, message: Mapping[str, Any]) -> Question:
        """The question that a label answers, with the sides as the page had them."""
        mode, _, rest = str(message.get("item") or "").partition(":")
        found, _, again = rest.partition(":")
        item = self._items.get(mode, {}).get(found)
        if not item and self.typing:
            item = rebuilt(message.get("whole"), found, runs=("", self.run))
        if not item:
            raise LabError(
                "This label is for an item that is not asked here: open the page that it was given on, or throw it away."
            )
        return Question(item, mode, sides(item.answers, message.get("shown")), again == "again")
