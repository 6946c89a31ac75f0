"""Dialogue: SFT goes on with conversations of two and three turns, so that a question may lean on what was said before.

    L(θ) = −1/T Σ_t log π_θ(y_t | x₁, a₁, …, x_k, y_<t)      the last answer only; x and a are the turns before it

in      the SFT run; the source's conversations with people's answers, mixed with ordinary demonstrations
out     a policy; its own and SFT's answers to held-out conversations, by number of turns
watch   the control is tuned and asked with the last turn alone: what it lacks is what the context is worth
left out  loss on the earlier answers (they are given, as any log of a chat is), summaries of what no longer fits the context
source  Ouyang et al. (2022), appendix A (prompts that are conversations); Touvron et al. (2023), Llama 2, section 3.3
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import Field

from labkit import talks
from labkit.recipe import Settings as Section
from labkit.records import Answer, Prompt, to_json

if TYPE_CHECKING:
    from labkit.job import Job

VERSION = 1
TEXT_BY = {"people": 1.0}
SPLITS = ("validation", "test")


class Settings(Section):
    dialogues: int = Field(2400, ge=0, description="conversations used, with one demonstration each; 0 takes all")
    single: int = Field(1600, ge=0, description="demonstrations of one turn among them, so that nothing is forgotten")
    blind: bool = Field(False, description="a control: the earlier turns are cut away, in training and in answering")
    n: int = Field(1, ge=1, description="answers to each held-out conversation")
    epochs: int = Field(1, ge=1, description="times that each demonstration is read")
    batch: int = Field(8, ge=1, description="demonstrations a step; few rows and many steps, for a small model")
    accumulate: int = Field(1, ge=1, description="parts that a batch is split into when memory is short")
    learning_rate: float = Field(7e-4, gt=0, description="peak rate; 1e-5 to 2e-5 for models of billions of weights")
    threads: int = Field(1, ge=1, description="CPU threads; part of the run's identity")


def reads(settings: Settings) -> str:
    """The file of follow-up questions: it is no part of the world's own digest."""
    from labkit.world import dialogues

    return dialogues.fingerprint()


def last_turn(prompt: Prompt) -> Prompt:
    """The prompt without what was said before; who the model is told to be (a system turn) stays."""
    return replace(prompt, messages=(*(m for m in prompt.messages if m["role"] == "system"), prompt.messages[-1]))


def dataset(job: Job) -> list[Answer]:
    """Conversations and single turns, each with one person's answer, shuffled together."""
    s, rng = job.settings, random.Random(job.seed)
    several = job.source.dialogue_demonstrations()
    several = rng.sample(several, min(s.dialogues or len(several), len(several)))
    single = [d for d in job.source.demonstrations() if talks.turns(d.prompt) == 1]
    chosen = [*several, *rng.sample(single, min(s.single or (0 if several else len(single)), len(single)))]
    rng.shuffle(chosen)
    return [replace(d, prompt=last_turn(d.prompt)) for d in chosen] if s.blind else chosen


def held_out(job: Job, tokenizer: Any) -> list[Prompt]:
    """The conversations of validation and test that leave room for an answer; how many do not is in the summary."""
    from labkit import chat

    room, context = job.recipe["answers"].max_tokens, job.recipe["model"].context
    found = [p for split in SPLITS for p in job.source.dialogues(split)]
    fitting = [p for p in found if len(chat.prompt_ids(tokenizer, p)) + room <= context]
    job.summary["too_long"] = len(found) - len(fitting)
    return fitting


def talk(
    job: Job, model: Any, tokenizer: Any, prompts: Sequence[Prompt], *, author: str, blind: bool = False
) -> list[Answer]:
    """A model's graded answers to conversations; a blind one hears the last turn only and is graded by all of it."""
    from labkit import answers

    asked = [last_turn(p) for p in prompts] if blind else prompts
    n = job.settings.n
    written = answers.write_answers(job, model, tokenizer, asked, author=author, seed=job.seed, n=n)
    full = [p for p in prompts for _ in range(n)]
    return [
        answers.finish(job, replace(a, prompt=p), kl=None, reward=None)
        for (a, _, _), p in zip(written, full, strict=True)
    ]


def nats(job: Job, model: Any, tokenizer: Any, split: str) -> dict[str, float]:
    """Nats a token of recorded answers to a split's conversations, with all turns and with the last alone: where there are
    such answers, this says what the context is worth without any judge. Empty in the embedded world, which has none."""
    from labkit import chat, sampling

    asked = {p.id for p in job.source.dialogues(split)}
    pairs = [p for p in job.source.pairs(split) if p.prompt.id in asked]
    rows = [[chat.answer_ids(tokenizer, q, p.chosen) for q in (p.prompt, last_turn(p.prompt))] for p in pairs]
    rows = [r for r in rows if sum(map(len, r[0])) <= job.recipe["model"].context]
    found = {}
    for at, name in enumerate(("all_turns", "last_turn") if rows else ()):
        logps = sampling.score_logps(model, [r[at][0] for r in rows], [r[at][1] for r in rows], batch=32)
        found[name] = round(-sum(float(p.sum()) for p in logps) / sum(map(len, logps)), 4)
    return found


def measure(job: Job, rows: Sequence[Answer]) -> None:
    """Write the answers, and put the paired differences by number of turns into the summary."""
    from labkit.runs import Run

    with open(job.folder / talks.FILE, "w", encoding="utf-8") as f:
        f.writelines(to_json(a) + "\n" for a in rows)
    others = [Run(job.folder), *(job.parents[n] for n in ("dialogue",) if n in job.parents)]
    for split in SPLITS:
        c = talks.join(others, split=split, seed=job.seed, samples=job.recipe["answers"].bootstrap)
        if c.authors:
            job.summary[split] = [
                r for other in c.authors if other != job.name for r in talks.gains(c, job.name, other)
            ]


def run(job: Job) -> None:
    from labkit import answers, imitation, models, training

    s, settings = job.settings, job.recipe["model"]
    load = {"device": job.device, "dtype": settings.dtype}
    model, tokenizer = models.load(job.parents["sft"].model, **load)
    rows = imitation.dataset(demonstrations := dataset(job), tokenizer, context=settings.context)
    with job.phase("train"):
        fit = imitation.trainer(job, model, tokenizer, rows)
        training.train(fit)
    model = models.save(training.released(fit), tokenizer, job.folder)
    targets = sum(map(sum, rows["completion_mask"]))
    job.cost.update(tokens=sum(map(len, rows["input_ids"])) * s.epochs, targets=targets)
    job.cost["bits"] = targets * math.log2(len(tokenizer))
    with job.phase("talk"):
        prompts = held_out(job, tokenizer)
        told = talk(job, model, tokenizer, prompts, author=job.name, blind=s.blind)
        start, _ = models.load(job.parents["sft"].model, **load)
        if "dialogue" not in job.parents:  # which has SFT's answers already
            told += talk(job, start, tokenizer, prompts, author="sft")
        measure(job, told)
        for name, one in (("sft", start), (job.name, model)):
            if worth := nats(job, one, tokenizer, "validation"):
                job.summary.setdefault("nats", {})[name] = worth
    answers.evaluate(job, model, tokenizer)
    job.summary.update(demonstrations=len(rows), dialogues=sum(talks.turns(d.prompt) > 1 for d in demonstrations))
