"""A constitution, and how a model is asked by it: to criticise, to revise, to say which of two answers is better.

A critic that was taught the principles is asked in few words; any other model is shown them in each request. Requests
are turns of one conversation, as in Bai et al. (2022): question, answer, what is wrong?, critique, revise!, revision.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator

from labkit.errors import LabError
from labkit.recipe import from_yaml
from labkit.records import Prompt, digest

if TYPE_CHECKING:
    import numpy as np

    from labkit.job import Job
    from labkit.lab import Lab
    from labkit.runs import Run

SHIPPED = Path(__file__).with_suffix(".yaml")
LETTERS = ("A", "B")
Compared = tuple[Prompt, str, str]  # two answers to one prompt


class Principle(BaseModel):
    """One principle: its name, what it asks for, how to look for a breach, and how to ask for a better answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z ]*$", description="how a critique names it, in small letters")
    text: str = Field(min_length=1, description="what it asks for")
    critique: str = Field(min_length=1, description="the question that finds a breach")
    revision: str = Field(min_length=1, description="how a better answer is asked for")


class Constitution(BaseModel):
    """The principles and the requests. `shown` says whether each request shows the principles, too."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    critique: str = Field(min_length=1)
    keep: str = Field(min_length=1)
    judge: str = Field(min_length=1)
    principles: tuple[Principle, ...] = Field(min_length=1)
    shown: bool = True

    @field_validator("principles")
    @classmethod
    def _distinct(cls, principles: tuple[Principle, ...]) -> tuple[Principle, ...]:
        names = [p.name for p in principles]
        if len(set(names)) < len(names):
            raise ValueError(f"two principles have one name; they are {', '.join(names)}")
        return principles

    @property
    def names(self) -> list[str]:
        """The principles' names, the one that weighs most first."""
        return [p.name for p in self.principles]

    def fault(self, name: str, what: str) -> str:
        """A critique: `Kind? No: it is rude.`, or for no name that nothing is broken."""
        return f"{name.capitalize()}? No: {what}" if name else self.keep

    def broken(self, critique: str) -> Principle | None:
        """The principle that a critique names first; None where nothing is wrong, the first principle where it names none."""
        low = critique.lower()
        if self.keep.lower().rstrip(".") in low:
            return None
        at = {p: m.start() for p in self.principles if (m := re.search(rf"\b{re.escape(p.name)}\b", low))}
        return min(at, key=lambda p: at[p], default=self.principles[0])

    def to_criticise(self, prompt: Prompt, answer: str) -> Prompt:
        """Question and answer, and then: which principle does it break?"""
        ask = self.critique
        if self.shown:
            lines = [f"- {p.name}: {p.text} {p.critique}" for p in self.principles]
            ask = "\n".join(
                ["Principles of a good answer:", *lines, f'{ask} Begin with its name, or say "{self.keep}"']
            )
        return _turns(prompt, *prompt.messages, _said(answer), _asked(ask))

    def to_revise(self, prompt: Prompt, answer: str, critique: str) -> Prompt:
        """The conversation so far, and then: do better. The question is said again, so that it is what is answered."""
        principle = self.broken(critique) or self.principles[0]
        before = self.to_criticise(prompt, answer).messages
        ask = f"{principle.text} {principle.revision}" if self.shown else principle.revision
        return _turns(prompt, *before, _said(critique), _asked(f"{ask} {prompt.text}"))

    def to_judge(self, prompt: Prompt, first: str, second: str) -> Prompt:
        """Two answers side by side: which one is better, A or B?"""
        lines = [prompt.text, f"{LETTERS[0]}: {first}", f"{LETTERS[1]}: {second}", self.judge]
        if self.shown:
            lines = ["Principles of a good answer:", *(f"- {p.name}: {p.text}" for p in self.principles), *lines]
        return _turns(prompt, *prompt.messages[:-1], _asked("\n".join(lines)))

    def save(self, folder: Path) -> None:
        """Leave it beside the critic that goes by it."""
        text = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        (folder / SHIPPED.name).write_text(text, encoding="utf-8")


def load(path: str | Path = "") -> Constitution:
    """The lab's own constitution, or one from a YAML file. Raises LabError when it is not one."""
    return from_yaml(
        path, SHIPPED, lambda body: Constitution(**body), called="constitution", check="critic.constitution"
    )


def fingerprint(path: str | Path = "") -> str:
    """Hex digits that change with any word of the constitution."""
    return digest(load(path).model_dump(mode="json"), 12)


def of(critic: Run) -> Constitution:
    """What a finished critic goes by."""
    return load(critic.path / SHIPPED.name)


def _turns(prompt: Prompt, *messages: dict[str, str]) -> Prompt:
    return Prompt(id=prompt.id, messages=messages, kind=prompt.kind, split=prompt.split)


def _asked(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def speak(
    job: Job | Lab, model: Any, tokenizer: Any, prompts: Sequence[Prompt], *, temperature: float, seed: int
) -> list[tuple[str, bool]]:
    """One answer to each request, and whether it ended; a request that does not fit the context gets ("", False)."""
    from labkit import chat, sampling

    how, context = job.recipe["answers"], job.recipe["model"].context
    queries = [chat.prompt_ids(tokenizer, p) for p in prompts]
    fits = [i for i, q in enumerate(queries) if len(q) + how.max_tokens <= context]
    out = [("", False)] * len(prompts)
    if fits:
        written = sampling.sample(
            model, [queries[i] for i in fits], end=tokenizer.eos_token_id, pad_id=tokenizer.pad_token_id,
            max_tokens=how.max_tokens, temperature=temperature, seed=seed, batch=how.batch,
        )  # fmt: skip
        for i, (one,) in zip(fits, written, strict=True):
            out[i] = chat.decode(tokenizer, one.ids), one.ended
    return out


def log_odds(
    model: Any, tokenizer: Any, by: Constitution, pairs: Sequence[Compared], *, context: int, batch: int = 64
) -> np.ndarray:
    """(N, 2): log P(first is better) − log P(second is), with the first shown as A and as B; NaN where it does not fit.

    Read from the two letters at the place where the answer begins. A leaning towards a letter has opposite signs in the
    two columns: their mean is free of it.
    """
    import numpy as np
    import torch

    from labkit import chat, sampling

    opening, letter = _letters(tokenizer)
    out = np.full((len(pairs), 2), np.nan)
    model.eval()
    for order in (0, 1):
        asked = [by.to_judge(p, *((a, b) if order == 0 else (b, a))) for p, a, b in pairs]
        queries = [chat.prompt_ids(tokenizer, p) + opening for p in asked]
        fits = [i for i, q in enumerate(queries) if len(q) < context]
        for rows in sampling.batches([len(queries[i]) for i in fits], batch):
            chosen = [fits[r] for r in rows]
            with torch.inference_mode():
                logits, _ = sampling.answer_logits(model, [queries[i] for i in chosen], [[letter[0]]] * len(chosen))
            lean = (logits[:, letter[0]] - logits[:, letter[1]]).float().cpu().numpy()
            out[chosen, order] = lean if order == 0 else -lean
    return out


def confidence(log_odds: np.ndarray, temperature: float) -> np.ndarray:
    """P(first is better) of each pair: the two orders' log-odds (N, 2) averaged, over the temperature, through σ → (N,).

    Lee et al. (2023), section 3.1: asking in both orders and averaging takes the place's influence out.
    """
    import numpy as np

    return 1 / (1 + np.exp(-log_odds.mean(1) / temperature))


def at_work(lab: Lab, asked: str, first: str, second: str) -> list[dict[str, Any]]:
    """What the finished critic makes of two answers: rows of answer, critique, revision and preferred (its confidence in it).

    Raises LabError where there is no critic yet.
    """
    from labkit import models

    run = lab.find("critic")
    if not run:
        raise LabError("There is no critic yet: run page 10_rlaif from its top.")
    by, prompt, context = of(run), Prompt.of(asked), lab.recipe["model"].context
    model, tokenizer = models.load(run.model, device="cpu")
    tau = run.summary.get("held_out", {}).get("temperature", 1.0)
    sure = float(confidence(log_odds(model, tokenizer, by, [(prompt, first, second)], context=context), tau)[0])
    say = partial(speak, lab, model, tokenizer, temperature=0.5, seed=0)
    rows = []
    for answer, preferred in ((first, sure), (second, 1 - sure)):
        [(critique, _)] = say([by.to_criticise(prompt, answer)])
        row = {"answer": answer, "critique": critique, "revision": answer, "preferred": preferred}
        if by.broken(critique):
            [(row["revision"], _)] = say([by.to_revise(prompt, answer, critique)])
        rows.append(row)
    return rows


def _letters(tokenizer: Any) -> tuple[list[int], tuple[int, int]]:
    """What an answer begins with before it says A or B (often nothing), and the first token in which the two differ."""
    from labkit import chat

    a, b = (chat.answer_ids(tokenizer, Prompt.of("?"), letter)[1] for letter in LETTERS)
    same = next(i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
    return a[:same], (a[same], b[same])
