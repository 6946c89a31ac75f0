"""Reading plain text: the rows and the loop behind every stage that learns to predict the next token."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
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


def gradients(model: Any, batch: Any, pool: ThreadPoolExecutor, threads: int) -> tuple[Any, list[Any]]:
    """Mean loss of rows (B, length + 1) and its gradient, one tensor a trained weight; each thread takes a share of the rows.

    On a small model threads with rows of their own wait for each other once a step; torch's own threads, which share each
    operation, wait hundreds of times. The shares are added in their order: a second run gives the same bytes.
    """
    import torch

    from labkit import losses

    weights = [p for p in model.parameters() if p.requires_grad]

    def share(rows: Any) -> list[Any]:
        logits = model(input_ids=rows[:, :-1], use_cache=False).logits
        loss = -losses.per_token_logps(logits, rows[:, 1:]).sum() / batch[:, 1:].numel()
        return [loss.detach(), *torch.autograd.grad(loss, weights)]

    first, *others = pool.map(share, batch.chunk(threads))
    for other in others:
        torch._foreach_add_(first, other)
    return first[0], first[1:]


def train(job: Job, model: Any, rows: Any) -> None:
    """One pass over the rows with AdamW, a cosine schedule and gradients clipped at norm 1."""
    import torch
    from transformers import get_cosine_with_min_lr_schedule_with_warmup as schedule

    s = job.settings
    steps = max(1, len(rows) // s.batch)  # less than one batch is one step
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        weights, lr=s.learning_rate, betas=(0.9, 0.95), weight_decay=s.weight_decay, fused=True
    )
    rate = schedule(optimizer, int(s.warmup * steps), steps, min_lr_rate=0.1)
    model.train()
    every, seen, clock = max(1, steps // 100), 0, time.monotonic()
    threads = s.threads if job.device == "cpu" else 1
    torch.set_num_threads(1)  # of the pool's threads as well: each has a core to itself
    with ThreadPoolExecutor(threads) as pool:
        for step in range(steps):
            batch = rows[step * s.batch : (step + 1) * s.batch].to(job.device)
            loss, found = gradients(model, batch, pool, threads)
            for weight, gradient in zip(weights, found, strict=True):
                weight.grad = gradient
            norm = torch.nn.utils.clip_grad_norm_(weights, 1.0)
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
    torch.set_num_threads(s.threads)
    job.cost.update(tokens=seen, targets=seen)
