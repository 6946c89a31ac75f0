"""Pulling one answer up against another: the rows and the trainer behind every stage with DPO's loss.

DPO contrasts answers that an annotator compared; self-play contrasts a person's answer with the model's own. What differs is
where the pairs come from, and that is the stage's own affair.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from labkit.errors import LabError
from labkit.records import Pair

if TYPE_CHECKING:
    from labkit.job import Job


def dataset(pairs: Iterable[Pair], tokenizer: Any, *, context: int) -> Any:
    """Pairs → TRL's `prompt_ids`, `chosen_ids`, `rejected_ids`; too long ones are left out."""
    from datasets import Dataset

    from labkit import chat

    rows = []
    for pair in pairs:
        asked, chosen = chat.answer_ids(tokenizer, pair.prompt, pair.chosen)
        _, rejected = chat.answer_ids(tokenizer, pair.prompt, pair.rejected)
        if len(asked) + max(len(chosen), len(rejected)) <= context:
            rows.append({"prompt_ids": asked, "chosen_ids": chosen, "rejected_ids": rejected})
    if not rows:
        raise LabError(
            "There is no training preference that fits model.context: collect votes on page 04_preferences first."
        )
    return Dataset.from_list(rows)


def tokens(rows: Any) -> int:
    """Tokens that one pass reads: the prompt stands before both answers."""
    return sum(2 * len(r["prompt_ids"]) + len(r["chosen_ids"]) + len(r["rejected_ids"]) for r in rows)


def answer_logps(model: Any, batch: dict[str, Any]) -> tuple[Any, Any]:
    """log π of the answers' tokens in TRL's collated batch, chosen above rejected: `input_ids` (2B, T) → (2B, T − 1), and its mask."""
    from labkit import sampling

    counts = batch["completion_mask"][:, 1:].bool()
    return sampling.unflatten(sampling.collated_logps(model, batch, counts), counts), counts


def trainer(job: Job, model: Any, tokenizer: Any, rows: Any, *, sft_weight: float = 0.0) -> Any:
    """TRL's DPOTrainer on rows that are tokens already, with `losses.dpo` in the place that Trainer keeps for a loss. The
    reference's log-probabilities are computed once, beforehand.

    The job's settings give `beta`, `epochs`, `batch`, `accumulate` and `learning_rate`. `sft_weight` α adds imitation of
    the chosen answers, α · `losses.nll` over their tokens: TRL's loss_type ["sigmoid", "sft"] with weights 1 and α.
    """
    import torch
    from trl import DPOConfig, DPOTrainer

    from labkit import losses, models, sampling, training

    beta = job.settings.beta

    class Trainer(DPOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

        def compute_ref_log_probs(self, model: Any, inputs: Any) -> Any:
            with torch.inference_mode(), sampling.without_adapters(model) as reference:
                return answer_logps(reference, inputs)[0].sum(1).chunk(2)

        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            ref = inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]
            logps, counts = answer_logps(model, inputs)
            now = logps.sum(1).chunk(2)
            gains = [beta * (p - r).detach() for p, r in zip(now, ref, strict=True)]
            seen = {
                "rewards/accuracies": (gains[0] > gains[1]).float(), "rewards/margins": gains[0] - gains[1],
                "rewards/chosen": gains[0], "rewards/rejected": gains[1], "logps/chosen": now[0], "logps/rejected": now[1],
            }  # fmt: skip
            loss = losses.dpo(now[0], now[1], ref[0], ref[1], beta=beta).mean()
            seen["dpo_loss"] = loss.detach()
            if sft_weight:
                loss = loss + sft_weight * losses.nll(logps.chunk(2)[0], counts.chunk(2)[0])
            for key, value in seen.items():
                self._metrics["train"][key].append(value.mean().item())
            return loss

    kinds = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, sft_weight]} if sft_weight else {}
    config = DPOConfig(
        **training.arguments(
            job,
            rows=len(rows),
            beta=beta,
            precompute_ref_log_probs=True,
            precompute_ref_batch_size=job.settings.batch,
            **kinds,
        )
    )
    return Trainer(
        model=model, args=config, train_dataset=rows, processing_class=tokenizer,
        peft_config=models.lora(job.recipe["model"]), callbacks=[training.Log(job)],
    )  # fmt: skip
