"""The mathematics: numbers worked by hand, identities, and independent oracles (torchrl, exact sums, TRL in
test_stages).
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from labkit import losses

torch.set_num_threads(1)


def t(*values: float) -> Tensor:
    return torch.tensor(values)


def batch(seed: int, rows: int = 7, width: int = 9) -> tuple[Tensor, Tensor, Tensor]:
    """Random rewards, values and a ragged mask; what stands outside the mask is rubbish, as it may be in real
    batches.
    """
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, width + 1, (rows,), generator=g)
    mask = torch.arange(width)[None] < lengths[:, None]
    rewards, values = torch.randn(2, rows, width, generator=g)
    return rewards * mask, values, mask


def wider(x: Tensor, by: int, fill: float) -> Tensor:
    return torch.cat([x, torch.full((len(x), by), fill).to(x.dtype)], 1)


# ---- likelihoods ---------------------------------------------------------------------------------


def test_per_token_logps_by_hand() -> None:
    """Logits (0, ln 3) mean probabilities (1/4, 3/4), whatever is added to both."""
    logits = t(0.0, math.log(3)).expand(2, 2, 2) + t(0.0, 5.0)[:, None, None]
    found = losses.per_token_logps(logits, torch.tensor([[0, 1], [1, 0]]))
    assert found.shape == (2, 2)
    assert torch.allclose(found.exp(), torch.tensor([[0.25, 0.75], [0.75, 0.25]]))


def test_nll_counts_only_what_the_mask_lets_through() -> None:
    """Three tokens count, with probabilities 1/2, 1/4 and 1/8: (1 + 2 + 3) ln 2 / 3 = 2 ln 2. The mean is over
    tokens, not rows.
    """
    logps = -math.log(2) * torch.tensor([[1.0, 2.0, 99.0], [3.0, 99.0, 99.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert losses.nll(logps, mask).item() == pytest.approx(2 * math.log(2))
    assert losses.nll(wider(logps, 3, -7.0), wider(mask, 3, 0.0)).item() == pytest.approx(2 * math.log(2))


# ---- preferences ---------------------------------------------------------------------------------


def test_bradley_terry_by_hand() -> None:
    """A lead of ln 3 is won with probability 3/4; equal rewards cost ln 2."""
    assert losses.bradley_terry(t(math.log(3) + 2), t(2.0)).item() == pytest.approx(-math.log(0.75))
    assert losses.bradley_terry(t(5.0), t(5.0)).item() == pytest.approx(math.log(2))


def test_bradley_terry_is_antisymmetric_under_swap() -> None:
    """σ(d) + σ(−d) = 1: the probabilities of the two outcomes; and the losses differ by exactly the lead."""
    a, b = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    won, lost = losses.bradley_terry(a, b), losses.bradley_terry(b, a)
    assert torch.allclose(torch.exp(-won) + torch.exp(-lost), torch.ones(50))
    assert torch.allclose(lost - won, a - b, atol=1e-6)


def test_dpo_at_the_reference_is_ln_2() -> None:
    chosen, rejected = torch.randn(2, 20, generator=torch.Generator().manual_seed(1)) * 30
    for beta in (0.05, 0.3, 5.0):
        loss = losses.dpo(chosen, rejected, chosen, rejected, beta=beta)
        assert torch.allclose(loss, torch.full((20,), math.log(2)))


def test_dpo_by_hand() -> None:
    """The chosen rose by 2 nats, the rejected fell by 1; β = ⅓ ln 3 makes the margin ln 3: the loss is −ln ¾."""
    loss = losses.dpo(t(-8.0), t(-12.0), t(-10.0), t(-11.0), beta=math.log(3) / 3)
    assert loss.item() == pytest.approx(-math.log(0.75))


def test_dpo_is_bradley_terry_on_implicit_rewards() -> None:
    """The implicit reward of an answer is β (log π − log π_ref): Rafailov et al. (2023), section 4."""
    c, r, rc, rr = torch.randn(4, 30, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(losses.dpo(c, r, rc, rr, beta=0.3), losses.bradley_terry(0.3 * (c - rc), 0.3 * (r - rr)))


# ---- KL ------------------------------------------------------------------------------------------


def test_kl_estimators_have_the_exact_kl_as_their_mean() -> None:
    """π = (½, ¼, ¼), π_ref = (¼, ¼, ½): KL = ½ ln 2 + 0 − ¼ ln 2 = ¼ ln 2. The mean is summed exactly, not sampled."""
    p, q = t(0.5, 0.25, 0.25), t(0.25, 0.25, 0.5)
    exact = math.log(2) / 4
    assert (p * (p / q).log()).sum().item() == pytest.approx(exact)
    for estimate in (losses.k1, losses.k3):
        assert (p * estimate(p.log(), q.log())).sum().item() == pytest.approx(exact)
    assert losses.k1(p.log(), q.log()).min() < 0, "single values of k1 may be negative"


def test_k3_is_never_negative_and_zero_only_where_both_agree() -> None:
    a, b = torch.randn(2, 1000, generator=torch.Generator().manual_seed(3)) * 4
    assert losses.k3(a, b).min() > 0
    assert losses.k3(a, a).abs().max() == 0


# ---- rewards and advantages ----------------------------------------------------------------------


def test_whiten_by_hand_and_blind_to_padding() -> None:
    """The real values 1, 3, 5 have mean 3 and variance 8/3, whatever stands in the padding."""
    values = torch.tensor([[1.0, 3.0], [5.0, 1e6]])
    mask = torch.tensor([[True, True], [True, False]])
    s = math.sqrt(8 / 3)
    expected = torch.tensor([[-2 / s, 0.0], [2 / s, 0.0]])
    assert torch.allclose(losses.whiten(values, mask), expected, atol=1e-5)
    more = losses.whiten(wider(values, 4, 77.0), wider(mask, 4, 0.0))
    assert torch.allclose(more[:, :2], expected, atol=1e-5) and not more[:, 2:].any()


def test_the_score_falls_on_the_last_real_token_and_nowhere_else() -> None:
    """β = ½: the first answer (2 tokens) pays −½·KL at each and gets its score 10 at its second, not at the padding."""
    kl = torch.tensor([[0.2, 0.4, 9.0], [0.6, 0.8, 1.0]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    rewards = losses.token_rewards(t(10.0, -3.0), kl, mask, beta=0.5)
    assert torch.allclose(rewards, torch.tensor([[-0.1, 9.8, 0.0], [-0.3, -0.4, -3.5]]))
    without = losses.token_rewards(t(0.0, 0.0), kl, mask, beta=0.5)
    assert (rewards != without).sum() == 2


def test_gae_by_hand() -> None:
    """r = (0, 1), V = (½, ¼), γ = 1, λ = ½: δ₁ = 1 − ¼ = ¾, δ₀ = ¼ − ½ = −¼, A₀ = −¼ + ½·¾ = ⅛; returns A + V."""
    mask = torch.ones(1, 2, dtype=torch.bool)
    advantages, returns = losses.gae(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.25]]), mask, gamma=1.0, lam=0.5)
    assert torch.allclose(advantages, torch.tensor([[0.125, 0.75]]))
    assert torch.allclose(returns, torch.tensor([[0.625, 1.0]]))


def test_gae_with_lambda_1_is_the_return_minus_the_value() -> None:
    rewards, values, mask = batch(4)
    advantages, returns = losses.gae(rewards, values, mask, gamma=1.0, lam=1.0)
    togo = rewards.flip(1).cumsum(1).flip(1) * mask
    assert torch.allclose(advantages, (togo - values) * mask, atol=1e-5)
    assert torch.allclose(returns, togo, atol=1e-5)


def test_gae_with_lambda_0_is_the_temporal_difference() -> None:
    rewards, values, mask = batch(5)
    advantages, _ = losses.gae(rewards, values, mask, gamma=0.9, lam=0.0)
    following = torch.cat([(values * mask)[:, 1:], torch.zeros(len(values), 1)], 1)
    assert torch.allclose(advantages, (rewards + 0.9 * following - values) * mask, atol=1e-6)


def test_gae_equals_torchrl_on_ragged_batches() -> None:
    """torchrl is told by `terminated` where each answer ends; it knows no mask, so its padding is not compared."""
    from torchrl.objectives.value.functional import generalized_advantage_estimate as oracle

    seen = 0
    for seed in range(20):
        rewards, values, mask = batch(seed)
        last = mask & ~torch.cat([mask[:, 1:], torch.zeros(len(mask), 1, dtype=torch.bool)], 1)
        following = torch.cat([values[:, 1:], torch.zeros(len(values), 1)], 1)
        gamma, lam = (1.0, 0.95) if seed % 2 else (0.97, 0.8)
        theirs, target = oracle(
            gamma, lam, *(x[..., None] for x in (values, following, rewards)), done=last[..., None], terminated=last[..., None]
        )  # fmt: skip
        advantages, returns = losses.gae(rewards, values, mask, gamma=gamma, lam=lam)
        assert torch.allclose(advantages[mask], theirs[..., 0][mask], atol=1e-5)
        assert torch.allclose(returns[mask], target[..., 0][mask], atol=1e-5)
        assert not advantages[~mask].any() and not returns[~mask].any()
        seen += int(mask.sum())
    assert seen > 400


def test_more_padding_changes_nothing() -> None:
    rewards, values, mask = batch(6)
    wide = [wider(rewards, 5, 0.0), wider(values, 5, 123.0), wider(mask, 5, 0.0)]
    for narrow, w in zip(losses.gae(rewards, values, mask), losses.gae(*wide), strict=True):
        assert torch.equal(narrow, w[:, :-5]) and not w[:, -5:].any()
    assert losses.masked_mean(values, mask).item() == pytest.approx(losses.masked_mean(wide[1], wide[2]).item())


# ---- PPO -----------------------------------------------------------------------------------------


def test_ppo_clip_by_hand() -> None:
    """ρ = 1.5 with ε = .2. A good token (A = 2) earns only 1.2·2; a bad one (A = −2) pays in full, 1.5·2. ρ = ½
    mirrors it.
    """
    logps, advantages = t(1.5, 1.5, 0.5, 0.5).log(), t(2.0, -2.0, 2.0, -2.0)
    found = losses.ppo_clip(logps, torch.zeros(4), advantages)
    assert torch.allclose(found, t(-2.4, 3.0, -1.0, 1.6))


def test_ppo_on_the_first_minibatch_is_minus_the_advantage() -> None:
    logps, advantages = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(7))
    assert torch.equal(losses.ppo_clip(logps, logps, advantages), -advantages)


def test_a_clipped_token_pulls_no_more() -> None:
    """Past 1 + ε a good token has no gradient; a bad one at the same place has."""
    logps = t(0.5, 0.5).requires_grad_()
    losses.ppo_clip(logps, torch.zeros(2), t(1.0, -1.0)).sum().backward()
    assert logps.grad is not None
    assert logps.grad[0] == 0 and logps.grad[1] > 0


def test_ppo_clip_equals_torchrl_on_masked_batches() -> None:
    """torchrl's ClipPPOLoss, given logits for π and the old log-probabilities, reduced over the same mask."""
    from tensordict import TensorDict
    from tensordict.nn import ProbabilisticTensorDictModule, ProbabilisticTensorDictSequential, TensorDictModule
    from torchrl.objectives import ClipPPOLoss

    actor = ProbabilisticTensorDictSequential(
        TensorDictModule(torch.nn.Identity(), in_keys=["observation"], out_keys=["logits"]),
        ProbabilisticTensorDictModule(
            in_keys=["logits"],
            out_keys=["action"],
            distribution_class=torch.distributions.Categorical,
            return_log_prob=True,
        ),
    )
    for seed in range(10):
        g = torch.Generator().manual_seed(seed)
        _, advantages, mask = batch(seed)
        logits = torch.randn(*mask.shape, 11, generator=g)
        tokens = torch.randint(0, 11, mask.shape, generator=g)
        logps = losses.per_token_logps(logits, tokens)
        old = logps + 0.3 * torch.randn(mask.shape, generator=g)
        oracle = ClipPPOLoss(actor, None, clip_epsilon=0.2, entropy_bonus=False, critic_coeff=None)
        oracle.loss_mask_key = "valid"
        data = TensorDict(
            {
                "observation": logits,
                "action": tokens,
                "action_log_prob": old,
                "advantage": advantages[..., None],
                "valid": mask,
            },
            batch_size=mask.shape,
        )
        ours = losses.masked_mean(losses.ppo_clip(logps, old, advantages, clip=0.2), mask)
        assert ours.item() == pytest.approx(oracle(data)["loss_objective"].item(), abs=1e-6)
        assert not math.isclose(ours.item(), losses.ppo_clip(logps, old, advantages).mean().item(), abs_tol=1e-4)


def test_value_clip_by_hand() -> None:
    """V_old = 0, R = 1, ε = .2. V = .5 is clipped to .2, whose error is the larger: ½·.8². V = −1 is not saved by
    the clip: ½·2².
    """
    found = losses.value_clip(t(0.5, -1.0, 0.1), t(0.0, 0.0, 0.0), t(1.0, 1.0, 1.0))
    assert torch.allclose(found, t(0.32, 2.0, 0.405))
