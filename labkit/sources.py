"""Where text, prompts, demonstrations and preferences come from: the embedded world, or real data sets.

Both are a `Source`, and no stage asks which one it has. What a source does not know is an empty list or None.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, Protocol

from pydantic import Field

from labkit import datafiles, formats
from labkit.errors import LabError
from labkit.recipe import Settings
from labkit.records import SPLITS, Answer, Pair, Prompt, digest
from labkit.surface import surface
from labkit.world import Settings as WorldSettings
from labkit.world import World
from labkit.world.principles import Lesson


class Data(Settings):
    """Section `data` of a recipe: the embedded world by default, or files and data sets of the hub.

    A data set of the hub is named `owner/id`, `owner/id:split` or `owner/id/part:split`.
    """

    source: Literal["world", "files"] = Field("world", description="the embedded world, or the files named below")
    world: WorldSettings = Field(default_factory=WorldSettings, description="sizes of the embedded world")
    demonstrations: list[str] = Field([], description="files or hub ids: instructions with answers")
    preferences: list[str] = Field([], description="files or hub ids: pairs of a chosen and a rejected answer")
    web: list[str] = Field([], description="files or hub ids: plain text, to pretrain on and for perplexity")
    limit: int = Field(0, ge=0, description="rows read from each file, from its start; 0: all")
    longest_prompt: int = Field(0, ge=0, description="characters; a longer conversation is left out; 0: none is")
    validation_prompts: int = Field(100, ge=1, description="prompts held out for choosing settings; pages show these")
    test_prompts: int = Field(300, ge=1, description="prompts held out for the report alone")
    held_out_web: float = Field(0.05, gt=0, lt=0.5, description="share of the web in each of validation and test")


class Source(Protocol):
    """What the stages ask of it; `split` is train, validation or test, and no prompt is in two of them."""

    @property
    def name(self) -> str:
        """What tables call it."""

    def digest(self) -> str:
        """Hex digits that change with any content that the source would give."""

    def web(self, split: str) -> list[str]:
        """Plain documents; empty where there are none."""

    def prompts(self, split: str) -> list[Prompt]:
        """The distinct prompts of a split, in a fixed order."""

    def demonstrations(self) -> list[Answer]:
        """Answers to imitate, to prompts of the training split only."""

    def pairs(self, split: str) -> list[Pair]:
        """Preferences that were recorded with the data; none in the embedded world, where answers are judged anew."""

    def grade(self, prompt: Prompt, text: str, *, ended: bool = True) -> tuple[float | None, dict[str, float | None]]:
        """Gold utility (None where nobody knows it) and grades of an answer, 0 or 1 each, None where not asked."""

    def lessons(self, principles: Sequence[str], count: int) -> list[Lesson]:
        """Up to `count` answers that break one of these principles, each with a better one; none where nobody wrote any."""

    def dialogues(self, split: str) -> list[Prompt]:
        """Prompts of several turns, whose last question leans on what was said before; empty where there are none."""

    def dialogue_demonstrations(self) -> list[Answer]:
        """Answers to imitate, to the training ones of these."""

    def few_shot(self) -> str:
        """A text with one `{prompt}` that shows a base model what answering looks like."""


def open_source(data: Data, *, seed: int) -> Source:
    """The source that a recipe asks for; raises LabError for settings that contradict each other.

    Files are read when something is first asked of them, not before.
    """
    named = [*data.demonstrations, *data.preferences, *data.web]
    if data.source == "world":
        if named:
            raise LabError(f"The recipe names data ({named[0]}), but data.source is 'world': set data.source=files.")
        return World(seed=seed, settings=data.world)
    if not data.demonstrations and not data.preferences:
        raise LabError("data.source is 'files', but none is named: give data.demonstrations or data.preferences.")
    return Files(data, seed=seed)


@dataclass
class _Asked:
    """One distinct prompt, with everything that the files say about it; dicts serve as sets that keep their order."""

    messages: formats.Messages
    kind: str
    answers: dict[str, None] = field(default_factory=dict)
    pairs: dict[tuple[str, str], None] = field(default_factory=dict)


class Files:
    """Real data. Prompts that occur twice are merged, and every prompt is in exactly one split.

    Conversations that open with the same words stay in one split: a later turn of one shows an answer to the other.
    Held-out prompts are drawn from those with recorded preferences where there are any, since those can be measured.
    """

    def __init__(self, data: Data, *, seed: int) -> None:
        self.data, self.seed = data, seed
        self.name = "+".join(dict.fromkeys(datafiles.stem(n) for n in [*data.demonstrations, *data.preferences]))
        self.left_out: Counter[str] = Counter()  # reason → rows

    def digest(self) -> str:
        """From the content of the files, wherever they lie, and the settings."""
        given = {
            r: [datafiles.fingerprint(n) for n in getattr(self.data, r)]
            for r in ("demonstrations", "preferences", "web")
        }
        kinds = [datafiles.stem(n) for n in [*self.data.demonstrations, *self.data.preferences]]
        settings = self.data.model_dump(exclude={"world", *given})
        return digest([given, kinds, settings, self.seed], 12)

    def web(self, split: str) -> list[str]:
        """Distinct documents; each falls in a split by its own digest, so that adding documents moves none."""
        return [d for d, its in self._web.items() if its == _known(split)]

    def prompts(self, split: str) -> list[Prompt]:
        """In the order of a digest, so that kinds are mixed."""
        return list(self._splits[_known(split)])

    def demonstrations(self) -> list[Answer]:
        """The demonstrations, or where none are named the chosen answers, to prompts of the training split."""
        found = []
        for prompt in self._splits["train"]:
            asked = self._asked[prompt.id]
            texts = asked.answers if self.data.demonstrations else dict.fromkeys(c for c, _ in asked.pairs)
            found += [Answer(prompt=prompt, text=t, author="demonstration", n=n) for n, t in enumerate(texts)]
        return found

    def pairs(self, split: str) -> list[Pair]:
        """The recorded preferences over answers to that split's prompts."""
        return [
            Pair(prompt=p, chosen=chosen, rejected=rejected)
            for p in self._splits[_known(split)]
            for chosen, rejected in self._asked[p.id].pairs
        ]

    def grade(self, prompt: Prompt, text: str, *, ended: bool = True) -> tuple[None, dict[str, float | None]]:
        """No gold; `refuses`, `repetitive` and `finished` by general patterns of English."""
        return None, surface(text, ended=ended)

    def lessons(self, principles: Sequence[str], count: int) -> list[Lesson]:
        """None: a critic of real data is a model that is shown the principles."""
        return []

    def dialogues(self, split: str) -> list[Prompt]:
        """The prompts of more than one user's turn, which `prompts` gives too."""
        return [p for p in self.prompts(split) if _turns(p) > 1]

    def dialogue_demonstrations(self) -> list[Answer]:
        """Those demonstrations that answer a prompt of more than one user's turn."""
        return [d for d in self.demonstrations() if _turns(d.prompt) > 1]

    def few_shot(self) -> str:
        """Two short demonstrations, then the question."""
        first = [(a.prompt, a.prompt.text, a.text) for a in self.demonstrations() if a.n == 0]
        short = [
            (q, a) for p, q, a in first if len(p.messages) == 1 and len(q + a) < 300 and not set("{}\n") & set(q + a)
        ]
        shown = [f"Q: {q}\nA: {a}" for q, a in short[:2]]
        return "\n".join(["Questions and answers:", *shown, "Q: {prompt}", "A:"])

    @cached_property
    def _web(self) -> dict[str, str]:
        found = {}
        for name in self.data.web:
            for where, row in datafiles.rows(name, limit=self.data.limit):
                text = row.get("text")
                if not isinstance(text, str):
                    raise LabError(
                        f"{where} has no column 'text', but {', '.join(map(str, row))}: data.web needs plain text."
                    )
                at = int(digest([self.seed, "web", text], 8), 16) / 16**8 / self.data.held_out_web
                found[text] = "test" if at < 1 else "validation" if at < 2 else "train"
        return found

    @cached_property
    def _asked(self) -> dict[str, _Asked]:
        """Every distinct prompt by its id."""
        found: dict[str, _Asked] = {}
        self.left_out.clear()
        for name in self.data.preferences:
            kind = datafiles.stem(name)
            for example in self._examples(name, "preferences"):
                if example.chosen is not None and example.rejected is not None:
                    _entry(found, example, kind).pairs[example.chosen, example.rejected] = None
        for name in self.data.demonstrations:
            kind = datafiles.stem(name)
            for example in self._examples(name, "demonstrations"):
                text = example.answer if example.answer is not None else example.chosen
                if text is not None:
                    _entry(found, example, kind).answers[text] = None
        return found

    def _examples(self, name: str, role: str) -> list[formats.Example]:
        """The usable rows of one file; the others are counted in `left_out` by reason."""
        found, form, reasons = [], None, Counter[str]()
        for where, row in datafiles.rows(name, limit=self.data.limit):
            if not form:
                form = formats.detect(row, where)
                if role == "preferences" and "chosen" not in row:
                    raise LabError(f"{where} is {form.name}, which has no pairs: name {name} in data.demonstrations.")
            try:
                example = form.read(row)
                if role == "preferences" and example.chosen is None:
                    raise formats.Unusable("no two different answers")
                if 0 < self.data.longest_prompt < sum(len(m["content"]) for m in example.messages):
                    raise formats.Unusable("a prompt above data.longest_prompt")
                found.append(example)
            except formats.Unusable as error:
                reasons[str(error)] += 1
            except (KeyError, TypeError, AttributeError, IndexError) as error:
                said = f"{type(error).__name__}: {error}"
                raise LabError(f"{where} does not fit {form.name} ({said}): mend or remove that row.") from error
        self.left_out += reasons
        if not found:
            said = "; ".join(f"{n} rows: {r}" for r, n in reasons.items())
            raise LabError(f"Nothing in {name} can be used ({said}): give a file with questions and answers.")
        return found

    @cached_property
    def _splits(self) -> dict[str, list[Prompt]]:
        """Groups of prompts that open alike, in the order of a digest: test is filled first, then validation."""
        groups: dict[str, list[str]] = {}
        for key, asked in self._asked.items():
            opening = next(m["content"] for m in asked.messages if m["role"] == "user")
            groups.setdefault(_normal(opening), []).append(key)
        room = {"test": self.data.test_prompts, "validation": self.data.validation_prompts}
        placed: dict[str, list[list[str]]] = {s: [] for s in SPLITS}
        for keys in sorted(map(sorted, groups.values()), key=lambda keys: digest([self.seed, keys[0]], 16)):
            split = next((s for s, free in room.items() if self._measurable(keys) and len(keys) <= free), "train")
            placed[split].append(keys)
            if split in room:
                room[split] -= len(keys)
        for split, free in room.items():  # no group was small enough for the last places: cut one, drop its other part
            larger = [keys for keys in placed["train"] if free and self._measurable(keys)]
            if larger:
                cut = min(larger, key=len)
                placed["train"].remove(cut)
                placed[split].append(cut[:free])
                room[split] -= free
                self.left_out["an opening shared with a held-out prompt"] += len(cut) - free
        if any(room.values()) or not placed["train"]:
            raise LabError(
                f"{self.name} has {len(self._asked)} distinct prompts, too few to hold out {self.data.test_prompts} "
                f"for test and {self.data.validation_prompts} for validation and keep some to train on: lower "
                "data.test_prompts or data.validation_prompts."
            )
        return {s: [self._prompt(k, s) for keys in groups for k in keys] for s, groups in placed.items()}

    def _measurable(self, keys: list[str]) -> bool:
        return not self.data.preferences or all(self._asked[k].pairs for k in keys)

    def _prompt(self, key: str, split: str) -> Prompt:
        return Prompt(id=key, messages=self._asked[key].messages, kind=self._asked[key].kind, split=split)


def _entry(found: dict[str, _Asked], example: formats.Example, kind: str) -> _Asked:
    """What is known of the example's prompt so far; equal prompts are one."""
    key = digest([[m["role"], _normal(m["content"])] for m in example.messages], 10)
    return found.setdefault(key, _Asked(example.messages, kind))


def _turns(prompt: Prompt) -> int:
    return sum(m["role"] == "user" for m in prompt.messages)


def _normal(text: str) -> str:
    """The text without differences of case and spacing."""
    return " ".join(text.casefold().split())


def _known(split: str) -> str:
    if split not in SPLITS:
        raise LabError(f"There is no split {split!r}: ask for one of {', '.join(SPLITS)}.")
    return split
