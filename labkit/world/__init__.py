"""The embedded world: the island of Tuppenny, its web, its questions, its people's answers, and what is truly good.

One seed gives one world, the same in every process. Everything is made by small programs from the YAML files in this
folder, so that each claim of the lab can be checked against a truth that is known.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cached_property

from labkit.errors import LabError
from labkit.records import SPLITS, Answer, Pair, Prompt, digest
from labkit.world import dialogues, gold, replies
from labkit.world.answers import PRACTICAL, QUALITIES, answer
from labkit.world.combinations import SHARES, Combination, everything, split_of
from labkit.world.dialogues import Dialogue
from labkit.world.lexicon import fingerprint
from labkit.world.pages import Pages
from labkit.world.principles import Lesson, lessons
from labkit.world.settings import Settings

__all__ = ["Settings", "World"]
HELD_OUT_PAGES = 200


class World:
    """The island, complete: text to pretrain on, prompts, demonstrations, and the gold utility that grades answers."""

    name = "world"

    def __init__(self, seed: int = 0, settings: Settings | None = None) -> None:
        self.seed, self.settings = seed, settings or Settings()
        self._combinations = everything()
        self._split = split_of(self._combinations, seed)
        self._prompts: dict[str, list[Prompt]] = {}
        self._dialogues: dict[str, list[tuple[Prompt, Dialogue]]] = {}
        self._of: dict[str, Combination] = {}  # a train prompt's id → what it asks

    def digest(self) -> str:
        """The world's identity: the data files' content, the seed and the settings."""
        return digest([fingerprint(), self.seed, self.settings.model_dump()], 12)

    def split_of(self, combination: str) -> str | None:
        """The split that a combination's key belongs to, None for an unknown key."""
        return self._split.get(combination)

    def combinations(self, split: str) -> list[Combination]:
        """All combinations of one split."""
        _check(split)
        return [c for c in self._combinations if self._split[c.key] == split]

    def web(self, split: str = "train") -> list[str]:
        """Documents to pretrain on; "validation" and "test" are held-out pages of about the same kind, 200 each.

        Pages of each split ask only that split's questions. No page states a fact of the customer-service desk.
        """
        _check(split)
        count = self.settings.documents if split == "train" else HELD_OUT_PAGES
        return Pages(self.combinations(split), random.Random(f"web/{self.seed}/{split}")).write(count)

    def prompts(self, split: str) -> list[Prompt]:
        """The prompts of one split, shuffled, every kind in its share; `meta["combination"]` names what is asked."""
        _check(split)
        if split not in self._prompts:
            self._prompts[split] = self._make_prompts(split)
        return list(self._prompts[split])

    def _make_prompts(self, split: str) -> list[Prompt]:
        rng = random.Random(f"prompts/{self.seed}/{split}")
        s = self.settings
        wanted = {"train": s.train_prompts, "validation": s.validation_prompts, "test": s.test_prompts}[split]
        by_kind: dict[str, dict[str, list[Combination]]] = {}
        for c in self.combinations(split):
            by_kind.setdefault(c.kind, {}).setdefault(c.task, []).append(c)
        found: list[Prompt] = []
        quotas = {kind: round(share * wanted) for kind, share in SHARES.items()}
        quotas["story"] += wanted - sum(quotas.values())
        for kind, count in quotas.items():
            for text, c in self._wordings(by_kind.get(kind, {}), rng, count):
                prompt = _prompt(text, c, split)
                self._of[prompt.id] = c
                found.append(prompt)
        rng.shuffle(found)
        return found

    def _wordings(
        self, tasks: dict[str, list[Combination]], rng: random.Random, count: int
    ) -> list[tuple[str, Combination]]:
        """`count` distinct questions: tasks in turn, combinations before second wordings of the same one."""
        queues = []
        for combinations in tasks.values():
            order = list(combinations)
            rng.shuffle(order)
            texts = []
            for c in order:
                ways = c.wordings()
                rng.shuffle(ways)
                texts.append(ways)
            rounds = [(ways[i], c) for i in range(6) for ways, c in zip(texts, order, strict=True) if i < len(ways)]
            queues.append(iter(rounds))
        found: dict[str, Combination] = {}
        while queues and len(found) < count:
            for queue in list(queues):
                step = next(queue, None)
                if step is None:
                    queues.remove(queue)
                elif step[0] not in found and len(found) < count:
                    found[step[0]] = step[1]
        return list(found.items())

    def demonstrations(self) -> list[Answer]:
        """Answers to train prompts by people of six qualities; `author` is the quality, the text has no end token."""
        rng = random.Random(f"demonstrations/{self.seed}")
        prompts, total = self.prompts("train"), self.settings.demonstrations
        authors = self._authors(total, rng)
        found = []
        for n, author in enumerate(authors):
            prompt = prompts[n % len(prompts)]
            found.append(
                Answer(prompt=prompt, text=self.demonstrate(prompt, author, rng), author=author, n=n // len(prompts))
            )
        rng.shuffle(found)
        return found

    def _authors(self, total: int, rng: random.Random) -> list[str]:
        mix = self.settings.mix
        whole = sum(mix.values())
        authors = [q for q in QUALITIES for _ in range(round(mix.get(q, 0) / whole * total))]
        authors += [max(mix, key=lambda q: mix[q])] * (total - len(authors))
        rng.shuffle(authors)
        return authors[:total]

    def demonstrate(self, prompt: Prompt, quality: str, rng: random.Random) -> str:
        """An answer of one quality to a train prompt of this world."""
        c = self._of[prompt.id]
        other = rng.choice(self._siblings[c.kind if c.kind in PRACTICAL else (c.kind, c.task)])
        return answer(c, quality, other, rng)

    @cached_property
    def _siblings(self) -> dict[str | tuple[str, str], list[Combination]]:
        """Train combinations by kind, and by kind and task: whose answers a wrong answer may borrow."""
        found: dict[str | tuple[str, str], list[Combination]] = {}
        for c in self.combinations("train"):
            found.setdefault(c.kind, []).append(c)
            found.setdefault((c.kind, c.task), []).append(c)
        return found

    def grade(self, prompt: Prompt, text: str, *, ended: bool = True) -> tuple[float, dict[str, float | None]]:
        """Gold utility of an answer (about −5 to 3) and its measured qualities, 0 or 1, None where not asked."""
        return (replies if "follow" in prompt.meta else gold).grade(prompt, text, ended=ended)

    def dialogues(self, split: str) -> list[Prompt]:
        """Conversations of two and three turns; `meta["means"]` says what the last one asks, `meta["follow"]` how it goes on."""
        return [prompt for prompt, _ in self._talks(split)]

    def dialogue_demonstrations(self) -> list[Answer]:
        """Answers to the training conversations, by people as they are."""
        return replies.demonstrations(self, self._talks("train"))

    def _talks(self, split: str) -> list[tuple[Prompt, Dialogue]]:
        _check(split)
        if split not in self._dialogues:
            self._dialogues[split] = [(talk.prompt(split), talk) for talk in dialogues.write(self, split)]
        return self._dialogues[split]

    def pairs(self, split: str) -> list[Pair]:
        """None: the world records no preferences; annotators judge answers anew."""
        return []

    def lessons(self, principles: Sequence[str], count: int) -> list[Lesson]:
        """Answers to train prompts that break one of these principles, with what is wrong and a better answer."""
        return lessons(self, principles, count)

    def few_shot(self) -> str:
        """A page of questions and answers with one open question, `{prompt}`: a base model's way to be asked."""
        rng = random.Random(f"few-shot/{self.seed}")
        train = self.combinations("train")
        lines = ["Questions and answers:"]
        for kind in ("fact", "how_to"):
            some = rng.sample([c for c in train if c.kind == kind], 12)
            pairs = [f"Q: {c.wordings()[0]}\nA: {answer(c, 'excellent', c, rng)}" for c in some]
            lines.append(min(pairs, key=len))  # short, so that a prompt and its answer still fit behind it
        return "\n".join([*lines, "Q: {prompt}", "A:"])

    @cached_property
    def questions(self) -> dict[str, Combination]:
        """Every question that the world can ask, in lower case, with its combination."""
        return {text.lower(): c for c in self._combinations for text in c.wordings()}

    def recognise(self, text: str) -> Prompt | None:
        """The prompt behind a question in the world's own words, whatever its split; None for other text."""
        c = self.questions.get(text.strip().lower())
        return _prompt(text.strip(), c, self._split[c.key]) if c else None


def _prompt(text: str, c: Combination, split: str) -> Prompt:
    return Prompt.of(text, kind=c.kind, split=split, meta={"combination": c.key, "task": c.task, **c.meta})


def _check(split: str) -> None:
    if split not in SPLITS:
        raise LabError(f"The world has no split {split!r}. Ask for one of {', '.join(SPLITS)}.")
