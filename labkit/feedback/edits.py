"""Better answers that raters wrote themselves: preferred to all that they were shown, and worth imitating."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from labkit.records import Answer, Vote


def edited(vote: Vote) -> bool:
    """Whether the rater wrote an answer that is none of those shown."""
    return bool(vote.edit.strip()) and vote.flag != "skip" and vote.edit not in vote.answers


def preferred(votes: Iterable[Vote]) -> list[Vote]:
    """The votes; one with an edited answer as a ranking in which that answer stands first and the others keep their order.

    Without edits these are the very same votes.
    """
    return [
        replace(v, answers=(v.edit, *v.answers), ranks=(1, *(r + 1 for r in v.ranks)), shown=(), mode="ranking")
        if edited(v)
        else v
        for v in votes
    ]


def demonstrations(votes: Iterable[Vote]) -> list[Answer]:
    """The edited answers to training prompts, as answers by those who wrote them."""
    return [
        Answer(prompt=v.prompt, text=v.edit, author=v.rater) for v in votes if edited(v) and v.prompt.split == "train"
    ]
