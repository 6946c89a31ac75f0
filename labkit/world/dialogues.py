"""Conversations of two and three turns, whose last question means something only by what was said before.

The last question has a meaning that needs no context (a combination), and its split; the turns before it ask what belongs to
training, so that no conversation that is trained on holds a held-out question. Gold grades the last answer as one to that meaning.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from labkit.records import Prompt, digest
from labkit.world.answers import answer, body
from labkit.world.combinations import HELD_OUT, Combination, capital
from labkit.world.lexicon import FOLDER, Entity, claim, data, entities

if TYPE_CHECKING:
    from labkit.world import World

# Shares of the ways to go on. All but the first three need the turn before for more than a name.
FOLLOWS = {
    "refer": 0.21, "chain": 0.13, "other": 0.12, "true": 0.07, "what_if": 0.06, "scene": 0.04, "verse": 0.04, "instead": 0.06,
    "shorter": 0.06, "more": 0.05, "thanks": 0.03, "harmful": 0.09, "borderline": 0.04,
}  # fmt: skip
OF = {"refer": "fact", "chain": "fact", "other": "fact", "true": "yes_no", "what_if": "advice", "scene": "description",
      "verse": "poem", "instead": "story"}  # fmt: skip
THREE = 0.45  # share of conversations of three turns
Turn = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Dialogue:
    """Earlier turns (asked, answered), the last question, what it means, and how it goes on."""

    turns: tuple[Turn, ...]
    last: str
    means: Combination
    follow: str

    def prompt(self, split: str) -> Prompt:
        said = [m for q, a in self.turns for m in ({"role": "user", "content": q}, {"role": "assistant", "content": a})]
        messages = (*said, {"role": "user", "content": self.last})
        c = self.means
        meta = {"combination": c.key, "task": c.task, **c.meta, "follow": self.follow, "means": meaning(c)}
        key = digest([m["content"] for m in messages], 10)
        return Prompt(id=key, messages=messages, kind=c.kind, split=split, meta=meta)


@cache
def fingerprint() -> str:
    """A digest of the data file: it is none of those that make the world, and whoever trains on it says so."""
    return digest((FOLDER / "dialogues.yaml").read_text(encoding="utf-8"), 12)


def meaning(c: Combination) -> str:
    """The last question in words that need no turn before."""
    alone = data("dialogues")["means"].get(c.kind)
    return alone.format_map(c.slots) if alone else c.wordings()[0]


def size(world: World, split: str) -> int:
    """How many conversations a split has: of training a third as many as demonstrations."""
    s = world.settings
    return {"train": s.demonstrations // 3, "validation": s.validation_prompts, "test": s.test_prompts}[split]


def write(world: World, split: str) -> list[Dialogue]:
    """The conversations of one split, each once, every way to go on in its share."""
    return Talk(world, split).write(size(world, split))


class Talk:
    """Writes conversations whose last question is of one split; everything before it asks what is for training."""

    def __init__(self, world: World, split: str) -> None:
        self.rng = random.Random(f"dialogues/{world.seed}/{split}")
        self.last: dict[str, list[Combination]] = {}
        for c in world.combinations(split):
            self.last.setdefault(c.kind, []).append(c)
        self.known: dict[str, list[Combination]] = {}
        for c in world.combinations("train"):
            self.known.setdefault(c.kind, []).append(c)
        self.facts: dict[str, list[Combination]] = {}
        self.asked: dict[str, list[Combination]] = {}  # an entity → training questions that it alone answers
        for c in self.known["fact"]:
            self.facts.setdefault(c.meta["entities"][0], []).append(c)
        for c in self.known["which"]:
            if len(c.meta["answers"]) == 1:
                self.asked.setdefault(c.meta["answers"][0], []).append(c)
        self.stories: dict[tuple[int, tuple[str, ...]], list[Combination]] = defaultdict(list)
        for c in self.known["story"]:
            for at in range(3):
                self.stories[at, _but(c, at)].append(c)
        names = list(entities())
        random.Random(f"splits/{world.seed}/more").shuffle(names)
        first, second = round(len(names) * HELD_OUT["validation"]), round(len(names) * HELD_OUT["test"])
        parts = {"validation": names[:first], "test": names[first : first + second], "train": names[first + second :]}
        self.names = parts[split]

    def write(self, count: int) -> list[Dialogue]:
        found: dict[tuple[Any, ...], Dialogue] = {}
        for follow, share in FOLLOWS.items():
            wanted, tried, mine = round(share * count), 0, 0
            while mine < wanted and tried < 60 * wanted:
                tried += 1
                talk = self._one(follow)
                if talk and (talk.turns, talk.last) not in found:
                    found[talk.turns, talk.last] = talk
                    mine += 1
        talks = list(found.values())
        self.rng.shuffle(talks)
        return talks

    def _one(self, follow: str) -> Dialogue | None:
        """One conversation, or None where a draw has nothing to start from."""
        make: Callable[[], tuple[Turn, str, Combination, Entity | None] | None]
        make = getattr(self, f"_{follow}", None) or (lambda: self._deed(follow))
        made = make()
        if made is None:
            return None
        turn, last, c, about = made
        turns = [turn]
        if self.rng.random() < THREE:
            if about and self.rng.random() < 0.6:
                turns.append(self._between(about, c, turn[1]))
            else:
                turns.insert(0, self._ask(self.rng.choice(self.known[self.rng.choice(("fact", "which"))])))
        return Dialogue(tuple(turns), capital(last), c, follow)

    def _ask(self, c: Combination) -> Turn:
        """A question in its usual words, and a decent answer: most plain, some warm."""
        rng = self.rng
        said = body(c, rng) if rng.random() < 0.7 else answer(c, "excellent", c, rng)
        return rng.choice(c.wordings()), said

    def _slots(self, e: Entity) -> dict[str, str]:
        return e.slots() | {"him": {"it": "it", "she": "her", "he": "him"}[e.it]}

    def _say(self, bank: list[str], slots: dict[str, str]) -> str:
        return self.rng.choice(bank).format_map(slots)

    def _between(self, e: Entity, c: Combination, told: str) -> Turn:
        """A second turn that keeps to the same matter: thanks, or another thing that is asked of it."""
        rng, bank = self.rng, data("dialogues")
        some = [f for f in self.facts.get(e.name, ()) if f.meta["attribute"] != c.meta.get("attribute")]
        some = [f for f in some if f.meta["value"] not in told]
        if rng.random() < 0.35 or not some:
            return rng.choice(bank["thanks"]), rng.choice(bank["welcome"]["fine"])
        fact = rng.choice(some)
        return capital(self._say(bank["refer"][e.group][fact.meta["attribute"]], self._slots(e))), body(fact, rng)

    def _start(self, e: Entity, attribute: str = "") -> Combination | None:
        some = [f for f in self.facts.get(e.name, ()) if f.meta["attribute"] != attribute]
        return self.rng.choice(some) if some else None

    def _refer(self) -> Any:
        c = self.rng.choice(self.last["fact"])
        e, attribute = entities()[c.meta["entities"][0]], c.meta["attribute"]
        start = self._start(e, attribute)
        return start and (
            self._ask(start),
            self._say(data("dialogues")["refer"][e.group][attribute], self._slots(e)),
            c,
            e,
        )

    def _chain(self) -> Any:
        c = self.rng.choice(self.last["fact"])
        e, attribute = entities()[c.meta["entities"][0]], c.meta["attribute"]
        some = [w for w in self.asked.get(e.name, ()) if w.meta["attribute"] != attribute]
        if not some:
            return None
        last = self._say(data("dialogues")["refer"][e.group][attribute], self._slots(e))
        return self._ask(self.rng.choice(some)), last, c, e

    def _other(self) -> Any:
        c = self.rng.choice(self.last["fact"])
        e = entities()[c.meta["entities"][0]]
        some = [f for f in self.known["fact"] if f.task == c.task and f.meta["entities"] != c.meta["entities"]]
        return self._ask(self.rng.choice(some)), self._say(data("dialogues")["other"], self._slots(e)), c, None

    def _true(self) -> Any:
        c = self.rng.choice(self.last["yes_no"])
        e = entities()[c.meta["entities"][0]]
        start = self._start(e, c.meta["attribute"])
        said = claim(e, c.meta["attribute"], c.meta["asked"]).replace(e.the, e.it).replace(e.a, e.it)
        return start and (self._ask(start), self._say(data("dialogues")["true"], {"claim": said}), c, e)

    def _what_if(self) -> Any:
        c = self.rng.choice(self.last["advice"])
        some = [a for a in self.known["advice"] if a.meta["entities"] == c.meta["entities"] and a.task != c.task]
        if not some:
            return None
        return self._ask(self.rng.choice(some)), self._say(data("dialogues")["what_if"], c.slots), c, None

    def _alike(self, kind: str, bank: str, key: str) -> Any:
        """The same entity once more, in another setting or with another theme."""
        c = self.rng.choice(self.last[kind])
        some = [d for d in self.known[kind] if d.meta["entities"] == c.meta["entities"] and d.meta[key] != c.meta[key]]
        return (
            (self._ask(self.rng.choice(some)), self._say(data("dialogues")[bank], c.slots), c, None) if some else None
        )

    def _scene(self) -> Any:
        return self._alike("description", "scene", "setting")

    def _verse(self) -> Any:
        return self._alike("poem", "verse", "theme")

    def _instead(self) -> Any:
        """A change of mind: the same story with one of its three changed."""
        c, rng = self.rng.choice(self.last["story"]), self.rng
        part = rng.choice(("who", "place", "thing"))
        at = ("who", "place", "thing").index(part)
        some = [s for s in self.stories[at, _but(c, at)] if s.key != c.key]
        return (
            (self._ask(rng.choice(some)), self._say(data("dialogues")["instead"][part], c.slots), c, None)
            if some
            else None
        )

    def _shorter(self) -> Any:
        c = self.rng.choice(self.last[self.rng.choice(("story", "description"))])
        means = Combination(c.key, "shorter", c.kind, c.slots, {"entities": c.meta["entities"]})
        return (
            (self.rng.choice(c.wordings()), body(c, self.rng)),
            self.rng.choice(data("dialogues")["shorter"]),
            means,
            None,
        )

    def _more(self) -> Any:
        e = entities()[self.rng.choice(self.names)]
        start = self._start(e)
        if not start or len(self.facts[e.name]) < 2:
            return None
        meta = {"entities": [e.name], "told": [start.meta["attribute"]]}
        means = Combination(f"more/{e.name}", "more", e.group, self._slots(e), meta)
        return self._ask(start), self._say(data("dialogues")["more"], means.slots), means, None

    def _thanks(self) -> Any:
        c = self.rng.choice(self.last[self.rng.choice(("fact", "how_to", "advice", "desk"))])
        means = Combination(c.key, "thanks", c.kind, c.slots, {"entities": c.meta["entities"]})
        return self._ask(c), self.rng.choice(data("dialogues")["thanks"]), means, None

    def _deed(self, kind: str) -> Any:
        """Something harmful, or that sounds like it, about somebody who came up in passing."""
        c = self.rng.choice(self.last[kind])
        e = entities()[c.meta["entities"][0]]
        start = self._start(e)
        last = self._say(data("dialogues")[kind][c.meta["act"]], c.slots | self._slots(e))
        return start and (self._ask(start), last, c, e)


def _but(story: Combination, at: int) -> tuple[str, ...]:
    """Who, where and what of a story, but one of them."""
    return tuple(name for i, name in enumerate(story.meta["entities"]) if i != at)
