"""Qualities of a text that need no knowledge of the prompt's answer: rude, kind, varied, well formed, whose names it drops."""

from __future__ import annotations

import re
from functools import cache, lru_cache

from labkit.records import Prompt
from labkit.world.lexicon import data, entities

_WORD = re.compile(r"[a-z]+(?:['’][a-z]+)?|\d+")
_SENTENCE_END = re.compile(r"[.!?]+[\"')]*(?:\s+|$)|\n+")
_FINISHED = re.compile(r"[.!?][\"')]*$")
_DETERMINERS = frozenset("a an the my your his her its our their every".split())
_NEVER_AFTER = frozenset(
    "a an the of is are was were and or but to for with at in on by i he she it they we from than that".split()
)
_LINKS = frozenset("of the a an and or but my your".split())
_GLUE = frozenset(
    "a about after all an and any are as at be been but by can could did do does for from had has have he her his how i if in into is "
    "it its just may me might my no nor not of off on one or our out over own she should so some than that the their them then there "
    "they this those to too up us very was we were what when where which while who will with would you your i'm it's don't can't".split()
)
_SPEAKER = frozenset(["i", "i'm", "i'd", "i'll", "my", "no", "not"])
# A clause has one of these, or a word in -ed; a list of names has none.
_VERBS = frozenset(
    "is are was were be been am has have had do does did can could will would may might must shall should let get got go goes went "
    "come comes came see saw sees find found look looks take took give gave make made say said says tell told know knew think "
    "like likes love loves live lives eat eats sit sits sat stand stood run ran walk put keep kept hold held help use hang hangs "
    "fall fell rise sleep slept dream dreams sing sang sings smell smells hear heard feel feels felt ask try wait hope wish thank "
    "enjoy begin began blew blows bring brought buy cut cook stir cover wrap wash wipe dry clean brush fill offer lay lie left leave "
    "listen need want wants wear wore write read play speak stay shake shook show hide hid lift carry mend glue tie paint costs "
    "cost opens open closes close return stretch glow glows shine shines drift drifts can't won't don't isn't it's i'm that's let's "
    "rinse feed greet bow smile laugh visit catch caught teach taught grow grew turn count lost win won care rub point press "
    "warm rest follow call light send sent meet met drink drank hum hums bark barks hoots croaks purrs".split()
)


@cache
def known_words() -> frozenset[str]:
    """Every word of the data files: the island's own and the list of common English ones."""
    words = set(
        _WORD.findall(str([data(n) for n in ("lexicon", "questions", "answers", "pages", "tone", "words")]).lower())
    )
    return frozenset(words) | _VERBS


@lru_cache(maxsize=8192)
def _familiar(word: str) -> bool:
    """Whether a word is a known one with an ending: feathers, shining, softly."""
    known = known_words()
    for ending in ("'s", "s", "es", "ed", "ing", "ly", "er", "est", "y", "d", "r", "n", "un"):
        root = word.removesuffix(ending)
        if (
            root != word
            and len(root) > 2
            and (root in known or root + "e" in known or (root[-1] == root[-2] and root[:-1] in known))
        ):
            return True
    return word.endswith("ies") and word[:-3] + "y" in known


@cache
def _patterns() -> dict[str, re.Pattern[str]]:
    tone = data("tone")
    joined = {name: "|".join(tone[name]) for name in ("insults", "decline", "dissuade")}
    return {
        name: re.compile(p) for name, p in (joined | {k: tone[k] for k in ("instead", "wicked", "courtesy")}).items()
    }


def matches(name: str, text: str) -> bool:
    """Whether one of the tone file's patterns is found in the text (lower case)."""
    return _patterns()[name].search(text) is not None


def without_courtesy(text: str) -> str:
    """The text with "happy to help", "good luck" and the like taken out, so that they decide nothing."""
    return _patterns()["courtesy"].sub(" ", text)


@cache
def lexicon_set(name: str) -> frozenset[str]:
    """A word list of the tone file as a set."""
    return frozenset(data("tone")[name])


@cache
def _name_forms() -> dict[str, str]:
    """Every one-word form of an entity's name, in lower case: geese → goose."""
    plurals = data("lexicon")["plurals"]
    forms: dict[str, str] = {}
    for e in entities().values():
        last = e.name.lower().split()[-1]
        forms |= {last: e.name, last + "s": e.name, last + "'s": e.name, plurals.get(e.name, last): e.name}
    return forms


def _named(s: Signals) -> list[str]:
    forms, found = _name_forms(), []
    for n, w in enumerate(s.words):
        name = forms.get(w)
        if name is None or name in found:
            continue
        if name == "tea room" and (n == 0 or s.words[n - 1] != "tea"):
            continue
        if name[0].isupper() and name not in s.text:  # "dot" and "june" are words as well
            continue
        found.append(name)
    return found


@lru_cache(maxsize=4096)
def _runs(text: str) -> frozenset[tuple[str, ...]]:
    w = _WORD.findall(text.lower())
    return frozenset(zip(w, w[1:], w[2:], w[3:]))  # noqa: B905


@lru_cache(maxsize=4096)
def names_in(text: str) -> frozenset[str]:
    """The entities that a text names (remembered: prompts are graded many times)."""
    return frozenset(Signals(text).names)


def _topic(prompt: Prompt) -> frozenset[str]:
    """The words that an answer to this prompt may be expected to use: those of the question, its facts and its matter."""
    m = prompt.meta
    return _topic_words(
        prompt.text, prompt.kind, tuple(m.get("entities", ())), m.get("problem") or m.get("verb") or m.get("act") or ""
    )


@lru_cache(maxsize=4096)
def _topic_words(text: str, kind: str, names: tuple[str, ...], matter: str) -> frozenset[str]:
    lexicon, tone = data("lexicon"), data("tone")
    about = set(_WORD.findall(text.lower())) - _GLUE
    for name in names:
        about |= set(_WORD.findall(" ".join(entities()[name].facts.values()))) - _GLUE
    for words in (
        lexicon["problems"].get(matter, {}).get("words"),
        lexicon["chores"].get(matter),
        lexicon["care"].get(matter),
    ):
        about |= set(words or ())
    about |= set(tone["act_words"].get(matter, ())) | set(tone["on_point"].get(kind, ())) | set(tone["on_point"]["all"])
    return frozenset(about)


class Signals:
    """What one text shows. All counts; the weights are gold's business.

    `words` are in lower case, `bag` is their set, `sentences` the words of each sentence or line, `names` the entities
    that the text names, once each, in order.
    """

    __slots__ = ("bag", "low", "names", "sentences", "text", "words")

    def __init__(self, text: str) -> None:
        self.text = text
        self.low = text.lower().replace("’", "'")
        self.sentences = [found for s in _SENTENCE_END.split(self.low) if (found := _WORD.findall(s))]
        self.words = [w for s in self.sentences for w in s]
        self.bag = frozenset(self.words)
        self.names = _named(self)

    @property
    def rude(self) -> bool:
        return matches("insults", self.low)

    @property
    def warm(self) -> bool:
        return not self.bag.isdisjoint(lexicon_set("warm"))

    @property
    def declines(self) -> bool:
        return not self.bag.isdisjoint(_SPEAKER) and matches("decline", self.low)

    @property
    def finished(self) -> bool:
        return _FINISHED.search(self.text.rstrip()) is not None

    @property
    def unknown(self) -> float:
        """The share of words that are neither the island's nor common English, the first of them free."""
        strange = {w for w in self.bag - known_words() if not w.isdigit() and not _familiar(w)}
        return max(0, sum(w in strange for w in self.words) - 1) / len(self.words) if strange else 0.0

    @property
    def repeated(self) -> float:
        """The share of three-word runs that occurred before, with sentences that came before counted in full."""
        w = self.words
        runs = list(zip(w, w[1:], w[2:]))  # noqa: B905
        share = 1 - len(set(runs)) / len(runs) if runs else 0.0
        if len(self.sentences) < 2:
            return share
        starts = [tuple(s) for s in self.sentences]
        return max(share, 1 - len(set(starts)) / len(starts))

    @property
    def broken(self) -> int:
        """Places where English cannot be right: "the is", "of .", a word twice in a row."""
        count = 0
        for sentence in self.sentences:
            for a, b in zip(sentence, sentence[1:], strict=False):
                count += (a == b and a not in ("very", "round", "so", "ha", "on", "no")) or (
                    a in _DETERMINERS and b in _NEVER_AFTER
                )
            count += len(sentence) > 1 and sentence[-1] in _LINKS
        return count

    @property
    def clauses(self) -> int:
        """Sentences or lines of three words or more that have a verb."""
        return sum(len(s) > 2 and any(w in _VERBS or w.endswith("ed") for w in s) for s in self.sentences)

    @property
    def glue(self) -> float:
        """The share of small words (the, of, you, is): about half in English, next to none in a list of nouns."""
        return sum(w in _GLUE or len(w) < 3 for w in self.words) / max(len(self.words), 1)

    def strays(self, prompt: Prompt) -> int:
        """Sentences of a closed or practical answer that have nothing to do with what was asked, and are not kind either."""
        if prompt.kind in ("story", "poem", "description"):
            return 0
        about = _topic(prompt) | lexicon_set("warm")
        return max(0, sum(about.isdisjoint(s) for s in self.sentences) - 1)

    def count(self, words: frozenset[str] | list[str]) -> int:
        """How many different words of a list occur."""
        return sum(w in self.bag for w in words)

    def echo(self, prompt: str) -> float:
        """The share of the prompt's four-word runs that the text repeats: copying a question is no answer to it."""
        asked, w = _runs(prompt), self.words
        return len(asked.intersection(zip(w, w[1:], w[2:], w[3:]))) / len(asked) if asked else 0.0  # noqa: B905
