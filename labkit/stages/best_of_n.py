"""Best-of-n: write n answers, let the reward model choose, and keep its favourite. No training at all.

    KL(best-of-n ‖ π) ≤ log n − (n − 1)/n      and E[u of the best of n] from N ≥ n samples without bias

in      the SFT run (who writes), the reward run (who chooses)
out     the best of `n` as answers of their own, and what every smaller n would have given, by the proxy and by gold
watch   the proxy rises with n for ever; gold rises, then bends: the reward model's mistakes are searched for, too
left out  rejection until an answer passes, speculative sampling
source  Stiennon et al. (2020), appendix G.3; Nakano et al. (2021), appendix I; Gao et al. (2022), section 3
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from labkit.recipe import Settings as Section
from labkit.records import Answer, to_json

if TYPE_CHECKING:
    from labkit.job import Job

VERSION = 1
TEXT_BY: dict[str, float] = {}  # nothing is trained


class Settings(Section):
    n: int = Field(16, ge=2, le=128, description="answers of which the reward model keeps one")
    unended_score: float = Field(-2.0, description="reward of an answer that did not end in time, as in ppo")
    threads: int = Field(1, ge=1, description="CPU threads; part of the run's identity")


def kl(n: int) -> float:
    """KL from best-of-n to the model that wrote, in nats: an upper bound, exact where no two answers are alike."""
    return math.log(n) - (n - 1) / n


def curve(proxy: np.ndarray, gold: np.ndarray | None, *, seed: int, samples: int) -> list[dict[str, Any]]:
    """(P, N) scores, of which the proxy chooses → a row for each power of two up to N: n, kl, reward and gold of the best of n."""
    from labkit import statistics

    rows, n = [], 1
    while n <= proxy.shape[1]:
        row: dict[str, Any] = {"n": n, "kl": round(kl(n), 4)}
        for name, values in (("reward", proxy), ("gold", gold)):
            if values is not None:
                each = statistics.best_of_n(proxy, values, n)
                middle, low, high = statistics.paired_bootstrap(each, seed=seed, samples=samples)
                row |= {name: round(middle, 4), f"{name}_ci": [round(low, 4), round(high, 4)]}
        rows.append(row)
        n *= 2
    return rows


def write(job: Job, split: str, *, seed: int) -> list[Answer]:
    """n answers for each one that other models give to a prompt of the split, with the reward model's score and gold."""
    from labkit import answers, models, sampling

    load = {"device": job.device, "dtype": job.recipe["model"].dtype}
    model, tokenizer = models.load(job.parents["sft"].model, **load)
    judge = sampling.frozen(models.load_reward(job.parents["reward"].model, **load))
    prompts, each = job.source.prompts(split), job.settings.n * job.recipe["answers"].n
    found = answers.write_answers(job, model, tokenizer, prompts, author=job.name, seed=seed, n=each)
    scores = sampling.score_rewards(judge, [q for _, q, _ in found], [s.ids for _, _, s in found]).tolist()
    return [
        answers.finish(job, a, kl=kl(job.settings.n), reward=score if a.ended else job.settings.unended_score)
        for (a, _, _), score in zip(found, scores, strict=True)
    ]


def run(job: Job) -> None:
    n, how, tokens = job.settings.n, job.recipe["answers"], 0
    with open(job.folder / "answers.jsonl", "w", encoding="utf-8") as f, job.phase("answer"):
        for step, split in enumerate(("validation", "test"), 1):
            all_ = write(job, split, seed=job.seed + step)
            for at, start in enumerate(range(0, len(all_), n)):
                best = max(all_[start : start + n], key=lambda a: a.scores["reward"])
                f.write(to_json(replace(best, n=at % how.n)) + "\n")
            scores = [[a.scores.get(name) for a in all_] for name in ("reward", "gold")]
            proxy, gold = (np.array(s, dtype=float).reshape(-1, n * how.n) for s in scores)
            job.summary[split] = {
                "curve": curve(proxy, None if np.isnan(gold).any() else gold, seed=job.seed, samples=how.bootstrap)
            }
            tokens += sum(a.tokens for a in all_)
            job.log(step, 2, answers=len(all_))
    job.cost.update(tokens=tokens)
