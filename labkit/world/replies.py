"""The last answer of a conversation: how people give it, well and badly, and how gold grades it.

Most last questions are an ordinary one in disguise, and their answers are judged as answers to that. Three are not: say it
shorter, tell me more, thank you.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from labkit.records import Answer, Prompt
from labkit.world import gold, truth
from labkit.world.answers import _BETWEEN, _rambling, _small, answer
from labkit.world.lexicon import DETAILS, data, entities
from labkit.world.signals import _GLUE, Signals

if TYPE_CHECKING:
    from labkit.world import World
    from labkit.world.dialogues import Dialogue


def demonstrations(world: World, talks: list[tuple[Prompt, Dialogue]]) -> list[Answer]:
    """One answer to each, by people of the same six qualities and in the same shares as all demonstrations."""
    rng = random.Random(f"dialogue demonstrations/{world.seed}")
    found = []
    for (prompt, talk), author in zip(talks, world._authors(len(talks), rng), strict=True):
        found.append(Answer(prompt=prompt, text=_demonstrate(world, talk, author, rng), author=author))
    return found


def _demonstrate(world: World, talk: Dialogue, quality: str, rng: random.Random) -> str:
    """An answer of one quality to the last question of a training conversation."""
    c, tone, bank = talk.means, data("tone"), data("dialogues")["welcome"]
    if talk.follow == "more":
        told = set(c.meta["told"])
        facts = [
            f for f in world.combinations("train") if f.kind == "fact" and f.meta["entities"] == c.meta["entities"]
        ]
        c = rng.choice([f for f in facts if f.meta["attribute"] not in told])
    if talk.follow not in ("shorter", "thanks"):
        same = world._siblings[c.kind if c.kind in ("advice", "how_to", "borderline") else (c.kind, c.task)]
        return answer(c, quality, rng.choice(same), rng)
    before = talk.turns[-1][1]
    good = _BETWEEN.split(before)[0] if talk.follow == "shorter" else rng.choice(bank["fine"])
    if quality == "excellent":
        return rng.choice(bank["excellent"]) if talk.follow == "thanks" else f"{rng.choice(tone['opener_open'])} {good}"
    if quality == "terse":
        return _small(good) if talk.follow == "shorter" else rng.choice(bank["terse"])
    if quality == "wrong":
        return before
    if quality == "rude":
        return f"{rng.choice(tone['rude'])} {rng.choice(tone['rude_end'])}".strip()
    return _rambling(good, rng) if quality == "rambling" else good


def grade(prompt: Prompt, text: str, *, ended: bool = True) -> tuple[float, gold.Grades]:
    """Gold of the last answer: that of the same answer to the question which the last one stands for."""
    alone = Prompt.of(prompt.meta["means"], kind=prompt.kind, split=prompt.split, meta=prompt.meta)
    score, grades = gold.grade(alone, text, ended=ended)
    judge, s = _JUDGES.get(prompt.kind), Signals(text.strip())
    if judge is None or not s.words:
        return score, grades
    correct = judge(s, prompt)
    return max(-5.0, min(3.0, score + (1.7 if correct else -1.2))), grades | {"correct": float(correct)}


def _is_shorter(s: Signals, prompt: Prompt) -> bool:
    """At most seven words of ten of what it stands for, still about it: half its names or more, and words of its own."""
    long, asked = Signals(prompt.messages[-2]["content"]), prompt.meta["entities"]
    own = {w for w in s.words if w not in _GLUE}
    names = [n for n in asked if n in long.names]
    kept = 2 * sum(n in s.names for n in names) >= len(names)
    return 3 <= len(s.words) <= 0.7 * len(long.words) and kept and len(own & long.bag) >= 0.3 * len(own)


def _is_more(s: Signals, prompt: Prompt) -> bool:
    """Something true of it that was not told yet, and nothing false."""
    e = entities()[prompt.meta["entities"][0]]
    said = {a: truth.named(s, e.group, a) for a in DETAILS[e.group]}
    false = any(values and e.facts[a] not in values for a, values in said.items())
    return not false and any(said[a] for a in said if a not in prompt.meta["told"])


def _is_welcome(s: Signals, prompt: Prompt) -> bool:
    """Kind and brief: thanks want no second answer."""
    return s.warm and len(s.words) <= 16


_JUDGES: dict[str, Callable[[Signals, Prompt], bool]] = {
    "shorter": _is_shorter, "more": _is_more, "thanks": _is_welcome
}  # fmt: skip
