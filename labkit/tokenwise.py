"""What models say of each token of one answer: probabilities under two policies, rewards by prefix, values and advantages.

One answer at a time: `query` are the tokens before it, `ids` its own, T of them (the end token included where it ended).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from labkit import losses, sampling
from labkit.errors import LabError

TOP = 5  # alternatives kept under each model


def log_probabilities(model: Any, query: list[int], ids: list[int]) -> Tensor:
    """log π(· | prompt, tokens before) at each token of one answer: (T, V), in double precision on the CPU."""
    logits, _ = sampling.answer_logits(model, [query], [ids])
    return torch.log_softmax(logits.cpu().double(), -1)


def compared(a: Tensor, b: Tensor, ids: Sequence[int]) -> dict[str, list[Any]]:
    """Columns of one entry a token, from two (T, V) of log-probabilities; `top_a` and `top_b` are lists of (id, probability).

    Raises LabError when the two vocabularies are not of one size.
    """
    if a.shape != b.shape:
        raise LabError(f"One model knows {a.shape[1]} tokens, the other {b.shape[1]}: compare two of one vocabulary.")
    taken = torch.tensor(list(ids))[:, None]
    own = {"a": a.gather(1, taken), "b": b.gather(1, taken)}
    columns: dict[str, list[Any]] = {
        "change": (own["b"] - own["a"])[:, 0].tolist(),
        "kl": (b.exp() * (b - a)).sum(-1).clamp(min=0).tolist(),  # rounding alone could go below
    }
    for key, logps in (("a", a), ("b", b)):
        best = logps.topk(min(TOP, logps.shape[1]))
        columns |= {
            f"logp_{key}": own[key][:, 0].tolist(),
            f"entropy_{key}": (-logps.exp() * logps).sum(-1).tolist(),
            f"rank_{key}": ((logps > own[key]).sum(-1) + 1).tolist(),
            f"top_{key}": [
                list(zip(*row, strict=True))
                for row in zip(best.indices.tolist(), best.values.exp().tolist(), strict=True)
            ],
        }
    return columns


def prefix_rewards(reward_model: Any, query: list[int], ids: list[int], end: int) -> list[float]:
    """r_φ of the answer cut after each token and ended there, (T,); at the end token it is the answer's own score."""
    prefixes = [ids[: t + 1] if token == end else [*ids[: t + 1], end] for t, token in enumerate(ids)]
    return sampling.score_rewards(reward_model, [query] * len(ids), prefixes, batch=32).tolist()


def valued(
    policy: Any, reference: Any, reward_model: Any, value_model: Any, query: list[int], ids: list[int],
    settings: Mapping[str, Any], *, ended: bool,
) -> tuple[list[float], list[float]]:  # fmt: skip
    """PPO's V(s_t) and GAE at each token of one answer, (T,) each, as a round of training would have them before whitening.

    `settings` are PPO's: kl (β), gamma, lam, temperature, unended_score.
    """
    prompts, answers, temperature = [query], [ids], settings["temperature"]
    logps, mask = sampling.answer_logps(policy, prompts, answers, temperature=temperature)
    ref, _ = sampling.answer_logps(reference, prompts, answers, temperature=temperature)
    hidden, _ = sampling.hidden_states(value_model, prompts, answers)
    shift = getattr(sampling.base(value_model).config, "reward_shift", 0.0)
    values = sampling.unflatten(sampling.reward_head(value_model)(hidden)[:, 0].float() - shift, mask)
    score = (
        sampling.score_rewards(reward_model, prompts, answers) if ended else torch.tensor([settings["unended_score"]])
    )
    rewards = losses.token_rewards(score.to(logps.device), losses.k1(logps, ref), mask, beta=settings["kl"])
    advantages, _ = losses.gae(rewards, values, mask, gamma=settings["gamma"], lam=settings["lam"])
    return values[0].tolist(), advantages[0].tolist()
