"""Reading plain text: the rows and the loop behind every stage that learns to predict the next token."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

from labkit.errors import LabError

if TYPE_CHECKING:
    from labkit.job import Job


def dataset(texts: list[str], tokenizer: Any, *, length: int, tokens: int, seed: int) -> Any:
    """All documents in a shuffled order, joined by the end token and cut into rows: (N, length + 1) int64.

    Where the text is shorter than `tokens` it is read again in another order. Raises LabError where there is none.
    """
    import torch

    if not texts:
        raise LabError("There is no web text to pretrain on: name files in data.web, or set pretrain.tokens=0.")
    encoded = [[*ids, tokenizer.eos_token_id] for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    rng, stream = random.Random(seed), [tokenizer.eos_token_id]
    while len(stream) < tokens + 1:
        order = list(range(len(encoded)))
        rng.shuffle(order)
        for i in order:
            stream.extend(encoded[i])
    rows = max(1, tokens // length)
    flat = torch.tensor(stream[: rows * length + 1])
    return flat.unfold(0, length + 1, length)  # each row's last token is the next row's first


def train(job: Job, model: Any, rows: Any) -> None:
    """One pass over the rows with AdamW, a cosine schedule and gradients clipped at norm 1."""
    import torch
    from transformers import get_cosine_with_min_lr_schedule_with_warmup as schedule

    from labkit import losses

    s = job.settings
    steps = max(1, len(rows) // s.batch)  # less than one batch is one step
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=s.learning_rate, betas=(0.9, 0.95), weight_decay=s.weight_decay, fused=True
    )
    rate = schedule(optimizer, int(s.warmup * steps), steps, min_lr_rate=0.1)
    model.train()
    every, seen, clock = max(1, steps // 100), 0, time.monotonic()
    for step in range(steps):
        batch = rows[step * s.batch : (step + 1) * s.batch].to(job.device)
        logits = model(input_ids=batch[:, :-1], use_cache=False).logits
        loss = -losses.per_token_logps(logits, batch[:, 1:]).mean()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
        optimizer.zero_grad(set_to_none=True)
        seen += batch[:, 1:].numel()
        if step % every == 0 or step + 1 == steps:
            speed = seen / (time.monotonic() - clock)
            metrics = {"train/loss": loss.item(), "train/grad_norm": norm.item(), "train/tokens_per_second": speed}
            job.log(step + 1, steps, **metrics, **{"train/learning_rate": rate.get_last_lr()[0]})
        if job.stops(step + 1, steps):
            break
    job.cost.update(tokens=seen, targets=seen)
