"""SL-CAI: the SFT model answers, a critic says what is wrong and revises; the SFT model imitates the revisions.

    y ~ π_SFT(x),   c ~ critic(x, y),   y' ~ critic(x, y, c),   L(θ) = −1/T Σ_t log π_θ(y'_t | x, y'_<t)

in      the SFT run, the critic run; training prompts, many of them harmful; no person's judgement of any answer
out     a policy that imitates its own answers after revision; before and after stand in revisions.jsonl
watch   harm is declined, fair questions are still answered; the control imitates the lessons, without a critic
left out  several principles one after the other, a preference model for choosing among revisions
source  Bai et al. (2022), Constitutional AI, section 3
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from labkit import constitution
from labkit.errors import LabError
from labkit.recipe import Settings as Section
from labkit.records import Answer, Prompt, read_jsonl, write_jsonl

if TYPE_CHECKING:
    from labkit.job import Job

VERSION = 1


class Settings(Section):
    prompts: int = Field(1500, ge=1, description="training prompts that are answered, criticised and revised")
    harmful: float = Field(0.3, ge=0, le=1, description="share of harmful ones among them, where the source marks them")
    rounds: int = Field(
        1, ge=1, description="times that each answer is criticised and revised, the revision the next time"
    )
    temperature: float = Field(
        0.5, gt=0, description="of the critic's words; the SFT model answers as answers.temperature says"
    )
    imitate: Literal["revisions", "lessons"] = Field(
        "revisions",
        description="a control: lessons takes the better answers that the critic learned from, as many in all, or where it had none SFT's "
        "own answers as they were",
    )
    epochs: int = Field(2, ge=1, description="times that each revision is read")
    batch: int = Field(16, ge=1, description="revisions a step")
    accumulate: int = Field(1, ge=1, description="parts that a batch is split into when memory is short")
    learning_rate: float = Field(6e-4, gt=0, description="peak rate; 5e-6 to 1e-5 for models of billions of weights")
    threads: int = Field(1, ge=1, description="CPU threads; part of the run's identity")


@dataclass(frozen=True, slots=True, kw_only=True)
class Revised:
    """One answer's way through the critic. `principle` is empty where it was left as it was; `ended` is of `after`."""

    prompt: Prompt
    before: str
    after: str
    critique: str = ""
    principle: str = ""
    ended: bool = True


def chosen(prompts: Sequence[Prompt], count: int, harmful: float, *, seed: int) -> list[Prompt]:
    """`count` prompts, of which a share is harmful as far as there are such and other ones."""
    rng = random.Random(seed)
    bad, good = ([p for p in prompts if (p.kind == "harmful") == is_bad] for is_bad in (True, False))
    wanted = max(min(round(harmful * count), len(bad)), count - len(good))
    wanted = min(wanted, len(bad))
    picked = rng.sample(bad, wanted) + rng.sample(good, min(count - wanted, len(good)))
    rng.shuffle(picked)
    return picked


def revise(
    job: Job, critic: Any, tokenizer: Any, by: constitution.Constitution, answers: Sequence[Revised], *, seed: int
) -> list[Revised]:
    """Each answer criticised and, where something is broken, revised; a revision that does not end is not taken."""
    say = {"temperature": job.settings.temperature, "seed": seed}
    asked = [by.to_criticise(a.prompt, a.after) for a in answers]
    critiques = [text for text, _ in constitution.speak(job, critic, tokenizer, asked, **say)]
    broken = {i: p.name for i, c in enumerate(critiques) if c and (p := by.broken(c))}
    asked = [by.to_revise(answers[i].prompt, answers[i].after, critiques[i]) for i in broken]
    better = dict(zip(broken, constitution.speak(job, critic, tokenizer, asked, **say), strict=True))
    found = []
    for i, a in enumerate(answers):
        text, ended = better.get(i, ("", False))
        taken = {"principle": broken[i], "after": text, "ended": True} if text and ended else {"principle": ""}
        found.append(replace(a, critique=critiques[i], **taken))
    return found


def dataset(job: Job, sft: Any, tokenizer: Any) -> list[Revised]:
    """SFT's answers to training prompts, before and (for imitating revisions) after the critic."""
    from labkit import answers, models

    s, parent = job.settings, job.parents["critic"]
    prompts = chosen(job.source.prompts("train"), s.prompts, s.harmful, seed=job.seed)
    written = [a for a, _, _ in answers.write_answers(job, sft, tokenizer, prompts, author="sft", seed=job.seed, n=1)]
    found = [Revised(prompt=a.prompt, before=a.text, after=a.text, ended=a.ended) for a in written]
    if s.imitate == "revisions":
        critic, _ = models.load(parent.model, device=job.device, dtype=job.recipe["model"].dtype)
        for round_ in range(s.rounds):
            found = revise(job, critic, tokenizer, constitution.of(parent), found, seed=job.seed + round_)
            job.log(round_ + 1, s.rounds, revised=sum(bool(r.principle) for r in found))
    return found


def finished(revised: Sequence[Revised]) -> list[Answer]:
    """What is worth imitating: answers that ended in time, or where none did whatever has words."""
    some = [r for r in revised if r.after]
    return [Answer(prompt=r.prompt, text=r.after, author="revisions") for r in [r for r in some if r.ended] or some]


def lessons(job: Job, count: int) -> list[Answer]:
    """`count` times a better answer that the critic learned from, each about as often; none where it had no lessons."""
    rows = list(read_jsonl(job.parents["critic"].path / "lessons.jsonl"))
    better = [Answer(prompt=Prompt.from_json(r["prompt"]), text=r["better"], author="lessons") for r in rows]
    return [better[i % len(better)] for i in range(count)] if better else []


def _golds(job: Job, r: Revised) -> list[float | None]:
    return [job.source.grade(r.prompt, text)[0] for text in (r.before, r.after)]


def record(job: Job, revised: Sequence[Revised]) -> None:
    """Leave before and after in revisions.jsonl and means in the summary: what the critic did, with gold for the eye."""
    from labkit import statistics

    rows: list[dict[str, Any]] = []
    for r in revised:
        before, after = (None if g is None else round(g, 4) for g in _golds(job, r))
        row = {"kind": r.prompt.kind, "prompt": r.prompt.text, "before": r.before, "critique": r.critique}
        rows.append(row | {"principle": r.principle, "after": r.after, "gold_before": before, "gold_after": after})
    write_jsonl(job.folder / "revisions.jsonl", rows)
    job.summary["revised"] = dict(Counter(r.principle or "left as it was" for r in revised).most_common())
    for key in ("gold_before", "gold_after"):
        golds = [row[key] for row in rows]
        if None not in golds:
            middle, low, high = statistics.paired_bootstrap(
                np.array(golds), seed=job.seed, samples=job.recipe["answers"].bootstrap
            )
            job.summary |= {key: round(middle, 4), f"{key}_ci": [round(low, 4), round(high, 4)]}


def run(job: Job) -> None:
    from labkit import answers, imitation, models, training

    s, settings = job.settings, job.recipe["model"]
    model, tokenizer = models.load(job.parents["sft"].model, device=job.device, dtype=settings.dtype)
    kept = lessons(job, s.prompts) if s.imitate == "lessons" else []
    if not kept:
        with job.phase("revise"):
            revised = dataset(job, model, tokenizer)
        record(job, revised)
        kept = finished(revised)
    if not kept:
        raise LabError(
            "The model answered every prompt with nothing, so there is nothing to imitate: look at page 02_sft."
        )
    rows = imitation.dataset(kept, tokenizer, context=settings.context)
    with job.phase("train"):
        fit = imitation.trainer(job, model, tokenizer, rows)
        training.train(fit)
    model = models.save(training.released(fit), tokenizer, job.folder)
    job.cost.update(tokens=sum(map(len, rows["input_ids"])) * s.epochs, targets=len(rows))
    answers.evaluate(job, model, tokenizer)
    job.summary["imitated"] = len(rows)
