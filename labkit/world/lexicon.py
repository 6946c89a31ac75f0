"""What exists on the island: entities, their facts, and the words for them, read once from the YAML files beside this one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
FILES = ("lexicon", "questions", "answers", "pages", "tone", "words")
GROUPS = {"animals": "animal", "places": "place", "objects": "object", "people": "person"}
DETAILS = {
    "animal": ("colour", "home", "food", "sound", "skill"),
    "place": ("known", "side", "smell"),
    "object": ("material", "use"),
    "person": ("job", "love"),
}


@cache
def data(name: str) -> Any:
    """The content of one data file; parsed once in a process."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"), Loader=loader)  # noqa: S506, a safe loader


@cache
def fingerprint() -> str:
    """SHA-256 over the bytes of the data files: editing a template makes another world."""
    content = hashlib.sha256()
    for name in FILES:
        content.update((FOLDER / f"{name}.yaml").read_bytes().replace(b"\r\n", b"\n"))
    return content.hexdigest()


@dataclass(frozen=True, slots=True)
class Entity:
    """Somebody or something on the island, with the forms that sentences need: `a` owl is "an owl", Ada stays Ada."""

    name: str
    group: str
    facts: dict[str, str]
    it: str = "it"

    @property
    def a(self) -> str:
        if self.group == "person":
            return self.name
        if self.group == "place":
            return self.the
        return f"{'an' if self.name[0] in 'aeiou' else 'a'} {self.name}"

    @property
    def the(self) -> str:
        return self.name if self.group == "person" else f"the {self.name}"

    def slots(self) -> dict[str, str]:
        """The words that a template about this one entity may use."""
        its = {"it": "its", "she": "her", "he": "his"}[self.it]
        return {"x": self.name, "a": self.a, "the": self.the, "it": self.it, "its": its, **self.facts}


@cache
def entities() -> dict[str, Entity]:
    """Every entity by name, in the order of the file."""
    found = {}
    for group, singular in GROUPS.items():
        for name, facts in data("lexicon")[group].items():
            facts = dict(facts)
            found[name] = Entity(name, singular, it=facts.pop("it", "it"), facts=facts)
    return found


@cache
def group(name: str) -> tuple[Entity, ...]:
    """The entities of one group: "animal", "place", "object" or "person"."""
    return tuple(e for e in entities().values() if e.group == name)


@cache
def values(group_name: str, attribute: str) -> tuple[str, ...]:
    """The distinct values that an attribute takes within a group, in the order of the file."""
    return tuple(dict.fromkeys(e.facts[attribute] for e in group(group_name)))


@cache
def holders(attribute: str, value: str) -> tuple[str, ...]:
    """The names of all entities for which `attribute` is `value`."""
    return tuple(e.name for e in entities().values() if e.facts.get(attribute) == value)


def claim(entity: Entity, attribute: str, value: str) -> str:
    """A plain clause that states one fact: "the badger lives under the stairs"."""
    return data("answers")["claims"][attribute].format(**{**entity.slots(), "v": value})


def coins(number: str) -> str:
    """ "three" is "three coins", "one" is "one coin"."""
    return f"{number} coin" if number == "one" else f"{number} coins"


def an(noun: str) -> str:
    """The noun with its indefinite article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
