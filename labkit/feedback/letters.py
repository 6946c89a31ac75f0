"""What goes between a page and a session: a question on the way out, a label on the way back.

A page is not to be trusted with the truth: it is told no author, and what it sends is checked before it becomes a vote.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from labkit.errors import LabError
from labkit.feedback.items import Item
from labkit.records import Prompt, Vote, digest

REPEAT = "repeat:"  # before the run of a vote that judges an item for the second time
Key = tuple[str, str, str]  # mode, run as stored, item's id


@dataclass(frozen=True, slots=True)
class Question:
    """One asking of an item. `shown[place]` is the answer that stands at that place; `again`: for the second time."""

    item: Item
    mode: str
    shown: tuple[int, ...]
    again: bool = False

    @property
    def id(self) -> str:
        return f"{self.mode}:{self.item.id}{':again' if self.again else ''}"

    @property
    def run(self) -> str:
        """The run that its vote is stored under."""
        return REPEAT + self.item.run if self.again else self.item.run

    @property
    def key(self) -> Key:
        """What a vote on it is found by."""
        return (self.mode, self.run, self.item.id)

    def wire(self, *, whole: bool = False) -> dict[str, Any]:
        """What a page is told: the conversation, and the answers by place, each with a key that is made of its text.

        With `whole` the item too, which comes back with the label: for items that cannot be made again after a restart.
        """
        texts = [self.item.answers[i] for i in self.shown]
        told = {"id": self.id, "mode": self.mode, "turns": list(self.item.prompt.messages)}
        told["answers"] = [{"key": _mark(t), "text": t} for t in texts]
        return told | ({"whole": asdict(self.item)} if whole else {})


def sides(answers: Sequence[str], keys: Any) -> tuple[int, ...]:
    """The order in which the answers stood, from their keys; so that a label keeps its sides whatever restarts meanwhile."""
    known = {_mark(text): i for i, text in enumerate(answers)}
    try:
        shown = tuple(known[k] for k in keys)
    except (TypeError, KeyError):
        shown = ()
    if sorted(shown) != list(range(len(answers))):
        raise LabError("This label does not say which answer stood where: reload the page and judge it again.")
    return shown


def judged(question: Question, message: Mapping[str, Any], rater: str) -> Vote:
    """The vote that a label stands for; its form is checked when it is stored.

    `message["ranks"][place]` is the rank of what stood there, 1 best. A tie takes the rank of its first: 1 2 2 4.
    """
    flag, mode = str(message.get("flag") or ""), question.mode
    try:
        given = [int(r) for r in message.get("ranks") or ()]
    except (TypeError, ValueError):
        given = []
    ranks = [0] * len(question.shown)
    if flag == "skip":
        ranks = []
    elif len(given) != len(ranks):
        raise LabError(f"This label ranks {len(given)} of {len(ranks)} answers: reload the page and judge it again.")
    for place, rank in zip(question.shown, given, strict=False) if ranks else ():
        ranks[place] = rank if mode == "thumb" else 1 + sum(other < rank for other in given)
    edit, reasons = str(message.get("edit") or "").strip(), message.get("reasons")
    if len(edit) > 20_000:
        raise LabError("The better answer is longer than 20,000 characters: shorten it.")
    tags = dict.fromkeys(str(r).strip()[:60] for r in reasons if str(r).strip()) if isinstance(reasons, list) else {}
    return Vote(
        id=str(message.get("id") or ""), prompt=question.item.prompt, answers=question.item.answers, ranks=tuple(ranks),
        rater=rater, source="person", time=_time(message.get("time")), mode=mode, seconds=_seconds(message.get("seconds")),
        shown=question.shown, flag=flag, run=question.run, reasons=tuple(tags)[:20], edit=edit,
    )  # fmt: skip


def rebuilt(whole: Any, wanted: str, runs: Collection[str]) -> Item | None:
    """An item that came back with its label; None unless it is what its id says and for one of these runs."""
    try:
        item = Item.of(Prompt.from_json(whole["prompt"]), map(str, whole["answers"]), whole["run"])
    except (TypeError, KeyError):
        return None
    return item if item.id == wanted and item.run in runs else None


def named(rater: Any) -> str:
    """A rater's name, without blanks around it; raises LabError when nothing or too much is left."""
    name = " ".join(str(rater).split())
    if not name or len(name) > 60 or not name.isprintable():
        raise LabError("A rater needs a name of 1 to 60 letters: type one, a made-up one will do.")
    return name


def _mark(text: str) -> str:
    return digest(text, 12)


def _seconds(value: Any) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        return 0.0
    return round(seconds, 3) if math.isfinite(seconds) and seconds > 0 else 0.0


def _time(value: Any) -> str:
    """When the person judged, by their clock; now, where the page did not say."""
    try:
        return datetime.fromisoformat(str(value)).isoformat(timespec="milliseconds")
    except ValueError:
        return datetime.now(UTC).isoformat(timespec="milliseconds")
