"""What one rater has judged, as far as it has been read from the store."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import combinations

from labkit.feedback.items import item_id
from labkit.feedback.letters import Key
from labkit.records import Vote


@dataclass
class Book:
    """Every vote by its id (`known`), those not taken back (`alive`), and those that stand by what they judge (`standing`)."""

    known: dict[str, Vote] = field(default_factory=dict)
    alive: dict[str, Vote] = field(default_factory=dict)
    standing: dict[Key, Vote] = field(default_factory=dict)

    def note(self, vote: Vote) -> None:
        """Take in the next vote or retraction, in the order of the store."""
        self.known[vote.id] = vote
        if not vote.retracts:
            self.alive[vote.id] = vote
            self._stand(vote)
        elif gone := self.alive.pop(vote.retracts, None):
            self.standing.pop(_key(gone), None)
            for other in self.alive.values():  # judged twice by mistake, in two places at once
                if _key(other) == _key(gone):
                    self._stand(other)

    def alike(self, keys: Iterable[tuple[Key, Key]]) -> tuple[int, int]:
        """Of the verdicts on items that were judged twice, how many were the same: (alike, all). Skips do not count."""
        verdicts = []
        for first, second in keys:
            votes = [self.standing[k] for k in (first, second) if k in self.standing]
            if len(votes) == 2 and all(v.flag != "skip" for v in votes):
                verdicts += list(zip(*map(_verdicts, votes), strict=True))
        return sum(a == b for a, b in verdicts), len(verdicts)

    def _stand(self, vote: Vote) -> None:
        self.standing.pop(_key(vote), None)  # the newest stands last
        self.standing[_key(vote)] = vote


def _key(vote: Vote) -> Key:
    return (vote.mode, vote.run, item_id(vote.prompt.id, vote.answers))


def _verdicts(vote: Vote) -> list[int]:
    """A thumb's rank; of more answers for each pair which is better: -1, 0 or 1."""
    if len(vote.ranks) == 1:
        return list(vote.ranks)
    return [(a > b) - (a < b) for a, b in combinations(vote.ranks, 2)]
