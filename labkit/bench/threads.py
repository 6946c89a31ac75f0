"""Pretraining's threads, which share the rows of a step, against torch's own, which share every operation."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from labkit.bench import Turns, seconds, take_turns
from labkit.bench.against import SHAPE, random_model

STEPS, THREADS = 40, 2
ROWS = (8, 129)  # recipe tiny's rows a step, and their tokens


def turns(rounds: int, *, steps: int = STEPS) -> Turns:
    """Milliseconds a step by the wall's clock: loss and gradient of recipe tiny's batch, on random weights."""
    import torch
    from transformers import AutoModelForCausalLM

    from labkit import reading

    with tempfile.TemporaryDirectory() as name:
        model = AutoModelForCausalLM.from_pretrained(random_model(Path(name)) / "policy").train()
    batch = torch.randint(0, SHAPE["vocabulary"], ROWS)

    def side(pool: int, own: int) -> float:
        torch.set_num_threads(own)
        with ThreadPoolExecutor(pool) as workers:
            cost = seconds(lambda: [reading.gradients(model, batch, workers, pool) for _ in range(steps)])
        return 1000 * cost / steps

    found = Turns(
        "pretrain", f"{THREADS} threads share the rows", f"{THREADS} threads share each operation", "ms a step"
    )
    return take_turns(found, lambda: side(THREADS, 1), lambda: side(1, THREADS), rounds=rounds)
