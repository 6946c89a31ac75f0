"""Direct preference optimisation: raise the log-odds of the preferred answer against the other, relative to the reference.

    L(θ) = −log σ(β[log π_θ/π_ref(y_w|x) − log π_θ/π_ref(y_l|x)]) − α · 1/T Σ_t log π_θ(y_w,t | x, y_w,<t)

in      the SFT run (policy and reference), the votes of the preferences run
out     a tuned policy; no reward model, no sampling while training
watch   dpo_loss begins at ln 2; the margin grows; with α = 0 the log-probability of *both* answers falls, and words get lost
left out  the loss variants (IPO, robust, ...), a separate reference
source  Rafailov et al. (2023), equation 7; the second term: Pang et al. (2024), equation 1, and Llama 3 (2024), section 4.1.4;
        trained by TRL's DPOTrainer (labkit/contrast.py)
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from pydantic import Field

from labkit.recipe import Settings as Section
from labkit.records import Pair, Vote

if TYPE_CHECKING:
    from labkit.job import Job

VERSION = 2
READS_VOTES = True


class Settings(Section):
    beta: float = Field(0.3, gt=0, description="price of leaving the reference; .05 to .5, smaller moves farther")
    epochs: int = Field(1, ge=1, description="times that each pair is read")
    batch: int = Field(32, ge=1, description="pairs a step")
    accumulate: int = Field(1, ge=1, description="parts that a batch is split into when memory is short")
    sft_weight: float = Field(
        0.5,
        ge=0,
        description="weight α of imitating the preferred answers as well; 0 is the paper's loss, 0.2 to 1 usual",
    )
    learning_rate: float = Field(4e-4, gt=0, description="peak rate; 5e-7 to 5e-6 for models of billions of weights")
    pairs: int = Field(10_000, ge=0, description="pairs used, drawn at random; 0 takes all")
    shuffle_labels: bool = Field(False, description="a control: which answer won is decided by a coin")
    threads: int = Field(1, ge=1, description="CPU threads; part of the run's identity")


def dataset(votes: list[Vote], *, limit: int, shuffle_labels: bool, seed: int) -> list[Pair]:
    """All pairs of the training votes, an edited answer before those shown, up to `limit` of them in random order."""
    from labkit.feedback import edits

    rng = random.Random(seed)
    pairs = [p for v in edits.preferred(votes) if v.prompt.split == "train" for p in v.pairs()]
    rng.shuffle(pairs)
    pairs = pairs[: limit or len(pairs)]
    return [p.swap() if shuffle_labels and rng.random() < 0.5 else p for p in pairs]


def run(job: Job) -> None:
    from labkit import answers, contrast, models, training

    settings, s = job.recipe["model"], job.settings
    start = job.parents.get("start") or job.parents["sft"]  # the reference, too: another run where one is trained on
    model, tokenizer = models.load(start.model, device=job.device, dtype=settings.dtype)
    pairs = dataset(job.votes, limit=s.pairs, shuffle_labels=s.shuffle_labels, seed=job.seed)
    rows = contrast.dataset(pairs, tokenizer, context=settings.context)
    with job.phase("train"):
        fit = contrast.trainer(job, model, tokenizer, rows, sft_weight=s.sft_weight)
        training.train(fit)
    model = models.save(training.released(fit), tokenizer, job.folder)
    job.cost.update(tokens=contrast.tokens(rows) * s.epochs, targets=len(rows))
    answers.evaluate(job, model, tokenizer)
    job.summary["pairs"] = len(rows)
