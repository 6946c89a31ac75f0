"""The cake and the pyramid: what every stage of this ladder cost, and who wrote the text that its model learned to predict.

    C_train ≈ 6·N·D      C_read ≈ 2·N·D      N weights that are no embeddings, D tokens; bits ≤ D·log₂ V of text, 1 a comparison

in      the comparison, and through it all runs that it was made from
out     a table of tokens, seconds, operations and bits of supervision a stage, in the summary
watch   self-supervised learning is the cake; and how little of what an aligned model learned to predict was written by the web
left out  attention and the output layer, the answers to evaluation prompts, energy
source  LeCun (2016); Kaplan et al. (2020), section 2.1
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from labkit.recipe import Settings as Section

if TYPE_CHECKING:
    from labkit.job import Job

VERSION = 1
TEXT_BY: dict[str, float] = {}  # trains nothing


class Settings(Section):
    threads: int = Field(1, ge=1, description="CPU threads; part of the run's identity")


def run(job: Job) -> None:
    from labkit import costs, runs, stages

    found = {r.name: r for r in runs.lineage(job.parents["compare"])}
    job.summary["costs"] = costs.blocks({name: found[name] for name in stages.GRAPH if name in found})
