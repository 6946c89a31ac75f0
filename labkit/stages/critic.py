"""Critic: a model that judges by a constitution: says what is wrong with an answer, revises it, prefers one of two.

    L(θ) = −mean of 1/T Σ_t log π_θ(y_t | request, y_<t)      y a critique, a revision, or one letter: each counts alike
    P(a ≻ b | x) = σ(½[z(a, b) − z(b, a)] / τ)        z: log-odds of "A" over "B"; τ fits held-out lessons

in      the SFT run; the constitution; the source's lessons (broken answers, and better ones), if any
out     a critic. Without lessons it is the SFT model itself, shown the principles in every request
watch   held-out lessons: does it prefer the better answer, in either order, and name the principle that was broken?
left out  chain of thought before the verdict, one principle drawn for each request, a critic larger than the policy
source  Bai et al. (2022), Constitutional AI, sections 3 and 4; Lee et al. (2023), RLAIF, section 3.1 (both orders)
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from labkit import constitution
from labkit.errors import LabError
from labkit.recipe import Settings as Section
from labkit.records import Answer, write_jsonl

if TYPE_CHECKING:
    from labkit.constitution import Constitution
    from labkit.job import Job
    from labkit.world.principles import Lesson

VERSION = 1
TEXT_BY: dict[str, float] = {"people's lessons": 1.0}


class Settings(Section):
    constitution: str = Field(
        "", description="YAML file of principles; empty: the lab's own (labkit/constitution.yaml)"
    )
    lessons: int = Field(600, ge=1, description="examples that it learns from, where the source has any")
    held_out: int = Field(200, ge=8, description="further examples, for measuring it and for its temperature")
    epochs: int = Field(4, ge=1, description="times that each request is read")
    batch: int = Field(16, ge=1, description="requests a step")
    accumulate: int = Field(1, ge=1, description="parts that a batch is split into when memory is short")
    learning_rate: float = Field(1e-3, gt=0, description="peak rate; 1e-5 for models of billions of weights")
    threads: int = Field(1, ge=1, description="CPU threads; part of the run's identity")


def reads(settings: Settings) -> str:
    """The content of the file that the settings name: another constitution is another critic."""
    return constitution.fingerprint(settings.constitution)


def dataset(lessons: Sequence[Lesson], by: Constitution) -> list[Answer]:
    """Each lesson as requests and what to say: a critique and, where something is broken, a revision and two verdicts."""
    found = []
    for each in lessons:
        critique = by.fault(each.principle, each.fault)
        found.append((by.to_criticise(each.prompt, each.answer), critique))
        if each.principle:
            found += [
                (by.to_revise(each.prompt, each.answer, critique), each.better),
                (by.to_judge(each.prompt, each.better, each.answer), constitution.LETTERS[0]),
                (by.to_judge(each.prompt, each.answer, each.better), constitution.LETTERS[1]),
            ]
    return [Answer(prompt=request, text=text, author="lesson") for request, text in found]


def loss(model: Any, rows: Sequence[tuple[list[int], list[int]]]) -> Any:
    """Mean over requests of −1/T Σ_t log π(y_t): a letter counts as much as a revision of thirty words."""
    from labkit import sampling

    logps, mask = sampling.answer_logps(model, [request for request, _ in rows], [said for _, said in rows])
    return -(logps.sum(1) / mask.sum(1)).mean()


def train(job: Job, model: Any, rows: Sequence[tuple[list[int], list[int]]]) -> None:
    """AdamW over shuffled requests, with a short warm-up and a cosine decay."""
    import torch
    from transformers import get_cosine_schedule_with_warmup as schedule

    s, rng = job.settings, random.Random(job.seed)
    steps = -(-len(rows) // s.batch) * s.epochs
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=s.learning_rate, weight_decay=0.0, fused=True)
    rate = schedule(optimizer, int(0.05 * steps), steps)
    model.train()
    batches = (
        order[start : start + s.batch]
        for order in (rng.sample(rows, len(rows)) for _ in range(s.epochs))
        for start in range(0, len(order), s.batch)
    )
    for step, batch in enumerate(batches, 1):
        size, total = -(-len(batch) // s.accumulate), 0.0
        for at in range(0, len(batch), size):
            part = batch[at : at + size]
            value = loss(model, part) * len(part) / len(batch)
            value.backward()
            total += value.item()
        norm = torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        rate.step()
        optimizer.zero_grad(set_to_none=True)
        job.log(step, steps, **{"train/loss": total, "train/grad_norm": norm.item()})
        if job.stops(step, steps):
            break


def temperature(log_odds: np.ndarray) -> float:
    """τ that makes −mean log σ(z/τ) least, z the log-odds (N,) of the better answer: 1 where they are calibrated."""
    grid = np.geomspace(0.1, 100, 301)
    costs = [np.logaddexp(0.0, -log_odds / t).mean() for t in grid]
    return round(float(grid[int(np.argmin(costs))]), 4)


def measure(job: Job, model: Any, tokenizer: Any, by: Constitution, lessons: Sequence[Lesson]) -> dict[str, Any]:
    """On lessons that it was not taught: does it prefer the better answer, in either order, and name the fault?"""
    from labkit import statistics

    some = [each for each in lessons if each.principle]
    pairs = [(each.prompt, each.better, each.answer) for each in some]
    z = constitution.log_odds(model, tokenizer, by, pairs, context=job.recipe["model"].context)
    right = z.mean(1) > 0
    requests = [by.to_criticise(each.prompt, each.answer) for each in lessons]
    said = [text for text, _ in constitution.speak(job, model, tokenizer, requests, temperature=0.5, seed=job.seed)]
    named = [p.name if (p := by.broken(text)) else "" for text in said]
    found: dict[str, Any] = {"lessons": len(lessons), "temperature": temperature(z.mean(1))}
    kinds = {name: [r for r, each in zip(right, some, strict=True) if each.principle == name] for name in by.names}
    found["by_principle"] = {name: round(float(np.mean(its)), 4) for name, its in kinds.items() if its}
    shares = {
        "prefers_better": right,
        "same_in_both_orders": (z[:, 0] > 0) == (z[:, 1] > 0),
        "chooses_first": ((z > 0) == [True, False]).mean(1),
        "names_the_fault": np.array([n == each.principle for n, each in zip(named, lessons, strict=True)]),
    }
    for name, values in shares.items():
        middle, low, high = statistics.paired_bootstrap(
            values.astype(float), seed=job.seed, samples=job.recipe["answers"].bootstrap
        )
        found |= {name: round(middle, 4), f"{name}_ci": [round(low, 4), round(high, 4)]}
    return found


def figures(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """What `measure` found, for a table: rows of what, share and share_ci; none where there were no lessons."""
    found = summary.get("held_out", {})
    names = ("prefers_better", "same_in_both_orders", "chooses_first", "names_the_fault")
    return [{"what": n.replace("_", " "), "share": found[n], "share_ci": found[f"{n}_ci"]} for n in names if n in found]


def run(job: Job) -> None:
    from peft import get_peft_model

    from labkit import chat, models

    s, settings = job.settings, job.recipe["model"]
    model, tokenizer = models.load(job.parents["sft"].model, device=job.device, dtype=settings.dtype)
    by = constitution.load(s.constitution)
    lessons = job.source.lessons(by.names, s.lessons + s.held_out)
    by = by.model_copy(update={"shown": not lessons})
    by.save(job.folder)
    taught = lessons[: s.lessons]
    if taught:
        rows = [chat.answer_ids(tokenizer, a.prompt, a.text) for a in dataset(taught, by)]
        rows = [(asked, said) for asked, said in rows if len(asked) + len(said) <= settings.context]
        if not rows:
            raise LabError(f"No lesson fits the model's context of {settings.context} tokens: raise model.context.")
        job.policy, job.tokenizer = model, tokenizer
        if adapters := models.lora(settings):
            model = get_peft_model(model, adapters)
        with job.phase("train"):
            train(job, model, rows)
        words = sum(len(said) for _, said in rows)  # what people wrote in their lessons
        job.cost.update(tokens=sum(len(a) + len(b) for a, b in rows) * s.epochs, targets=words)
        job.cost["bits"] = words * math.log2(len(tokenizer))
    model = models.save(model, tokenizer, job.folder)
    write_jsonl(job.folder / "lessons.jsonl", taught)
    seen = {each.prompt.id for each in taught}
    others = [each for each in lessons[s.lessons :] if each.prompt.id not in seen]
    job.summary.update(principles=by.names, lessons=len(taught))
    if any(each.principle for each in others):
        with job.phase("measure"):
            job.summary["held_out"] = measure(job, model, tokenizer, by, others)
