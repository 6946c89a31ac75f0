"""RLOO and GRPO: RL against the reward model without a value network. Each prompt is answered K times, and an answer is
good or bad next to the others to the same prompt.

    RLOO   A_i = R_i − mean of the other R_j,  R = r − β Σ_t k1_t      L = −min(ρA, clip(ρ, 1 ± ε)A), ρ of the whole answer
    GRPO   A_i = (r_i − mean r) / std r      L = mean over an answer's tokens of −min(ρ_t A, clip(ρ_t, 1 ± ε)A) + β ρ_t k3_t
    k1 = log π/π_ref      k3 = π_ref/π − 1 − log π_ref/π      both estimate KL(π‖π_ref); ρ k3 has the gradient of a price of k1

So RLOO's β is counted in rewards and all tokens pay for the whole answer's KL; GRPO's is counted in the spread of a group, and
each token pays for its own.

in      the SFT run (policy and reference), the reward run; no value network, and so half of PPO's weights to train
out     a tuned policy
watch   reward and gold up together; a group all alike teaches nothing; RLOO clips much, since whole answers move fast
left out  the loss over all tokens alike (DAPO) or without the spread (Dr. GRPO), asking again until answers differ
source  Ahmadian et al. (2024), equation 8; Shao et al. (2024), equations 3 and 4; trained by TRL's RLOOTrainer and GRPOTrainer
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from labkit.errors import LabError
from labkit.recipe import Settings as Section
from labkit.records import Prompt

if TYPE_CHECKING:
    from labkit.job import Job

VERSION = 2


class Settings(Section):
    method: Literal["rloo", "grpo"] = Field("rloo", description="where the baseline and the KL price stand")
    iterations: int = Field(30, ge=1, description="rounds of sampling and learning; as many as PPO's")
    batch: int = Field(128, ge=2, description="answers a round; as many as PPO's")
    group: int = Field(4, ge=2, description="K, answers a prompt; 2 to 8 for RLOO, 8 to 64 for GRPO on large models")
    minibatch: int = Field(64, ge=1, description="answers a gradient step")
    accumulate: int = Field(1, ge=1, description="parts that a minibatch is split into when memory is short")
    epochs: int = Field(2, ge=1, le=8, description="times that each round's answers are learned from")
    learning_rate: float = Field(4.5e-4, gt=0, description="peak rate; 1e-6 to 1e-5 for large models")
    kl: float = Field(0.25, ge=0, description="β, the price of a nat of KL to the reference; 0: none")
    clip: float = Field(0.2, gt=0, description="ε of the clipped ratio")
    unended_score: float = Field(-2.0, description="reward of an answer that did not end in time")
    threads: int = Field(1, ge=1, description="CPU threads; part of the run's identity")


def dataset(prompts: list[Prompt], tokenizer: Any, settings: Settings, *, longest: int, seed: int) -> Any:
    """The prompts in the order in which they are asked, a round's batch / K at a time: TRL's `prompt` (messages), and our
    own columns `query` (its tokens) and `asked` (its number). Every prompt is asked once before any is asked again.
    """
    from datasets import Dataset

    from labkit import chat

    queries = [chat.prompt_ids(tokenizer, p) for p in prompts]
    usable = [i for i, q in enumerate(queries) if len(q) <= longest]
    if not usable:
        raise LabError(
            "No training prompt leaves room for an answer: raise model.context, or lower answers.max_tokens."
        )
    rng, order = random.Random(seed), list[int]()
    needed = settings.iterations * (settings.batch // settings.group)
    while len(order) < needed:
        order += rng.sample(usable, len(usable))
    return Dataset.from_list(
        [
            {"prompt": chat.messages(tokenizer, prompts[i]), "query": queries[i], "asked": i}
            for i in order[:needed]
        ]
    )  # fmt: skip


def scorer(job: Job, reward_model: Any, tokenizer: Any, prompts: list[Prompt]) -> Any:
    """The reward as TRL asks for it: the reward model's score of the tokens themselves, a low one for an answer without an
    end. Also logs what the round's answers were like; gold is for the eye only."""
    from labkit import chat, sampling

    def reward(
        completion_ids: list[list[int]], query: list[list[int]], asked: list[int], log_metric: Any, **_: Any
    ) -> Any:
        scores = sampling.score_rewards(reward_model, query, completion_ids).tolist()
        ended = [ids[-1] == tokenizer.eos_token_id for ids in completion_ids]
        scores = [s if e else job.settings.unended_score for s, e in zip(scores, ended, strict=True)]
        texts = [chat.decode(tokenizer, ids) for ids in completion_ids]
        golds = [job.source.grade(prompts[i], t, ended=e)[0] for i, t, e in zip(asked, texts, ended, strict=True)]
        seen = {
            "reward": scores, "ended": ended, "tokens": [len(ids) for ids in completion_ids],
            "gold": [g for g in golds if g is not None],
        }  # fmt: skip
        for name, values in seen.items():
            if values:
                log_metric(f"rollout/{name}", sum(values) / len(values))
        return scores

    return reward


def answer_logps(model: Any, tokens: Any, mask: Any, width: int, *, entropy: bool = True) -> tuple[Any, Any]:
    """log π of each answer token and the entropy where it was drawn (or None), (B, `width`) both, in nats, 0 after the end.

    `tokens` and `mask` (B, T) are TRL's: a prompt padded at its left, then `width` places for the answer. They are read
    here as ragged rows, with half the padding and without the prompts' logits.
    """
    import torch

    from labkit import losses, sampling

    prompts, answers = (
        [row[kept].tolist() for row, kept in zip(t, m.bool(), strict=True)]
        for t, m in ((tokens[:, :-width], mask[:, :-width]), (tokens[:, -width:], mask[:, -width:]))
    )
    logits, counts = sampling.answer_logits(model, prompts, answers)
    logps = losses.per_token_logps(logits, torch.tensor([t for a in answers for t in a], device=logits.device))
    whole = lambda flat: torch.nn.functional.pad(sampling.unflatten(flat, counts), (0, width - counts.shape[1]))  # noqa: E731
    if not entropy:
        return whole(logps), None
    with torch.no_grad():
        every = torch.log_softmax(logits.float(), -1)
        spread = -(every.exp() * every).sum(-1)
    return whole(logps), whole(spread)


def sampled(trainer: type[Any]) -> type[Any]:
    """TRL's trainer with the lab's sampler in the place of `generate`, and the lab's log-probabilities in that of its own: the
    same numbers in a fraction of the time. Groups, advantages, KL and loss stay TRL's."""
    import torch
    from trl import GRPOTrainer

    from labkit import sampling

    class Sampled(trainer):  # type: ignore[misc, valid-type]
        rounds = read = 0

        def _generate_single_turn(self, prompt_ids: list[list[int]], *args: Any) -> Any:
            self.rounds += 1
            groups = sampling.sample(
                self.model, prompt_ids[:: self.num_generations], n=self.num_generations, end=self._tokenizer.eos_token_id,
                pad_id=self._tokenizer.pad_token_id, max_tokens=self.max_completion_length,
                seed=self.args.seed + self.rounds, batch=len(prompt_ids),
            )  # fmt: skip
            self.model.train()
            samples = [s for group in groups for s in group]
            self.read += sum(len(s.ids) for s in samples)
            self.sampled = torch.tensor([sum(s.logps) for s in samples])
            ids = [s.ids for s in samples]
            return (ids, None) if issubclass(trainer, GRPOTrainer) else ids

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            out = super()._generate_and_score_completions(inputs)
            if self.beta:  # the reference was the last to be asked
                kl = self.sampled - (self.told * out["completion_mask"]).sum(1).cpu()
                self._metrics["train"]["rollout/kl"].append(kl.mean().item())
            return out

        def _get_per_token_logps_and_entropies(
            self, model: Any, input_ids: Any, attention_mask: Any, logits_to_keep: int, *args: Any,
            compute_entropy: bool = False, **kwargs: Any,
        ) -> tuple[Any, Any, None]:  # fmt: skip
            logps, entropy = answer_logps(model, input_ids, attention_mask, logits_to_keep, entropy=compute_entropy)
            self.told = logps.detach()
            return logps, entropy, None

    return Sampled


# The trainer's name → the lab's name; what begins with rollout/ keeps its own.
METRICS = {
    "loss": "train/loss",
    "grad_norm": "train/grad_norm",
    "learning_rate": "train/learning_rate",
    "entropy": "train/entropy",
    "clip_ratio/region_mean": "train/clip_fraction",
    "frac_reward_zero_std": "rollout/all_alike",
    "reward_std": "rollout/reward_std",
}


def log(job: Job, per_round: int) -> Any:
    """The lab's log by rounds, as PPO's: `per_round` gradient steps are one step of the curves."""
    from labkit import training

    of = job.settings.iterations

    class Rounds(training.Log):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            done, within = divmod(state.global_step, per_round)
            control.should_training_stop |= not within and self.job.stops(done, of)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if "loss" in (logs or {}):
                known = {METRICS.get(k, k): v for k, v in logs.items() if k in METRICS or k.startswith("rollout/")}
                self.job.log(state.global_step // per_round, of, **known)

    return Rounds(job)


def trainer(job: Job, model: Any, tokenizer: Any, rows: Any, reward: Any) -> Any:
    """TRL's trainer of the method, with PPO's rounds, minibatches and epochs. The reference is what the model was loaded from."""
    import trl

    from labkit import models, training

    s = job.settings
    if s.batch % s.minibatch or s.batch % s.group or s.minibatch % s.accumulate:
        raise LabError(
            f"rloo.batch ({s.batch}) must be a multiple of rloo.minibatch ({s.minibatch}) and of rloo.group ({s.group}), and "
            "rloo.minibatch of rloo.accumulate: change one of them."
        )
    per_round = s.epochs * s.batch // s.minibatch
    steps = s.iterations * per_round
    rate = training.held(steps)
    warmup = rate.pop("num_warmup_steps")
    shared = training.arguments(
        job, rows=len(rows), per_device_train_batch_size=s.minibatch // s.accumulate, generation_batch_size=s.batch,
        num_iterations=s.epochs, num_generations=s.group, num_train_epochs=1, max_steps=steps, lr_scheduler_kwargs=rate,
        warmup_steps=warmup, lr_scheduler_type="warmup_stable_decay", adam_epsilon=1e-5,
        logging_steps=per_round, logging_first_step=False, beta=s.kl, epsilon=s.clip,
        max_completion_length=job.recipe["answers"].max_tokens, shuffle_dataset=False, disable_dropout=True,
    )  # fmt: skip
    shared = {k: v for k, v in shared.items() if k not in ("max_length", "activation_offloading", "dataset_num_proc")}
    make, config = {
        "rloo": lambda: (trl.RLOOTrainer, trl.RLOOConfig(**shared)),
        "grpo": lambda: (trl.GRPOTrainer, trl.GRPOConfig(**shared, loss_type="grpo", scale_rewards="group")),
    }[s.method]()
    return models.alone(sampled(make))(  # TRL loads the reference itself
        model=model, reward_funcs=reward, args=config, train_dataset=rows, processing_class=tokenizer,
        peft_config=models.lora(job.recipe["model"]), callbacks=[log(job, per_round)],
    )  # fmt: skip


def run(job: Job) -> None:
    from labkit import answers, models, sampling, training

    settings, s = job.recipe["model"], job.settings
    load = {"device": job.device, "dtype": settings.dtype}
    model, tokenizer = models.load(job.parents["sft"].model, **load)
    judge = sampling.frozen(models.load_reward(job.parents["reward"].model, **load))
    prompts = job.source.prompts("train")
    longest = settings.context - job.recipe["answers"].max_tokens
    rows = dataset(prompts, tokenizer, s, longest=longest, seed=job.seed)
    with job.phase("train"):
        fit = trainer(job, model, tokenizer, rows, scorer(job, judge, tokenizer, prompts))
        training.train(fit)
    model = models.save(training.released(fit), tokenizer, job.folder)
    job.cost.update(tokens=fit.read * s.epochs, targets=fit.rounds * s.batch, sampled=fit.read, scored=2 * fit.read)
    answers.evaluate(job, model, tokenizer, reward=judge)
