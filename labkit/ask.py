"""Asking the lab's models: functions that answer a typed prompt, each as its stage would render it.

A page hands them to a view; nothing is loaded before the first question. What a person typed is never graded, unless it is
a question that the world itself could ask: then gold is known.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from labkit.errors import LabError
from labkit.records import Answer, Prompt
from labkit.stages import GRAPH

if TYPE_CHECKING:
    from labkit.lab import Lab

OWNER = {"prompted": "pretrain"}  # whose weights answer
Load = Callable[[str], tuple[Any, Any]]  # a run's name → its model and tokenizer


def answerers(lab: Lab, *authors: str, proxy: bool = False) -> dict[str, Callable[..., Answer]]:
    """For each author whose run is finished a function `(text, temperature=1.0, seed=0) → Answer`.

    "prompted" is the base model behind a few examples. With `proxy` each answer carries the reward model's score. The
    functions raise LabError for an empty prompt, one that does not fit the context, or weights that were cleaned away.
    """
    load = functools.cache(functools.partial(_load, lab))
    known = lab.finished()
    return {
        author: functools.partial(_answer, lab, author, load, proxy and "reward" in known)
        for author in authors
        if OWNER.get(author, author) in known
    }


def rewarded(lab: Lab, answers: Sequence[Answer], *, load: Load | None = None) -> list[Answer]:
    """The same answers with `scores["reward"]` by the recipe's reward model; raises LabError when it is not trained."""
    from labkit import chat, sampling

    model, tokenizer = (load or functools.partial(_load, lab))("reward")
    encoded = [chat.answer_ids(tokenizer, a.prompt, a.text) for a in answers]
    scores = sampling.score_rewards(model, [q for q, _ in encoded], [a for _, a in encoded]).tolist()
    return [replace(a, scores={**a.scores, "reward": round(s, 4)}) for a, s in zip(answers, scores, strict=True)]


def _answer(
    lab: Lab, author: str, load: Load, proxy: bool, text: str, *,
    temperature: float = 1.0, seed: int = 0,
) -> Answer:  # fmt: skip
    from labkit import chat, sampling

    if not text.strip():
        raise LabError("There is nothing to answer yet: type a question first.")
    model, tokenizer = load(OWNER.get(author, author))
    how, context = lab.recipe["answers"], lab.recipe["model"].context
    recognise = getattr(lab.source, "recognise", None)
    known = recognise(text) if recognise else None
    prompt = known or Prompt.of(text.strip(), kind="typed")
    templates = {"pretrain": "{prompt}\n", "prompted": lab.source.few_shot() if author == "prompted" else ""}
    if template := templates.get(author):
        query = chat.text_ids(
            tokenizer, template.replace("{prompt}", prompt.text), room=how.max_tokens, context=context
        )
    else:
        query = chat.prompt_ids(tokenizer, prompt, room=how.max_tokens, context=context)
    [[sample]] = sampling.sample(
        model, [query], end=tokenizer.eos_token_id, pad_id=tokenizer.pad_token_id, max_tokens=how.max_tokens,
        temperature=max(temperature, 0.01), seed=seed,
    )  # fmt: skip
    said = chat.decode(tokenizer, sample.ids)
    if author == "prompted":
        said = said.partition("\n")[0].strip()  # the next line would be the next question
    answer = Answer(prompt=prompt, text=said, author=author, ended=sample.ended, tokens=len(sample.ids))
    if known:
        gold, grades = lab.source.grade(known, said, ended=sample.ended or author == "prompted")
        answer = replace(answer, scores={} if gold is None else {"gold": gold}, grades=grades)
    return rewarded(lab, [answer], load=load)[0] if proxy else answer


def _load(lab: Lab, name: str) -> tuple[Any, Any]:
    from transformers.utils import logging

    from labkit import models

    logging.disable_progress_bar()  # in a page it would be a widget, over in a blink
    run = lab.find(name)
    if not run:
        raise LabError(f"There is no finished run of {name}: run page {GRAPH[name].page} first.")
    if name == "reward":
        model = models.load_reward(run.model, device=_device(lab), dtype=lab.recipe["model"].dtype)
        return model, _load(lab, "sft")[1]
    return models.load(run.model, device=_device(lab), dtype=lab.recipe["model"].dtype)


def _device(lab: Lab) -> str:
    import torch

    wanted = lab.recipe["model"].device
    return wanted if wanted != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
