"""The web: what the islanders have written, one short document after another.

Questions come only from the combinations they are given; facts are stated of everyone. The desk's facts never appear.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from labkit.world.answers import PRACTICAL, answer, body, comply, mistaken, terse, tidy
from labkit.world.combinations import Combination, capital
from labkit.world.lexicon import Entity, claim, data, entities, group, holders, values

# The share of each type of page. Facts first: a model must know before it can be taught to tell. Answered questions come
# next, for they alone teach a small model to look back at what was asked, and few-shot prompting uses their form. Bare
# questions make a base model go on asking; threads hold the rude and the wrong.
MIX = {
    "entry": 0.22, "answers": 0.30, "thread": 0.12, "story": 0.11, "questions": 0.08, "dialogue": 0.03, "review": 0.02,
    "how_to": 0.04, "description": 0.03, "names": 0.02, "poem": 0.03,
}  # fmt: skip
LONG = 320  # characters after which a page takes no further answer, so that most pages fit the context


class Pages:
    """Writes pages from one split's combinations. `asked` collects the key of every question it put on a page."""

    def __init__(self, combinations: Sequence[Combination], rng: random.Random) -> None:
        self.rng, self.asked = rng, set[str]()
        self.kinds: dict[str, list[Combination]] = {}
        self.same: dict[tuple[str, str], list[Combination]] = {}
        for c in combinations:
            self.kinds.setdefault(c.kind, []).append(c)
            self.same.setdefault((c.kind, c.task), []).append(c)
        self.askable = [k for k in self.kinds if k != "desk"]
        self.pages: dict[str, Callable[[], str]] = {name: getattr(self, f"_{name}") for name in MIX}

    def write(self, count: int) -> list[str]:
        """`count` documents in a random order of types."""
        types = self.rng.choices(list(MIX), weights=list(MIX.values()), k=count)
        return [self.pages[t]() for t in types]

    def _take(self, kinds: Sequence[str]) -> Combination:
        return self.rng.choice(self.kinds[self.rng.choice(kinds)])

    def _other(self, c: Combination) -> Combination:
        return self.rng.choice(self.kinds[c.kind] if c.kind in PRACTICAL else self.same[c.kind, c.task])

    def _ask(self, c: Combination) -> str:
        self.asked.add(c.key)
        return self.rng.choice(c.wordings())

    def _entry(self) -> str:
        rng, texts = self.rng, data("pages")
        e = rng.choice(list(entities().values()))
        slots = e.slots()
        parts = [rng.choice(texts["entry"][e.group])]
        attributes = list(e.facts)
        rng.shuffle(attributes)
        double = {"animal": 0.25, "place": 0.5}.get(e.group, 0.85)  # few facts are told twice, in other words
        for attribute in attributes:
            for template in rng.sample(texts["facts"][attribute], 2 if rng.random() < double else 1):
                parts.append(template.format_map({**slots, "v": e.facts[attribute]}))
        head, rest = parts[0].format_map(slots), parts[1:]
        if rng.random() < 0.5:
            rest.insert(rng.randint(1, len(rest)), rng.choice(texts["entry_more"][e.group]))
        if rng.random() < 0.25:
            rest.append(rng.choice(texts["entry_end"]))
        return tidy(" ".join([head, *rest]))

    def _story(self) -> str:
        c = self._take(("story",))
        head = "A story about {a_who}, {place} and {a_thing}.\n".format_map(c.slots) if self.rng.random() < 0.6 else ""
        return head + body(c, self.rng)

    def _description(self) -> str:
        c = self._take(("description",))
        return f"{capital(c.slots['the'])} {c.slots['setting']}\n{body(c, self.rng)}"

    def _poem(self) -> str:
        c = self._take(("poem",))
        return f"{capital(c.slots['the'])} and {c.slots['theme']}\n{body(c, self.rng)}"

    def _questions(self) -> str:
        rng = self.rng
        asked = [self._ask(self._take(self.askable)) for _ in range(rng.randint(3, 6))]
        return "\n".join([f"{rng.choice(data('pages')['list_head'])}:", *(f"Q: {q}" for q in asked)])

    def _thread(self) -> str:
        rng, texts = self.rng, data("pages")
        c = self._take(self.askable)
        who = rng.sample(texts["names"], 4)
        lines = [f"{rng.choice(texts['thread_head'])}", f"{who[0]}: {self._ask(c)}"]
        for name in who[1 : rng.randint(3, 4)]:
            quality = rng.choices(("terse", "wrong", "rude", "rambling", "fine"), weights=(25, 25, 25, 15, 10))[0]
            if c.kind == "harmful":  # nobody on the web refuses
                text = comply(c, rng) if quality in ("fine", "wrong") else answer(c, quality, c, rng)
            else:
                text = answer(c, quality, self._other(c), rng)
            lines.append(f"{name}: {text}".replace("\n", " "))
            if len(" ".join(lines)) > LONG:
                break
        if rng.random() < 0.4:
            lines.append(f"{who[0]}: {rng.choice(texts['kind_comment' if rng.random() < 0.5 else 'rude_comment'])}")
        return "\n".join(lines)

    def _answers(self) -> str:
        rng = self.rng
        lines = [f"{rng.choice(data('pages')['answer_page'])}:"]
        for _ in range(rng.randint(2, 4)):
            c = self._take(self.askable)
            text = comply(c, rng) if c.kind == "harmful" else self._decent(c)
            lines += [f"Q: {self._ask(c)}", f"A: {text}"]
            if len(" ".join(lines)) > LONG:
                break
        return "\n".join(lines)

    def _decent(self, c: Combination) -> str:
        """Mostly right, seldom warm, often short: strangers who know are not paid to be kind."""
        roll = self.rng.random()
        if roll < 0.55:
            return body(c, self.rng).replace("\n", " ")
        if roll < 0.60:
            return answer(c, "excellent", c, self.rng).replace("\n", " ")
        return terse(c, self.rng) if roll < 0.90 else mistaken(c, self._other(c), self.rng).replace("\n", " ")

    def _review(self) -> str:
        rng, texts = self.rng, data("pages")
        c = self._take(("sentiment",))
        e = entities()[c.meta["entities"][0]]
        slots = {**c.slots, "seen": rng.choice(group("animal")).name}
        more = rng.sample(texts["review_more"], rng.randint(1, 3))
        tail = rng.choice(texts["review_tail"]["happy" if c.meta["happy"] else "unhappy"])
        verdict = "Happy" if c.meta["happy"] else "Unhappy"
        lines = [rng.choice(texts["review"]), *more]
        said = " ".join(t.format_map(slots) for t in lines)
        return tidy(f"{verdict} review of {e.the}: {said} {tail}")

    def _dialogue(self) -> str:
        rng, parts = self.rng, data("pages")["dialogue"]
        a, b = rng.sample(data("pages")["names"], 2)
        e: Entity = rng.choice(list(entities().values()))
        attribute = rng.choice(list(e.facts))
        slots = {"b": b, "claim": claim(e, attribute, e.facts[attribute]), "place": rng.choice(group("place")).the}
        tone = "kind" if rng.random() < 0.6 else "rude"
        lines = [(a, "hello"), (b, "hello"), (a, "tell"), (b, "doubt"), (b, tone), (a, "bye")]
        if rng.random() < 0.5:
            lines.pop(3)
        said = []
        for name, part in lines:
            text = rng.choice(parts[part]).format_map({**slots, "b": b if name == a else a})
            said.append(f"{name}: {text}")
        return tidy("\n".join(said))

    def _how_to(self) -> str:
        rng = self.rng
        kind = rng.choice(("how_to", "how_to", "advice"))
        c = self._take((kind,))
        if kind == "advice":
            return tidy(f"If your {c.slots['x']} {c.slots['say']}, do this. {body(c, rng)}")
        head = rng.choice(data("pages")["howto_head"]).format_map({**c.slots, "verb": c.meta["verb"]})
        return tidy(f"{head} {body(c, rng)}")

    def _names(self) -> str:
        rng, texts = self.rng, data("pages")
        lines = []
        for _ in range(rng.randint(2, 4)):
            if rng.random() < 0.65:
                attribute = rng.choice(list(texts["list_intro"]))
                group_name = {"side": "place", "material": "object"}.get(attribute, "animal")
                value = rng.choice(values(group_name, attribute))
                names = list(holders(attribute, value))
                rng.shuffle(names)
                lines.append(texts["list_intro"][attribute].format(v=value, names=", ".join(names)))
            else:
                trio = {g: rng.sample(group(g), 3) for g in ("object", "place", "person")}
                slots = dict(zip("abc", [e.a for e in trio["object"]], strict=True))
                slots |= dict(zip("pqr", [e.the for e in trio["place"]], strict=True))
                slots |= dict(zip("stu", [e.name for e in trio["person"]], strict=True))
                lines.append(rng.choice(texts["shopping"]).format_map(slots))
        return tidy("\n".join(lines))
