"""The lab's sampling against `generate`, and its PPO against TRL 1.12's, on the same weights, prompts and lengths.

Both are given one thread and measured in seconds of that thread (CPU time), which other work on the machine changes little.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from labkit.bench import Turns, seconds, take_turns
from labkit.errors import LabError

PAD, END = 0, 1
SHAPE = {"hidden": 128, "layers": 3, "heads": 4, "intermediate": 384, "vocabulary": 1024}  # recipe tiny
ANSWER, BATCH, MINIBATCH, EPOCHS = 48, 128, 64, 2  # longest answer in tokens; recipe tiny's PPO
MEAN = 18  # tokens that an answer of the tiny SFT model has: rows must end early for a comparison to mean something


def random_model(folder: Path) -> Path:
    """Random weights in the shape of recipe tiny, whose answers have about MEAN tokens, saved in `folder`.

    The first coordinate of every hidden state is one constant that no layer changes, and END's row of the head reads it:
    that makes a bias.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=SHAPE["vocabulary"], hidden_size=SHAPE["hidden"], intermediate_size=SHAPE["intermediate"],
        num_hidden_layers=SHAPE["layers"], num_attention_heads=SHAPE["heads"], num_key_value_heads=SHAPE["heads"],
        max_position_embeddings=256, initializer_range=SHAPE["hidden"] ** -0.5, tie_word_embeddings=False,
        pad_token_id=PAD, bos_token_id=None, eos_token_id=END, num_labels=1,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 1.0
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[0] = layer.mlp.down_proj.weight[0] = 0.0
        model.lm_head.weight[:, 0] = 0.0
        hidden = model.model(input_ids=torch.randint(4, SHAPE["vocabulary"], (32, 40))).last_hidden_state
        model.lm_head.weight[END] = 0.0
        share, low, high = 1 / (MEAN + 2), 0.0, 10.0  # of END, a little less than 1 / MEAN: long answers are cut
        for _ in range(20):
            model.lm_head.weight[END, 0] = (low + high) / 2
            above = model.lm_head(hidden).softmax(-1)[..., END].mean() > share
            low, high = (low, (low + high) / 2) if above else ((low + high) / 2, high)
        model.lm_head.weight[PAD] = -model.lm_head.weight[END]  # padding is never drawn
    model.save_pretrained(folder / "policy")
    LlamaForSequenceClassification(config).save_pretrained(folder / "reward")
    return folder


def prompts(n: int, *, seed: int = 0) -> list[list[int]]:
    """Ragged prompts of 8 to 24 ordinary tokens, 16 on average."""
    rng = random.Random(seed)
    return [[rng.randrange(4, SHAPE["vocabulary"]) for _ in range(rng.randint(8, 24))] for _ in range(n)]


def sampling_turns(rounds: int, model: Path | None, *, batch: int = 256) -> Turns:
    """CPU milliseconds a useful token (end token included, padding not) of `sampling.sample` and of `generate`."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    from labkit import sampling

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = model or random_model(Path(name)) / "policy"
        policy = AutoModelForCausalLM.from_pretrained(folder).eval()
    end, pad = policy.config.eos_token_id, policy.config.pad_token_id
    asked, lengths = prompts(batch), {"a": 0.0, "b": 0.0}
    how = GenerationConfig(
        max_new_tokens=ANSWER, do_sample=True, top_k=0, top_p=1.0, temperature=1.0, eos_token_id=end, pad_token_id=pad
    )
    tokens, mask = sampling.pad(asked, pad, left=True)

    def ours() -> float:
        out: list[Any] = []
        sample = lambda: out.extend(sampling.sample(policy, asked, end=end, pad_id=pad, max_tokens=ANSWER, batch=batch))  # noqa: E731
        cost = seconds(sample, clock=time.process_time)
        lengths["a"] = sum(len(s.ids) for rows in out for s in rows) / batch
        return 1000 * cost / (lengths["a"] * batch)

    def theirs() -> float:
        out: list[Any] = []
        write = lambda: out.append(policy.generate(input_ids=tokens, attention_mask=mask.long(), generation_config=how))  # noqa: E731
        cost = seconds(write, clock=time.process_time)
        written = out[0][:, tokens.shape[1] :]
        lengths["b"] = float(((written == end).cumsum(1) - (written == end).long() == 0).sum()) / batch
        return 1000 * cost / (lengths["b"] * batch)

    turns = take_turns(Turns("sampling", "labkit", "generate", "CPU ms a useful token"), ours, theirs, rounds=rounds)
    turns.notes = {"batch": batch, "mean_answer_tokens": lengths, "threads": 1}
    return turns


def ppo_turns(rounds: int, python: str, model: Path | None) -> Turns:
    """CPU seconds a round (128 answers sampled, scored and learned from) of `stages.ppo.PPO` and of TRL 1.12's
    PPOTrainer.
    """
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = random_model(Path(name))
        if model:
            raise LabError(
                "labkit bench ppo runs on random weights, so that both sides know the shape: leave out --model."
            )
        ppo, asked = our_ppo(folder), prompts(BATCH * (rounds + 1), seed=1)
        means: dict[str, list[float]] = {"a": [], "b": []}
        order = {"rounds": rounds + 1, "batch": BATCH, "minibatch": MINIBATCH, "epochs": EPOCHS, "answer": ANSWER}
        (folder / "order.json").write_text(json.dumps({**order, "prompts": asked, "pad": PAD, "end": END}))
        their = Theirs(python, folder)
        left = iter(range(rounds + 1))

        def ours() -> float:
            at = next(left) * BATCH

            def once() -> None:
                rollout = ppo.rollout(asked[at : at + BATCH])
                ppo.learn(rollout)
                means["a"].append(float(rollout.mask.sum()) / BATCH)

            return seconds(once, clock=time.process_time)

        def theirs() -> float:
            told = their.round()
            means["b"].append(told["tokens"])
            return told["seconds"]

        try:
            turns = take_turns(
                Turns("ppo", "labkit", "TRL 1.12 PPOTrainer", "CPU s a round"), ours, theirs, rounds=rounds
            )
        finally:
            their.close()
    turns.notes = {"mean_answer_tokens": {k: sum(v) / len(v) for k, v in means.items()}, "threads": 1, **order}
    return turns


def our_ppo(folder: Path) -> Any:
    """The lab's PPO on the saved weights, with rates so small that answers keep their length."""
    from transformers import AutoModelForCausalLM

    from labkit import models, sampling
    from labkit.stages.ppo import PPO, Settings

    policy, reference = (AutoModelForCausalLM.from_pretrained(folder / "policy") for _ in range(2))
    reward, value = (models.load_reward(folder / "reward", device="cpu") for _ in range(2))
    sizes: dict[str, Any] = {"batch": BATCH, "minibatch": MINIBATCH, "epochs": EPOCHS}
    settings = Settings(**{**sizes, "learning_rate": 1e-6, "value_learning_rate": 1e-6})
    return PPO(
        settings, policy=policy, reference=sampling.frozen(reference), reward_model=sampling.frozen(reward),
        value_model=value, tokenizer=SimpleNamespace(eos_token_id=END, pad_token_id=PAD), max_tokens=ANSWER,
        steps=1000, seed=0,
    )  # fmt: skip


class Theirs:
    """The other side, in a process of the other environment, which does one round when it is asked to."""

    def __init__(self, python: str, folder: Path) -> None:
        script = Path(__file__).with_name("trl_ppo.py")
        env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        self.log = tempfile.TemporaryFile("w+")
        try:
            self.process = subprocess.Popen(
                [python, str(script), str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.log,
                text=True,
                env=env,
            )
        except OSError as error:
            raise LabError(
                f"{python} cannot be started ({error.strerror}): give the python of the environment with TRL 1.12."
            ) from error

    def round(self) -> dict[str, float]:
        """Ask for one round and wait for its `seconds` and mean answer length `tokens`."""
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # the reason is in its log
        for line in self.process.stdout:
            if line.startswith("ROUND "):
                return json.loads(line.removeprefix("ROUND "))
        self.process.wait()
        self.log.seek(0)
        last = (self.log.read().strip().splitlines() or ["no message"])[-1]
        raise LabError(f"TRL's side stopped ({last}): is trl==1.12.0 in that environment?")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.log.close()
