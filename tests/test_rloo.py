"""RLOO and GRPO: the advantages by hand and against TRL's, the same tokens and log-probabilities as the lab's, where the
price of KL stands, and the stage's settings."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_lab
import torch
from trl import GRPOTrainer, RLOOTrainer

from labkit import chat, losses, models, sampling, training
from labkit.errors import LabError
from labkit.records import Prompt
from labkit.stages import rloo

torch.set_num_threads(1)
TRL = {"rloo": RLOOTrainer, "grpo": GRPOTrainer}
ASKED = [Prompt.of(asked) for asked, _, _ in tiny_lab.PAIRS] + [Prompt.of(f"Who is {n}?") for n in range(8)]


@pytest.fixture(scope="module")
def tok() -> Any:
    return tiny_lab.tokenizer()


@pytest.fixture(params=["rloo", "grpo"])
def method(request: Any) -> str:
    return str(request.param)


def fitted(
    tok: Any, tmp_path: Path, method: str, score: Callable[[list[int]], float] | None = None, **settings: Any
) -> Any:
    """The stage's trainer on a policy with random weights whose end token is likely, saved as the reference it is read from."""
    start = tiny_lab.policy(tok, std=0.2)
    with torch.no_grad():
        seen = start.model(input_ids=torch.tensor([[5, 6, 7, 8]])).last_hidden_state.mean((0, 1))
        start.get_input_embeddings().weight[tok.eos_token_id] = 4 * seen / seen.norm() ** 2
    tiny_lab.save(start, tok, tmp_path / "sft")
    policy, _ = models.load(tmp_path / "sft" / "model", device="cpu")
    small = {"iterations": 3, "batch": 16, "minibatch": 8, "epochs": 1, "learning_rate": 1e-2}
    lora = {"model.lora": settings.pop("lora", 0)}
    own = {f"rloo.{k}": v for k, v in {**small, **settings}.items()}
    job = tiny_lab.job(tmp_path, method, {**own, **lora, "answers.max_tokens": 8})
    rows = rloo.dataset(ASKED, tok, job.settings, longest=88, seed=1)
    judge = sampling.frozen(tiny_lab.reward_model(start))
    job.lab.__dict__["source"] = SimpleNamespace(grade=lambda p, text, ended: (float(len(text)) if ended else None, {}))
    reward = rloo.scorer(job, judge, tok, ASKED)
    if score:
        scores = score
        reward = lambda completion_ids, **_: [scores(ids) for ids in completion_ids]  # noqa: E731
    fit = rloo.trainer(job, policy, tok, rows, reward)
    fit.judge, fit.job, fit.start = judge, job, start
    return fit


def batch_of(fit: Any) -> dict[str, Any]:
    """One round's answers with TRL's advantages, in the order of the prompts."""
    fit.model.train()
    fit.current_gradient_accumulation_steps = 1  # what train() would set
    return fit._generate_and_score_completions(next(iter(fit.get_train_dataloader())))


def ragged(batch: dict[str, Any], what: str) -> list[list[int]]:
    return [r[m.bool()].tolist() for r, m in zip(batch[f"{what}_ids"], batch[f"{what}_mask"], strict=True)]


# ---- the advantages ------------------------------------------------------------------------------


def test_advantages_by_hand() -> None:
    """Rewards 1, 2, 6: the others' means are 4, 3.5, 1.5; the group's mean is 3 and its deviation √7."""
    rewards = torch.tensor([[1.0, 2.0, 6.0]])
    assert losses.leave_one_out(rewards)[0].tolist() == pytest.approx([-3.0, -1.5, 4.5])
    assert losses.group_relative(rewards)[0].tolist() == pytest.approx([-2 / 7**0.5, -1 / 7**0.5, 3 / 7**0.5], abs=1e-3)


def test_the_two_differ_by_a_factor_a_prompt() -> None:
    rewards = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 6)[:, None]
    one, other = losses.leave_one_out(rewards), losses.group_relative(rewards)
    assert torch.allclose(one, 4 / 3 * (rewards - rewards.mean(1, keepdim=True)), atol=1e-5)
    assert torch.allclose(one / other, 4 / 3 * (rewards.std(1, keepdim=True) + 1e-4).expand(5, 4), rtol=1e-3)
    for made in (one, other):
        assert torch.allclose(made.sum(1), torch.zeros(5), atol=1e-5)
        assert torch.allclose(losses.leave_one_out(rewards + 100), one, atol=1e-3)
    same = torch.full((2, 4), 3.0)
    assert not losses.leave_one_out(same).any() and not losses.group_relative(same).any()


def test_trls_advantages_are_those_of_the_formulas(tok: Any, tmp_path: Path, method: str) -> None:
    """A reference that is not the policy, β = .5: in RLOO the price is in the reward (k1 over the whole answer), in GRPO it
    is not."""
    fit = fitted(tok, tmp_path, method, kl=0.5)
    with torch.no_grad():
        for weight in fit.ref_model.parameters():
            weight.mul_(0.9)
    batch = batch_of(fit)
    prompts, answers = ragged(batch, "prompt"), ragged(batch, "completion")
    ended = torch.tensor([a[-1] == tok.eos_token_id for a in answers])
    assert 0 < int(ended.sum()) < 16, "both kinds of answer must occur"
    scores = torch.where(ended, sampling.score_rewards(fit.judge, prompts, answers), torch.tensor(-2.0))
    with torch.inference_mode():
        kl = losses.k1(*(sampling.answer_logps(m, prompts, answers)[0] for m in (fit.model, fit.ref_model))).sum(1)
    assert kl.abs().mean() > 0.05
    if method == "rloo":
        expected = losses.leave_one_out((scores - 0.5 * kl).view(4, 4))
    else:
        expected = losses.group_relative(scores.view(4, 4))
    assert torch.allclose(batch["advantages"], expected.flatten(), atol=1e-3)
    told = fit._metrics["train"]
    assert told["rollout/kl"][0] == pytest.approx(kl.mean().item(), abs=1e-4)
    assert told["rollout/reward"][0] == pytest.approx(scores.mean().item(), abs=1e-4)
    assert told["reward"][0] == pytest.approx(told["rollout/reward"][0], abs=1e-5)
    assert told["rollout/ended"][0] == pytest.approx(ended.float().mean().item())
    texts = [chat.decode(tok, a) for a, e in zip(answers, ended, strict=True) if e]
    assert told["rollout/gold"][0] == pytest.approx(sum(map(len, texts)) / len(texts)), "ungraded answers are left out"


# ---- the same tokens, the same numbers -----------------------------------------------------------


def test_the_trainer_asks_in_the_labs_own_tokens(tok: Any, tmp_path: Path, method: str) -> None:
    fit = fitted(tok, tmp_path, method)
    rows = next(iter(fit.get_train_dataloader()))
    asked = [r["asked"] for r in rows]
    assert asked == [a for a in asked[::4] for _ in range(4)] and len(set(asked)) == 4
    batch = batch_of(fit)
    assert ragged(batch, "prompt") == [chat.prompt_ids(tok, ASKED[i]) for i in asked] == [r["query"] for r in rows]


def test_log_probabilities_are_trls_own(tok: Any, tmp_path: Path, method: str) -> None:
    """Ragged rows without a padded prompt against TRL's own fused layer: log π and entropy, at every token that counts; and
    the sampler's own log-probabilities are those of the answers it wrote."""
    fit = fitted(tok, tmp_path, method)
    batch = batch_of(fit)
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    width, counts = batch["completion_ids"].shape[1], batch["completion_mask"].bool()
    with torch.no_grad():
        theirs = TRL[method]._get_per_token_logps_and_entropies(fit, fit.model, ids, mask, width, compute_entropy=True)
        ours = rloo.answer_logps(fit.model, ids, mask, width)
    for a, b in zip(theirs[:2], ours, strict=True):
        assert b.shape == counts.shape and not b[~counts].any()
        assert torch.allclose(a[counts], b[counts], atol=1e-4)
    assert torch.allclose(ours[0].sum(1), fit.sampled, atol=1e-4)


def test_the_first_ratio_is_1_and_the_first_loss_that_of_the_formula(tok: Any, tmp_path: Path, method: str) -> None:
    """With ρ = 1 RLOO's loss is −mean A; GRPO's the mean over answers of −A plus β k3 a token, 0 while policy = reference."""
    fit = fitted(tok, tmp_path, method, kl=0.5)
    batch = batch_of(fit)
    ids, mask = (torch.cat([batch[f"{side}_{x}"] for side in ("prompt", "completion")], 1) for x in ("ids", "mask"))
    now, _ = rloo.answer_logps(fit.model, ids, mask, batch["completion_ids"].shape[1])
    old = batch["old_logps"] if method == "rloo" else batch["old_per_token_logps"].sum(1)
    assert torch.allclose(now.sum(1).exp() / old.exp(), torch.ones(16), atol=1e-4)
    first = fit.compute_loss(fit.model, batch)
    assert first.item() == pytest.approx(-batch["advantages"].mean().item(), abs=1e-4)


def test_the_loss_of_a_moved_policy(tok: Any, tmp_path: Path, method: str) -> None:
    """The policy moves after it has written. RLOO clips the ratio of whole answers; GRPO each token's, averages within an
    answer first, and adds β ρ k3 to the reference."""
    fit = fitted(tok, tmp_path, method, kl=0.5)
    batch = batch_of(fit)
    with torch.no_grad():
        for weight in fit.model.parameters():
            weight.mul_(0.95)
    prompts, answers = ragged(batch, "prompt"), ragged(batch, "completion")
    with torch.inference_mode():
        now, counts = sampling.answer_logps(tiny_lab.copied(fit.model), prompts, answers)
        ref = sampling.answer_logps(fit.start, prompts, answers)[0]
    advantages = batch["advantages"]
    if method == "rloo":
        expected = losses.ppo_clip(now.sum(1), ref.sum(1), advantages).mean()
        assert ((now - ref).sum(1).exp() - 1).abs().max() > 0.2, "some answer must be clipped"
    else:
        ratio = (now - ref).exp()  # the policy that wrote was the reference
        each = losses.ppo_clip(now, ref, advantages[:, None]) + 0.5 * ratio * losses.k3(now, ref)
        expected = ((each * counts).sum(1) / counts.sum(1)).mean()
        assert losses.k3(now, ref).mean() > 1e-3, "the price must matter here"
    with torch.no_grad():
        assert fit.compute_loss(fit.model, batch).item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-5)


def test_grpos_price_pushes_as_k1_does() -> None:
    """ρ k3 has the gradient of k1 times that of log π: what REINFORCE does with a price of k1 a token. k3 alone has not."""
    logps = torch.tensor([-1.0, -2.5, -0.3], requires_grad=True)
    ref = torch.tensor([-1.7, -1.1, -0.3])
    ratio = (logps - logps.detach()).exp()
    [corrected] = torch.autograd.grad((ratio * losses.k3(logps, ref)).sum(), logps)
    assert torch.allclose(corrected, losses.k1(logps, ref).detach(), atol=1e-6)
    [plain] = torch.autograd.grad(losses.k3(logps, ref).sum(), logps)
    assert (plain - corrected).abs().max() > 0.1


# ---- training ------------------------------------------------------------------------------------


@pytest.mark.parametrize("lora", [0, 4])
def test_a_toy_reward_rises_and_the_log_speaks_of_rounds(tok: Any, tmp_path: Path, method: str, lora: int) -> None:
    """The score is the share of odd tokens. Twelve rounds of two minibatches, read twice (with adapters in two parts each):
    twelve lines in the log."""
    fit = fitted(
        tok, tmp_path, method, lambda a: 4 * sum(t % 2 for t in a) / len(a) - 2, iterations=12, kl=0.02, lora=lora,
        accumulate=2 if lora else 1,
        learning_rate=4e-2 if lora else 1e-2, epochs=2,
    )  # fmt: skip
    training.train(fit)
    fit.job.close()
    rows = [json.loads(line) for line in (fit.job.folder / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == list(range(1, 13)) and rows[0]["of"] == 12
    assert fit.state.global_step == 12 * 2 * 2 and fit.rounds == 12
    assert abs(rows[0]["rollout/kl"]) < 1e-3 < rows[-1]["rollout/kl"], (
        "the reference is what the policy was loaded from"
    )
    assert {"train/loss", "train/clip_fraction", "train/entropy", "rollout/all_alike"} <= set(rows[0])
    assert rows[-1]["rollout/reward_std"] >= 0
    assert oddness(fit, training.released(fit)) > oddness(fit, fit.start) + 0.25
    assert "forward" not in sampling.base(fit.model).__dict__ or lora, "merging takes the patch away as well"


def oddness(fit: Any, model: Any) -> float:
    """The toy's mean score of what a model writes: 20 answers to each prompt."""
    prompts = [chat.prompt_ids(fit.processing_class, p) for p in ASKED]
    ends = {"end": fit._tokenizer.eos_token_id, "pad_id": fit._tokenizer.pad_token_id}
    samples = [s for g in sampling.sample(model, prompts, max_tokens=8, n=20, **ends) for s in g]
    return sum(4 * sum(t % 2 for t in s.ids) / len(s.ids) - 2 for s in samples) / len(samples)


def test_a_person_can_end_it_after_a_round(tok: Any, tmp_path: Path) -> None:
    fit = fitted(tok, tmp_path, "rloo")
    fit.job.stop.set()
    training.train(fit)
    fit.job.close()
    assert fit.job.stopped == {"step": 1, "of": 3} and fit.rounds == 1 and fit.state.global_step == 2


# ---- settings ------------------------------------------------------------------------------------


def test_prompts_are_asked_in_turn_and_long_ones_never(tok: Any) -> None:
    settings = rloo.Settings(iterations=6, batch=16, group=4)
    long = Prompt.of("What does the heron eat? " * 40)
    rows = rloo.dataset([*ASKED, long], tok, settings, longest=88, seed=3)
    asked = list(rows["asked"])
    assert len(asked) == 6 * 4 and len(ASKED) not in asked
    assert sorted(asked[:12]) == sorted(asked[12:]) == list(range(12)) and asked[:12] != asked[12:]
    few = rloo.dataset(ASKED[:1], tok, settings, longest=88, seed=3)
    assert list(few["asked"]) == [0] * 24, "a source with one prompt asks it again and again"
    with pytest.raises(LabError, match="model.context"):
        rloo.dataset([long], tok, settings, longest=88, seed=3)


def test_a_batch_that_does_not_divide_is_refused(tok: Any, tmp_path: Path) -> None:
    for wrong in ({"batch": 18}, {"minibatch": 7}, {"accumulate": 3}):
        with pytest.raises(LabError, match="rloo.batch"):
            fitted(tok, tmp_path / random.Random(str(wrong)).randbytes(4).hex(), "rloo", **wrong)


def test_the_budget_is_ppos() -> None:
    """As many answers a round, rounds, epochs, gradient steps, and the same price of a nat."""
    from labkit.stages import ppo

    same = ("iterations", "batch", "minibatch", "epochs", "kl", "clip", "unended_score")
    assert {k: getattr(rloo.Settings(), k) for k in same} == {k: getattr(ppo.Settings(), k) for k in same}
