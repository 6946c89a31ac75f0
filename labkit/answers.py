"""Every stage ends here: its model answers the same evaluation prompts, and each answer is stored with all its scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from labkit import chat, models, sampling
from labkit.job import Job
from labkit.records import Answer, Prompt, to_json

Put = Callable[[Prompt], Prompt]  # a prompt → the same, as a model is asked it: with a definition before the question


def evaluation_prompts(job: Job) -> list[Prompt]:
    """The prompts that every model answers: validation (pages and widgets) and test (only the report)."""
    return [*job.source.prompts("validation"), *job.source.prompts("test")]


def answer(
    job: Job,
    model: Any,
    tokenizer: Any,
    *,
    author: str,
    reference: Any = None,
    reward: Any = None,
    template: str | None = None,
    put: Put | None = None,
) -> list[Answer]:
    """Answer the evaluation prompts and append to `answers.jsonl`, with gold, KL to `reference` and the proxy's reward.

    `template` is plain text with one `{prompt}` for a base model that knows no chat template; its answer ends at the first
    line break. `put` changes how a prompt is put to the model; stored, graded and joined is the prompt itself. `reference` is a model (KL is the k1 estimate summed over the answer's tokens), "self" where KL is 0 by
    definition, or None.
    """
    prompts = evaluation_prompts(job)
    answers = write_answers(job, model, tokenizer, prompts, template=template, put=put, author=author, seed=job.seed)
    texts, ids = [a for a, _, _ in answers], [(p, s) for _, p, s in answers]
    queries, samples = [p for p, _ in ids], [s.ids for _, s in ids]
    kls: Sequence[float | None] = [None] * len(texts)
    if isinstance(reference, str):
        kls = [0.0] * len(texts)
    elif reference is not None:
        refs = sampling.score_logps(reference, queries, samples)
        kls = [sum(s.logps) - float(r.sum()) for (_, s), r in zip(ids, refs, strict=True)]
    rewards: Sequence[float | None] = [None] * len(texts)
    if reward is not None:
        rewards = sampling.score_rewards(reward, queries, samples).tolist()
    done = [finish(job, a, kl=k, reward=r) for a, k, r in zip(texts, kls, rewards, strict=True)]
    with open(job.folder / "answers.jsonl", "a", encoding="utf-8") as f:
        f.writelines(to_json(a) + "\n" for a in done)
    return done


def evaluate(
    job: Job, model: Any, tokenizer: Any, *, reward: Any = None, put: Put | None = None, kl: bool = True
) -> None:
    """How a tuned policy is measured: its answers, with KL to the SFT run it came from, and what it is worth on web text.

    Without `kl` there is none: for a policy that neither is an SFT run nor came from one.
    """
    reference: Any = "self" if kl else None
    with job.phase("answer"):
        if "sft" in job.parents:
            load = {"device": job.device, "dtype": job.recipe["model"].dtype}
            reference, _ = models.load(job.parents["sft"].model, **load)
        answer(job, model, tokenizer, author=job.name, reference=reference, reward=reward, put=put)
        job.summary["web_nll"] = web_nll(job, model, tokenizer)


def glance(job: Job, model: Any, tokenizer: Any, *, round_: int) -> dict[str, Any]:
    """Where a policy stands after a round of several: one answer to each validation prompt, their length and, where known, gold."""
    from labkit import statistics

    prompts = job.source.prompts("validation")
    written = write_answers(job, model, tokenizer, prompts, author=job.name, seed=job.seed, n=1)
    row: dict[str, Any] = {"round": round_, "tokens": round(sum(a.tokens for a, _, _ in written) / len(written), 2)}
    grades = [job.source.grade(a.prompt, a.text, ended=a.ended)[0] for a, _, _ in written]
    golds = np.array([g for g in grades if g is not None])
    if len(golds):
        middle, *ci = statistics.paired_bootstrap(golds, seed=job.seed, samples=job.recipe["answers"].bootstrap)
        row |= {"gold": round(middle, 4), "gold_ci": [round(c, 4) for c in ci]}
    return row


def write_answers(
    job: Job, model: Any, tokenizer: Any, prompts: Sequence[Prompt], *, author: str, seed: int, template: str | None = None,
    n: int | None = None, put: Put | None = None,
) -> list[tuple[Answer, list[int], sampling.Sample]]:  # fmt: skip
    """`n` ungraded answers to each prompt, each with the tokens that it was asked by and answered with."""
    how = job.recipe["answers"]
    context = job.recipe["model"].context
    if template is None:
        asked = [put(p) for p in prompts] if put else prompts
        queries = [chat.prompt_ids(tokenizer, p, room=how.max_tokens, context=context) for p in asked]
    else:
        filled = [template.replace("{prompt}", p.text) for p in prompts]
        queries = [chat.text_ids(tokenizer, t, room=how.max_tokens, context=context) for t in filled]
    sampled = sampling.sample(
        model, queries, n=n or how.n, end=tokenizer.eos_token_id, pad_id=tokenizer.pad_token_id,
        max_tokens=how.max_tokens, temperature=how.temperature, seed=seed, batch=how.batch,
    )  # fmt: skip
    out = []
    for prompt, query, samples in zip(prompts, queries, sampled, strict=True):
        for number, s in enumerate(samples):
            text, ended = chat.decode(tokenizer, s.ids), s.ended
            if template is not None and template.endswith("\n") is False:
                text, line_break, _ = text.partition("\n")
                ended = ended or bool(line_break)
            given = Answer(
                prompt=prompt, text=text.strip(), author=author, n=number, ended=ended, tokens=len(s.ids),
                logp=round(sum(s.logps), 4),
            )  # fmt: skip
            out.append((given, query, s))
    return out


def finish(job: Job, answer: Answer, *, kl: float | None, reward: float | None) -> Answer:
    """The answer with gold, its measured qualities, KL (nats) and the proxy's reward."""
    gold, grades = job.source.grade(answer.prompt, answer.text, ended=answer.ended)
    scores = {"gold": gold, "reward": reward}
    return Answer(
        prompt=answer.prompt, text=answer.text, author=answer.author, n=answer.n, ended=answer.ended,
        tokens=answer.tokens, logp=answer.logp, kl=None if kl is None else round(kl, 4),
        scores={k: round(v, 4) for k, v in scores.items() if v is not None}, grades=grades,
    )  # fmt: skip


@torch.inference_mode()
def web_nll(job: Job, model: Any, tokenizer: Any, split: str = "test", *, batch: int = 64) -> float | None:
    """Nats per token on held-out web text: what the model is worth as a plain predictor. None where there is no web."""
    texts = job.source.web(split)
    if not texts:
        return None
    end, context = tokenizer.eos_token_id, job.recipe["model"].context
    rows = [[*tokenizer(t, add_special_tokens=False)["input_ids"], end][: context - 1] for t in texts]
    logps = sampling.score_logps(model, [[end]] * len(rows), rows, batch=batch)
    return round(-float(sum(p.double().sum() for p in logps)) / sum(map(len, logps)), 5)
