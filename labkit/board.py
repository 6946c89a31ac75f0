"""What the votes say of themselves while they come in: pace, agreement with oneself, others, gold and the reward model.

Shown in a page it is drawn anew after a vote, in a thread of its own, so that the next label never waits for it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from labkit import retrain, show
from labkit.feedback import agreement
from labkit.feedback.session import REPEAT
from labkit.markup import Format, Html
from labkit.records import Answer, Prompt, Vote

if TYPE_CHECKING:
    from labkit.loop import Loop

CONTESTED = 3  # pairs shown
AFTER = 0.5  # seconds that a vote waits for others before all is drawn anew
PACE: dict[str, Format] = {"seconds": ".1f", **dict.fromkeys(("tied", "skipped", "first_shown_wins"), ".0%")}


class Board:
    """The person's votes of a loop beside everybody's; the annotators' alone while the person has given none."""

    def __init__(self, loop: Loop) -> None:
        self.loop, self.lab = loop, loop.lab
        self.run = retrain.need(self.lab, "preferences")
        self._handle: Any = None
        self._judge: Callable[[list[Answer]], list[float]] | None = None
        self._wanted = threading.Event()
        self._scores: dict[tuple[str, str], float] = {}
        loop.listeners.append(lambda vote: self._wanted.set())

    def votes(self) -> tuple[list[Vote], list[Vote]]:
        """The person's own votes (second judgements of an item among them), and those of all raters on the same answers."""
        mine = self.lab.votes.votes(run=self.run.id, rater=self.loop.rater, source="person")
        again = self.lab.votes.votes(run=REPEAT + self.run.id, rater=self.loop.rater, source="person")
        judged = {(v.prompt.id, a) for v in mine for a in v.answers}
        others = [
            v
            for v in self.lab.votes.votes(run=self.run.id)
            if not mine or any((v.prompt.id, a) in judged for a in v.answers)
        ]
        return [*mine, *again], others

    def __call__(self) -> Html:
        """Everything at once, as it stands now."""
        mine, others = self.votes()
        own = mine or [v for v in others if v.prompt.split == "validation"]
        longer: Callable[[Prompt, str], float] = lambda _, text: float(len(text))  # noqa: E731
        rows = [
            *_named("with oneself, asked again", agreement.themselves(own)),
            *_named("between two raters", agreement.between(others)),
            *_named("with gold", agreement.against(own, self._gold)),
            *_named("with the reward model", agreement.against(own, self._reward) if mine else []),
            *_named("with “the longer one”", agreement.against(own, longer)),
        ]
        who = f"{self.loop.rater}, {len(mine)} votes" if mine else "the simulated annotators, until you have voted"
        parts = [
            show.table(rows, {"agreement": "agreement", "alike": "share", "units": "pairs"}, {"alike": ".0%"}, who)
        ]
        alpha = agreement.alpha(others)
        if alpha["alpha"] is not None:
            parts.append(
                show.table(
                    [alpha], {"alpha": "Krippendorff’s alpha", "units": "pairs judged twice", "raters": "raters"}
                )
            )
        if mine:
            heads = {"votes": "votes", "seconds": "seconds a vote", "tied": "tied", "skipped": "skipped"}
            parts.append(show.table(agreement.pace(mine), {**heads, "first_shown_wins": "the first shown wins"}, PACE))
        return show.together([*parts, *_contested(others)])

    def _ipython_display_(self) -> None:
        from IPython.display import display

        if not show.attached() and self.votes()[0]:
            self._learn()
        self._handle = display(self(), display_id=True)
        if show.attached():
            threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        """Draw it anew after votes, until the page is closed with its kernel."""
        while self._wanted.wait():
            time.sleep(AFTER)
            self._wanted.clear()
            with contextlib.suppress(Exception):  # a picture that fails must not end the next
                self._handle.update(self())
                if not self._judge:
                    self._learn()
                    self._handle.update(self())

    def _gold(self, prompt: Prompt, text: str) -> float | None:
        return self.lab.source.grade(prompt, text)[0]

    def _reward(self, prompt: Prompt, text: str) -> float | None:
        key = (prompt.id, text)
        if self._judge and key not in self._scores:
            [self._scores[key]] = self._judge([Answer(prompt=prompt, text=text, author="")])
        return self._scores.get(key)

    def _learn(self) -> None:
        """Load the reward model, where there is one: it takes a moment, and nobody waits for it."""
        run = retrain.finished(self.lab, "reward")
        if self._judge or not run:
            return
        from labkit import ask, chat, sampling

        held = ask.load(run, reward=True)

        def score(answers: list[Answer]) -> list[float]:
            encoded = [chat.answer_ids(held.tokenizer, a.prompt, a.text) for a in answers]
            return sampling.score_rewards(held.model, [q for q, _ in encoded], [a for _, a in encoded]).tolist()

        self._judge = score


def _named(label: str, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The first row (that of all raters) under a name; none where there is nothing to compare."""
    return [{**row, "agreement": label} for row in rows[:1]]


def _contested(votes: Iterable[Vote]) -> list[Html]:
    """The pairs about which raters differ most."""
    heads = {
        "asked": "most contested", "first": "one answer", "second": "the other", "first_wins": "for", "ties": "tied",
        "second_wins": "against",
    }  # fmt: skip
    rows = [{**row, "asked": row["prompt"].text} for row in agreement.contested(votes, CONTESTED)]
    return [show.table(rows, heads)] if rows else []
