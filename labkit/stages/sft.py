"""Supervised fine-tuning: imitate people who were asked to answer.

    L(θ) = −1/T Σ_t log π_θ(y_t | x, y_<t)      over the answer's tokens only

in      the pretrained run (for the control: the SFT run, trained as long again), the source's demonstrations
out     a model that answers instead of continuing
watch   the loss falls within the first epoch; what it imitates is the *mix* of people, good and bad
left out  packing (rows are short), NEFTune, several turns
source  Ouyang et al. (2022), section 3.5; trained by TRL's SFTTrainer (labkit/imitation.py)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from labkit.recipe import Settings as Section

if TYPE_CHECKING:
    from labkit.job import Job

VERSION = 1


class Settings(Section):
    epochs: int = Field(3, ge=1, description="times that each demonstration is read")
    batch: int = Field(16, ge=1, description="demonstrations a step")
    accumulate: int = Field(1, ge=1, description="parts that a batch is split into when memory is short")
    learning_rate: float = Field(1.5e-3, gt=0, description="peak rate; 1e-5 to 2e-5 for models of billions of weights")
    limit: int = Field(0, ge=0, description="demonstrations used; 0 takes all")
    threads: int = Field(1, ge=1, description="CPU threads; part of the run's identity")


def run(job: Job) -> None:
    from labkit import answers, imitation, models, training

    settings = job.recipe["model"]
    start = job.parents.get("pretrain") or job.parents["sft"]  # the control goes on where SFT ended
    model, tokenizer = models.load(start.model, device=job.device, dtype=settings.dtype)
    demonstrations = job.source.demonstrations()
    demonstrations = demonstrations[: job.settings.limit or len(demonstrations)]
    rows = imitation.dataset(demonstrations, tokenizer, context=settings.context)
    with job.phase("train"):
        fit = imitation.trainer(job, model, tokenizer, rows)
        training.train(fit)
    model = training.released(fit)
    read = sum(map(len, rows["input_ids"])) * job.settings.epochs
    job.cost.update(tokens=read, targets=sum(map(sum, rows["completion_mask"])))  # a target read twice is one target
    model = models.save(model, tokenizer, job.folder)
    answers.evaluate(job, model, tokenizer)
    job.summary["demonstrations"] = len(rows)
