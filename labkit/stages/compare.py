"""Comparison: every finished model's answers to the same prompts in one place, judged by the same judge.

in      all finished runs of the lab
out     one `answers.jsonl` with everybody's answers; where the source has no gold, each with a score by a judge: a reward
        model trained on the other half of the pairs, never the one that PPO climbed
watch   intervals before means; the proxy is never the judge
left out  pairwise judging by a language model
source  Ouyang et al. (2022), figure 1; Gao et al. (2022) for the disjoint judge
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from labkit.errors import LabError
from labkit.recipe import Settings as Section
from labkit.records import write_jsonl

if TYPE_CHECKING:
    from labkit.job import Job

VERSION = 1
TEXT_BY: dict[str, float] = {}


class Settings(Section):
    judge: Literal["gold", "reward_model"] = Field(
        "gold",
        description="who grades: the world's gold utility, or a reward model trained on a disjoint half of the pairs",
    )
    threads: int = Field(1, ge=1, description="CPU threads; part of the run's identity")


def run(job: Job) -> None:
    authors = [r for n, r in job.parents.items() if n not in ("preferences", "reward", "judge")]
    answers = [a for run in authors for a in run.answers()]
    if job.settings.judge == "reward_model":
        if "judge" not in job.parents:
            raise LabError(
                "compare.judge is reward_model, and that judge is not trained yet: run page 13_compare from its top."
            )
        from labkit import chat, models, sampling

        judge = job.parents["judge"]
        model = models.load_reward(judge.model, device=job.device, dtype=job.recipe["model"].dtype)
        _, tokenizer = models.load(job.parents["sft"].model, device="cpu")
        encoded = [chat.answer_ids(tokenizer, a.prompt, a.text) for a in answers]
        scores = sampling.score_rewards(model, [q for q, _ in encoded], [a for _, a in encoded]).tolist()
        answers = [replace(a, scores={**a.scores, "judge": round(s, 4)}) for a, s in zip(answers, scores, strict=True)]
        job.summary["judge"] = judge.summary
    write_jsonl(job.folder / "answers.jsonl", answers)
    job.log(1, 1, answers=len(answers))
    job.summary["models"] = sorted({a.author for a in answers})
