"""Reward model: a number for an answer, such that the preferred one of two gets the higher number.

    L(φ) = −1/C(K,2) Σ_(i≻j) log σ(r_φ(x, y_i) − r_φ(x, y_j))      all pairs of a ranking in one batch element

in      the SFT run (the start), the votes of the preferences run
out     a reward model, shifted so that demonstrations score 0 and scaled to unit spread; its accuracy beside a simple rule's
watch   held-out accuracy against "the longer one wins"; calibration: when it is 80 % sure, is it right 80 % of the time?
left out  ensembles, margins
source  Ouyang et al. (2022), equation 1; head N(0, 1/√(d+1)) as in Stiennon et al. (2020)
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from labkit.errors import LabError
from labkit.recipe import Settings as Section
from labkit.records import Pair, Vote, digest

if TYPE_CHECKING:
    from labkit.job import Job

VERSION = 1
TEXT_BY: dict[str, float] = {}  # it learns to judge, not to write
READS_VOTES = True


class Settings(Section):
    epochs: int = Field(2, ge=1, description="times that each ranking is read; more overfits")
    batch: int = Field(16, ge=1, description="rankings a step")
    learning_rate: float = Field(5e-4, gt=0, description="peak rate; 9e-6 for models of billions of weights")
    pairs: int = Field(0, ge=0, description="training pairs used, whole rankings at a time; 0 takes all")
    half: Literal["all", "first", "second"] = Field("all", description="which half of the prompts it learns from")
    threads: int = Field(1, ge=1, description="CPU threads; part of the run's identity")


def dataset(votes: list[Vote], *, half: str, limit: int) -> list[Vote]:
    """The training votes: of the asked-for half of the prompts, up to `limit` pairs, in an order fixed by their ids; an
    edited answer stands before those that were shown."""
    from labkit.feedback import edits

    side = {"first": "01234567", "second": "89abcdef"}.get(half, "0123456789abcdef")
    kept = [
        v for v in edits.preferred(votes) if v.prompt.split == "train" and v.pairs() and digest(v.prompt.id, 1) in side
    ]
    if not kept:
        raise LabError("There is no training preference to learn from: collect votes on page 04_preferences first.")
    kept.sort(key=lambda v: digest(v.id))
    if not limit:
        return kept
    counts = np.cumsum([len(v.pairs()) for v in kept])
    return kept[: int(np.searchsorted(counts, limit)) + 1]


def loss(model: Any, tokenizer: Any, votes: list[Vote]) -> tuple[Any, float]:
    """Bradley–Terry over all pairs of each ranking; each answer is read once. Returns the mean over rankings, and accuracy."""
    import torch

    from labkit import chat, losses, sampling

    encoded = [chat.answer_ids(tokenizer, v.prompt, text) for v in votes for text in v.answers]
    hidden, mask = sampling.hidden_states(model, [p for p, _ in encoded], [a for _, a in encoded], shift=0)
    rewards = sampling.reward_head(model)(hidden[mask.sum(1).cumsum(0) - 1])[:, 0].float()
    better, worse, weight, at = [], [], [], 0
    for vote in votes:
        pairs = [(at + vote.answers.index(p.chosen), at + vote.answers.index(p.rejected)) for p in vote.pairs()]
        better += [i for i, _ in pairs]
        worse += [j for _, j in pairs]
        weight += [1 / len(pairs) / len(votes)] * len(pairs)
        at += len(vote.answers)
    each = losses.bradley_terry(rewards[better], rewards[worse])
    accuracy = (rewards[better] > rewards[worse]).float().mean().item()
    return (each * torch.tensor(weight, device=each.device)).sum(), accuracy


def train(job: Job, model: Any, tokenizer: Any, votes: list[Vote]) -> None:
    """AdamW over shuffled rankings, with a short warm-up and a cosine decay."""
    import torch
    from transformers import get_cosine_schedule_with_warmup as schedule

    s = job.settings
    steps = -(-len(votes) // s.batch) * s.epochs
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=s.learning_rate, weight_decay=0.01, fused=True)
    rate = schedule(optimizer, int(0.05 * steps), steps)
    rng = random.Random(job.seed)
    model.train()
    batches = (
        order[start : start + s.batch]
        for order in (rng.sample(votes, len(votes)) for _ in range(s.epochs))
        for start in range(0, len(order), s.batch)
    )
    for step, batch in enumerate(batches, 1):
        value, accuracy = loss(model, tokenizer, batch)
        value.backward()
        norm = torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        rate.step()
        optimizer.zero_grad(set_to_none=True)
        job.log(step, steps, **{"train/loss": value.item(), "train/accuracy": accuracy, "train/grad_norm": norm.item()})
        if job.stops(step, steps):
            break


def measure(model: Any, tokenizer: Any, pairs: list[Pair], *, seed: int, samples: int) -> dict[str, Any]:
    """Accuracy on held-out pairs and that of "the longer one wins", both with intervals over prompts; calibration."""
    from labkit import chat, compare, sampling

    sides = [[chat.answer_ids(tokenizer, p.prompt, getattr(p, s)) for p in pairs] for s in ("chosen", "rejected")]
    chosen, rejected = (sampling.score_rewards(model, [q for q, _ in s], [a for _, a in s]).numpy() for s in sides)
    lengths = np.array([[len(c[1]), len(r[1])] for c, r in zip(*sides, strict=True)])
    right = (chosen > rejected) + 0.5 * (chosen == rejected)
    longer = (lengths[:, 0] > lengths[:, 1]) + 0.5 * (lengths[:, 0] == lengths[:, 1])
    prompts = sorted({p.prompt.id for p in pairs})
    of = np.array([prompts.index(p.prompt.id) for p in pairs])
    mean = lambda v: np.bincount(of, v, len(prompts)) / np.bincount(of, minlength=len(prompts))  # noqa: E731
    out: dict[str, Any] = {"n_pairs": len(pairs), "n_prompts": len(prompts)}
    for name, values in (("reward_accuracy", right), ("longer_wins_accuracy", longer), ("difference", right - longer)):
        middle, low, high = compare.paired_bootstrap(mean(values), seed=seed, samples=samples)
        out |= {name: round(middle, 4), f"{name}_ci": [round(low, 4), round(high, 4)]}
    confidence = 1 / (1 + np.exp(-np.abs(chosen - rejected) * model.config.reward_scale))
    cuts = np.quantile(confidence, [0.2, 0.4, 0.6, 0.8])
    rows = [np.digitize(confidence, cuts) == b for b in range(5)]
    out["calibration"] = [
        {
            "confidence": round(float(confidence[r].mean()), 4),
            "accuracy": round(float(right[r].mean()), 4),
            "n": int(r.sum()),
        }
        for r in rows
        if r.any()
    ]
    return out


def normalise(job: Job, model: Any, tokenizer: Any, *, n: int = 256) -> None:
    """Shift and scale so that demonstrations score 0 on average, with unit spread; kept in the model's configuration."""
    import torch

    from labkit import chat, sampling

    demonstrations = random.Random(job.seed).sample(
        job.source.demonstrations(), min(n, len(job.source.demonstrations()))
    )
    encoded = [chat.answer_ids(tokenizer, d.prompt, d.text) for d in demonstrations]
    model.config.reward_shift, model.config.reward_scale = 0.0, 1.0
    scores = sampling.score_rewards(model, [q for q, _ in encoded], [a for _, a in encoded])
    scale = max(float(scores.std()), 1e-6)
    with torch.no_grad():
        sampling.reward_head(model).weight.div_(scale)
    model.config.reward_shift, model.config.reward_scale = float(scores.mean()) / scale, scale


def run(job: Job) -> None:
    import torch
    from peft import get_peft_model

    from labkit import models

    settings = job.recipe["model"]
    _, tokenizer = models.load(job.parents["sft"].model, device="cpu")
    start = job.parents.get("start") or job.parents["sft"]  # a reward model where one is trained on
    model = models.load_reward(start.model, device=job.device, dtype=settings.dtype)
    with torch.no_grad():
        if "start" in job.parents:
            model.score.weight.mul_(model.config.reward_scale)  # from unit spread back to log-odds
        else:
            model.score.weight.normal_(std=(model.config.hidden_size + 1) ** -0.5)
    if adapters := models.lora(settings, task="SEQ_CLS"):
        model = get_peft_model(model, adapters)
    votes = dataset(job.votes, half=job.settings.half, limit=job.settings.pairs)
    with job.phase("train"):
        train(job, model, tokenizer, votes)
    if settings.lora:
        model = model.merge_and_unload()
    normalise(job, model, tokenizer)
    models.save(model, tokenizer, job.folder)
    with job.phase("measure"):
        for split in ("validation", "test"):
            pairs = [p for v in job.votes if v.prompt.split == split for p in v.pairs()]
            if pairs:
                job.summary[split] = measure(
                    model, tokenizer, pairs, seed=job.seed, samples=job.recipe["answers"].bootstrap
                )
    trained = sum(len(v.pairs()) for v in votes)
    job.summary["pairs"] = trained
    job.cost.update(targets=trained)
