"""The four small records that flow through the lab: Prompt, Answer, Pair, Vote.

All are frozen, made of plain values, and go to one JSON line and back without loss.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

SPLITS = ("train", "validation", "test")


def digest(value: Any, length: int = 6) -> str:
    """The first `length` hex digits of SHA-256 over the canonical JSON of `value`."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What is asked: a conversation that ends with a user's turn.

    `kind` groups prompts in tables ("fact", "story", "harmful", ...); `meta` is what a judge needs to grade an answer
    (in the embedded world: the task and its entities), plain JSON values only.
    """

    id: str
    messages: tuple[dict[str, str], ...]
    kind: str = "open"
    split: str = "train"
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The last user turn."""
        return self.messages[-1]["content"]

    @classmethod
    def of(cls, text: str, **fields: Any) -> Prompt:
        """A one-turn prompt; its id comes from its text unless given."""
        fields.setdefault("id", digest(text, 10))
        return cls(messages=({"role": "user", "content": text},), **fields)

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Prompt:
        return cls(**{**row, "messages": tuple(row["messages"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer to one prompt, by a model or a person, with all that is known of it.

    `scores` holds judges by name: `gold` (the embedded world's utility), `reward` (the proxy), `judge` (a reward model
    trained on other pairs). `grades` holds measured qualities of the text (`correct`, `refuses`, `rude`, ...), 0 or 1, or
    None where the question does not arise. `logp` is the sum of log-probabilities of its tokens, in nats, under the model
    that wrote it; `kl` is log π − log π_ref summed over its tokens, an unbiased one-sample estimate (k1).
    """

    prompt: Prompt
    text: str
    author: str
    n: int = 0
    ended: bool = True
    tokens: int = 0
    logp: float | None = None
    kl: float | None = None
    scores: dict[str, float] = field(default_factory=dict)
    grades: dict[str, float | None] = field(default_factory=dict)

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Answer:
        return cls(**{**row, "prompt": Prompt.from_json(row["prompt"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A preference between two answers to one prompt: TRL's columns, with the vote it came from."""

    prompt: Prompt
    chosen: str
    rejected: str
    vote: str = ""

    def swap(self) -> Pair:
        """The opposite preference."""
        return Pair(prompt=self.prompt, chosen=self.rejected, rejected=self.chosen, vote=self.vote)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """One judgement by one rater: a pair, a ranking of K answers, or a thumb (K = 1).

    `ranks[i]` is the rank of `answers[i]`, 1 is best, equal ranks are a tie; a thumb is (1,) for good and (2,) for bad.
    `shown` is the order in which the answers stood on the screen (a permutation of 0..K−1). `flag` is "", "both_bad" or
    "skip". `source` says who judged: "person", "simulated", "model" or "import". `retracts` names a vote that this one
    takes back. `id` is made by the client, so that sending twice stores once.
    """

    id: str
    prompt: Prompt
    answers: tuple[str, ...]
    ranks: tuple[int, ...]
    rater: str
    source: str
    time: str
    mode: str = "pair"
    seconds: float = 0.0
    shown: tuple[int, ...] = ()
    flag: str = ""
    run: str = ""
    reasons: tuple[str, ...] = ()
    edit: str = ""
    retracts: str = ""

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Vote:
        tuples: dict[str, Any] = {k: tuple(row[k]) for k in ("answers", "ranks", "shown", "reasons") if k in row}
        return cls(**{**row, **tuples, "prompt": Prompt.from_json(row["prompt"])})

    def pairs(self) -> list[Pair]:
        """All K(K−1)/2 pairs of the ranking, best first; ties, skips and thumbs give none."""
        if self.flag == "skip":
            return []
        ordered = sorted(range(len(self.answers)), key=lambda i: (self.ranks[i], i))
        return [
            Pair(prompt=self.prompt, chosen=self.answers[i], rejected=self.answers[j], vote=self.id)
            for i, j in combinations(ordered, 2)
            if self.ranks[i] < self.ranks[j] and self.answers[i] != self.answers[j]
        ]


def to_json(record: Any) -> str:
    """One line of JSON, keys in the record's order."""
    return json.dumps(asdict(record), ensure_ascii=False)


def write_jsonl(path: Path, rows: Iterable[Any]) -> int:
    """Write records (or plain dicts), one a line; returns how many."""
    count = 0
    with open(path, "w", encoding="utf-8") as f:
        for row in rows:
            f.write((json.dumps(row, ensure_ascii=False) if isinstance(row, dict) else to_json(row)) + "\n")
            count += 1
    return count


def read_jsonl(path: Path, having: str = "") -> Iterator[dict[str, Any]]:
    """The rows of a JSON-lines file as dicts, of those alone whose line has these words; an absent file has none."""
    if not path.exists():
        return
    with open(path, encoding="utf-8") as f:
        for line in f:
            if line.strip() and having in line:
                yield json.loads(line)
