"""Text that a model writes to be trained on: continuing plain text, telling whether a line is new, and wording it anew.

Self-Instruct, Unnatural Instructions and textbooks share this; who wrote what, and what is trained on it, is each stage's affair.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from labkit.records import Answer

if TYPE_CHECKING:
    from labkit.job import Job

WORDS = 60  # of an instruction, at most: its words are the bits of one number
FLUENT = 1.0  # nats that another wording may be less likely by, as a line of a list
LISTED, ANSWERED = "Questions:", "Questions and answers:"  # how a list of questions, and a page of answers, begins


def words(text: str) -> list[str]:
    """Its words in lower case, without punctuation."""
    return re.findall(r"\w+", text.lower())


def normal(text: str) -> str:
    """The text without differences of case and spacing."""
    return " ".join(text.casefold().split())


class Seen:
    """Texts that stand already, and how like them a new one is, all at once.

    ROUGE-L is F₁ of the longest common subsequence: 2·LCS / (words here + words there). The sequence's length is found with
    one addition a word (Hyyrö 2004): after each word of the new text, the zeros of `row` are the lengths reached.
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self.texts: list[str] = []
        self._numbers: dict[str, int] = {}
        self._rows: np.ndarray = np.full((64, WORDS), -1, dtype=np.int64)
        self._lengths: np.ndarray = np.zeros(64, dtype=np.int64)
        for text in texts:
            self.add(text)

    def add(self, text: str) -> None:
        """One more, by its first WORDS words."""
        mine, at = words(text)[:WORDS], len(self.texts)
        if at == len(self._rows):
            self._rows = np.concatenate([self._rows, np.full_like(self._rows, -1)])
            self._lengths = np.concatenate([self._lengths, np.zeros_like(self._lengths)])
        self._rows[at, : len(mine)] = [self._numbers.setdefault(w, len(self._numbers)) for w in mine]
        self._lengths[at] = len(mine)
        self.texts.append(text)

    def rouge_l(self, text: str) -> np.ndarray:
        """(N,): ROUGE-L of the text with each of the N texts, 0 to 1."""
        rows, lengths = self._rows[: len(self.texts)], self._lengths[: len(self.texts)]
        bits = np.uint64(1) << np.arange(WORDS, dtype=np.uint64)
        row: np.ndarray = np.full(len(rows), 2**64 - 1, dtype=np.uint64)
        mine = words(text)[:WORDS]
        for word in mine:
            match = ((rows == self._numbers.get(word, -2)) * bits).sum(1, dtype=np.uint64)
            row = (row + (row & match)) | (row & ~match)
        inside = (np.uint64(1) << lengths.astype(np.uint64)) - np.uint64(1)
        return 2 * np.bitwise_count(~row & inside) / np.maximum(1, lengths + len(mine))

    def nearest(self, text: str) -> tuple[float, str]:
        """How like the text is to the one that it is most like, and which that is; 0 and nothing where there is none."""
        if not self.texts:
            return 0.0, ""
        likeness = self.rouge_l(text)
        at = int(likeness.argmax())
        return float(likeness[at]), self.texts[at]


def survivors(texts: Sequence[str], seeds: Sequence[str], threshold: float) -> int:
    """How many of the texts, one after the other, are less like all before them than `threshold`."""
    seen = Seen(seeds)
    for text in texts:
        if seen.nearest(text)[0] < threshold:
            seen.add(text)
    return len(seen.texts) - len(seeds)


def fitting(tokenizer: Any, head: str, shown: Sequence[str], tail: str, *, room: int, context: int) -> list[int]:
    """Head, examples and tail as tokens, with as many of the examples as leave `room` tokens within the context."""
    from labkit import chat

    for first in range(len(shown) + 1):
        ids = chat.text_ids(tokenizer, "\n".join([head, *shown[first:], tail]))
        if len(ids) + room <= context:
            break
    return ids[: max(1, context - room)]


def say(
    job: Job, model: Any, tokenizer: Any, queries: Sequence[list[int]], *, n: int, temperature: float, seed: int, room: int
) -> list[list[tuple[str, bool]]]:  # fmt: skip
    """`n` continuations of each text of at most `room` tokens, and whether each came to its end."""
    from labkit import chat, sampling

    said = sampling.sample(
        model, queries, n=n, end=tokenizer.eos_token_id, pad_id=tokenizer.pad_token_id, max_tokens=room,
        temperature=temperature, seed=seed, batch=job.recipe["answers"].batch,
    )  # fmt: skip
    return [[(chat.decode(tokenizer, s.ids), s.ended) for s in mine] for mine in said]


def splices(asked: str, others: Sequence[str], *, count: int, rng: random.Random) -> list[str]:
    """Up to `count` other wordings: the beginning of another instruction, then the asked one from two words that both have.

    `How do I paint a clock?` and `What is the best way to paint a hat?` give `What is the best way to paint a clock?`.
    """
    mine, found = asked.split(), dict[str, None]()
    pairs = {pair: at for at, pair in reversed(list(enumerate(_pairs(mine))))}
    for other in rng.sample(list(others), len(others)):
        theirs = other.split()
        cuts = [(i, pairs[p]) for i, p in enumerate(_pairs(theirs)) if i and p in pairs]
        for i, at in cuts[:1]:  # the first words that they share keep most of what is asked
            text = " ".join([*theirs[:i], *mine[at:]])
            if normal(text) != normal(asked):
                found[text] = None
        if len(found) >= count:
            break
    return list(found)[:count]


def _pairs(words: Sequence[str]) -> list[tuple[str, str]]:
    return [(a.lower(), b.lower()) for a, b in pairwise(words)]


def text_logps(
    model: Any, tokenizer: Any, before: Sequence[str], texts: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """log π of each text, the line break behind it included, after what stands before, in nats: all of it (N,), and a token (N,)."""
    from labkit import chat, sampling

    queries = [chat.text_ids(tokenizer, b) for b in before]
    scored = sampling.score_logps(model, queries, [chat.text_ids(tokenizer, f" {t}\n") for t in texts])
    return np.array([float(s.sum()) for s in scored]), np.array([float(s.mean()) for s in scored])


def reworded(job: Job, model: Any, tokenizer: Any, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each instruction its likeliest other wording: `instruction`, `reworded`, `answer`, `thrown_by` ("" if kept), `lost`.

    Likeliest as a line of a list, and about as likely as the instruction itself, or it reads badly. `lost` is what the
    answer's log-probability a token falls by.
    """
    from labkit import answers

    s, rng = job.settings, random.Random(job.seed)
    texts = [r["instruction"] for r in rows]
    held_out = {normal(p.text) for p in answers.evaluation_prompts(job)}
    taken = set(map(normal, texts))
    tried = [[t, *splices(t, texts, count=s.wordings, rng=rng)] for t in texts]
    flat = [w for mine in tried for w in mine]
    if len(flat) == len(texts):
        return []
    fluent = iter(text_logps(model, tokenizer, [f"{LISTED}\nQ:"] * len(flat), flat)[0])
    scored = [[(next(fluent), w) for w in mine] for mine in tried]
    found = []
    for row, [(itself, _), *others] in zip(rows, scored, strict=True):
        if others:
            likeliest, text = max(others)
            why = "reads badly" if likeliest < itself - FLUENT else ""
            found.append(
                {"instruction": row["instruction"], "reworded": text, "answer": row["answer"], "thrown_by": why}
            )
    template, given = job.source.few_shot(), [r["answer"] for r in found]
    worth = [
        text_logps(model, tokenizer, [template.replace("{prompt}", r[key]) for r in found], given)[1]
        for key in ("instruction", "reworded")
    ]
    for row, before, after in zip(found, *worth, strict=True):
        plain = normal(row["reworded"])
        row["lost"] = round(float(before - after), 4)
        other = "calls for another answer" if row["lost"] > s.margin else ""
        row["thrown_by"] = row["thrown_by"] or (
            "stood already" if plain in taken else "leaks" if plain in held_out else other
        )
        taken.add(plain)
    return found


def page(answers: Iterable[Answer], head: str = ANSWERED) -> str:
    """Questions and their answers, one a line, as a page to read."""
    lines = [f"Q: {a.prompt.text}\nA: {' '.join(a.text.split())}" for a in answers]
    return "\n".join([head, *lines])
