"""Ways to ask a model that only goes on with text: templates made of parts, a library of them, and how two make a third.

A template's text has one `{prompt}`, where the question goes; the answer is what the model writes up to the next line break.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from labkit.recipe import from_yaml
from labkit.records import Answer, digest

SHIPPED = Path(__file__).with_suffix(".yaml")
PARTS = ("head", "rules", "form", "turn")
LONGEST_SHOT = 160  # characters of an example, question and answer
Shot = tuple[str, str]  # a question and an answer to it

# The same in a chat template: a page of questions and answers, for models whose base has read such pages. An answer ends
# with the end token, and several turns stand below one another.
PAGE = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}A:"
    "{% generation %} {{ message['content'] }}{{ eos_token }}{% endgeneration %}\n"
    "{% else %}Q: {{ message['content'] }}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}A:{% endif %}"
)


@dataclass(frozen=True)
class Template:
    """One way to ask. `name` and `how` (how it came about) are for people; two templates of one text are equal."""

    head: str = ""
    rules: str = ""
    form: str = ""
    turn: str = "Q: {question}\nA: {answer}"
    shots: tuple[Shot, ...] = ()
    name: str = field(default="", compare=False)
    how: str = field(default="", compare=False)

    @property
    def text(self) -> str:
        """All of it as plain text with one `{prompt}`; what is missing is the answer."""
        opening = [part for part in (self.head, self.rules, self.form) if part]
        shown = [self.turn.replace("{question}", q).replace("{answer}", a) for q, a in self.shots]
        asked = self.turn.partition("{answer}")[0].replace("{question}", "{prompt}").rstrip(" ")
        return "\n".join([*opening, *shown, asked])

    @property
    def pieces(self) -> tuple[str, str]:
        """What stands before the question, without the blank that belongs to it, and what stands after it."""
        before, _, after = self.text.partition("{prompt}")
        return before.rstrip(" "), after

    def asked(self, question: str) -> str:
        """The question as the model reads it, behind `pieces[0]`."""
        before, _, after = self.text.partition("{prompt}")
        return " " * (len(before) - len(before.rstrip(" "))) + question + after

    def answered(self, answer: str) -> str:
        """An answer as it stands behind the question, with the line break that ends it."""
        return ("" if self.text.endswith(("\n", '"')) else " ") + answer + "\n"


class Library(BaseModel):
    """The pieces of each part by name, and the templates that a search starts from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    heads: dict[str, str] = Field(default_factory=dict)
    rules: dict[str, str] = Field(default_factory=dict)
    forms: dict[str, str] = Field(default_factory=dict)
    turns: dict[str, str] = Field(min_length=1)
    templates: dict[str, dict[str, Any]] = Field(min_length=2)

    @field_validator("turns")
    @classmethod
    def _turns(cls, turns: dict[str, str]) -> dict[str, str]:
        for name, turn in turns.items():
            if not 0 <= turn.find("{question}") < turn.find("{answer}"):
                raise ValueError(f"'{name}' needs a {{question}} and after it an {{answer}}")
        return turns

    @model_validator(mode="after")
    def _known(self) -> Library:
        for name, parts in self.templates.items():
            for part, piece in parts.items():
                if part != "shots" and (part not in PARTS or piece not in self.part(part)):
                    raise ValueError(f"template '{name}' asks for {part} '{piece}', which is not there")
                if part == "shots" and not (isinstance(piece, int) and piece >= 0):
                    raise ValueError(f"template '{name}' needs a whole number of shots, not {piece!r}")
            if "turn" not in parts:
                raise ValueError(f"template '{name}' needs a turn")
        return self

    def part(self, name: str) -> Mapping[str, str]:
        """The pieces of a part by name, from which a template takes at most one."""
        return {"head": self.heads, "rules": self.rules, "form": self.forms, "turn": self.turns}[name]

    def start(self, shots: Sequence[Shot], rng: random.Random) -> list[Template]:
        """The library's templates, each with examples of its own drawn from `shots`."""
        found = []
        for name, parts in self.templates.items():
            chosen = {p: self.part(p)[parts[p]] for p in PARTS if p in parts}
            drawn = rng.sample(list(shots), min(parts.get("shots", 0), len(shots)))
            found.append(Template(**chosen, shots=tuple(drawn), name=name, how="library"))
        return found

    def child(self, a: Template, b: Template, shots: Sequence[Shot], most: int, rng: random.Random) -> Template:
        """A template with each part of one of two others, and one change: another piece, or an example more, fewer or other."""
        parts = {p: getattr(rng.choice((a, b)), p) for p in PARTS}
        union = list(dict.fromkeys(a.shots + b.shots))
        kept = sorted(rng.sample(range(len(union)), len(rng.choice((a, b)).shots)))
        both = Template(**parts, shots=tuple(union[i] for i in kept))
        changed, said = self._changed(both, shots, most, rng)
        cross = a.name if a == b else f"{a.name} × {b.name}"
        return replace(changed, how=f"{cross}, {said}")

    def _changed(self, t: Template, shots: Sequence[Shot], most: int, rng: random.Random) -> tuple[Template, str]:
        other = [s for s in shots if s not in t.shots]
        ways = ["piece"] + ["more"] * 2 * (len(t.shots) < most and bool(other))
        ways += ["other", "fewer"] * bool(t.shots and other)
        way = rng.choice(ways)
        at = rng.randrange(len(t.shots)) if t.shots else 0
        if way == "more":
            return replace(t, shots=(*t.shots, rng.choice(other))), "one more example"
        if way == "other":
            return replace(t, shots=(*t.shots[:at], rng.choice(other), *t.shots[at + 1 :])), "another example"
        if way == "fewer":
            return replace(t, shots=t.shots[:at] + t.shots[at + 1 :]), "one example fewer"
        part = rng.choice([p for p in PARTS if self.part(p)])
        pieces = [*self.part(part).values(), *([""] if part != "turn" else [])]
        new: dict[str, Any] = {part: rng.choice([p for p in pieces if p != getattr(t, part)] or pieces)}
        return replace(t, **new), f"another {part}"


def load(path: str | Path = "") -> Library:
    """The lab's own library, or one from a YAML file. Raises LabError when it is not one."""
    return from_yaml(
        path, SHIPPED, lambda body: Library(**body), called="library of templates", check="the path", short="library"
    )


def fingerprint(path: str | Path = "") -> str:
    """Hex digits that change with any word of the library."""
    return digest(load(path).model_dump(mode="json"), 12)


def single(answers: Sequence[Answer]) -> list[Answer]:
    """Those that a template can show or hope for: one question, an answer of one line, nothing that looks like a blank."""
    return [
        a for a in answers
        if len(a.prompt.messages) == 1 and a.text and not set("{}\n") & set(a.prompt.text + a.text)
    ]  # fmt: skip
