"""Soft prompts: k learned vectors before every question (or, as `prefix`, learned keys and values in every layer); no weight changes.

    L(P) = −1/T Σ_t log π_θ(y_t | P, x, y_<t)      θ frozen; P is (k, d), or of a prefix (layers, 2, k, d)

in      the pretrained run, the source's demonstrations: the same that SFT imitates
out     the base model behind a prefix (prefix.safetensors), which samples and scores like any other; the PEFT adapter
watch   it starts from words and leaves them: the nearest words of what was learned say little
left out  ensembles of prompts, several tasks at once, the MLP that Li and Liang train through (starting from words does its work)
source  Lester et al. (2021), soft prompts; Li and Liang (2021), prefix tuning, section 4; trained by TRL's SFTTrainer and PEFT
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from labkit.recipe import Settings as Section

if TYPE_CHECKING:
    from pathlib import Path

    from labkit.job import Job

VERSION = 1


class Settings(Section):
    method: Literal["soft", "prefix"] = Field(
        "soft", description="learn vectors in the place of words, or keys and values in every layer"
    )
    tokens: int = Field(20, ge=1, description="places k that are learned; 20 to 100 are usual")
    start: str = Field(
        "Questions and answers: here is somebody kind and honest who answers every question in one or two sentences.",
        description="words to start from, cut or repeated to k tokens; empty: random",
    )
    epochs: int = Field(1, ge=1, description="times that each demonstration is read")
    batch: int = Field(16, ge=1, description="demonstrations a step")
    accumulate: int = Field(1, ge=1, description="parts that a batch is split into when memory is short")
    learning_rate: float = Field(1e-1, gt=0, description="peak rate; 1e-2 to .3, far above that of weights")
    limit: int = Field(4800, ge=0, description="demonstrations used; 0 takes all")
    threads: int = Field(1, ge=1, description="CPU threads; part of the run's identity")


def wrapped(model: Any, settings: Settings, *, tokenizer: Any, folder: Path) -> Any:
    """The frozen model with PEFT's prompt before it, both methods starting from the same words.

    `folder` holds the tokenizer, which PEFT reads from the disk.
    """
    from peft import PrefixTuningConfig, PromptTuningConfig, TaskType, get_peft_model

    from labkit import prefixes

    shared = {"task_type": TaskType.CAUSAL_LM, "num_virtual_tokens": settings.tokens}
    if settings.method == "soft":
        words = {"prompt_tuning_init": "RANDOM"}
        if settings.start:
            words = {
                "prompt_tuning_init": "TEXT",
                "prompt_tuning_init_text": settings.start,
                "tokenizer_name_or_path": str(folder),
            }
        return get_peft_model(model, PromptTuningConfig(**shared, **words))
    peft = get_peft_model(model, PrefixTuningConfig(**shared))
    if settings.start:
        encoder = peft.prompt_encoder["default"]
        cache = prefixes.read(model, start_ids(tokenizer, settings))
        encoder.load_prompt_embeddings(prefixes.flat(cache))
    return peft


def start_ids(tokenizer: Any, settings: Settings) -> list[int]:
    """The k tokens that the prompt starts from."""
    ids = tokenizer(settings.start)["input_ids"]
    return (ids * -(-settings.tokens // len(ids)))[: settings.tokens]


def prefix(peft: Any) -> Any:
    """What the learned prompt leaves in each layer: a `prefixes.Prefix`, through which gradients flow."""
    from labkit import prefixes

    given = peft.get_prompt(1)
    if hasattr(given, "layers"):
        return prefixes.of_cache(given)
    return prefixes.read(peft, vectors=given[0])


def loss(peft: Any, batch: dict[str, Any], num_items_in_batch: Any = None) -> Any:
    """SFT's loss with the prompt before each row: it is run through the layers once, and all rows read behind it."""
    from labkit import imitation, prefixes

    with prefixes.before(peft, prefix(peft)):
        return imitation.loss(peft, batch, num_items_in_batch)


def trainer(job: Job, peft: Any, tokenizer: Any, rows: Any) -> Any:
    """TRL's SFTTrainer on a PEFT model, with `loss` in the place that transformers' Trainer keeps for it."""
    from trl import SFTConfig, SFTTrainer

    from labkit import training

    class Trainer(SFTTrainer):  # type: ignore[misc]
        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            return loss(model, inputs, num_items_in_batch)

    config = SFTConfig(**training.arguments(job, rows=len(rows), completion_only_loss=True))
    return Trainer(
        model=peft, args=config, train_dataset=rows, processing_class=tokenizer, callbacks=[training.Log(job)]
    )


def nearest(vectors: Any, embeddings: Any, tokenizer: Any, *, starts: list[int], most: int = 3) -> list[dict[str, Any]]:
    """Rows of place, start, cosine_to_start and the `most` words whose embeddings point most like each vector (k, d)."""
    import torch

    from labkit import pieces

    with torch.inference_mode():
        cosines = (
            torch.nn.functional.normalize(vectors.float(), dim=1)
            @ torch.nn.functional.normalize(embeddings.float(), dim=1).T
        )
        cosines[:, list(tokenizer.added_tokens_decoder)] = -1  # marks of a format are no words
        best = cosines.topk(most, dim=1)
    rows = []
    for place, (values, ids) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
        row: dict[str, Any] = {"place": place + 1}
        if starts:
            row |= {
                "start": pieces.texts(tokenizer, [starts[place]])[0],
                "cosine_to_start": round(float(cosines[place, starts[place]]), 4),
            }
        words = pieces.texts(tokenizer, ids)
        rows.append(row | {"nearest": [[w, round(v, 4)] for w, v in zip(words, values, strict=True)]})
    return rows


def run(job: Job) -> None:
    import torch

    from labkit import answers, imitation, models, prefixes, prompting, training

    s, settings, parent = job.settings, job.recipe["model"], job.parents["pretrain"]
    model, tokenizer = models.load(parent.model, device=job.device, dtype=settings.dtype)
    tokenizer.chat_template = prompting.PAGE  # the frozen model knows pages of questions, and no marks of a chat
    demonstrations = job.source.demonstrations()[: s.limit or None]
    rows = imitation.dataset(demonstrations, tokenizer, context=settings.context - s.tokens)
    peft = wrapped(model, s, tokenizer=tokenizer, folder=parent.model)
    with job.phase("train"):
        fit = trainer(job, peft, tokenizer, rows)
        training.train(fit)
    peft = training.released(fit)
    read = (sum(map(len, rows["input_ids"])) + s.tokens) * s.epochs
    targets = sum(map(sum, rows["completion_mask"]))
    job.cost.update(
        tokens=read, targets=targets, bits=round(targets * math.log2(len(tokenizer)), 1)
    )  # as many as SFT's
    with torch.inference_mode():
        learned = prefix(peft)
        vectors = peft.get_prompt(1)[0] if s.method == "soft" else None
    peft.save_pretrained(job.folder / "adapter")
    model = models.save(peft.get_base_model(), tokenizer, job.folder)
    prefixes.save(learned, job.folder / "model")
    if vectors is not None:
        starts = start_ids(tokenizer, s) if s.start else []
        job.summary["nearest"] = nearest(
            vectors.cpu(), model.get_input_embeddings().weight.detach().cpu(), tokenizer, starts=starts
        )
    prefixes.put(model, learned)
    answers.evaluate(job, model, tokenizer, kl=False)
    job.summary |= {
        "demonstrations": len(rows),
        "trained": sum(p.numel() for p in peft.parameters() if p.requires_grad),
        "parameters": sum(p.numel() for p in model.parameters()),
    }
