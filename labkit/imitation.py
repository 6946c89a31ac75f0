"""Imitating answers: the rows, the loss and the trainer behind every stage that fine-tunes on text which somebody wrote.

SFT imitates people; FeedME the answers that people liked best; expert iteration the ones that a reward model liked best. What
differs is who wrote the answers, and that is the stage's own affair.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from labkit.errors import LabError
from labkit.records import Answer

if TYPE_CHECKING:
    from labkit.job import Job


def dataset(answers: Sequence[Answer], tokenizer: Any, *, context: int) -> Any:
    """Answers → TRL's `input_ids` and `completion_mask` (1 where the token is trained on); too long ones are left out."""
    from datasets import Dataset

    from labkit import chat

    pairs = [chat.answer_ids(tokenizer, a.prompt, a.text) for a in answers]
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


def trainer(job: Job, model: Any, tokenizer: Any, rows: Any, *, lora: int = 0, **more: Any) -> Any:
    """TRL's SFTTrainer, with `loss` in the place that transformers' Trainer keeps for it.

    The job's settings give `epochs`, `batch`, `accumulate` and `learning_rate`; `more` goes on top of them. `lora` is a rank
    of adapters in place of the recipe's.
    """
    from trl import SFTConfig, SFTTrainer

    from labkit import models, training

    class Trainer(SFTTrainer):  # type: ignore[misc]
        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            return loss(model, inputs, num_items_in_batch)

    settings = job.recipe["model"].model_copy(update={"lora": lora} if lora else {})
    config = SFTConfig(**training.arguments(job, rows=len(rows), completion_only_loss=True, **more))
    return Trainer(
        model=model, args=config, train_dataset=rows, processing_class=tokenizer,
        peft_config=models.lora(settings), callbacks=[training.Log(job)],
    )  # fmt: skip
