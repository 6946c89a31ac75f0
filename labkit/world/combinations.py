"""Every combination of a task with its entities, and the split that each belongs to.

The splits come first, before a word is written: (badger, colour) or (story: fox, lighthouse, lantern) is given to exactly
one of train, validation and test, and every question about it, in any wording, belongs there with it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from labkit.world.lexicon import DETAILS, an, claim, coins, data, entities, group, holders, values

KINDS = (
    "fact",
    "yes_no",
    "which",
    "sentiment",
    "story",
    "description",
    "poem",
    "advice",
    "how_to",
    "harmful",
    "borderline",
    "desk",
)
# Shares of prompts and demonstrations. Harmful prompts are plenty, so that a refusal rate has a narrow interval.
SHARES = {
    "fact": 0.10, "yes_no": 0.08, "which": 0.07, "sentiment": 0.06, "story": 0.10, "description": 0.07,
    "poem": 0.06, "advice": 0.08, "how_to": 0.08, "harmful": 0.15, "borderline": 0.07, "desk": 0.08,
}  # fmt: skip
HELD_OUT = {"validation": 0.11, "test": 0.21}


@dataclass(frozen=True, slots=True)
class Combination:
    """One thing that can be asked. `key` names it for the splits; two askings may share a key (a fact, and its yes/no)."""

    key: str
    kind: str
    task: str
    slots: dict[str, str]
    meta: dict[str, Any] = field(default_factory=dict)

    def wordings(self) -> list[str]:
        """Every way in which this is asked, capitalised."""
        bank = data("questions")[self.kind]
        for step in self.task.split("/"):
            bank = bank[step] if isinstance(bank, dict) else bank
        return [capital(t.format_map(self.slots)) for t in bank]


def capital(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def _facts() -> Iterator[Combination]:
    for e in entities().values():
        for attribute in DETAILS[e.group]:
            value = e.facts[attribute]
            key, meta = f"{e.name}/{attribute}", {"entities": [e.name], "attribute": attribute, "value": value}
            yield Combination(key, "fact", f"{e.group}/{attribute}", e.slots() | {"v": value}, meta)
            others = [v for v in values(e.group, attribute) if v != value]
            start = sum(map(ord, key))  # a fixed choice of two wrong values, spread over the list
            for asked in dict.fromkeys((value, others[start % len(others)], others[(start + 3) % len(others)])):
                slots = e.slots() | {"v": value, "asked": asked, "claim": claim(e, attribute, asked)}
                yield Combination(key, "yes_no", attribute, slots, meta | {"asked": asked, "truth": asked == value})


def _which() -> Iterator[Combination]:
    singles = {
        "animal": DETAILS["animal"],
        "place": ("known", "smell"),
        "object": ("use",),
        "person": DETAILS["person"],
    }
    for group_name, attributes in singles.items():
        for attribute in attributes:
            for value in values(group_name, attribute):
                meta = {
                    "attribute": attribute,
                    "value": value,
                    "answers": list(holders(attribute, value)),
                    "entities": [],
                }
                yield Combination(
                    f"which/{attribute}/{value}", "which", attribute, {"v": value, "group": group_name}, meta
                )


def _sentiment() -> Iterator[Combination]:
    lexicon = data("lexicon")
    for place in group("place"):
        for word in lexicon["praise"] + lexicon["blame"]:
            happy = word in lexicon["praise"]
            tails = data("pages")["review_tail"]["happy" if happy else "unhappy"]
            tail = tails[sum(map(ord, place.name + word)) % len(tails)]
            slots = place.slots() | {"review": f"The {place.name} was {word}. {tail}", "word": word}
            meta = {"entities": [place.name], "happy": happy}
            yield Combination(f"sentiment/{place.name}/{word}", "sentiment", "sentiment", slots, meta)


def _open() -> Iterator[Combination]:
    lexicon = data("lexicon")
    for who, place, thing in product((*group("animal"), *group("person")), group("place"), group("object")):
        names = [who.name, place.name, thing.name]
        slots = who.slots() | {
            "who": who.the,
            "a_who": who.a,
            "place": place.the,
            "thing": thing.name,
            "a_thing": thing.a,
        }
        slots |= {"known": place.facts["known"], "smell": place.facts["smell"], "use": thing.facts["use"]}
        yield Combination("story/" + "/".join(names), "story", "story", slots, {"entities": names})
    for e in (*group("animal"), *group("place")):
        for setting in lexicon["settings"]:
            meta = {"entities": [e.name], "setting": setting}
            task = "animal" if e.group == "animal" else "place"
            yield Combination(
                f"description/{e.name}/{setting}", "description", task, e.slots() | {"setting": setting}, meta
            )
    for e in (*group("animal"), *group("person"), *group("place")):
        for theme in lexicon["themes"]:
            meta = {"entities": [e.name], "theme": theme}
            yield Combination(f"poem/{e.name}/{theme}", "poem", "poem", e.slots() | {"theme": theme}, meta)
    for e in group("animal"):
        for problem, how in lexicon["problems"].items():
            slots = e.slots() | {"say": how["say"], "problem": problem}
            yield Combination(
                f"advice/{e.name}/{problem}", "advice", problem, slots, {"entities": [e.name], "problem": problem}
            )
    for owner, verbs in (("object", lexicon["chores"]), ("animal", lexicon["care"])):
        for e, verb in product(group(owner), verbs):
            yield Combination(
                f"how_to/{verb}/{e.name}", "how_to", verb, e.slots(), {"entities": [e.name], "verb": verb}
            )


def _deeds() -> Iterator[Combination]:
    """Harmful requests, and innocent ones that sound like them."""
    people, places, animals = group("person"), group("place"), group("animal")
    for kind in ("harmful", "borderline"):
        for act, wordings in data("questions")[kind].items():
            sample = wordings[0]
            if "{thing}" in sample:
                pairs = [(p, t) for p, t in product(people, group("object"))]
                for p, t in pairs:
                    slots = {"person": p.name, "thing": t.name, "target": f"the {t.name} of {p.name}"}
                    yield Combination(
                        f"{kind}/{act}/{p.name}/{t.name}", kind, act, slots, {"entities": [p.name, t.name], "act": act}
                    )
                continue
            for e in animals if "{animal}" in sample else places if "{place}" in sample else people:
                slots = e.slots() | {"person": e.name, "animal": e.name, "place": e.the, "target": e.the}
                yield Combination(f"{kind}/{act}/{e.name}", kind, act, slots, {"entities": [e.name], "act": act})


def _desk() -> Iterator[Combination]:
    desk, order = data("lexicon")["desk"], data("lexicon")["numbers"].index
    for topic, prices in (("price", desk["prices"]), ("fare", desk["tickets"])):
        for item, price in prices.items():
            slots = {"x": item, "a": an(item), "the": f"the {item}", "price": coins(price)}
            meta = {"entities": [item] if item in entities() else [], "item": item, "answer": price}
            yield Combination(f"desk/{topic}/{item}", "desk", topic, slots, meta)
            for budget in desk["budgets"]:
                task = "afford" if topic == "price" else "fare_afford"
                enough = order(budget) >= order(price)
                more = meta | {"budget": budget, "truth": enough}
                yield Combination(f"desk/{task}/{item}/{budget}", "desk", task, slots | {"n": coins(budget)}, more)
    for office, hours in desk["offices"].items():
        slots = {"office": office, "x": office, **{k: str(v) for k, v in hours.items()}}
        yield Combination(
            f"desk/hours/{office}", "desk", "hours", slots, {"entities": [], "office": office, "answer": hours["opens"]}
        )
        for day in desk["days"]:
            truth = day != hours["closed"]
            yield Combination(
                f"desk/day/{office}/{day}", "desk", "day", slots | {"day": day},
                {"entities": [], "office": office, "day": day, "truth": truth, "closed": hours["closed"]},
            )  # fmt: skip
            if truth:
                meta = {"entities": [], "office": office, "day": day, "answer": hours["opens"]}
                yield Combination(f"desk/opens/{office}/{day}", "desk", "opens", slots | {"day": day}, meta)
    for item, (when, allowed) in product(desk["prices"], desk["returns"].items()):
        slots = entities()[item].slots() | {"when": when, "days": desk["return_days"]}
        meta = {"entities": [item], "item": item, "truth": allowed}
        yield Combination(f"desk/return/{item}/{when}", "desk", "return", slots, meta)


def everything() -> list[Combination]:
    """All combinations of all kinds, in a fixed order."""
    return [*_facts(), *_which(), *_sentiment(), *_open(), *_deeds(), *_desk()]


def always_train(key: str) -> bool:
    """The opening hours are asked outright in training only: otherwise nothing would teach them."""
    return key.startswith("desk/hours/")


def split_of(combinations: list[Combination], seed: int) -> dict[str, str]:
    """Which split each key belongs to: shuffled within its family, then cut, so that each kind keeps its shares."""
    families: dict[str, list[str]] = {}
    for c in combinations:
        name = c.key.split("/")[1] if c.kind in ("fact", "yes_no") else f"{c.kind}/{c.task}"
        families.setdefault(name, []).append(c.key)
    found: dict[str, str] = {}
    for name, keys in families.items():
        keys = list(dict.fromkeys(keys))
        free = [k for k in keys if not always_train(k)]
        random.Random(f"splits/{seed}/{name}").shuffle(free)
        validation = round(len(free) * HELD_OUT["validation"])
        test = round(len(free) * HELD_OUT["test"])
        found |= dict.fromkeys(keys, "train")
        found |= dict.fromkeys(free[:validation], "validation") | dict.fromkeys(
            free[validation : validation + test], "test"
        )
    return found
