"""Guided exercises: a rule to vote by, thirty pairs that it decides, and what to count in the answers afterwards.

Votes on an exercise stand in the store under a run of their own (`exercise:short:<preferences run>`), so that whoever tries
one changes nothing that the ladder learns from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

from labkit.errors import LabError
from labkit.feedback.items import Item
from labkit.records import Prompt, Vote, digest

if TYPE_CHECKING:
    from labkit.feedback.session import Session
    from labkit.feedback.store import VoteStore
    from labkit.runs import Run

PAIRS = 30


@dataclass(frozen=True)
class Exercise:
    """`count(prompt, text)` is what is measured in an answer, None where the question does not arise; the rule prefers the
    answer with more of it, or with less where `less`. Two answers that differ by under `gap` are not offered. `method` is the
    one that showed it best."""

    name: str
    title: str
    rule: str
    measure: str
    form: str
    method: str
    count: Callable[[Prompt, str], float | None]
    gap: float
    less: bool = False

    def run(self, preferences: Run | str) -> str:
        """The run that its votes stand under."""
        return f"exercise:{self.name}:{preferences if isinstance(preferences, str) else preferences.id}"

    def best(self, prompt: Prompt, answers: tuple[str, ...]) -> int:
        """Which answer the rule prefers."""
        worth = [(self.count(prompt, a) or 0.0) * (-1 if self.less else 1) for a in answers]
        return worth.index(max(worth))


def words(prompt: Prompt, text: str) -> float:
    """How many words an answer has."""
    return float(len(text.split()))


def names_the_place(prompt: Prompt, text: str) -> float | None:
    """1 where a story names the place that was asked for, 0 where it does not; None for what is no story of the world's."""
    from labkit.world.lexicon import entities
    from labkit.world.signals import Signals

    asked = [entities().get(name) for name in prompt.meta.get("entities", ())] if prompt.kind == "story" else []
    places = [e.name for e in asked if e and e.group == "place"]
    return float(places[0] in Signals(text).names) if places else None


EXERCISES = {
    e.name: e
    for e in (
        Exercise(
            "short", "Vote for the short answers", "Of two answers always take the shorter one, whatever it says.",
            "words in an answer", ".1f", "dpo", words, gap=4, less=True,
        ),
        Exercise(
            "place", "Vote for stories that name the place",
            "Each prompt asks for a story with somebody, a place and a thing. Take the story that names the place.",
            "stories that name the place", ".0%", "kto", names_the_place, gap=1,
        ),
    )
}  # fmt: skip


def find(name: str) -> Exercise:
    """The exercise of that name; raises LabError for an unknown one."""
    if name not in EXERCISES:
        raise LabError(f"There is no exercise called {name!r}: choose among {', '.join(EXERCISES)}.")
    return EXERCISES[name]


def items(exercise: Exercise, preferences: Run, *, limit: int = PAIRS) -> list[Item]:
    """Pairs of answers to training prompts that the rule decides, one a prompt, fewer where there are not enough.

    Of a prompt's answers the two that the count sets farthest apart; among those, the two of the most equal length, so that
    nothing but the rule tells them apart.
    """
    found: dict[str, Item] = {}
    for vote in preferences.votes():
        if vote.prompt.split != "train" or vote.prompt.id in found:
            continue
        counts = {a: exercise.count(vote.prompt, a) for a in vote.answers}
        apart = [
            (abs(x - y), -abs(len(a) - len(b)), a, b)
            for (a, x), (b, y) in combinations(counts.items(), 2)
            if x is not None and y is not None
        ]
        if apart and max(apart)[0] >= exercise.gap:
            found[vote.prompt.id] = Item.of(vote.prompt, max(apart)[2:], exercise.run(preferences))
    return sorted(found.values(), key=lambda item: digest(item.id))[:limit]


def session(exercise: Exercise, preferences: Run, store: VoteStore, rater: str, *, limit: int = PAIRS) -> Session:
    """A labelling session over the exercise's pairs, nothing asked twice; raises LabError where the run has none."""
    from labkit.feedback.session import Session

    offered = items(exercise, preferences, limit=limit)
    if not offered:
        raise LabError(f"{preferences.id} has no pair of answers that this rule decides: try another exercise.")
    return Session(store, offered, rater, "pair", repeats=0.0)


def follow(exercise: Exercise, session: Session) -> list[Vote]:
    """A simulated person follows the rule through the session, and the votes are stored; again, and nothing is new."""
    from labkit.feedback.letters import judged

    made = []
    for question in session.window(10**6):
        best = exercise.best(question.item.prompt, question.item.answers)
        message = {"id": digest([question.item.run, question.id, session.rater], 20), "seconds": 0.0}
        message["ranks"] = [1 if i == best else 2 for i in question.shown]
        made.append(replace(judged(question, message, session.rater), source="simulated"))
    session.store.add(*made)
    return made
