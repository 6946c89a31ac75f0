"""The arena's booth: draws blind rounds, takes the letters in which votes arrive, and keeps the standings."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from labkit import arena, theme
from labkit.compare import Comparison
from labkit.errors import LabError
from labkit.feedback.store import check
from labkit.records import Answer, Prompt, digest
from labkit.runs import Run
from widgets.asking import Model, Question
from widgets.stored import asked, facts

if TYPE_CHECKING:
    from labkit.feedback.store import VoteStore

SIDES = ("A", "B")


class Booth:
    """One store and one rater. `round` is what the page shows in the arena now, or None before the first."""

    def __init__(self, store: VoteStore, rater: str, *, seed: int | None = None) -> None:
        self.store, self.rater = store, rater
        self.rng = random.Random(seed)
        self.round: dict[str, Any] | None = None
        self.question: Question | None = None
        self._facts: list[list[list[str]]] = []

    @property
    def outbox(self) -> str:
        """The name under which the browser keeps votes that are not yet stored: one store's never go to another."""
        return f"arena-{digest(self.store.address, 12)}"

    def draw(self, c: Comparison, among: Sequence[str]) -> None:
        """A new round of two stored answers to an evaluation prompt."""
        prompt, pair = arena.draw(c, among, self.rng)
        self._show(prompt, {name: c.runs.get(name) for name in pair}, pair, live=False)

    def ask(
        self, text: str, models: Mapping[str, Model], runs: Mapping[str, Run | None], how: Mapping[str, Any], *,
        say: Callable[..., None], done: Callable[[Question], None], warm: set[Any],
    ) -> None:  # fmt: skip
        """A new round of two models that answer a typed prompt now; nobody can vote before both are there."""
        if len(models) < 2:
            raise LabError("A round needs two models that can answer: choose more models.")
        names = self.rng.sample(list(models), 2)
        self._show(Prompt.of(text.strip(), kind="typed"), {n: runs.get(n) for n in names}, {}, live=True)
        sides = {side: models[name] for side, name in zip(SIDES, names, strict=True)}
        self.question = Question(text, sides, how, say=say, done=done, warm=warm).start()

    def _show(
        self, prompt: Prompt, authors: Mapping[str, Run | None], pair: Mapping[str, Answer], *, live: bool
    ) -> None:
        self.question = None
        self._authors = dict(authors)
        self.round = {
            "id": f"round-{self.rng.getrandbits(64):016x}",
            **asked(prompt),
            "seal": arena.seal([arena.identity(name, run) for name, run in authors.items()]),
            "live": live,
            "columns": [{"name": s, "state": "waiting", "text": ""} for s in SIDES],
            "ready": False,
            "names": [],
        }
        if not live:
            self.finish(pair)

    def finish(self, pair: Mapping[str, Answer]) -> None:
        """Put the two answers, by author in the order on the screen, into the round: now there is something to vote on."""
        if self.round is None or len(pair) < 2:
            return
        columns = zip(SIDES, pair.values(), strict=True)
        first = next(iter(pair.values()))
        self.round |= {
            **asked(first.prompt),
            "columns": [{"name": s, "state": "done", "text": a.text} for s, a in columns],
            "ready": True,
        }
        self._facts = [facts(a, self._authors.get(name)) for name, a in pair.items()]

    def answered(self, question: Question) -> None:
        """The two models of a typed round have answered, or failed to."""
        if question is self.question:
            self.finish(
                {n: question.answers[s] for n, s in zip(self._authors, SIDES, strict=True) if s in question.answers}
            )

    def now(self) -> dict[str, Any] | None:
        """The round as the page shows it; while models are writing, what they have written so far."""
        if self.round and self.question and not self.round["ready"]:
            return {**self.round, "columns": self.question.columns()}
        return self.round

    def take(self, letters: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Store the votes of some letters, in their order; on the disk when this returns. Sent twice, one is stored once.

        Returns `ids` that are safe, `refused` letters with a sentence (they are no votes and never will be), `names`: who
        wrote the answers, by letter. Raises LabError when the store cannot be used: then the letters wait.
        """
        ids: list[str] = []
        refused: list[dict[str, Any]] = []
        names: dict[str, list[dict[str, Any]]] = {}
        self.store.count(run=arena.RUN)  # after this, what goes wrong is wrong with the letter
        for letter in letters:
            key = str(letter.get("id"))
            try:
                if letter.get("undo"):
                    self.store.retract(str(letter["undo"]), rater=self.rater)
                else:
                    vote = arena.vote(letter, rater=self.rater)
                    check(vote)
            except LabError as error:
                refused.append({"id": key, "text": str(error)})
                continue
            if not letter.get("undo"):
                self.store.add(vote)
                names[key] = self._reveal(letter)
            ids.append(key)
        return {"ids": ids, "refused": refused, "names": names}

    def _reveal(self, letter: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Who wrote the answers of a letter, in the order on the screen; with their scores if they are still on it."""
        names: list[dict[str, Any]] = [self._name(a) for a in arena.unseal(letter["seal"])]
        if self.round and letter.get("round") == self.round["id"]:
            names = [{**name, "facts": told} for name, told in zip(names, self._facts, strict=True)]
            self.round["names"] = names
        return names

    def standings(self) -> list[dict[str, Any]]:
        """Every model that was in a blind round, best first, as the page shows it."""
        rows = arena.standings(self.store.votes(run=arena.RUN))
        return [
            {
                **self._name(r["model"]),
                "rounds": r["rounds"],
                "told": theme.interval(r["rate"], r["ci"], ".0%"),
                "rate": r["rate"],
                "ci": r["ci"],
            }
            for r in rows
        ]

    @staticmethod
    def _name(identity: str) -> dict[str, str]:
        author, run = arena.named(identity)
        return {"label": theme.label(author), "run": run, "colour": theme.colour(author)}
