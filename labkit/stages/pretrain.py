"""Pretraining: predict the next token of everything that the web says.

    L(θ) = −1/T Σ_t log π_θ(x_t | x_<t)

in      the source's web text (or, with model.path, a pretrained model that is only loaded)
out     a base model and its tokenizer; answers of the bare and of the prompted base model
watch   the loss falls fast (which tokens are frequent), then slowly (grammar, then facts)
left out  dropout, several epochs: at this size every token is seen about once
source  Bengio et al. (2003); Radford et al. (2019)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from labkit.reading import dataset, train
from labkit.recipe import Settings as Section

if TYPE_CHECKING:
    from labkit.job import Job

VERSION = 2


class Settings(Section):
    tokens: int = Field(3_000_000, ge=0, description="tokens to train on; 0 only loads the pretrained model")
    length: int = Field(128, ge=16, description="tokens a row; documents are packed end to end")
    batch: int = Field(8, ge=1, description="rows a step; at this size more steps beat larger ones")
    learning_rate: float = Field(
        4e-3, gt=0, description="peak rate of AdamW; tiny models want far more than the usual 3e-4"
    )
    warmup: float = Field(0.05, ge=0, lt=1, description="share of steps before the peak; then a cosine down to a tenth")
    weight_decay: float = Field(0.1, ge=0, description="AdamW's decay")
    threads: int = Field(
        2, ge=1, description="CPU threads, each with a share of a step's rows; part of the run's identity"
    )


def run(job: Job) -> None:
    from labkit import answers, chat, models

    settings = job.recipe["model"]
    if settings.path:
        model, tokenizer = models.pretrained(settings, cache=job.lab.outputs)
    else:
        texts = job.source.web("train")
        tokenizer = chat.train_tokenizer(texts, vocabulary=settings.vocabulary, context=settings.context)
        model = models.fresh(settings, tokenizer)
    model.to(job.device)
    if job.settings.tokens:
        with job.phase("train"):
            s, job.policy, job.tokenizer = job.settings, model, tokenizer
            rows = dataset(job.source.web("train"), tokenizer, length=s.length, tokens=s.tokens, seed=job.seed)
            train(job, model, rows)
    models.save(model, tokenizer, job.folder)
    with job.phase("answer"):
        answers.answer(job, model, tokenizer, author="pretrain", template="{prompt}\n")
        answers.answer(job, model, tokenizer, author="prompted", template=job.source.few_shot())
        job.summary["web_nll"] = answers.web_nll(job, model, tokenizer)
    job.summary["parameters"] = sum(p.numel() for p in model.parameters())
