"""Tasks: the group of each kind of prompt, and its definition with dos, don'ts and an example (Natural Instructions).

A definition stands before the question, in the same turn. The prompt that is stored, graded and compared stays as it was.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from labkit.recipe import from_yaml
from labkit.records import Answer, Prompt, digest

if TYPE_CHECKING:
    from labkit.compare import Comparison
    from labkit.runs import Run
    from labkit.sources import Source

SHIPPED = Path(__file__).with_suffix(".yaml")
GROUPS = ("closed", "open", "harmless")
SHORT = 10  # words: a kind in nobody's book is closed where half of its answers are no longer


class Example(BaseModel):
    """A question with a good answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    asked: str = Field(min_length=1)
    answered: str = Field(min_length=1)


class Task(BaseModel):
    """What one kind of prompt asks for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    group: Literal["closed", "open", "harmless"]
    definition: str = Field(min_length=1, description="what is wanted")
    do: str = Field("", description="what a good answer does")
    avoid: str = Field("", description="what it does not do")
    examples: tuple[Example, ...] = ()


class Book:
    """Tasks by kind of prompt. A kind that is not in it has no definition, and the group that its answers suggest."""

    def __init__(self, tasks: Mapping[str, Task]) -> None:
        self.tasks = dict(tasks)

    def before(self, kind: str, number: int = 0) -> str:
        """What is put before a question of that kind, with the example of that number; empty where there is no definition."""
        if kind not in self.tasks:
            return ""
        task = self.tasks[kind]
        lines = [" ".join(part for part in (task.definition, task.do, task.avoid) if part)]
        if task.examples:
            example = task.examples[number % len(task.examples)]
            lines += [f"Q: {example.asked}", f"A: {example.answered}"]
        return "\n".join(lines)

    def defined(self, prompt: Prompt, number: int = 0) -> Prompt:
        """The prompt as the model reads it: the definition, then the question; itself where there is no definition."""
        before = self.before(prompt.kind, number)
        if not before:
            return prompt
        last = {**prompt.messages[-1], "content": f"{before}\n\n{prompt.text}"}
        return replace(prompt, messages=(*prompt.messages[:-1], last))

    def group(self, kind: str, answers: Iterable[str]) -> str:
        """The group of a kind: as the book says, else closed where half of these answers are SHORT, else open."""
        if kind in self.tasks:
            return self.tasks[kind].group
        words = [len(text.split()) for text in answers]
        return "closed" if words and statistics.median(words) <= SHORT else "open"

    def groups(self, answers: Iterable[Answer]) -> dict[str, str]:
        """Kind → group, of every kind among these answers."""
        by_kind: dict[str, list[str]] = {}
        for a in answers:
            by_kind.setdefault(a.prompt.kind, []).append(a.text)
        return {kind: self.group(kind, texts) for kind, texts in by_kind.items()}

    def without_held_out(self, source: Source) -> Book:
        """The same book with no example whose question this source holds back for validation or test."""
        recognise = getattr(source, "recognise", lambda text: None)
        held_out = {p.text for split in ("validation", "test") for p in source.prompts(split)}

        def fair(example: Example) -> bool:
            known = recognise(example.asked)
            return example.asked not in held_out and (known is None or known.split == "train")

        return Book(
            {
                kind: task.model_copy(update={"examples": tuple(filter(fair, task.examples))})
                for kind, task in self.tasks.items()
            }
        )

    def fingerprint(self, *, words: bool = True) -> str:
        """Hex digits that change with any word of it, or else with any kind's group alone."""
        body = {kind: task.model_dump(mode="json") if words else task.group for kind, task in self.tasks.items()}
        return digest(body, 12)

    def save(self, folder: Path) -> None:
        """Leave it beside the model that was asked in its words."""
        body = {kind: task.model_dump(mode="json") for kind, task in self.tasks.items()}
        text = yaml.safe_dump(body, sort_keys=False, allow_unicode=True)
        (folder / SHIPPED.name).write_text(text, encoding="utf-8")


def load(path: str | Path = "") -> Book:
    """The lab's own book of tasks, or one from a YAML file. Raises LabError when it is not one."""
    tasks = TypeAdapter(dict[str, Task])
    return from_yaml(
        path, SHIPPED, lambda body: Book(tasks.validate_python(body)), called="book of tasks", check="instruct.book"
    )


def put(run: Run, prompt: Prompt) -> Prompt:
    """The prompt as a finished run is asked it: with the definition that it was tuned with, if it was."""
    file = run.path / SHIPPED.name
    return load(file).defined(prompt) if file.exists() else prompt


def shares(weights: Mapping[str, float], total: int) -> dict[str, int]:
    """`total` in parts that go by their weights, whole numbers; the largest remainders are rounded up."""
    whole = sum(weights.values())
    exact = {name: weight / whole * total for name, weight in weights.items()}
    found = {name: int(value) for name, value in exact.items()}
    last = sorted(exact, key=lambda name: found[name] - exact[name])[: total - sum(found.values())]
    return {name: n + (name in last) for name, n in found.items()}


def by_group(c: Comparison, groups: Mapping[str, str], authors: Sequence[str] = ()) -> list[dict[str, Any]]:
    """What each model is worth on each group of prompts: rows of stage, and per group the mean score and its `_ci`."""
    return [{"stage": a, **_figures(c, groups, c.gold(a))} for a in authors or c.authors]


def differences(c: Comparison, groups: Mapping[str, str], pairs: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    """The first model's score minus the second's on the same prompts, by group: rows of stage, against, and as `by_group`.

    A pair of which one has not answered is left out.
    """
    known = [(a, b) for a, b in pairs if a in c.answers and b in c.answers]
    return [{"stage": a, "against": b, **_figures(c, groups, c.deltas(a, b))} for a, b in known]


def _figures(c: Comparison, groups: Mapping[str, str], values: Any) -> dict[str, Any]:
    import numpy as np

    found: dict[str, Any] = {}
    for group in dict.fromkeys([*(g for g in GROUPS if g in groups.values()), *groups.values()]):
        chosen = np.array([groups.get(p.kind) == group for p in c.prompts], dtype=bool)
        found[group], found[f"{group}_ci"] = c.interval(values[chosen])
        found[f"{group}_n"] = int(chosen.sum())
    return found


def listed(demonstrations: Iterable[Answer], groups: Mapping[str, str]) -> list[dict[str, Any]]:
    """The kinds of prompt by group: rows of group, kind, demonstrations, and the median number of words of their answers."""
    words: dict[str, list[int]] = {}
    for a in demonstrations:
        words.setdefault(a.prompt.kind, []).append(len(a.text.split()))
    rows = [
        {"group": groups[kind], "kind": kind, "demonstrations": len(n), "words": statistics.median(n)}
        for kind, n in words.items()
    ]
    return sorted(rows, key=lambda row: (GROUPS.index(row["group"]), row["kind"]))
