"""What the models before and after a retraining think of pairs that neither has seen, and what they answer by the same dice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from labkit import ask
from labkit.ask import Loaded
from labkit.effect import ROLES, share_ordered
from labkit.records import Answer, Pair, Prompt, digest
from labkit.runs import Run

if TYPE_CHECKING:
    from labkit.lab import Lab


@dataclass
class Models:
    """The models behind the runs `sft`, `before`, `after`, and behind the reward models `judge` (before) and `reward` (after),
    where there are any; each is loaded once."""

    lab: Lab
    runs: dict[str, Run]

    @cached_property
    def policies(self) -> dict[str, Loaded]:
        """sft, before and after; two that are the same run are the same model."""
        return {role: ask.load(self.runs[role]) for role in ("sft", *ROLES)}

    @cached_property
    def judges(self) -> dict[str, Loaded]:
        """The reward models by role, those that there are."""
        found = {"before": self.runs.get("judge"), "after": self.runs.get("reward")}
        return {role: ask.load(run, reward=True) for role, run in found.items() if run}

    @property
    def samples(self) -> int:
        """Resamples behind an interval."""
        return self.lab.recipe["answers"].bootstrap


def ordered(models: Models, pairs: Sequence[Pair], on: str) -> list[dict[str, Any]]:
    """How often the reward model and the policy's implicit reward, log π/π_sft, put the chosen answer first, before and after.

    Rows of judge, on, n, before and after, the latter two with `_ci` and None where there is no such judge: the SFT model,
    by which the implicit reward is measured, has none.
    """
    from labkit import chat, sampling

    if not pairs:
        return []
    tokenizer = models.policies["sft"].tokenizer
    encoded = [chat.answer_ids(tokenizer, p.prompt, text) for p in pairs for text in (p.chosen, p.rejected)]
    read = [q for q, _ in encoded], [a for _, a in encoded]
    kept: dict[int, np.ndarray] = {}

    def gaps(loaded: Loaded, score: Any) -> np.ndarray:
        """The score of each pair's chosen answer minus that of the rejected one; of one model only once."""
        if id(loaded) not in kept:
            found = np.array([float(one.sum()) for one in score(loaded.model, *read)])
            kept[id(loaded)] = found[::2] - found[1::2]
        return kept[id(loaded)]

    logps = {role: gaps(policy, sampling.score_logps) for role, policy in models.policies.items()}
    method = models.runs["after"].manifest["stage"].upper()
    moved = [role for role in ROLES if models.policies[role] is not models.policies["sft"]]
    opinions = {
        "reward model": {role: gaps(judge, sampling.score_rewards) for role, judge in models.judges.items()},
        f"{method}’s implicit reward": {role: logps[role] - logps["sft"] for role in moved},
    }
    rows, asked = [], [p.prompt.id for p in pairs]
    for judge, by_role in opinions.items():
        row: dict[str, Any] = {"judge": judge, "on": on, "n": len(pairs)}
        for role in ROLES:
            known = share_ordered(by_role[role], asked, samples=models.samples) if role in by_role else (None, None)
            row[role], row[f"{role}_ci"] = known
        rows += [row] if row["after"] is not None else []
    return rows


def side_by_side(models: Models, prompts: Sequence[Prompt]) -> list[tuple[Prompt, Answer, Answer]]:
    """One answer a prompt before and after, each sampled alone with the same seed: where they differ, the model did."""
    from labkit import chat, sampling

    how, found = models.lab.recipe["answers"], []
    for prompt in prompts:
        pair = []
        for role in ROLES:
            model, tokenizer = models.policies[role].model, models.policies[role].tokenizer
            query = chat.prompt_ids(tokenizer, prompt, room=how.max_tokens, context=models.lab.recipe["model"].context)
            [[one]] = sampling.sample(
                model, [query], end=tokenizer.eos_token_id, pad_id=tokenizer.pad_token_id, max_tokens=how.max_tokens,
                temperature=how.temperature, seed=int(digest([models.lab.recipe.seed, prompt.id], 8), 16),
            )  # fmt: skip
            text = chat.decode(tokenizer, one.ids)
            gold, grades = models.lab.source.grade(prompt, text, ended=one.ended)
            answer = Answer(
                prompt=prompt, text=text, author=models.runs[role].name, ended=one.ended, tokens=len(one.ids)
            )
            pair.append(replace(answer, scores={} if gold is None else {"gold": round(gold, 4)}, grades=grades))
        found.append((prompt, pair[0], pair[1]))
    return found
