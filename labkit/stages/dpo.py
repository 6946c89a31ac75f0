"""Direct preference optimisation: raise the log-odds of the preferred answer against the other, relative to the reference.

    L(θ) = −log σ(β[log π_θ/π_ref(y_w|x) − log π_θ/π_ref(y_l|x)])

in      the SFT run (policy and reference), the votes of the preferences run
out     a tuned policy; no reward model, no sampling while training
watch   the first loss is ln 2; the margin grows; the log-probability of *both* answers falls, which is expected
left out  the loss variants (IPO, robust, ...), a separate reference
source  Rafailov et al. (2023), equation 7; trained by TRL's DPOTrainer
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from pydantic import Field

from labkit.errors import LabError
from labkit.recipe import Settings as Section
from labkit.records import Vote

if TYPE_CHECKING:
    from labkit.job import Job

VERSION = 1
READS_VOTES = True


class Settings(Section):
    beta: float = Field(0.3, gt=0, description="price of leaving the reference; .05 to .5, smaller moves farther")
    epochs: int = Field(1, ge=1, description="times that each pair is read")
    batch: int = Field(32, ge=1, description="pairs a step")
    accumulate: int = Field(1, ge=1, description="parts that a batch is split into when memory is short")
    learning_rate: float = Field(3e-4, gt=0, description="peak rate; 5e-7 to 5e-6 for models of billions of weights")
    pairs: int = Field(8000, ge=0, description="pairs used, drawn at random; 0 takes all")
    shuffle_labels: bool = Field(False, description="a control: which answer won is decided by a coin")
    threads: int = Field(1, ge=1, description="CPU threads; part of the run's identity")


def dataset(votes: list[Vote], tokenizer: Any, *, context: int, limit: int, shuffle_labels: bool, seed: int) -> Any:
    """Training votes → all their pairs → TRL's `prompt_ids`, `chosen_ids`, `rejected_ids`."""
    from datasets import Dataset

    from labkit import chat

    rng = random.Random(seed)
    pairs = [p for v in votes if v.prompt.split == "train" for p in v.pairs()]
    rng.shuffle(pairs)
    rows = []
    for pair in pairs[: limit or len(pairs)]:
        if shuffle_labels and rng.random() < 0.5:
            pair = pair.swap()
        asked, chosen = chat.answer_ids(tokenizer, pair.prompt, pair.chosen)
        _, rejected = chat.answer_ids(tokenizer, pair.prompt, pair.rejected)
        if len(asked) + max(len(chosen), len(rejected)) <= context:
            rows.append({"prompt_ids": asked, "chosen_ids": chosen, "rejected_ids": rejected})
    if not rows:
        raise LabError(
            "There is no training preference that fits model.context: collect votes on page 04_preferences first."
        )
    return Dataset.from_list(rows)


def answer_logps(model: Any, batch: dict[str, Any]) -> Any:
    """log π(answer | prompt) of TRL's collated batch, chosen above rejected: `input_ids` (2B, T) → two of (B,)."""
    from labkit import sampling

    counts = batch["completion_mask"][:, 1:].bool()
    return sampling.unflatten(sampling.collated_logps(model, batch, counts), counts).sum(1).chunk(2)


def trainer(job: Job, model: Any, tokenizer: Any, rows: Any) -> Any:
    """TRL's DPOTrainer on rows that are tokens already, with `losses.dpo` in the place that Trainer keeps for a loss. The
    reference's log-probabilities are computed once, beforehand."""
    import torch
    from trl import DPOConfig, DPOTrainer

    from labkit import losses, models, sampling, training

    beta = job.settings.beta

    class Trainer(DPOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

        def compute_ref_log_probs(self, model: Any, inputs: Any) -> Any:
            with torch.inference_mode(), sampling.without_adapters(model) as reference:
                return answer_logps(reference, inputs)

        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            ref = inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]
            now = answer_logps(model, inputs)
            gains = [beta * (p - r).detach() for p, r in zip(now, ref, strict=True)]
            seen = {
                "rewards/accuracies": (gains[0] > gains[1]).float(), "rewards/margins": gains[0] - gains[1],
                "rewards/chosen": gains[0], "rewards/rejected": gains[1], "logps/chosen": now[0], "logps/rejected": now[1],
            }  # fmt: skip
            for key, value in seen.items():
                self._metrics["train"][key].append(value.mean().item())
            return losses.dpo(now[0], now[1], ref[0], ref[1], beta=beta).mean()

    config = DPOConfig(
        **training.arguments(
            job, rows=len(rows), beta=beta, precompute_ref_log_probs=True, precompute_ref_batch_size=64
        )
    )
    return Trainer(
        model=model, args=config, train_dataset=rows, processing_class=tokenizer,
        peft_config=models.lora(job.recipe["model"]), callbacks=[training.Log(job)],
    )  # fmt: skip


def run(job: Job) -> None:
    from labkit import answers, models, training

    settings, s = job.recipe["model"], job.settings
    model, tokenizer = models.load(job.parents["sft"].model, device=job.device, dtype=settings.dtype)
    rows = dataset(
        job.votes, tokenizer, context=settings.context, limit=s.pairs, shuffle_labels=s.shuffle_labels, seed=job.seed
    )
    with job.phase("train"):
        fit = trainer(job, model, tokenizer, rows)
        training.train(fit)
    model = models.save(training.released(fit), tokenizer, job.folder)
    lengths = [2 * len(r["prompt_ids"]) + len(r["chosen_ids"]) + len(r["rejected_ids"]) for r in rows]
    job.cost.update(tokens=sum(lengths) * s.epochs, targets=len(rows))
    with job.phase("answer"):
        reference, _ = models.load(job.parents["sft"].model, device=job.device, dtype=settings.dtype)
        answers.answer(job, model, tokenizer, author=job.name, reference=reference)
        job.summary["web_nll"] = answers.web_nll(job, model, tokenizer)
    job.summary["pairs"] = len(rows)
