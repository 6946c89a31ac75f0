"""What a person's votes amount to for a retraining: those that train, those kept out, and simulated ones beside them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from labkit import exercises
from labkit.feedback import edits
from labkit.records import Prompt, Vote, digest

if TYPE_CHECKING:
    from labkit.lab import Lab

SIMULATED = 300  # pairs beside the person's own


@dataclass(frozen=True)
class Standing:
    """What there is to learn from: the votes that train, those kept out, and simulated ones beside them."""

    train: list[Vote]
    held_out: list[Vote]
    simulated: list[Vote]

    def together(self) -> list[Vote]:
        """What is trained on. Beside simulated votes the person's stand several times over, so that they are about half of
        the pairs: else thirty votes are lost among three hundred."""
        own, others = (
            sum(len(v.pairs()) or v.mode == "thumb" for v in group) for group in (self.train, self.simulated)
        )
        return self.train * max(1, round(others / max(1, own))) + self.simulated

    def counts(self) -> dict[str, int]:
        """Pairs, thumbs and edits among the training votes, simulated pairs, and pairs held out."""
        return {
            "votes": len(self.train) + len(self.held_out),
            "pairs": sum(len(v.pairs()) for v in edits.preferred(self.train)),
            "thumbs": sum(v.mode == "thumb" and v.flag != "skip" for v in self.train),
            "edits": sum(map(edits.edited, self.train)),
            "simulated": sum(len(v.pairs()) for v in self.simulated),
            "held_out": sum(len(v.pairs()) for v in edits.preferred(self.held_out)),
        }


def kept_out(prompt: Prompt) -> bool:
    """Whether a prompt belongs to the fifth that is never trained on: by its id alone, so that it stays there for ever."""
    return int(digest(["kept out", prompt.id], 4), 16) % 5 == 0


def standing(lab: Lab, *, mix: str = "mine", rater: str | None = None, exercise: str = "") -> Standing:
    """The votes of a person (of all persons without `rater`) on the preferences run, or on an exercise's pairs."""
    preferences = lab.plan("preferences").id
    if exercise:
        mine = lab.votes.votes(run=exercises.find(exercise).run(preferences), rater=rater)
    else:
        mine = lab.votes.votes(run=preferences, rater=rater, source="person")
    mine = [v for v in mine if v.flag != "skip" and v.prompt.split != "test"]
    others = simulated(lab, "train") if mix == "mixed" else []
    train = [v for v in mine if v.prompt.split == "train" and not kept_out(v.prompt)]
    out = [v for v in mine if v.prompt.split != "train" or kept_out(v.prompt)]
    return Standing(train, out, others)


def drawn(vote: Vote) -> Vote:
    """One of the pairs that a vote holds, by lot, as a vote on that pair alone."""
    pairs = vote.pairs()
    pair = pairs[int(digest([vote.id, "drawn"], 4), 16) % len(pairs)]
    return replace(vote, answers=(pair.chosen, pair.rejected), ranks=(1, 2), shown=(), mode="pair")


def simulated(lab: Lab, split: str) -> list[Vote]:
    """A pair out of each of `SIMULATED` votes that are no person's: many prompts say more than all pairs of few rankings."""
    votes = lab.votes.votes(run=lab.plan("preferences").id, split=split)
    others = sorted((v for v in votes if v.source != "person" and v.pairs()), key=lambda v: digest(v.id))
    return [drawn(v) for v in others[:SIMULATED]]
