"""Kahneman–Tversky optimisation: each answer is good or bad by itself, and losses weigh as people feel them.

    L(θ) = E[λ_y − v(x, y)]      v = λ_D σ(β(r − z₀)) if y is good, λ_U σ(β(z₀ − r)) if it is bad
    r = log π_θ(y|x)/π_ref(y|x)      z₀ = max(0, mean of r over answers given to other prompts), an estimate of the KL

in      the SFT run (policy and reference), the votes of the preferences run: thumbs as they are, pairs split in two
out     a tuned policy; no pairs needed, and good and bad answers may come in any proportion
watch   the first loss is half the mean weight; z₀ starts at 0; good answers gain on bad ones, though nobody compared them
left out  a moving reference, the variants of the loss (APO)
source  Ethayarajh et al. (2024), equations 7 and 8; trained by TRL's KTOTrainer
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from pydantic import Field

from labkit.errors import LabError
from labkit.recipe import Settings as Section
from labkit.records import Prompt, Vote

if TYPE_CHECKING:
    from labkit.job import Job

VERSION = 1
READS_VOTES = True


class Settings(Section):
    beta: float = Field(0.3, gt=0, description="price of leaving the reference; .05 to .5, smaller moves farther")
    desirable_weight: float = Field(
        0, ge=0, description="λ_D, the weight of good answers; 0: both kinds weigh the same"
    )
    undesirable_weight: float = Field(
        0, ge=0, description="λ_U, the weight of bad answers; 0: both kinds weigh the same"
    )
    keep_good: float = Field(
        1.0, gt=0, le=1, description="share of the good answers that is used; .1 shows few good ones"
    )
    keep_bad: float = Field(1.0, gt=0, le=1, description="share of the bad answers that is used")
    epochs: int = Field(1, ge=1, description="times that each answer is read")
    batch: int = Field(32, ge=2, description="answers a step; z₀ is estimated among them, so never one")
    accumulate: int = Field(1, ge=1, description="parts that a batch is split into when memory is short")
    learning_rate: float = Field(3e-4, gt=0, description="peak rate; 5e-7 to 5e-6 for models of billions of weights")
    pairs: int = Field(4000, ge=0, description="pairs that are split into a good and a bad answer; 0 takes all")
    threads: int = Field(1, ge=1, description="CPU threads; part of the run's identity")


def judged(votes: list[Vote], *, pairs: int, seed: int) -> list[tuple[Prompt, str, bool]]:
    """Prompt, answer, and whether it is good: every training thumb, and both sides of up to `pairs` training pairs.

    An edited answer is good; where it was written beside a pair or a ranking, it is also a pair with each answer shown.
    """
    from labkit.feedback import edits

    train = [v for v in votes if v.prompt.split == "train" and v.flag != "skip"]
    thumbs = [(v.prompt, v.answers[0], v.ranks[0] == 1) for v in train if v.mode == "thumb"]
    thumbs += [(v.prompt, v.edit, True) for v in train if v.mode == "thumb" and edits.edited(v)]
    split = [p for v in edits.preferred(v for v in train if v.mode != "thumb") for p in v.pairs()]
    rng = random.Random(seed)
    rng.shuffle(split)
    for pair in split[: pairs or len(split)]:
        thumbs += [(pair.prompt, pair.chosen, True), (pair.prompt, pair.rejected, False)]
    rng.shuffle(thumbs)
    return thumbs


def thinned(rows: list[tuple[Prompt, str, bool]], *, good: float, bad: float) -> list[tuple[Prompt, str, bool]]:
    """The first share of each kind, at least one, in the order in which they stand."""
    left = {True: good, False: bad}
    left = {kind: -int(-share * sum(r[2] is kind for r in rows) // 1) for kind, share in left.items()}
    kept = []
    for row in rows:
        if left[row[2]] > 0:
            left[row[2]] -= 1
            kept.append(row)
    return kept


def dataset(rows: list[tuple[Prompt, str, bool]], tokenizer: Any, *, context: int, part: int) -> Any:
    """Judged answers → TRL's `prompt_ids`, `completion_ids`, `KL_completion_ids`, `label`, in the order given.

    z₀ is read off answers given to other prompts: within each `part` rows (those that go through the model together) every
    prompt also gets the answer of the row before it. A last row that would stand alone is left out.
    """
    from datasets import Dataset

    from labkit import chat

    encoded = [(*chat.answer_ids(tokenizer, prompt, text), good) for prompt, text, good in rows]
    longest = max((len(answer) for _, answer, _ in encoded), default=0)
    encoded = [row for row in encoded if len(row[0]) + longest <= context]
    out = []
    for start in range(0, len(encoded), part):
        group = encoded[start : start + part]
        for at, (asked, answer, good) in enumerate(group if len(group) > 1 else []):
            out.append(
                {"prompt_ids": asked, "completion_ids": answer, "KL_completion_ids": group[at - 1][1], "label": good}
            )
    if not out:
        raise LabError(
            "There are not two judged answers that fit model.context: collect votes on page 04_preferences first."
        )
    return Dataset.from_list(out)


def weights(settings: Settings, labels: list[bool]) -> tuple[float, float]:
    """λ_D and λ_U for these labels. One that is not set makes λ_D n_D = λ_U n_U, which lies in the paper's [1, 4/3]; with
    neither set the commoner kind weighs 1."""
    good, bad = sum(labels), len(labels) - sum(labels)
    desirable, undesirable = settings.desirable_weight, settings.undesirable_weight
    if not (good and bad):
        return desirable or 1.0, undesirable or 1.0
    if not (desirable or undesirable):
        return max(1.0, bad / good), max(1.0, good / bad)
    return desirable or undesirable * bad / good, undesirable or desirable * good / bad


def answer_logps(model: Any, batch: dict[str, Any], prefix: str = "") -> Any:
    """log π(answer | prompt) of TRL's collated batch; with prefix `KL_` of the answers given to other prompts: (B,)."""
    from labkit import sampling

    mine = {k: batch[prefix + k] for k in ("input_ids", "attention_mask", "completion_mask")}
    counts = mine["completion_mask"][:, 1:].bool()
    return sampling.unflatten(sampling.collated_logps(model, mine, counts), counts).sum(1)


def trainer(job: Job, model: Any, tokenizer: Any, rows: Any) -> Any:
    """TRL's KTOTrainer on rows that are tokens already, with `losses.kto` in the place that Trainer keeps for a loss. The
    reference's log-probabilities are computed once, beforehand."""
    import torch
    from trl import KTOConfig, KTOTrainer

    from labkit import losses, models, sampling, training

    good, bad = weights(job.settings, rows["label"])
    how = {"beta": job.settings.beta, "desirable_weight": good, "undesirable_weight": bad}

    class Trainer(KTOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

        def compute_ref_log_probs(self, model: Any, inputs: Any) -> Any:
            with torch.inference_mode(), sampling.without_adapters(model) as reference:
                return answer_logps(reference, inputs), answer_logps(reference, inputs, "KL_")

        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            now, label = answer_logps(model, inputs), inputs["label"]
            with torch.no_grad():
                point = (answer_logps(model, inputs, "KL_") - inputs["ref_KL_logps"]).mean().clamp(min=0)
                gains = how["beta"] * (now - inputs["ref_logps"])
                self._metrics["train"]["kl"].append(point.item())
                for side, of in (("chosen", label), ("rejected", ~label)):
                    if of.any():
                        self._metrics["train"][f"rewards/{side}"].append(gains[of].mean().item())
                        self._metrics["train"][f"logps/{side}"].append(now[of].mean().item())
                if label.any() and not label.all():
                    self._metrics["train"]["rewards/margins"].append(
                        (gains[label].mean() - gains[~label].mean()).item()
                    )
            return losses.kto(now, inputs["ref_logps"], label, point, **how).mean()

    args = training.arguments(job, rows=len(rows), precompute_ref_log_probs=True, precompute_ref_batch_size=64)
    config = KTOConfig(**args, **how)
    return Trainer(
        model=model, args=config, train_dataset=rows, processing_class=tokenizer,
        peft_config=models.lora(job.recipe["model"]), callbacks=[training.Log(job)],
    )  # fmt: skip


def run(job: Job) -> None:
    from labkit import answers, models, training

    settings, s = job.recipe["model"], job.settings
    start = job.parents.get("start") or job.parents["sft"]  # the reference, too: another run where one is trained on
    model, tokenizer = models.load(start.model, device=job.device, dtype=settings.dtype)
    chosen = thinned(judged(job.votes, pairs=s.pairs, seed=job.seed), good=s.keep_good, bad=s.keep_bad)
    rows = dataset(chosen, tokenizer, context=settings.context, part=s.batch // s.accumulate)
    with job.phase("train"):
        fit = trainer(job, model, tokenizer, rows)
        training.train(fit)
    model = models.save(training.released(fit), tokenizer, job.folder)
    read = sum(2 * len(r["prompt_ids"]) + len(r["completion_ids"]) + len(r["KL_completion_ids"]) for r in rows)
    job.cost.update(tokens=read * s.epochs, targets=len(rows))
    answers.evaluate(job, model, tokenizer)
    labels = rows["label"]
    job.summary.update(good=sum(labels), bad=len(labels) - sum(labels))
    job.summary["weights"] = [round(w, 4) for w in weights(s, labels)]
