"""PPO on a one-layer model: what the first minibatch must look like, where the reward goes, and that it learns a
toy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_lab
import torch

from labkit import losses, sampling
from labkit.stages import ppo as stage

torch.set_num_threads(1)
PROMPTS = tiny_lab.ragged(32, seed=1, longest=6)


@pytest.fixture(scope="module")
def tok() -> Any:
    return tiny_lab.tokenizer()


def build(tok: Any, *, max_tokens: int = 6, lora: bool = False, **settings: Any) -> stage.PPO:
    """Policy = reference = random weights, with the end token made likely; reward and value network from one start."""
    policy = tiny_lab.policy(tok, std=0.2)
    with torch.no_grad():  # END is about a sixth of every step: its embedding is the mean of what the model says
        seen = policy.model(input_ids=torch.tensor([[5, 6, 7, 8]])).last_hidden_state.mean((0, 1))
        policy.get_input_embeddings().weight[tok.eos_token_id] = 4 * seen / seen.norm() ** 2
    value, reference = tiny_lab.reward_model(policy), sampling.twin(policy)
    if lora:
        from peft import get_peft_model

        from labkit import lab, models

        with_adapters = lab.Model(**tiny_lab.SIZES, lora=4)
        policy, reference = get_peft_model(policy, models.lora(with_adapters)), None
        value = get_peft_model(value, models.lora(with_adapters, task="SEQ_CLS"))
    else:
        sampling.frozen(reference)
    return stage.PPO(
        stage.Settings(**{"batch": 32, "minibatch": 16, **settings}),
        policy=policy, reference=reference, reward_model=sampling.frozen(tiny_lab.reward_model(tiny_lab.policy(tok))),
        value_model=value, tokenizer=tok, max_tokens=max_tokens, steps=80, seed=3,
    )  # fmt: skip


def scored_by(monkeypatch: pytest.MonkeyPatch, score: Callable[[list[int]], float]) -> None:
    """Put a program in the reward model's place."""
    monkeypatch.setattr(
        sampling, "score_rewards", lambda model, prompts, answers, **more: torch.tensor([score(a) for a in answers])
    )


def weights(model: Any) -> list[torch.Tensor]:
    return [p.detach().clone() for p in model.parameters()]


# ---- a round -------------------------------------------------------------------------------------


@pytest.mark.parametrize("lora", [False, True])
def test_the_first_minibatch_has_ratio_1_and_nothing_clipped(tok: Any, lora: bool) -> None:
    """Sampling and learning must see one policy: any difference (dropout, padding, temperature) shows here first."""
    ppo = build(tok, lora=lora, epochs=1, minibatch=32, temperature=0.7)
    metrics = ppo.learn(ppo.rollout(PROMPTS))
    assert metrics["train/first_ratio"] == 1.0
    assert metrics["train/clip_fraction"] == 0.0
    assert metrics["train/approx_kl"] == 0.0


def test_a_rollout_holds_what_the_models_say(tok: Any) -> None:
    """Every tensor against one answer at a time; zeros where the mask is False; at the start the policy is the
    reference.
    """
    ppo = build(tok, unended_score=-7.0)
    r = ppo.rollout(PROMPTS)
    assert sorted(map(tuple, r.prompts)) == sorted(map(tuple, PROMPTS))
    assert 0 < int(r.ended.sum()) < 32, "both kinds of answer must occur"
    scores = sampling.score_rewards(ppo.reward_model, r.prompts, r.answers)
    with torch.inference_mode():
        for i, (p, a) in enumerate(zip(r.prompts, r.answers, strict=True)):
            n = len(a)
            assert r.mask[i].tolist() == [True] * n + [False] * (r.mask.shape[1] - n)
            assert torch.allclose(r.logps[i, :n], sampling.answer_logps(ppo.policy, [p], [a])[0][0], atol=1e-5)
            assert torch.allclose(r.values[i, :n], ppo.values([p], [a])[0][0], atol=1e-5)
            assert (a[-1] == tok.eos_token_id) == bool(r.ended[i])
            assert r.score[i].item() == pytest.approx(scores[i].item() if r.ended[i] else -7.0, abs=1e-5)
    for tensor in (r.logps, r.ref_logps, r.values):
        assert not tensor[~r.mask].any()
    assert r.kl.abs().max() < 1e-5


def test_the_reward_is_paid_at_the_last_token_only(tok: Any) -> None:
    ppo = build(tok)
    r = ppo.rollout(PROMPTS)
    paid = losses.token_rewards(r.score, r.kl, r.mask, beta=0.0)
    for row, n, score in zip(paid, r.mask.sum(1).tolist(), r.score, strict=True):
        assert row[n - 1] == score and not row[: n - 1].any() and not row[n:].any()


def test_the_reference_and_the_reward_model_stay_as_they_were(tok: Any) -> None:
    ppo = build(tok, learning_rate=1e-2)
    before = weights(ppo.reference), weights(ppo.reward_model), weights(ppo.policy), weights(ppo.value_model)
    for _ in range(2):
        ppo.learn(ppo.rollout(PROMPTS))
    after = weights(ppo.reference), weights(ppo.reward_model), weights(ppo.policy), weights(ppo.value_model)
    same = [all(torch.equal(a, b) for a, b in zip(x, y, strict=True)) for x, y in zip(before, after, strict=True)]
    assert same == [True, True, False, False]


def test_adapters_switched_off_are_the_reference(tok: Any) -> None:
    """With LoRA no second model is held: the policy without its adapters says what the start said, before and after
    learning.
    """
    ppo = build(tok, lora=True, learning_rate=1e-2)
    start = build(tok).policy
    assert ppo.reference is None
    for _ in range(2):
        r = ppo.rollout(PROMPTS)
        with torch.inference_mode():
            expected = sampling.answer_logps(start, r.prompts, r.answers)[0]
        assert torch.allclose(r.ref_logps, expected, atol=1e-5)
        ppo.learn(r)
    assert (r.logps - r.ref_logps).abs().max() > 1e-3, "the adapters must have moved for this to mean something"
    assert all("lora_" in n or "score" in n for n, p in ppo.value_model.named_parameters() if p.requires_grad)


# ---- learning ------------------------------------------------------------------------------------


def test_one_step_raises_what_scored_high_and_lowers_what_scored_low(tok: Any) -> None:
    """Two arms: one prompt, two answers of one token, scores +1 and −1. The log-probability of the first must rise."""
    ppo = build(tok, epochs=1, minibatch=2, batch=2, learning_rate=1e-3, kl=0.0)
    prompts, answers = [[5, 6], [5, 6]], [[40], [60]]
    for _ in range(3):  # the first step of the warm-up has a rate of zero
        with torch.inference_mode():
            logps, mask = sampling.answer_logps(ppo.policy, prompts, answers)
        ppo.learn(
            stage.Rollout(
                prompts,
                answers,
                torch.tensor([True, True]),
                mask,
                logps,
                logps,
                torch.zeros(2, 1),
                torch.tensor([1.0, -1.0]),
            )
        )
    with torch.inference_mode():
        after, _ = sampling.answer_logps(ppo.policy, prompts, answers)
    assert after[0] > logps[0] and after[1] < logps[1]


def test_a_toy_reward_rises(tok: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The score is the share of odd tokens, −2 for none and 2 for all (the end token is odd, and an unended answer
    gets −2).
    """
    scored_by(monkeypatch, lambda a: 4 * sum(t % 2 for t in a) / len(a) - 2)
    ppo = build(tok, learning_rate=1e-2, value_learning_rate=1e-2, kl=0.0, epochs=2)
    scores = []
    for _ in range(10):
        r = ppo.rollout(PROMPTS)
        scores.append(r.score.mean().item())
        ppo.learn(r)
    assert scores[0] < -1 and scores[-1] > 0.5, scores


def test_a_dear_kl_holds_the_policy_at_the_reference(tok: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same reward and steps, with β = 0 and with β = 5: the priced policy ends several times nearer to the
    reference.
    """
    scored_by(monkeypatch, lambda a: float(len(a)))
    moved = {}
    for beta in (0.0, 5.0):
        ppo = build(tok, learning_rate=1e-2, kl=beta, epochs=2)
        for _ in range(20):  # to the end of the rate
            r = ppo.rollout(PROMPTS)
            ppo.learn(r)
        moved[beta] = losses.k3(r.logps, r.ref_logps)[r.mask].mean().item()
    assert moved[5.0] < moved[0.0] / 3, moved


def test_adaptive_kl_moves_beta_toward_its_target(tok: Any) -> None:
    """KL of 12 against a target of 6: the error of 1 is cut to .2, so β grows by .2·32/100; below the target it
    shrinks.
    """
    ppo = build(tok, adaptive_kl=True, kl=0.1, kl_target=6.0, kl_horizon=100.0)
    ppo.adapt(SimpleNamespace(kl=torch.full((32, 2), 6.0), prompts=[[]] * 32))
    assert ppo.beta == pytest.approx(0.1 * (1 + 0.2 * 0.32))
    ppo.beta = 0.1
    ppo.adapt(SimpleNamespace(kl=torch.full((32, 2), 2.85), prompts=[[]] * 32))
    assert ppo.beta == pytest.approx(0.1 * (1 - 0.05 * 0.32))
    still = build(tok, kl=0.1)
    still.adapt(SimpleNamespace(kl=torch.full((32, 2), 60.0), prompts=[[]] * 32))
    assert still.beta == 0.1


def test_target_kl_ends_a_round_early(tok: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight epochs of two minibatches are sixteen steps; once the policy has moved too far the rest is left out."""
    steps = {}
    for target in (0.0, 1e-4):
        ppo = build(tok, epochs=8, learning_rate=1e-2, target_kl=target)
        taken: list[float] = []
        monkeypatch.setattr(ppo, "step", lambda loss, its=ppo.step, taken=taken: (taken.append(loss.item()), its(loss)))
        ppo.learn(ppo.rollout(PROMPTS))
        steps[target] = len(taken)
    assert steps[0.0] == 16 and 2 <= steps[1e-4] < 16


def test_returns_that_are_all_alike_give_finite_metrics(tok: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """λ = 1, no KL, one score for all: the returns have no variance to explain, which must not read as a failed run."""
    scored_by(monkeypatch, lambda a: 1.0)
    ppo = build(tok, lam=1.0, kl=0.0, unended_score=1.0)
    assert all(math.isfinite(v) for v in ppo.learn(ppo.rollout(PROMPTS)).values())


def test_the_rate_rises_holds_and_falls_to_nothing(tok: Any) -> None:
    """Eighty steps: four of warm-up, level until 32 are left, then a thirty-second less each time."""
    ppo, seen = build(tok), []
    for _ in range(81):
        seen.append(ppo.rates[0].get_last_lr()[0] / ppo.s.learning_rate)
        for optimizer, rate in zip(ppo.optimizers, ppo.rates, strict=True):
            optimizer.step()
            rate.step()
    assert [seen[step] for step in (0, 2, 4, 48, 64, 79, 80)] == pytest.approx([0, 0.5, 1, 1, 0.5, 1 / 32, 0])


def test_the_value_network_begins_at_the_mean_reward_on_the_reward_models_body(tok: Any, tmp_path: Path) -> None:
    from labkit import models

    judge = tiny_lab.reward_model(tiny_lab.policy(tok))
    judge.config.reward_shift = 0.25
    models.save(judge, tok, tmp_path)
    value = stage.new_value_model(tmp_path / "model", device="cpu")
    ppo = build(tok)
    ppo.value_model = value
    values, mask = ppo.values([[5, 6, 7]], [[8, 9, 10]])
    assert mask.sum() == 3 and not values.any(), "0, the mean of normalised rewards, at every token"
    same = [torch.equal(a, b) for a, b in zip(judge.model.parameters(), value.model.parameters(), strict=True)]
    assert len(same) > 5 and all(same)
    assert value.config.reward_shift == 0
