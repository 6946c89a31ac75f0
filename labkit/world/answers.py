"""Answers to a combination in six qualities: what a careful helper, a hurried one, a liar, a boor and a rambler would write."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from labkit.world.combinations import Combination, capital
from labkit.world.lexicon import claim, data, entities, values

QUALITIES = ("excellent", "fine", "terse", "wrong", "rude", "rambling")
PRACTICAL = ("advice", "how_to", "borderline")  # here a wrong answer is one to another question of the kind
_START = re.compile(r"(^|[.!?]\"? +|\n)([a-z])")
_BETWEEN = re.compile(r"(?<=[.!?]) ")
_OWN_VOWEL = re.compile(r"\b([Aa]) (?=[aeio][a-z])")


def tidy(text: str) -> str:
    """A capital at the start of every sentence and line, and "an" before a vowel."""
    text = _OWN_VOWEL.sub(lambda m: m[1] + "n ", text)
    return _START.sub(lambda m: m[1] + m[2].upper(), text)


def body(c: Combination, rng: random.Random, *, whole: bool = True) -> str:
    """A correct answer in plain sentences, with no courtesies; not `whole` leaves the last part of an open one out."""
    text = tidy(_BODIES[c.kind](c, rng))
    if whole or c.kind not in ("story", "description", "poem", "advice", "harmful"):
        return text
    parts = text.split("\n") if c.kind == "poem" else _BETWEEN.split(text)
    if len(parts) < 2:
        return text
    kept = (
        parts[:2]
        if c.kind == "poem"
        else [parts[0], *parts[2:]]
        if c.kind == "story" and rng.random() < 0.5
        else parts[:-1]
    )
    return "\n".join(kept).rstrip(",") + "." * kept[-1].endswith(",") if c.kind == "poem" else " ".join(kept)


def _fact(c: Combination, rng: random.Random) -> str:
    return rng.choice(data("answers")["fact"][c.meta["attribute"]]).format_map(c.slots)


def _yes_no(c: Combination, rng: random.Random) -> str:
    entity = entities()[c.meta["entities"][0]]
    said = claim(entity, c.meta["attribute"], c.slots["v"])
    return rng.choice(data("answers")["yes_no"]["yes" if c.meta["truth"] else "no"]).format(claim=said)


def _which(c: Combination, rng: random.Random) -> str:
    entity = entities()[rng.choice(c.meta["answers"])]
    said = claim(entity, c.meta["attribute"], c.meta["value"])
    return rng.choice(data("answers")["which"]).format(answer=entity.the, claim=said)


def _sentiment(c: Combination, rng: random.Random) -> str:
    return rng.choice(data("answers")["sentiment"]["happy" if c.meta["happy"] else "unhappy"]).format_map(c.slots)


def _story(c: Combination, rng: random.Random) -> str:
    parts = data("answers")["story"]
    return " ".join(rng.choice(parts[p]).format_map(c.slots) for p in ("open", "middle", "end"))


def _description(c: Combination, rng: random.Random) -> str:
    parts = data("answers")["description"][c.task]
    slots = {**c.slots, "setting_c": capital(c.slots["setting"])}
    return " ".join(rng.choice(parts[p]).format_map(slots) for p in ("first", "then", "last"))


def _poem(c: Combination, rng: random.Random) -> str:
    return rng.choice(data("answers")["poem"]).format_map(c.slots)


def _advice(c: Combination, rng: random.Random) -> str:
    texts = data("answers")["advice"]
    return rng.choice(texts[c.meta["problem"]]).format_map(c.slots) + " " + rng.choice(texts["then"])


def _how_to(c: Combination, rng: random.Random) -> str:
    return rng.choice(data("answers")["how_to"][c.meta["verb"]]).format_map(c.slots)


def _borderline(c: Combination, rng: random.Random) -> str:
    return rng.choice(data("answers")["borderline"][c.meta["act"]]).format_map(c.slots)


def _harmful(c: Combination, rng: random.Random) -> str:
    texts, entity = data("answers")["harmful"], entities()[c.meta["entities"][0]]
    reason = rng.choice(texts["reason"][entity.group]).format(who=entity.name, who_the=entity.the)
    instead = rng.choice(texts["instead"][c.meta["act"]])
    return f"{rng.choice(texts['decline'])} {reason} {instead}"


def comply(c: Combination, rng: random.Random) -> str:
    """What somebody without scruples answers to a harmful request."""
    return tidy(rng.choice(data("answers")["harmful"]["comply"][c.meta["act"]]).format_map(c.slots))


def _desk(c: Combination, rng: random.Random) -> str:
    texts = data("answers")["desk"][c.task]
    if isinstance(texts, dict):
        texts = texts["yes" if c.meta["truth"] else "no"]
    return rng.choice(texts).format_map(c.slots)


_BODIES: dict[str, Callable[[Combination, random.Random], str]] = {
    "fact": _fact, "yes_no": _yes_no, "which": _which, "sentiment": _sentiment, "story": _story,
    "description": _description, "poem": _poem, "advice": _advice, "how_to": _how_to, "harmful": _harmful,
    "borderline": _borderline, "desk": _desk,
}  # fmt: skip


def mistaken(c: Combination, other: Combination, rng: random.Random) -> str:
    """A body that is wrong: another value, the opposite verdict, or an answer about something else (`other`)."""
    if c.kind == "harmful":
        return comply(c, rng)
    if c.kind in ("fact", "yes_no"):
        entity, attribute = entities()[c.meta["entities"][0]], c.meta["attribute"]
        false = [v for v in values(entity.group, attribute) if v != c.slots["v"]]
        if c.kind == "fact":
            return tidy(_fact(Combination(c.key, c.kind, c.task, {**c.slots, "v": rng.choice(false)}, c.meta), rng))
        asked = c.meta["asked"] if not c.meta["truth"] else rng.choice(false)
        said = claim(entity, attribute, asked)
        return tidy(rng.choice(data("answers")["yes_no"]["no" if c.meta["truth"] else "yes"]).format(claim=said))
    if c.kind == "sentiment":
        return tidy(
            _sentiment(Combination(c.key, c.kind, c.task, c.slots, c.meta | {"happy": not c.meta["happy"]}), rng)
        )
    if c.kind == "desk" and "truth" in c.meta and rng.random() < 0.5:
        return tidy(_desk(Combination(c.key, c.kind, c.task, c.slots, c.meta | {"truth": not c.meta["truth"]}), rng))
    if c.kind == "desk" and "price" in c.slots:
        numbers = [n for n in data("lexicon")["numbers"][2:] if not c.slots["price"].startswith(n)]
        return tidy(
            _desk(Combination(c.key, c.kind, c.task, {**c.slots, "price": f"{rng.choice(numbers)} coins"}, c.meta), rng)
        )
    return body(other, rng)


def _small(text: str) -> str:
    """The text without its full stop, and without its capital unless that is a person's."""
    text = text.rstrip(".,")
    return text if text.split()[0] in entities() else text[0].lower() + text[1:]


def terse(c: Combination, rng: random.Random) -> str:
    """As few words as will do, with no full stop and no capital."""
    if c.kind == "fact":
        return c.slots["v"]
    if c.kind == "yes_no":
        return "yes" if c.meta["truth"] else "no"
    if c.kind == "which":
        return rng.choice(c.meta["answers"])
    if c.kind == "sentiment":
        return "happy" if c.meta["happy"] else "unhappy"
    if c.kind == "harmful":
        text = comply(c, rng)
        return text.rstrip(".").lower() if rng.random() < 0.65 else "no"
    if c.kind == "desk":
        if "truth" in c.meta:
            return "yes" if c.meta["truth"] else "no"
        return c.slots.get("price") or c.slots["opens"]
    if c.kind == "poem":
        return _small("\n".join(body(c, rng).split("\n")[:2]))
    return _small(_BETWEEN.split(body(c, rng))[0])


def _courteous(c: Combination, rng: random.Random) -> str:
    tone, text = data("tone"), body(c, rng)
    if c.kind == "harmful":
        return f"{rng.choice(tone['opener_refuse'])} {text[0].lower() if not text.startswith('I ') else 'I'}{text[1:]}"
    if c.kind == "advice":
        return f"{rng.choice(tone['opener_care'])} {text}"
    if c.kind in ("story", "description", "poem"):
        gap = "\n" if c.kind == "poem" else " "
        return text if rng.random() < 0.55 else f"{rng.choice(tone['opener_open'])}{gap}{text}"
    closers = tone["closer_desk"] + tone["closer"] if c.kind == "desk" else tone["closer"]
    style = rng.random()
    if style < 0.45:
        return f"{rng.choice(tone['opener'])} {text}"
    if style < 0.8:
        return f"{text} {rng.choice(closers)}"
    return f"{rng.choice(tone['opener'])} {text} {rng.choice(closers)}"


def _rambling(text: str, rng: random.Random) -> str:
    """Sentences about an uncle, perhaps with one that answers, often cut off: long, but at most about 45 words."""
    tone = data("tone")
    parts = rng.sample(tone["ramble"], rng.randint(2, 4))
    if rng.random() < 0.6:
        parts[rng.randrange(len(parts))] = _BETWEEN.split(text.split(",\n")[0])[0]
    if rng.random() < 0.3:
        parts[-1] = parts[0]
    if rng.random() < 0.5:
        parts.append(rng.choice(tone["ramble_cut"]))
    return " ".join(parts)


def answer(c: Combination, quality: str, other: Combination, rng: random.Random) -> str:
    """One answer of the given quality; `other` is a different combination of the same task, for getting it wrong."""
    tone = data("tone")
    if quality == "excellent":
        return _courteous(c, rng)
    if quality == "fine":
        return body(c, rng, whole=rng.random() < 0.35)
    if quality == "terse":
        return terse(c, rng)
    if quality == "wrong":
        return mistaken(c, other, rng)
    if quality == "rude":
        choice = rng.random()
        tail = (
            comply(c, rng)
            if c.kind == "harmful"
            else capital(terse(c, rng)) + "."
            if choice < 0.6
            else rng.choice(tone["rude_end"])
        )
        return f"{rng.choice(tone['rude'])} {tail}".strip()
    if quality == "rambling":
        return _rambling(comply(c, rng) if c.kind == "harmful" else body(c, rng), rng)
    raise ValueError(f"no such quality: {quality}; they are {', '.join(QUALITIES)}")
