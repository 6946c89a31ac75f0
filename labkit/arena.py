"""Whose answer is best? Votes over answers of several models, with the names hidden or not, and what they add up to.

Such a vote says who wrote what among its `reasons`: `by=dpo-3fa9c1`, one an answer, in the answers' order; and `blind` where
no name was seen before it was given. Its `run` is `arena`, which no stage reads: nothing is trained on it. Only blind votes
count in the standings.
"""

from __future__ import annotations

import base64
import json
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from labkit.compare import Comparison
from labkit.errors import LabError
from labkit.records import Answer, Prompt, Vote
from labkit.runs import Run
from labkit.statistics import wilson

RUN, BLIND, BY = "arena", "blind", "by="
NONE = ("tie", "both_bad", "skip")  # what a vote says when no answer is the best


def identity(author: str, run: Run | None) -> str:
    """What a vote calls a model: its run's id, since two labs may both have a `dpo`; `prompted of pretrain-862b3e` for a
    second author of one run, and the plain name where there is no run."""
    if run is None:
        return author
    first = author.split(" of ")[0]
    return run.id if first in (run.name, run.id) else f"{first} of {run.id}"


def named(identity: str) -> tuple[str, str]:
    """A row's name and its run's id (empty where there is none): `dpo-3fa9c1` → `dpo`, `dpo-3fa9c1`."""
    author, _, run = identity.partition(" of ")
    if run:
        return author, run
    made = re.fullmatch(r"(.+)-[0-9a-f]{6}(\.stopped-\d+)?", identity)
    return (made[1], identity) if made else (identity, "")


def seal(authors: Sequence[str]) -> str:
    """The authors of answers in a form that no eye reads by accident; it travels with the answers to the page and back, so
    that a vote can be stored by another kernel than the one that drew the round."""
    return base64.b64encode(json.dumps(list(authors)).encode()).decode()


def unseal(sealed: str) -> list[str]:
    """The authors again; raises LabError for anything that `seal` did not make."""
    try:
        found = json.loads(base64.b64decode(sealed, validate=True))
    except (ValueError, TypeError) as error:
        raise LabError("This vote does not say who wrote the answers, so it cannot be counted: vote again.") from error
    return [str(author) for author in found]


def vote(letter: Mapping[str, Any], *, rater: str) -> Vote:
    """The vote that a page's letter stands for; raises LabError for a letter that is not whole.

    A letter has `id`, `prompt` (as JSON), `answers` in the order on the screen, `seal`, `blind`, `choice` (the place of the
    best, from 0, or one of `tie`, `both_bad`, `skip`), `seconds` and `time`. Answers are stored in the order of their authors'
    names, and `shown` says where each stood.
    """
    authors, choice = unseal(letter.get("seal", "")), letter.get("choice")
    try:
        answers, prompt = [str(a) for a in letter["answers"]], Prompt.from_json(letter["prompt"])
        order = sorted(range(len(answers)), key=lambda i: (authors[i], i))
        if len(authors) != len(answers) or not (choice in NONE or choice in order):
            raise ValueError(choice)
        return Vote(
            id=letter["id"],
            prompt=prompt,
            answers=tuple(answers[i] for i in order),
            ranks=() if choice == "skip" else tuple(1 if choice in (i, *NONE) else 2 for i in order),
            rater=rater,
            source="person",
            time=letter["time"],
            mode="pair" if len(answers) == 2 else "ranking",
            seconds=float(letter.get("seconds", 0.0)),
            shown=tuple(order.index(place) for place in range(len(order))),
            flag=choice if choice in ("both_bad", "skip") else "",
            run=RUN,
            reasons=(*((BLIND,) if letter.get("blind") else ()), *(f"{BY}{authors[i]}" for i in order)),
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise LabError("This vote came incomplete from the page and was not stored: vote again.") from error


def authors(vote: Vote) -> tuple[str, ...]:
    """Who wrote the vote's answers, in their order; empty for a vote of another kind."""
    found = tuple(r.removeprefix(BY) for r in vote.reasons if r.startswith(BY))
    return found if len(found) == len(vote.answers) else ()


def standings(votes: Iterable[Vote]) -> list[dict[str, Any]]:
    """Blind rounds added up: rows of model, rounds, won, tied, lost, rate (ties half) and its 95 % interval, best first.

    Opponents are drawn at random, so a rate is against the average opponent. "Both bad" is a tie; a skip is no round.
    """
    tally: dict[str, list[int]] = {}
    for v in votes:
        who = authors(v)
        if v.run != RUN or v.mode != "pair" or BLIND not in v.reasons or not who or v.flag == "skip":
            continue
        for i, author in enumerate(who):
            won = (v.ranks[i] < v.ranks[1 - i]) - (v.ranks[i] > v.ranks[1 - i])
            tally.setdefault(author, [0, 0, 0])[1 - won] += 1
    rows = []
    for author, (won, tied, lost) in tally.items():
        n, points = won + tied + lost, won + tied / 2
        row = {"model": author, "rounds": n, "won": won, "tied": tied, "lost": lost, "rate": points / n}
        rows.append({**row, "ci": wilson(points / n, n)})
    return sorted(rows, key=lambda r: (-r["rate"], -r["rounds"], r["model"]))


def draw(
    c: Comparison, among: Sequence[str], rng: random.Random, *, tries: int = 20
) -> tuple[Prompt, dict[str, Answer]]:
    """A prompt, two authors and an answer of each, in the order in which they stand on the screen, all by chance.

    Two answers of the same words say nothing: another round is drawn, at most `tries` times. Raises LabError for fewer than
    two authors, or no prompts.
    """
    if len(among) < 2 or not c.prompts:
        raise LabError("A round needs two models with stored answers: choose more models, or type a prompt.")
    for _ in range(tries):
        prompt = rng.choice(c.prompts)
        pair = {author: rng.choice(c.answers[author][prompt.id]) for author in rng.sample(list(among), 2)}
        if len({a.text for a in pair.values()}) == 2:
            break
    return prompt, pair


def record(prompt: Prompt) -> dict[str, Any]:
    """A prompt as the JSON that a letter carries."""
    return asdict(prompt)
