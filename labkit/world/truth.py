"""Reads what a text claims: which values of an attribute it names, which verdict it gives, which numbers it says."""

from __future__ import annotations

import re
from functools import cache

from labkit.world.lexicon import data, values
from labkit.world.signals import Signals, lexicon_set, without_courtesy

_NEGATED = r"\b(?:not|never|no|n't|isn't|doesn't|can't|cannot|nor)\b(?: \w+){0,2} "
_WORD = re.compile(r"[a-z']+|\d+")
# A question decides nothing, and neither does not knowing.
_NO_VERDICT = re.compile(
    r"[^.!?\n]*\?|\b(?:i )?(?:do not|don't|cannot|can't) (?:know|say|tell)\b|\bno idea\b|\bnot sure\b|\bnot know\b"
)


def forms(word: str) -> set[str]:
    """The shapes that one word takes: knit, knits, knitting, knitted."""
    root = word[:-1] if word.endswith("s") and not word.endswith("ss") else word
    short = root[:-1] if root.endswith("e") else root
    found = {word, root, root + "s", root + "es", short + "ing", short + "ed", root + "ed", short + "er"}
    found |= {root + root[-1] + ending for ending in ("ing", "ed", "y", "er")}
    return found | ({root[:-1] + "ies", root[:-1] + "ied"} if root.endswith("y") else set())


@cache
def cues(value: str) -> frozenset[str]:
    """The words that give a value away; "under the stairs" is known by "stairs"."""
    heads = data("lexicon")["heads"].get(value, [value.split()[-1]])
    return frozenset(form for head in heads for form in forms(head)) - frozenset(
        data("lexicon")["not_heads"].get(value, [])
    )


def named(s: Signals, group_name: str, attribute: str) -> list[str]:
    """The values of an attribute that the text names and does not deny."""
    found = [v for v in values(group_name, attribute) if not s.bag.isdisjoint(cues(v))]
    return [v for v in found if not denied(s, v)]


def denied(s: Signals, value: str) -> bool:
    """Whether every mention of the value stands after a "not"."""
    pattern = _cue_pattern(value)
    mentions = len(pattern[0].findall(s.low))
    return mentions > 0 and len(pattern[1].findall(s.low)) >= mentions


@cache
def _cue_pattern(value: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    words = "|".join(sorted(cues(value)))
    return re.compile(rf"\b(?:{words})\b"), re.compile(rf"{_NEGATED}(?:{words})\b")


def verdict(s: Signals) -> bool | None:
    """True for yes, False for no, None for neither or for both at once."""
    words = _WORD.findall(_NO_VERDICT.sub(" ", without_courtesy(s.low)))
    if "yes" in words and "no" in words:
        return None
    yes, no = lexicon_set("says_yes"), lexicon_set("says_no")
    for w in words:
        if w in no:
            return False
        if w in yes:
            return True
    return None


def mood(s: Signals) -> bool | None:
    """Whether the text calls a review happy (True) or unhappy (False); None for neither or both."""
    text = without_courtesy(s.low)
    flipped = re.sub(
        r"\b(?:not|isn't|wasn't|far from|anything but) (?:\w+ )?(happy|pleased|satisfied|glad)\b", "unhappy", text
    )
    flipped = re.sub(r"\b(?:not|isn't|wasn't) (?:\w+ )?(unhappy|bad|sad)\b", "happy", flipped)
    words = set(_WORD.findall(flipped))
    happy, unhappy = not words.isdisjoint(lexicon_set("happy")), not words.isdisjoint(lexicon_set("unhappy"))
    return happy if happy != unhappy else None


@cache
def _digits() -> dict[str, str]:
    return {str(n): w for n, w in enumerate(data("lexicon")["numbers"])}


def numbers(s: Signals) -> list[str]:
    """The numbers from two to ten that the text says, as words, once each."""
    known = data("lexicon")["numbers"]
    said = [_digits().get(w, w) for w in s.words]
    return list(dict.fromkeys(w for w in said if w in known and w not in ("zero", "one")))
