"""Textbooks: a base model reads on, half plain web, half exercises with worked answers, as many tokens in all as of web alone.

    L(θ) = −1/T Σ_t log π_θ(x_t | x_<t)      x ~ share · textbook + (1 − share) · web, at a given number of tokens

in      the pretrained run, to read on from; the SFT run, which writes the textbook (its answers to training prompts: no person's
        and no program's); the plain web, of which the base has read most before
out     a base model that was never shown a chat, asked through the few-shot template
watch   the same tokens are worth more to an answerer; as a predictor of the web it may lose
control share 0: the same start, the same number of tokens, plain web alone
left out  a classifier that picks the instructive part of the web; code. The paper starts from random weights, as start "random"
        does: within half a million tokens no model of this size learns to look back at the question, whatever it reads
source  Gunasekar et al. (2023), Textbooks Are All You Need, section 2
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from labkit.reading import dataset as packed
from labkit.reading import train
from labkit.recipe import Settings as Section
from labkit.records import Answer
from labkit.surface import surface

if TYPE_CHECKING:
    from labkit.job import Job

VERSION = 2
HEAD = "Exercises with answers:"


class Settings(Section):
    start: Literal["base", "random"] = Field(
        "base", description="random weights want millions of tokens before the difference shows"
    )
    tokens: int = Field(250_000, ge=1, description="tokens to read; the web's share and the textbook's together")
    share: float = Field(0.5, ge=0, le=1, description="of the textbook among them; 0, the control, is plain web alone")
    exercises: int = Field(2500, ge=1, description="training prompts that the SFT model answers for the textbook")
    temperature: float = Field(0.5, gt=0, description="of those answers: below 1 it writes what it is surest of")
    page: int = Field(3, ge=1, description="exercises on a page")
    length: int = Field(128, ge=16, description="tokens a row; documents are packed end to end, as in pretrain")
    batch: int = Field(8, ge=1, description="rows a step")
    learning_rate: float = Field(
        4e-3,
        gt=0,
        description="peak rate, as in pretrain: it starts warm again; 1e-4 or less for models of millions of weights",
    )
    warmup: float = Field(0.05, ge=0, lt=1, description="share of steps before the peak")
    weight_decay: float = Field(0.1, ge=0, description="AdamW's decay")
    threads: int = Field(1, ge=1, description="CPU threads; part of the run's identity")


def textbook(job: Job) -> list[str]:
    """Pages of exercises: training prompts with SFT's answers, those that ended and do not go round in circles."""
    from labkit import answers, chat, models, synthetic

    s, how, settings = job.settings, job.recipe["answers"], job.recipe["model"]
    sft, tokenizer = models.load(job.parents["sft"].model, device=job.device, dtype=settings.dtype)
    rng = random.Random(job.recipe.seed)
    known = [p for p in job.source.prompts("train") if len(p.messages) == 1]
    prompts = rng.sample(known, min(s.exercises, len(known)))
    fit = {"room": how.max_tokens, "context": settings.context}
    queries = [chat.prompt_ids(tokenizer, p, **fit) for p in prompts]
    said = synthetic.say(
        job, sft, tokenizer, queries, n=1, temperature=s.temperature, seed=job.seed, room=how.max_tokens
    )
    written = [
        Answer(prompt=p, text=text, author="sft", ended=ended) for p, [(text, ended)] in zip(prompts, said, strict=True)
    ]
    held_out = {synthetic.normal(p.text) for p in answers.evaluation_prompts(job)}
    kept = [
        a for a in written if a.ended and a.text and not surface(a.text)["repetitive"] and synthetic.normal(a.prompt.text) not in held_out
    ]  # fmt: skip
    job.summary |= {"exercises": len(kept), "thrown_away": len(written) - len(kept)}
    golds = [job.source.grade(a.prompt, a.text)[0] for a in kept]
    if kept and None not in golds:
        job.summary["gold_exercises"] = round(sum(g for g in golds if g is not None) / len(kept), 4)
    return [synthetic.page(kept[i : i + s.page], HEAD) for i in range(0, len(kept), s.page)]


def dataset(job: Job, tokenizer: Any, web: list[str], book: list[str]) -> Any:
    """Rows of both in their shares, mixed: (N, length + 1) int64. Where one of them is missing, the other takes its part."""
    import torch

    s = job.settings
    share = s.share if web and book else float(bool(book))
    parts = [(web, round((1 - share) * s.tokens)), (book, round(share * s.tokens))]
    rows = torch.cat(
        [packed(t, tokenizer, length=s.length, tokens=n, seed=job.recipe.seed) for t, n in parts if n >= s.length]
    )
    job.summary["web_tokens"] = parts[0][1]
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(job.recipe.seed))]


def start(job: Job) -> tuple[Any, Any]:
    """The base as it is, or random weights in its shape: the same ones for the mix and its control."""
    import transformers

    from labkit import models

    settings = job.recipe["model"]
    model, tokenizer = models.load(job.parents["pretrain"].model, device=job.device, dtype=settings.dtype)
    if job.settings.start == "random":
        transformers.set_seed(job.recipe.seed)
        model = type(model)(model.config).to(model.device, model.dtype)
    elif settings.lora:
        from peft import get_peft_model

        model = get_peft_model(model, models.lora(settings))
    return model, tokenizer


def run(job: Job) -> None:
    from labkit import answers, costs, models

    web, book = job.source.web("train"), list[str]()
    if job.settings.share:
        with job.phase("write"):
            book = textbook(job)
    model, tokenizer = start(job)
    if web or book:  # with neither the model is measured as it was given
        job.policy, job.tokenizer = model, tokenizer
        with job.phase("train"):
            train(job, model, dataset(job, tokenizer, web, book))
    model = models.save(model, tokenizer, job.folder)
    read = job.summary.get("web_tokens", 0)
    job.cost.update(
        targets=read, bits=round(read * math.log2(len(tokenizer)), 1)
    )  # the textbook tells nothing that SFT did not know
    web_share = round(min(1.0, read / (job.cost.get("tokens") or 1)), 4)
    job.summary["text_by"] = {costs.WEB: web_share, costs.OWN: 1 - web_share}
    with job.phase("answer"):
        answers.answer(job, model, tokenizer, author=job.name, template=job.source.few_shot())
        job.summary["web_nll"] = answers.web_nll(job, model, tokenizer)
        job.summary["validation"] = {"web_nll": answers.web_nll(job, model, tokenizer, "validation")}
