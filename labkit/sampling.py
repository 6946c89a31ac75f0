"""Writing answers and scoring them: everything that runs a model forward, for one batch or a thousand prompts.

`sample` drops finished rows from the cache as it goes and reads each prompt once for all its answers: `generate` spends most
of its row-steps on rows that are done. Sampling is pure (no top-k, no penalties) unless asked, so that the log-probabilities
it returns are those of the distribution that it sampled from.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from labkit import losses

Ids = Sequence[int]
PART = 512  # tokens, padding included, that go through the model together on a CPU
DROP = 16  # rows leave the cache when one in so many has ended: leaving one by one would copy the cache at every step


@dataclass(frozen=True, slots=True)
class Sample:
    """One sampled answer: its tokens (the end token included when it ended) and their log-probabilities, in nats."""

    ids: list[int]
    logps: list[float]
    ended: bool


def pad(
    rows: Sequence[Ids], value: int, *, left: bool = False, device: str | torch.device = "cpu"
) -> tuple[Tensor, Tensor]:
    """Ragged rows → tokens (B, T) and mask (B, T), True at real tokens."""
    width = max(map(len, rows))
    lengths = torch.tensor([len(r) for r in rows])
    flat = torch.tensor([t for r in rows for t in r], dtype=torch.long)
    at = torch.arange(width)[None]
    mask = (at >= width - lengths[:, None]) if left else (at < lengths[:, None])
    return torch.full((len(rows), width), value).masked_scatter(mask, flat).to(device), mask.to(device)


@torch.inference_mode()
def sample(
    model: Any,
    prompts: Sequence[Ids],
    *,
    end: int,
    pad_id: int,
    max_tokens: int,
    n: int = 1,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    batch: int = 256,
) -> list[list[Sample]]:
    """`n` answers to each prompt, in the prompts' order.

    Prompts of like length share a batch, so the order in which random numbers are drawn depends on `batch`: the same
    arguments give the same answers.
    """
    model.eval()
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    out: list[list[Sample]] = [[] for _ in prompts]
    step = max(1, batch // n)
    for start in range(0, len(order), step):
        chosen = order[start : start + step]
        rows = _sample_batch(
            model, [prompts[i] for i in chosen], n, end, pad_id, max_tokens, temperature, top_p, generator, device
        )
        for j, i in enumerate(chosen):
            out[i] = rows[j * n : (j + 1) * n]
    return out


def _sample_batch(
    model: Any, prompts: list[Ids], n: int, end: int, pad_id: int, max_tokens: int, temperature: float, top_p: float,
    generator: torch.Generator, device: torch.device,
) -> list[Sample]:  # fmt: skip
    tokens, mask = pad(prompts, pad_id, left=True, device=device)
    ragged = not bool(mask.all())
    positions = (mask.long().cumsum(1) - 1).clamp(min=0)
    inputs = {"attention_mask": mask.long()} if ragged else {}
    out = model(input_ids=tokens, position_ids=positions, use_cache=True, logits_to_keep=1, **inputs)
    cache, logits = out.past_key_values, out.logits[:, -1].repeat_interleave(n, 0)
    if n > 1:
        cache.batch_repeat_interleave(n)
        mask, positions = mask.repeat_interleave(n, 0), positions.repeat_interleave(n, 0)
    position = positions[:, -1]
    rows = logits.shape[0]
    ids: list[list[int]] = [[] for _ in range(rows)]
    logps: list[list[float]] = [[] for _ in range(rows)]
    ended = [False] * rows
    alive = list(range(rows))  # cache row → answer
    for t in range(max_tokens):
        logp = torch.log_softmax(logits.float() / temperature, -1)
        token = _draw(logp, top_p, generator)
        taken, drawn = logp.gather(1, token[:, None])[:, 0].tolist(), token.tolist()
        keep = [row for row, answer in enumerate(alive) if not ended[answer]]
        for row in keep:
            answer = alive[row]
            ids[answer].append(drawn[row])
            logps[answer].append(taken[row])
            ended[answer] = drawn[row] == end
        keep = [row for row in keep if not ended[alive[row]]]
        if not keep or t + 1 == max_tokens:
            break
        if len(alive) - len(keep) >= max(1, len(alive) // DROP):
            index = torch.tensor(keep, device=device)
            cache.batch_select_indices(index)
            token, position, mask = token[index], position[index], mask[index]
            alive = [alive[r] for r in keep]
        position = position + 1
        if ragged:
            mask = torch.cat([mask, mask.new_ones(len(alive), 1)], 1)
            inputs = {"attention_mask": mask.long()}
        out = model(
            input_ids=token[:, None], position_ids=position[:, None], past_key_values=cache, use_cache=True, **inputs
        )
        cache, logits = out.past_key_values, out.logits[:, -1]
    return [Sample(i, p, e) for i, p, e in zip(ids, logps, ended, strict=True)]


@torch.inference_mode()
def stream(
    model: Any, prompt: Ids, *, end: int, max_tokens: int, temperature: float = 1.0, top_p: float = 1.0, seed: int = 0
) -> Iterator[tuple[int, float]]:
    """One answer as it is written: each token with its log-probability in nats, the end token last if it comes.

    The same forward passes and the same random numbers as `sample(model, [prompt], seed=seed, ...)`: the same answer.
    """
    model.eval()
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    tokens, position, cache = torch.tensor([list(prompt)], device=device), 0, None
    for _ in range(max_tokens):
        at = torch.arange(position, position + tokens.shape[1], device=device)[None]
        out = model(input_ids=tokens, position_ids=at, past_key_values=cache, use_cache=True, logits_to_keep=1)
        position, cache = position + tokens.shape[1], out.past_key_values
        logp = torch.log_softmax(out.logits[:, -1].float() / temperature, -1)
        token = _draw(logp, top_p, generator)
        drawn = int(token)
        yield drawn, float(logp[0, drawn])
        if drawn == end:
            return
        tokens = token[:, None]


def _draw(logp: Tensor, top_p: float, generator: torch.Generator) -> Tensor:
    """One token a row from log-probabilities (B, V), where a uniform number falls among their cumulative sums.

    One random number a row instead of `multinomial`'s one a token: a fifth of the time of sampling from a tiny model.
    """
    probabilities = logp.exp()
    if top_p < 1:
        ordered, index = probabilities.sort(-1, descending=True)
        drop = ordered.cumsum(-1) - ordered >= top_p
        probabilities = probabilities.masked_fill(torch.zeros_like(drop).scatter(1, index, drop), 0.0)
    wide = (
        torch.float32 if logp.device.type == "mps" else torch.float64
    )  # 100,000 small numbers add up to 1 only if wide
    sums = probabilities.to(wide).cumsum(-1)
    at = torch.rand(len(logp), 1, dtype=wide, device=logp.device, generator=generator) * sums[:, -1:]
    return torch.searchsorted(sums, at, right=True)[:, 0].clamp(max=logp.shape[1] - 1)


def hidden_states(
    model: Any, prompts: Sequence[Ids], answers: Sequence[Ids], *, shift: int = 1
) -> tuple[Tensor, Tensor]:
    """Hidden states at the answers' tokens: (N, d) with N all answers' tokens in order, and the mask (B, T) of answers.

    `shift` 1 takes the position before each token (which predicts it), 0 the token itself. Rows are padded at the right,
    where causal attention needs no mask. On a CPU rows of like length go through the model together, about PART tokens at a
    time: the same sums with half the padding.
    """
    device = next(model.parameters()).device
    whole = [[*p, *a][: len(p) + len(a) - shift] for p, a in zip(prompts, answers, strict=True)]
    offsets = [0, *accumulate(map(len, answers))]
    found: list[Tensor] = []
    places: list[int] = []  # where each hidden state belongs
    for rows in _parts([len(w) for w in whole], PART if device.type == "cpu" else None):
        tokens, _ = pad([whole[i] for i in rows], 0, device=device)
        hidden = base(model).base_model(input_ids=tokens, use_cache=False).last_hidden_state
        starts = torch.tensor([len(prompts[i]) for i in rows], device=device)[:, None] - shift
        lengths = torch.tensor([len(answers[i]) for i in rows], device=device)[:, None]
        at = torch.arange(tokens.shape[1], device=device)[None]
        found.append(hidden[(at >= starts) & (at < starts + lengths)])
        places += [at for i in rows for at in range(offsets[i], offsets[i + 1])]
    order = torch.empty(len(places), dtype=torch.long)
    order[torch.tensor(places)] = torch.arange(len(places))
    longest = torch.tensor([len(a) for a in answers], device=device)[:, None]
    mask = torch.arange(int(longest.max()), device=device)[None] < longest
    return torch.cat(found)[order.to(device)], mask


def _parts(lengths: Sequence[int], tokens: int | None) -> Iterator[list[int]]:
    """Indices in parts of like length, longest first, each of at most `tokens` tokens when padded (None: one part)."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    start = 0
    while start < len(order):
        rows = len(order) if tokens is None else max(1, tokens // lengths[order[start]])
        yield order[start : start + rows]
        start += rows


def answer_logits(model: Any, prompts: Sequence[Ids], answers: Sequence[Ids]) -> tuple[Tensor, Tensor]:
    """Logits at the answers' tokens only, (N, V), and the answers' mask (B, T): the prompt's logits are never computed."""
    hidden, mask = hidden_states(model, prompts, answers)
    return _logits(model, hidden), mask


def _logits(model: Any, hidden: Tensor) -> Tensor:
    """The output layer, with the soft cap that some models put on it: (N, d) → (N, V)."""
    whole = base(model)
    logits = whole.get_output_embeddings()(hidden)
    cap = getattr(whole.config, "final_logit_softcapping", None)
    return torch.tanh(logits / cap) * cap if cap else logits


def collated_logps(model: Any, batch: dict[str, Tensor], counts: Tensor) -> Tensor:
    """log π of the tokens that count in a trainer's padded batch, with gradients: `input_ids` (B, T), counts (B, T − 1) → (N,).

    Only those positions go through the output layer. TRL's own way is a kernel made for large vocabularies on a GPU, which
    costs a small model on a CPU more than all its layers; tests hold the losses made of the two equal.
    """
    tokens, mask = batch["input_ids"], batch["attention_mask"]
    hidden = base(model).base_model(input_ids=tokens, attention_mask=mask, use_cache=False)[0]
    return losses.per_token_logps(_logits(model, hidden[:, :-1][counts]), tokens[:, 1:][counts])


def answer_logps(
    model: Any, prompts: Sequence[Ids], answers: Sequence[Ids], *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """log π of each answer token: (B, T) with zeros where there is none, and the mask (B, T). One batch, with gradients."""
    logits, mask = answer_logits(model, prompts, answers)
    flat = torch.tensor([t for a in answers for t in a], device=logits.device)
    logps = losses.per_token_logps(logits.float() / temperature, flat)
    return unflatten(logps, mask), mask


def unflatten(flat: Tensor, mask: Tensor) -> Tensor:
    """(N,) → (B, T) at the mask's True entries, zeros elsewhere; gradients flow."""
    return torch.zeros(mask.shape, dtype=flat.dtype, device=flat.device).masked_scatter(mask, flat)


def batches(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Indices in batches of like length, longest first (so that memory runs out at once or never)."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    for start in range(0, len(order), size):
        yield order[start : start + size]


@torch.inference_mode()
def score_logps(model: Any, prompts: Sequence[Ids], answers: Sequence[Ids], *, batch: int = 128) -> list[Tensor]:
    """Per-token log-probabilities of given answers, (T,) each, on the CPU, in order."""
    model.eval()
    out: list[Tensor] = [torch.empty(0)] * len(prompts)
    for rows in batches([len(p) + len(a) for p, a in zip(prompts, answers, strict=True)], batch):
        logps, mask = answer_logps(model, [prompts[i] for i in rows], [answers[i] for i in rows])
        for i, row, kept in zip(rows, logps.cpu(), mask.cpu(), strict=True):
            out[i] = row[kept]
    return out


@torch.inference_mode()
def score_rewards(model: Any, prompts: Sequence[Ids], answers: Sequence[Ids], *, batch: int = 128) -> Tensor:
    """The reward model's score of each answer, read at its last token: (B,), on the CPU, in order."""
    model.eval()
    out = torch.empty(len(prompts))
    for rows in batches([len(p) + len(a) for p, a in zip(prompts, answers, strict=True)], batch):
        hidden, mask = hidden_states(model, [prompts[i] for i in rows], [answers[i] for i in rows], shift=0)
        last = mask.sum(1).cumsum(0) - 1
        out[rows] = reward_head(model)(hidden[last])[:, 0].float().cpu()
    return out - getattr(base(model).config, "reward_shift", 0.0)


def reward_head(model: Any) -> Any:
    """The linear layer that turns a hidden state into a score."""
    return base(model).score


def base(model: Any) -> Any:
    """The transformers model itself, also inside a PEFT wrapper (whose adapters stay switched on or off as they are)."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@contextlib.contextmanager
def without_adapters(model: Any) -> Iterator[Any]:
    """The model as it was before its adapters: itself where it has none."""
    with model.disable_adapter() if hasattr(model, "disable_adapter") else contextlib.nullcontext():
        yield model


def frozen(model: Any) -> Any:
    """The model with no gradients and no dropout; returned for chaining."""
    return model.requires_grad_(False).eval()


def twin(model: Any) -> Any:
    """A second model with the same weights, built anew: trainers patch `forward` on the instance, and a deep copy would
    keep running the original's weights."""
    other = type(model)(copy.deepcopy(model.config)).to(next(model.parameters()))
    other.load_state_dict(model.state_dict())
    return other
