"""RLHF: write answers, let the reward model score them, and make the better ones more likely, without straying far.

    R(x, y) = r_φ(x, y) − β log π_θ(y|x)/π_ref(y|x)      maximised by PPO's clipped loss, with a learned value per token

in      the SFT run (policy and reference), the reward run (reward model, and the value network's start but for its last layer)
out     a tuned policy
watch   reward up, KL up slowly; the first ratio is exactly 1; clip fraction below .3; reward up *and gold down* is hacking
left out  PPO-ptx (mixing in pretraining text), averaging of weights, a value network on the policy's own trunk
source  Schulman et al. (2017), equations 7 and 9; Ouyang et al. (2022), equation 2 and appendix C; Huang et al. (2024)
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field

from labkit.recipe import Settings as Section

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from labkit.job import Job

VERSION = 2


class Settings(Section):
    iterations: int = Field(30, ge=1, description="rounds of sampling and learning")
    batch: int = Field(128, ge=1, description="answers a round")
    minibatch: int = Field(64, ge=1, description="answers a gradient step")
    epochs: int = Field(2, ge=1, le=8, description="times that each round's answers are learned from")
    learning_rate: float = Field(4.5e-4, gt=0, description="peak rate of the policy; 1e-6 to 1e-5 for large models")
    value_learning_rate: float = Field(8e-4, gt=0, description="peak rate of the value network")
    kl: float = Field(0.25, ge=0, description="β, the price of a nat of KL to the reference, in rewards; 0: none")
    adaptive_kl: bool = Field(False, description="steer β so that KL meets kl_target (Ziegler et al. 2019)")
    kl_target: float = Field(6.0, gt=0, description="nats an answer that adaptive β aims at")
    kl_horizon: float = Field(1e4, gt=0, description="answers over which adaptive β adjusts")
    target_kl: float = Field(
        0.0, ge=0, description="stop a round early when the policy moved this far within it; 0: never"
    )
    gamma: float = Field(1.0, gt=0, le=1, description="discount a token")
    lam: float = Field(0.95, ge=0, le=1, description="λ of generalised advantage estimation")
    clip: float = Field(0.2, gt=0, description="ε of the clipped ratio, and of the clipped value")
    value_weight: float = Field(0.1, ge=0, description="weight of the value loss")
    temperature: float = Field(1.0, gt=0, description="of sampling, policy and reference alike")
    unended_score: float = Field(-2.0, description="reward of an answer that did not end in time")
    threads: int = Field(1, ge=1, description="CPU threads; part of the run's identity")


@dataclass(frozen=True)
class Rollout:
    """One round's answers. Ragged lists of tokens; tensors are (B, T), zero where the mask is False; score is (B,)."""

    prompts: list[list[int]]
    answers: list[list[int]]
    ended: Tensor
    mask: Tensor
    logps: Tensor
    ref_logps: Tensor
    values: Tensor
    score: Tensor

    @property
    def kl(self) -> Tensor:
        """log π − log π_ref of each token (k1), (B, T)."""
        return (self.logps - self.ref_logps) * self.mask


class PPO:
    """Policy, reference, reward model and value network, and the two halves of a round: `rollout` and `learn`."""

    def __init__(self, settings: Settings, *, policy: Any, reference: Any, reward_model: Any, value_model: Any,
                 tokenizer: Any, max_tokens: int, steps: int, seed: int) -> None:  # fmt: skip
        import torch
        from transformers import get_wsd_schedule as schedule

        from labkit import training

        self.s, self.policy, self.reference = settings, policy, reference
        self.reward_model, self.value_model, self.tokenizer = reward_model, value_model, tokenizer
        self.max_tokens, self.seed, self.beta, self.round = max_tokens, seed, settings.kl, 0
        groups = [(policy, settings.learning_rate), (value_model, settings.value_learning_rate)]
        self.trained = [[p for p in m.parameters() if p.requires_grad] for m, _ in groups]
        self.optimizers = [
            torch.optim.Adam(p, lr=rate, eps=1e-5, fused=True)
            for p, (_, rate) in zip(self.trained, groups, strict=True)
        ]
        self.rates = [schedule(o, num_training_steps=steps, **training.held(steps)) for o in self.optimizers]
        self.order = random.Random(seed)

    def values(self, prompts: list[list[int]], answers: list[list[int]]) -> tuple[Any, Any]:
        """V(s_t) read where token t is about to be written: (B, T) and mask."""
        from labkit import sampling

        hidden, mask = sampling.hidden_states(self.value_model, prompts, answers)
        return sampling.unflatten(sampling.reward_head(self.value_model)(hidden)[:, 0].float(), mask), mask

    def minibatches(self, n: int) -> Iterator[list[int]]:
        """The round's answers in the order they were sampled, cut into minibatches."""
        for start in range(0, n, self.s.minibatch):
            yield list(range(start, min(start + self.s.minibatch, n)))

    def rollout(self, prompts: list[list[int]]) -> Rollout:
        """Sample one answer a prompt, and everything that learning needs: log-probabilities, values, scores."""
        import torch

        from labkit import sampling

        self.round += 1
        samples = [
            s[0]
            for s in sampling.sample(
                self.policy, prompts, end=self.tokenizer.eos_token_id, pad_id=self.tokenizer.pad_token_id,
                max_tokens=self.max_tokens, temperature=self.s.temperature, seed=self.seed + self.round,
                batch=len(prompts),
            )
        ]  # fmt: skip
        answers = [s.ids for s in samples]
        order = self.order.sample(range(len(prompts)), len(prompts))
        prompts, answers = [prompts[i] for i in order], [answers[i] for i in order]
        ended = torch.tensor([samples[i].ended for i in order])
        with torch.inference_mode():
            logps, ref, values = [], [], []
            for rows in self.minibatches(len(prompts)):
                p, a = [prompts[i] for i in rows], [answers[i] for i in rows]
                logps.append(sampling.answer_logps(self.policy, p, a, temperature=self.s.temperature)[0])
                with self.as_reference() as reference:
                    ref.append(sampling.answer_logps(reference, p, a, temperature=self.s.temperature)[0])
                values.append(self.values(p, a)[0])
            score = sampling.score_rewards(self.reward_model, prompts, answers)
        score = torch.where(ended, score, torch.full_like(score, self.s.unended_score)).to(logps[0].device)
        lengths = torch.tensor([len(a) for a in answers], device=score.device)
        mask = torch.arange(int(lengths.max()), device=score.device)[None] < lengths[:, None]
        stack = lambda parts: _stack(parts, mask.shape[1])  # noqa: E731
        return Rollout(prompts, answers, ended, mask, stack(logps), stack(ref), stack(values), score)

    @contextlib.contextmanager
    def as_reference(self) -> Iterator[Any]:
        """The reference model: a model of its own, or the policy with its adapters switched off."""
        from labkit import sampling

        with sampling.without_adapters(self.policy) as policy:
            yield policy if self.reference is None else self.reference

    def learn(self, r: Rollout) -> dict[str, float]:
        """Advantages, then `epochs` passes of clipped policy and value steps; returns the round's metrics."""
        import torch

        from labkit import losses, sampling

        s = self.s
        rewards = losses.token_rewards(r.score, r.kl, r.mask, beta=self.beta)
        advantages, returns = losses.gae(rewards, r.values, r.mask, gamma=s.gamma, lam=s.lam)
        advantages = losses.whiten(advantages, r.mask)
        seen: dict[str, list[float]] = {}
        stop = False
        for _ in range(s.epochs):
            for rows in self.minibatches(len(r.prompts)):
                p, a = [r.prompts[i] for i in rows], [r.answers[i] for i in rows]
                logps, mask = sampling.answer_logps(self.policy, p, a, temperature=s.temperature)
                values, _ = self.values(p, a)
                old, adv, ret, was = (t[rows, : mask.shape[1]] for t in (r.logps, advantages, returns, r.values))
                policy_loss = losses.masked_mean(losses.ppo_clip(logps, old, adv, clip=s.clip), mask)
                value_loss = losses.masked_mean(losses.value_clip(values, was, ret, clip=s.clip), mask)
                self.step(policy_loss + s.value_weight * value_loss)
                with torch.no_grad():
                    ratio = torch.exp(logps - old)
                    moved = losses.masked_mean(losses.k3(logps, old), mask).item()
                    now = {
                        "train/policy_loss": policy_loss.item(),
                        "train/value_loss": value_loss.item(),
                        "train/clip_fraction": losses.masked_mean(((ratio - 1).abs() > s.clip).float(), mask).item(),
                        "train/approx_kl": moved,
                    }
                if not seen:
                    seen["train/first_ratio"] = [ratio[mask].max().item()]
                for key, value in now.items():
                    seen.setdefault(key, []).append(value)
                stop = bool(s.target_kl) and moved > s.target_kl
                if stop:
                    break
            if stop:
                break
        explained = (
            1 - (losses.masked_mean((returns - r.values) ** 2, r.mask) / returns[r.mask].var().clamp(min=1e-6)).item()
        )
        self.adapt(r)
        return {k: sum(v) / len(v) for k, v in seen.items()} | {"train/explained_variance": explained}

    def step(self, loss: Any) -> None:
        """One Adam step of policy and value network, each clipped at gradient norm 1."""
        import torch

        loss.backward()
        for parameters, optimizer, rate in zip(self.trained, self.optimizers, self.rates, strict=True):
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            rate.step()
            optimizer.zero_grad(set_to_none=True)

    def adapt(self, r: Rollout) -> None:
        """Adaptive β: proportional control of log β, error clipped at ±.2 (Ziegler et al. 2019, section 2.2)."""
        if self.s.adaptive_kl:
            error = r.kl.sum(1).mean().item() / self.s.kl_target - 1
            self.beta *= 1 + max(-0.2, min(0.2, error)) * len(r.prompts) / self.s.kl_horizon


def _stack(parts: list[Any], width: int) -> Any:
    """Minibatches (b, t) of different widths → one (B, T), zeros at the right."""
    import torch

    return torch.cat([torch.nn.functional.pad(p, (0, width - p.shape[1])) for p in parts])


def new_value_model(path: Path, **load: Any) -> Any:
    """The reward model with its last layer at zero: it guesses the mean reward, 0, everywhere until it has learned better.

    Between tokens a reward model says what it was never taught to say: as values, its guesses were worse than none.
    """
    import torch

    from labkit import models, sampling

    model = models.load_reward(path, **load)
    torch.nn.init.zeros_(sampling.reward_head(model).weight)
    model.config.reward_shift = 0.0
    return model


def start(job: Job) -> PPO:
    """Load policy, reference, reward model and value network."""
    from peft import get_peft_model

    from labkit import models, sampling

    settings, s = job.recipe["model"], job.settings
    load = {"device": job.device, "dtype": settings.dtype}
    policy, tokenizer = models.load(job.parents["sft"].model, **load)
    reward_model = sampling.frozen(models.load_reward(job.parents["reward"].model, **load))
    value_model = new_value_model(job.parents["reward"].model, **load)
    reference = None
    if settings.lora:
        policy = get_peft_model(policy, models.lora(settings))
        value_model = get_peft_model(value_model, models.lora(settings, task="SEQ_CLS"))
    else:
        reference = sampling.frozen(models.load(job.parents["sft"].model, **load)[0])
    steps = s.iterations * s.epochs * -(-s.batch // s.minibatch)
    return PPO(
        s, policy=policy, reference=reference, reward_model=reward_model, value_model=value_model, tokenizer=tokenizer,
        max_tokens=job.recipe["answers"].max_tokens, steps=steps, seed=job.seed,
    )  # fmt: skip


def run(job: Job) -> None:
    from labkit import answers, chat, models

    ppo, s = start(job), job.settings
    job.policy, job.tokenizer = ppo.policy, ppo.tokenizer
    room, context = ppo.max_tokens, job.recipe["model"].context
    prompts = job.source.prompts("train")
    queries = [chat.prompt_ids(ppo.tokenizer, p) for p in prompts]
    usable = [i for i, q in enumerate(queries) if len(q) + room <= context]
    rng, tokens = random.Random(job.seed), 0
    queue: list[int] = []
    with job.phase("train"):
        for step in range(1, s.iterations + 1):
            while len(queue) < s.batch:
                queue += rng.sample(usable, len(usable))
            taken, queue = queue[: s.batch], queue[s.batch :]
            rollout = ppo.rollout([queries[i] for i in taken])
            metrics = ppo.learn(rollout)
            tokens += sum(map(len, rollout.answers))
            asked = {tuple(queries[i]): prompts[i] for i in taken}
            job.log(step, s.iterations, **_seen(job, rollout, asked, ppo), **metrics)
            if job.stops(step, s.iterations):
                break
    model = models.save(ppo.policy, ppo.tokenizer, job.folder)
    models.save(ppo.value_model, ppo.tokenizer, job.folder / "value")  # the microscope reads advantages from it
    job.cost.update(tokens=tokens * s.epochs, targets=s.iterations * s.batch)
    answers.evaluate(job, model, ppo.tokenizer, reward=ppo.reward_model)
    job.summary["beta"] = round(ppo.beta, 5)


def _seen(job: Job, r: Rollout, asked: dict[tuple[int, ...], Any], ppo: PPO) -> dict[str, float]:
    """What the round's answers were like: proxy, gold (never trained on), KL, length. Gold is for the eye only."""
    from labkit import chat

    golds = [
        job.source.grade(asked[tuple(q)], chat.decode(ppo.tokenizer, a), ended=bool(e))[0]
        for q, a, e in zip(r.prompts, r.answers, r.ended, strict=True)
    ]
    out = {
        "rollout/reward": r.score.mean().item(),
        "rollout/kl": r.kl.sum(1).mean().item(),
        "rollout/tokens": r.mask.sum(1).float().mean().item(),
        "rollout/ended": r.ended.float().mean().item(),
        "rollout/beta": ppo.beta,
    }
    known = [g for g in golds if g is not None]
    return out | ({"rollout/gold": sum(known) / len(known)} if known else {})
