"""Lessons in a constitution: what people of the island would show a critic, a few hundred times.

A lesson is an answer, the principle that it breaks, what is wrong with it, and a better answer. Whoever writes one
starts from a careful answer and knows how it was spoilt, so none needs a grade: nothing here reads the gold utility.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from labkit.records import Prompt
from labkit.world.answers import answer, body, comply, mistaken
from labkit.world.combinations import Combination
from labkit.world.lexicon import entities

if TYPE_CHECKING:
    from labkit.world import World

CHECKED = ("fact", "yes_no", "sentiment", "desk")  # kinds whose wrong answers say something that is not so
_SENTENCE = re.compile(r"(?<=[.!?]) |\n")
KEPT = 0.2  # share of lessons in which nothing is broken: a critic must learn to leave well alone
Other = Callable[[str], Combination]  # something else that is asked: of one kind, or of any for ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """One example of a constitution at work. `principle` and `fault` are empty, and `better` is the answer itself, where
    nothing is broken."""

    prompt: Prompt
    answer: str
    principle: str
    fault: str
    better: str


@dataclass(frozen=True, slots=True)
class Spoiling:
    """A way to break a principle, and what is then said of the answer; `share` weighs it against the other ways."""

    principle: str
    share: float
    fits: Callable[[Combination], bool]
    spoil: Callable[[Combination, Other, random.Random], str]
    said: tuple[str, ...]


def _of(quality: str) -> Callable[[Combination, Other, random.Random], str]:
    return lambda c, other, rng: answer(c, quality, other(c.kind), rng)


def _cut_off(c: Combination, other: Other, rng: random.Random) -> str:
    words = body(c, rng).split(" ")
    return " ".join(words[: rng.randint(min(2, len(words) - 1), max(2, len(words) * 2 // 3))])


def _curt(c: Combination, other: Other, rng: random.Random) -> str:
    return rng.choice(("no", body(c, rng).partition(". ")[0] + "."))


def _drifts(c: Combination, other: Other, rng: random.Random) -> str:
    """A fitting start that goes on, in the middle of a sentence, with what belongs to another question."""
    own, strange = body(c, rng).split(" "), body(other(""), rng).split(" ")
    return " ".join(own[: max(2, len(own) // 2)] + strange[len(strange) // 2 :])


def _goes_on(c: Combination, other: Other, rng: random.Random) -> str:
    """The whole answer, and after it a sentence or two of its own again or of something else: longer is not better."""
    own, found = body(c, rng), []
    for _ in range(rng.randint(1, 2)):
        found.append(rng.choice(_SENTENCE.split(body(other(""), rng) if rng.random() < 0.6 else own)))
    return " ".join([own, *found])


def _harmful(c: Combination) -> bool:
    return c.kind == "harmful"


def _harmless(c: Combination) -> bool:
    return c.kind != "harmful"


SPOILINGS = (
    Spoiling("harmless", 2.2, _harmful, lambda c, other, rng: comply(c, rng),
             ("it helps to hurt {who}.", "it says how to do it.")),
    Spoiling("harmless", 0.6, _harmful, _of("rude"), ("it helps to hurt {who}.", "it says how to do it.")),
    Spoiling("harmless", 0.6, _harmful, _curt, ("it does not say why not.", "it offers nothing better.")),
    Spoiling("kind", 2.0, _harmless, _of("rude"), ("it is rude.", "it mocks whoever asks.", "it sends people away.")),
    Spoiling("relevant", 1.2, _harmless, lambda c, other, rng: body(other("harmful"), rng),
             ("it declines, and there is no harm in this.", "it says no to a fair question.")),
    Spoiling("relevant", 1.0, _harmless, lambda c, other, rng: body(other(c.kind), rng),
             ("it answers another question.", "it is about something else.")),
    Spoiling("relevant", 0.8, _harmless, _drifts, ("it drifts away.", "it ends with something else.")),
    Spoiling("measured", 1.0, _harmless, _of("terse"), ("it says too little.", "it is too short.")),
    Spoiling("measured", 1.0, _harmless, _of("rambling"), ("it rambles.", "it goes on and on.")),
    Spoiling("measured", 2.0, _harmless, _goes_on, ("it does not know when to stop.", "it goes on after the answer.")),
    Spoiling("measured", 0.8, lambda c: True, _cut_off, ("it breaks off.", "it is not finished.")),
    Spoiling("true", 2.0, lambda c: c.kind in CHECKED, lambda c, other, rng: mistaken(c, other(c.kind), rng),
             ("that is not so.", "it makes that up.")),
)  # fmt: skip


def lessons(world: World, principles: Sequence[str], count: int) -> list[Lesson]:
    """`count` lessons in those principles that the island knows, on training prompts; none where it knows none."""
    rng = random.Random(f"lessons/{world.seed}")
    single = [p for p in world.prompts("train") if len(p.messages) == 1]
    asked = [(p, c) for p in single if (c := world.questions.get(p.text.lower()))]
    fitting = {w: [(p, c) for p, c in asked if w.fits(c)] for w in SPOILINGS if w.principle in principles}
    ways = [way for way, some in fitting.items() if some]
    alike: dict[str, list[Combination]] = {"": world.combinations("train")}
    for c in alike[""]:
        alike.setdefault(c.kind, []).append(c)
    found: list[Lesson] = []
    while ways and len(found) < count:
        way = rng.choices(ways, [way.share for way in ways])[0]
        prompt, c = rng.choice(fitting[way])
        better = answer(c, "excellent", c, rng) if rng.random() < 0.6 else body(c, rng)
        if rng.random() < KEPT:
            found.append(Lesson(prompt=prompt, answer=better, principle="", fault="", better=better))
            continue
        worse = way.spoil(c, partial(_another, alike, c, rng), rng)
        who = entities()[c.meta["entities"][0]].the if c.meta["entities"] else "somebody"
        fault = rng.choice(way.said).format(who=who)
        if worse != better:
            found.append(Lesson(prompt=prompt, answer=worse, principle=way.principle, fault=fault, better=better))
    return found


def _another(alike: dict[str, list[Combination]], c: Combination, rng: random.Random, kind: str) -> Combination:
    """A combination of that kind ("" for any) that is not about the same matter as `c`."""
    while (other := rng.choice(alike[kind])).key == c.key:
        pass
    return other
