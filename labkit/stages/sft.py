"""Supervised fine-tuning: imitate people who were asked to answer.

    L(θ) = −1/T Σ_t log π_θ(y_t | x, y_<t)      over the answer's tokens only

in      the pretrained run (for the control: the SFT run, trained as long again), the source's demonstrations
out     a model that answers instead of continuing
watch   the loss falls within the first epoch; what it imitates is the *mix* of people, good and bad
left out  packing (rows are short), NEFTune, several turns
source  Ouyang et al. (2022), section 3.5; trained by TRL's SFTTrainer
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from labkit.errors import LabError
from labkit.recipe import Settings as Section
from labkit.records import Answer

if TYPE_CHECKING:
    from labkit.job import Job

VERSION = 1


class Settings(Section):
    epochs: int = Field(2, ge=1, description="times that each demonstration is read")
    batch: int = Field(16, ge=1, description="demonstrations a step")
    accumulate: int = Field(1, ge=1, description="parts that a batch is split into when memory is short")
    learning_rate: float = Field(1.5e-3, gt=0, description="peak rate; 1e-5 to 2e-5 for models of billions of weights")
    limit: int = Field(0, ge=0, description="demonstrations used; 0 takes all")
    threads: int = Field(2, ge=1, description="CPU threads; part of the run's identity")


def dataset(demonstrations: list[Answer], tokenizer: Any, *, context: int) -> Any:
    """Demonstrations → TRL's `input_ids` and `completion_mask` (1 where the token is trained on); too long ones are left out."""
    from datasets import Dataset

    from labkit import chat

    pairs = [chat.answer_ids(tokenizer, d.prompt, d.text) for d in demonstrations]
    rows = [
        {"input_ids": asked + answered, "completion_mask": [0] * len(asked) + [1] * len(answered)}
        for asked, answered in pairs
        if len(asked) + len(answered) <= context
    ]
    if not rows:
        raise LabError(
            f"No demonstration fits the model's context of {context} tokens: raise model.context, or add data."
        )
    return Dataset.from_list(rows)


def loss(model: Any, batch: dict[str, Any], num_items_in_batch: Any = None) -> Any:
    """`losses.nll` of a batch with `input_ids` and `labels` (−100 where a token is not trained on), both (B, T).

    `num_items_in_batch` is the number of trained tokens of the whole batch, where it is split into parts.
    """
    from labkit import sampling

    counts = batch["labels"][:, 1:] != -100
    return -sampling.collated_logps(model, batch, counts).sum() / (num_items_in_batch or counts.sum())


def trainer(job: Job, model: Any, tokenizer: Any, rows: Any) -> Any:
    """TRL's SFTTrainer, with `loss` in the place that transformers' Trainer keeps for it."""
    from trl import SFTConfig, SFTTrainer

    from labkit import models, training

    class Trainer(SFTTrainer):  # type: ignore[misc]
        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            return loss(model, inputs, num_items_in_batch)

    config = SFTConfig(**training.arguments(job, rows=len(rows), completion_only_loss=True))
    return Trainer(
        model=model, args=config, train_dataset=rows, processing_class=tokenizer,
        peft_config=models.lora(job.recipe["model"]), callbacks=[training.Log(job)],
    )  # fmt: skip


def run(job: Job) -> None:
    from labkit import answers, models, training

    settings = job.recipe["model"]
    start = job.parents.get("pretrain") or job.parents["sft"]  # the control goes on where SFT ended
    model, tokenizer = models.load(start.model, device=job.device, dtype=settings.dtype)
    demonstrations = job.source.demonstrations()
    demonstrations = demonstrations[: job.settings.limit or len(demonstrations)]
    rows = dataset(demonstrations, tokenizer, context=settings.context)
    with job.phase("train"):
        fit = trainer(job, model, tokenizer, rows)
        training.train(fit)
    model = training.released(fit)
    read = sum(map(len, rows["input_ids"])) * job.settings.epochs
    job.cost.update(tokens=read, targets=sum(map(sum, rows["completion_mask"])))  # a target read twice is one target
    model = models.save(model, tokenizer, job.folder)
    with job.phase("answer"):
        reference: Any = "self"
        if "sft" in job.parents:
            reference, _ = models.load(job.parents["sft"].model, device=job.device, dtype=settings.dtype)
        answers.answer(job, model, tokenizer, author=job.name, reference=reference)
        job.summary["web_nll"] = answers.web_nll(job, model, tokenizer)
    job.summary["demonstrations"] = len(rows)
