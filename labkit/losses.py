"""The mathematics of the lab as pure functions of tensors: unreduced, with shapes, equations and sources.

Notation: B batch, T tokens, V vocabulary. A mask is True where the token counts. Log-probabilities are in nats.
TRL does the training of SFT, reward model and DPO; tests hold its losses equal to these. PPO calls these directly.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def per_token_logps(logits: Tensor, tokens: Tensor) -> Tensor:
    """log π(token): logits (..., V), tokens (...) → (...)."""
    return -F.cross_entropy(logits.flatten(0, -2).float(), tokens.flatten(), reduction="none").view(tokens.shape)


def nll(logps: Tensor, mask: Tensor) -> Tensor:
    """Next-token prediction: −mean log π(token) over the tokens that count. logps, mask (B, T) → scalar, nats a token.

    The same loss pretrains (every token counts) and fine-tunes (only the answer's tokens count).
    """
    return -(logps * mask).sum() / mask.sum()


def bradley_terry(chosen: Tensor, rejected: Tensor) -> Tensor:
    """−log σ(r_chosen − r_rejected): rewards (B,) twice → (B,). Two equal rewards cost ln 2.

    Bradley and Terry (1952); as a reward model's loss: Ouyang et al. (2022), equation 1.
    """
    return -F.logsigmoid(chosen - rejected)


def dpo(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float) -> Tensor:
    """−log σ(β[(log π/π_ref)(chosen) − (log π/π_ref)(rejected)]): four (B,) → (B,).

    Each input is the sum of an answer's log-probabilities. At policy = reference the loss is ln 2.
    β (usually .05 to .5) says how dear it is to leave the reference. Rafailov et al. (2023), equation 7.
    """
    margin = (chosen - ref_chosen) - (rejected - ref_rejected)
    return -F.logsigmoid(beta * margin)


def kto(
    logps: Tensor, ref_logps: Tensor, desirable: Tensor, point: Tensor | float, *, beta: float,
    desirable_weight: float = 1.0, undesirable_weight: float = 1.0,
) -> Tensor:  # fmt: skip
    """λ_y − v(x, y), where v = λ_D σ(β(r − z₀)) for a desirable answer and λ_U σ(β(z₀ − r)) for another: (B,) each → (B,).

    r = log π − log π_ref of the whole answer; `desirable` is True where the answer was called good; `point` is z₀, the
    reference point against which gains and losses count (a KL divergence, 0 or more, without gradient). At policy =
    reference and z₀ = 0 the loss is λ/2. Ethayarajh et al. (2024), equations 7 and 8.
    """
    lead = logps - ref_logps - point
    worth = torch.where(desirable, torch.sigmoid(beta * lead), torch.sigmoid(-beta * lead))
    weight = torch.where(desirable, desirable_weight, undesirable_weight)
    return weight * (1 - worth)


def k1(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """log π − log π_ref: the unbiased estimate of KL(π‖π_ref) from samples of π; single values may be negative.

    Schulman, "Approximating KL divergence" (2020).
    """
    return logps - ref_logps


def k3(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """exp(d) − 1 − d with d = log π_ref − log π: unbiased as well, and never negative. Schulman (2020)."""
    d = ref_logps - logps
    return torch.expm1(d) - d


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean over the entries that count."""
    return (values * mask).sum() / mask.sum()


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """Zero mean and unit variance over the entries that count; the others become 0. (B, T) → (B, T)."""
    mean = masked_mean(values, mask)
    variance = masked_mean((values - mean) ** 2, mask)
    return (values - mean) * torch.rsqrt(variance + 1e-8) * mask


def token_rewards(score: Tensor, kl: Tensor, mask: Tensor, *, beta: float) -> Tensor:
    """−β·kl at every token, and the score added at the last real one. score (B,), kl and mask (B, T) → (B, T).

    Ouyang et al. (2022), equation 2 (without the pretraining term). Tokens that count stand at the left.
    """
    rewards = -beta * kl * mask
    last = mask.sum(1).long() - 1
    return rewards.scatter_add(1, last[:, None], score[:, None].to(rewards.dtype))


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float = 1.0, lam: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation: rewards, values, mask (B, T) → advantages, returns (B, T).

    δ_t = r_t + γ V_{t+1} − V_t and A_t = δ_t + γλ A_{t+1}, with V = 0 after the last token; returns = A + V. With λ = 1
    the advantage is the return minus the value. Schulman et al. (2016), equation 16.
    """
    advantages = torch.zeros_like(rewards)
    values = values * mask
    running = torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        following = values[:, t + 1] if t + 1 < rewards.shape[1] else torch.zeros_like(running)
        delta = rewards[:, t] + gamma * following - values[:, t]
        running = (delta + gamma * lam * running) * mask[:, t]
        advantages[:, t] = running
    return advantages, (advantages + values) * mask


def leave_one_out(rewards: Tensor) -> Tensor:
    """A_i = R_i − the mean of the other K − 1: rewards (P, K) of K answers to each prompt → (P, K); each row adds up to 0.

    The others' mean knows nothing of answer i, so it is a baseline without bias. Ahmadian et al. (2024), equation 8 (RLOO).
    """
    others = (rewards.sum(1, keepdim=True) - rewards) / (rewards.shape[1] - 1)
    return rewards - others


def group_relative(rewards: Tensor) -> Tensor:
    """A_i = (r_i − mean) / std over the K answers to a prompt: (P, K) → (P, K). A group of equals has no advantage at all.

    RLOO's advantage up to a factor a prompt, which makes all prompts alike in size. Shao et al. (2024), section 4.1.2 (GRPO).
    """
    return (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)


def ppo_clip(logps: Tensor, old_logps: Tensor, advantages: Tensor, *, clip: float = 0.2) -> Tensor:
    """−min(ρA, clip(ρ, 1 ± ε)A) with ρ = π/π_old: (B, T) each → (B, T).

    On the first minibatch ρ is 1, so the loss is −A. Schulman et al. (2017), equation 7.
    """
    ratio = torch.exp(logps - old_logps)
    return torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip))


def value_clip(values: Tensor, old_values: Tensor, returns: Tensor, *, clip: float = 0.2) -> Tensor:
    """½ max((V − R)², (clip(V, V_old ± ε) − R)²): (B, T) each → (B, T). As in openai/lm-human-preferences."""
    clipped = old_values + (values - old_values).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns) ** 2, (clipped - returns) ** 2)
