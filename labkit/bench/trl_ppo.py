"""TRL 1.12's PPOTrainer, one round at a time: run by the python of another environment, never imported by the lab.

Waits for a line on its standard input before each round, and answers `ROUND {"seconds": ..., "tokens": ...}`.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any


def main(folder: Path) -> None:
    import torch
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        PreTrainedTokenizerFast,
        TrainerCallback,
    )
    from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

    torch.set_num_threads(1)
    order = json.loads((folder / "order.json").read_text())
    words = {"<pad>": order["pad"], "<end>": order["end"]}
    vocabulary = {**{f"w{i}": i for i in range(1024) if i not in words.values()}, **words}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="w2")),
        pad_token="<pad>",
        eos_token="<end>",
        padding_side="left",
    )
    lengths: list[float] = []
    cut = ppo_trainer.truncate_response

    def measured(stop: int, pad: int, responses: Any) -> Any:
        """Count the answers' tokens up to and with the end token, where TRL cuts them."""
        ended = responses == stop
        lengths.append(float((ended.cumsum(1) - ended.long() == 0).sum()) / len(responses))
        return cut(stop, pad, responses)

    ppo_trainer.truncate_response = measured

    class Turn(TrainerCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            self.wait()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            told = {"seconds": time.process_time() - self.start, "tokens": sum(lengths) / len(lengths)}
            lengths.clear()
            print("ROUND " + json.dumps(told), flush=True)
            self.wait()

        def wait(self) -> None:
            sys.stdin.readline()
            self.start = time.process_time()

    config = PPOConfig(
        output_dir=str(folder / "trl"), per_device_train_batch_size=order["batch"], gradient_accumulation_steps=1,
        num_mini_batches=order["batch"] // order["minibatch"], num_ppo_epochs=order["epochs"],
        total_episodes=order["batch"] * order["rounds"], response_length=order["answer"], stop_token="eos",
        local_rollout_forward_batch_size=order["batch"], num_sample_generations=0, learning_rate=1e-5, temperature=1.0,
        missing_eos_penalty=1.0, kl_coef=0.1, vf_coef=0.1, cliprange=0.2, gamma=1.0, lam=0.95, whiten_rewards=False,
        bf16=False, use_cpu=True, gradient_checkpointing=False, report_to="none", save_strategy="no", disable_tqdm=True,
        dataloader_pin_memory=False, seed=0,
    )  # fmt: skip
    policy, reference = (AutoModelForCausalLM.from_pretrained(folder / "policy") for _ in range(2))
    reward, value = (
        AutoModelForSequenceClassification.from_pretrained(folder / "reward", num_labels=1) for _ in range(2)
    )
    rows = Dataset.from_list([{"input_ids": p} for p in order["prompts"]])
    PPOTrainer(
        args=config, processing_class=tokenizer, model=policy, ref_model=reference, reward_model=reward,
        value_model=value, train_dataset=rows, eval_dataset=rows, callbacks=[Turn()],
    ).train()  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]))
