"""Self-play fine-tuning: the model learns to tell people's answers from its own, and so to write like people, again and again.

    L(θ) = −log σ(β[log π_θ/π_t(y|x) − log π_θ/π_t(y'|x)])      y a demonstration, y' written by π_t, the model's previous self

in      the SFT run, and the same demonstrations that it was made from: no new label of any kind
out     a policy after `rounds` rounds; each round's gold is in the summary
watch   gains over SFT in the first round, less in the second; at the end the two cannot be told apart, and the loss stays at ln 2
left out  mixing the answers of earlier rounds in
source  Chen et al. (2024), equation 4.7 and algorithm 1
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from pydantic import Field

from labkit.recipe import Settings as Section
from labkit.records import Pair

if TYPE_CHECKING:
    from labkit.job import Job

VERSION = 2
TEXT_BY: dict[str, float] = {"people": 0.5, "the model, graded by nobody": 0.5}


class Settings(Section):
    rounds: int = Field(3, ge=1, description="times that the model plays against its previous self")
    pairs: int = Field(1500, ge=1, description="demonstrations a round, each against an answer of the model's own")
    beta: float = Field(0.1, gt=0, description="λ of the paper: price of leaving the previous self")
    epochs: int = Field(1, ge=1, description="times that each pair is read in a round")
    batch: int = Field(32, ge=1, description="pairs a step")
    accumulate: int = Field(1, ge=1, description="parts that a batch is split into when memory is short")
    learning_rate: float = Field(2e-4, gt=0, description="peak rate; 5e-7 for models of billions of weights")
    threads: int = Field(1, ge=1, description="CPU threads; part of the run's identity")


def dataset(job: Job, model: Any, tokenizer: Any, *, round_: int) -> list[Pair]:
    """A person's answer against the model's own to the same prompt, for `pairs` demonstrations drawn for this round."""
    from labkit import answers

    demonstrations = job.source.demonstrations()
    drawn = random.Random(f"{job.seed}/{round_}").sample(demonstrations, min(job.settings.pairs, len(demonstrations)))
    written = answers.write_answers(
        job, model, tokenizer, [d.prompt for d in drawn], author=job.name, seed=job.seed + round_, n=1
    )
    own = [answer.text for answer, _, _ in written]
    return [
        Pair(prompt=d.prompt, chosen=d.text, rejected=text)
        for d, text in zip(drawn, own, strict=True)
        if text != d.text
    ]


def run(job: Job) -> None:
    from labkit import answers, contrast, models, training

    s, settings = job.settings, job.recipe["model"]
    load = {"device": job.device, "dtype": settings.dtype}
    model, tokenizer = models.load(job.parents["sft"].model, **load)
    read = targets = 0
    for round_ in range(s.rounds):
        with job.phase("write"):
            pairs = dataset(job, model, tokenizer, round_=round_)
        rows = contrast.dataset(pairs, tokenizer, context=settings.context)
        with job.phase("train"):
            fit = contrast.trainer(job, model, tokenizer, rows)
            training.train(fit)
        models.save(training.released(fit), tokenizer, job.folder)
        model, _ = models.load(job.folder / "model", **load)  # the next round's previous self, and its start
        read += contrast.tokens(rows) * s.epochs
        targets += len(rows)
        job.summary.setdefault("rounds", []).append(answers.glance(job, model, tokenizer, round_=round_ + 1))
        if job.stopped:
            break
    job.cost.update(tokens=read, targets=targets)
    answers.evaluate(job, model, tokenizer)
